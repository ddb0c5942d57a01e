"""Circuits as pictures: layers from the embedding to the logits, one line per edge."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import get_args

import graphviz

from circuitgraph.arguments import flag, text, whole
from circuitgraph.circuit import Circuit
from circuitgraph.circuit.weights import signed
from circuitgraph.draw.circuits.boxes import (
    BAR,
    CELL,
    bar_label,
    box_label,
    group_lines,
    tint_of,
)
from circuitgraph.draw.circuits.layout import Frame, Placed, Rankdir, place
from circuitgraph.draw.circuits.legend import explain, is_against, pen_width, widest
from circuitgraph.draw.circuits.rendering import draw_dot
from circuitgraph.draw.circuits.sketch import BARS, Box, Line, Sketch, sketch_groups, sketch_nodes
from circuitgraph.draw.drawing import Drawing
from circuitgraph.draw.lettering import text_width, wrap_text
from circuitgraph.draw.palette import FAINT, INK, STROKES
from circuitgraph.draw.svg import plain_text
from circuitgraph.errors import CircuitError
from circuitgraph.nodes import Edge, PortName
from circuitgraph.request.brief import brief

__all__ = ["MAX_EDGES", "circuit_html", "draw_circuit"]

MAX_EDGES = 200
"""How many edges a picture shows unless asked for more: beyond, nobody can follow them."""

_FONT = "Helvetica,Arial,sans-serif"
_GAP = 40.0
_MARGIN = 58.0
"""Room for the names of the layers at the left of the picture."""

_ASIDE: Mapping[PortName, int] = {"q": -1, "k": 0, "v": 1, "in": 0}
"""How many places beside the middle of its box a line leaves a bar, so that lines run parallel."""


def draw_circuit(
    circuit: Circuit,
    *,
    title: str | None = None,
    rankdir: Rankdir = "TB",
    labels: bool = False,
    bundle: bool = False,
    max_edges: int = MAX_EDGES,
    legend: bool = True,
) -> Drawing:
    """Return a picture of a circuit.

    Rows are layers, from the embedding to the logits. A line's colour and dash say which port it
    enters (q, k, v, or the one of an MLP or the logits), its width how large the weight is, its
    head which way the edge works. Named groups are labelled boxes. Needs pygraphviz, nothing else.

    Args:
        circuit: What to draw.
        title: The line above the picture; None takes the request and variant where the circuit
            carries them. An empty text leaves it out.
        rankdir: Where the residual stream runs: ``TB`` down, ``BT`` up, ``LR`` to the right.
        labels: Write every weight beside its line.
        bundle: Draw each group as one box and all edges between two groups as one line per port,
            as wide as their weights together: the shape of a large circuit at a glance.
        max_edges: Draw at most this many edges (with ``bundle``, lines), the largest weights first;
            the picture says so.
        legend: Explain lines and widths below the picture.

    Raises:
        CircuitError: A circuit without edges; an unknown ``rankdir``; more than ``max_edges`` edges
            without weights, so that nobody can say which matter most.

    Example:
        >>> from circuitgraph.graph import ModelShape
        >>> shape = ModelShape(n_layers=12, n_heads=12)
        >>> circuit = Circuit.from_edges(shape, {"8.6 -> 9.9.q": -0.2, "9.9 -> logits": -0.5})
        >>> draw_circuit(circuit, title="Name mover 9.9")
        Drawing: Name mover 9.9: 2 edges, 3 nodes
    """
    if rankdir not in get_args(Rankdir):
        allowed = ", ".join(map(repr, get_args(Rankdir)))
        raise CircuitError(f"rankdir must be one of {allowed}, got {rankdir!r}")
    if not circuit.members:
        raise CircuitError("nothing to draw: the circuit has no edges")
    max_edges = whole("max_edges", max_edges, CircuitError, 1)
    if title is not None:
        text("title", title, CircuitError)
    for name, given in (("labels", labels), ("bundle", bundle), ("legend", legend)):
        flag(name, given, CircuitError)
    edges, note = _bundled(circuit) if bundle else _strongest(circuit, max_edges)
    sketch = sketch_groups(circuit, edges) if bundle else sketch_nodes(circuit, edges)
    if bundle and len(sketch.lines) > max_edges:
        left = f"the strongest {max_edges} of {len(sketch.lines):,} lines"
        sketch, note = sketch.strongest(max_edges), "; ".join(filter(None, (left, note)))
    heading = _title(circuit) if title is None else title
    said = f"{len(edges)} edge{'s' * (len(edges) != 1)}, {len(circuit.nodes)} nodes"
    words = ": ".join(filter(None, (heading, note or said)))
    helps = {"negative": -1, "positive": 1}.get(str(circuit.attrs.get("helps")), 0)
    quantity = str(circuit.attrs.get("quantity", "weight"))
    placed = place(sketch, rankdir, ranked=not bundle)
    graph = _figure(sketch, placed, quantity, helps, labels=labels)
    _words_above(graph, sketch, placed, heading, note)
    if legend and (label := explain(sketch, quantity, helps, _width(placed.frame))):
        graph.attr(label=label, labelloc="b", labeljust="l")
    return draw_dot(str(graph.source), words)


def circuit_html(circuit: Circuit) -> str:
    """Return a circuit for a notebook: its summary, and the picture below."""
    summary = f"<p>{escape(circuit.summary)}</p>"
    if not circuit.members:
        return summary
    try:
        picture = draw_circuit(circuit)._repr_html_()
    except CircuitError as error:
        return f"{summary}<p><small>{escape(str(error))}</small></p>"
    return f"{summary}{picture}"


def _strongest(circuit: Circuit, max_edges: int) -> tuple[tuple[Edge, ...], str]:
    """Return the edges to draw, and what to say where that is not all of them."""
    total = len(circuit)
    if total <= max_edges:
        return circuit.edges, ""
    bare = [edge for edge in circuit.members if circuit.known[edge].value is None]
    if bare:
        raise CircuitError(
            f"cannot choose the strongest {max_edges} of {total:,} edges: {len(bare):,} have no "
            f"weight. Draw all of them with max_edges={total}, or groups with bundle=True"
        )
    return circuit.strongest[:max_edges], f"the strongest {max_edges} of {total:,} edges"


def _bundled(circuit: Circuit) -> tuple[tuple[Edge, ...], str]:
    """Return all edges, and what to say where some run inside one group and so are not seen."""
    if not circuit.groups:
        raise CircuitError("bundle=True draws groups, and the circuit has none: use with_groups")
    owner = {node: name for name, nodes in circuit.groups.items() for node in nodes}
    inside = sum(
        edge.sender in owner and owner[edge.sender] == owner.get(edge.receiver.node)
        for edge in circuit.members
    )
    if inside == len(circuit):
        raise CircuitError("nothing to draw: every edge runs inside one group")
    plural = "edge inside a group is" if inside == 1 else "edges inside groups are"
    return circuit.edges, f"{inside} {plural} not drawn" if inside else ""


def _title(circuit: Circuit) -> str:
    """Return what the circuit was made from, where it says so."""
    request, variant = circuit.attrs.get("request"), circuit.attrs.get("variant")
    estimate = circuit.attrs.get("estimate")
    by = f"estimated by {estimate}" if estimate else None
    return ", ".join(brief(str(part)) for part in (request, variant, by) if part)


# -- the picture -----------------------------------------------------------------------------------


def _figure(
    sketch: Sketch, placed: Placed, quantity: str, helps: int, *, labels: bool
) -> graphviz.Digraph:
    """Return boxes, groups and lines as a graph whose boxes have their places."""
    graph = graphviz.Digraph(
        "circuit",
        graph_attr={
            "layout": "nop",
            "splines": "true",
            "notranslate": "true",
            "outputorder": "edgesfirst",
            "forcelabels": "true",
            "rankdir": placed.rankdir,
            "bgcolor": "white",
            "pad": "0.15",
            "fontname": _FONT,
        },
        node_attr={"shape": "plain", "fontname": _FONT, "fontsize": "10", "fontcolor": INK},
        edge_attr={"fontname": _FONT, "fontsize": "8"},
    )
    names = [*(box.name for box in sketch.boxes), *BARS]
    _groups(graph, sketch, placed)
    used: dict[str, set[PortName]] = {}
    for line in sketch.lines:
        used.setdefault(line.receiver, set()).add(line.port)
    for at, box in enumerate(sketch.boxes):
        tint = tint_of(box.group, sketch.groups)
        graph.node(
            box.name,
            label=box_label(box, used.get(box.name, ()), tint, placed.rankdir),
            pos=_at(placed.boxes[box.name]),
            tooltip=_plain(_says(box)),
            id=f"box {at}",
            **{"class": f"box {box.kind}"},
        )
    cells = max(4, round(_length(placed) / CELL))
    bars = _bars(sketch, placed)
    for name, place_of in bars.items():
        label = bar_label(name, cells, placed.rankdir == "LR")
        at = names.index(name)
        look = {"class": "box bar", "id": f"box {at}"}
        graph.node(name, label=label, pos=_at(place_of), tooltip=name, **look)
    _layers(graph, sketch, placed)
    largest = widest(sketch, quantity)
    touching = _touching(sketch, placed, cells)
    for at, line in enumerate(sketch.lines):
        against = is_against(line, helps)
        ends = f"{names.index(line.sender)} {names.index(line.receiver)}"
        tail, head = _ports(line, at, placed, touching)
        graph.edge(
            line.sender,
            line.receiver,
            tailport=tail,
            headport=head,
            id=f"line {at} {ends} {line.size:.4g}",
            color=STROKES[line.port].color,
            style=STROKES[line.port].style,
            penwidth=f"{pen_width(line.size, largest):.3g}",
            arrowhead="tee" if against else "normal",
            arrowsize="0.9" if against else "0.6",
            tooltip=_plain(line.words),
            **({"xlabel": _label(line), "fontcolor": STROKES[line.port].color} if labels else {}),
            **{"class": f"line port-{line.port}"},
        )
    return graph


def _says(box: Box) -> str:
    if box.kind == "group":
        return f"{box.group}: {', '.join(cell for row in box.rows for cell in row)}"
    return box.name if box.group is None else f"{box.name} ({box.group})"


def _plain(words: str) -> str:
    """Return a tooltip, which Graphviz reads twice, without backslashes and as no markup."""
    return str(graphviz.nohtml(plain_text(words).replace("\\", "\N{SET MINUS}")))


def _length(placed: Placed) -> float:
    frame = placed.frame
    return frame.top - frame.bottom if placed.rankdir == "LR" else _width(frame)


def _width(frame: Frame) -> float:
    return frame.right - frame.left


def _bars(sketch: Sketch, placed: Placed) -> dict[str, tuple[float, float]]:
    """Return the middle of each bar: before the first row and after the last."""
    (x, y), frame = placed.frame.center, placed.frame
    gap = _GAP + BAR[placed.rankdir == "LR"] / 2
    above, below = (x, frame.top + gap), (x, frame.bottom - gap)
    ends = {
        "TB": (above, below),
        "BT": (below, above),
        "LR": ((frame.left - gap, y), (frame.right + gap, y)),
    }[placed.rankdir]
    shown = (sketch.has_embed, sketch.has_logits)
    return {name: at for name, at, here in zip(BARS, ends, shown, strict=True) if here}


def _groups(graph: graphviz.Digraph, sketch: Sketch, placed: Placed) -> None:
    """Draw groups, and their names as boxes of their own, so that no line runs over them."""
    for number, group in enumerate(sketch.groups):
        tint = tint_of(group, sketch.groups)
        if group not in placed.groups or not tint:
            continue
        with graph.subgraph(name=f"cluster_{number}") as cluster:
            cluster.attr(label="", bb=str(placed.groups[group]), style="filled,rounded")
            cluster.attr(color=tint.border, fillcolor=tint.fill, tooltip=_plain(group))
            for box in sketch.boxes:
                if box.group == group:
                    cluster.node(box.name)
        lines = group_lines(group)
        _text(graph, f"name of group {number}", lines, placed.titles[group], 10, INK, bold=True)


def _layers(graph: graphviz.Digraph, sketch: Sketch, placed: Placed) -> None:
    """Write the number of the layer beside each row; none where boxes are whole groups."""
    if any(box.kind == "group" for box in sketch.boxes):
        return
    first = {box.layer: box for box in reversed(sketch.boxes) if box.layer is not None}
    for layer, box in sorted(first.items()):
        x, y = placed.boxes[box.name]
        sideways = placed.rankdir == "LR"
        at = (x, placed.frame.bottom - 14) if sideways else (placed.frame.left - 34, y)
        _text(graph, f"layer {layer}", [f"layer {layer}"], at, 9, FAINT)


def _words_above(
    graph: graphviz.Digraph, sketch: Sketch, placed: Placed, title: str, note: str
) -> None:
    """Write title and note, left-aligned above everything."""
    sideways = placed.rankdir == "LR"
    left = placed.frame.left - (_GAP + BAR[True] if sideways else _MARGIN)
    bottom = max([placed.frame.top, *(y + 9 for _, y in _bars(sketch, placed).values())]) + 14
    bottom = placed.frame.top + 14 if sideways else bottom
    room = max(400.0, _width(placed.frame) + 2 * _MARGIN)
    for name, words, size, color in (("note", note, 9, FAINT), ("title", title, 13, INK)):
        bold = name == "title"
        lines = wrap_text(words, room, size, bold)
        for at, line in reversed(list(enumerate(lines, 1))):
            middle = (left + text_width(line, size, bold) / 2, bottom + 0.6 * size)
            _text(graph, f"{name} {at}", [line], middle, size, color, bold=bold)
            bottom += 1.25 * size
        bottom += 4


def _text(
    graph: graphviz.Digraph,
    name: str,
    lines: Sequence[str],
    at: tuple[float, float],
    size: int,
    color: str,
    *,
    bold: bool = False,
) -> None:
    """Write lines of text around a place, in a box that is as wide as they are."""
    width = max(text_width(line, size, bold) for line in lines)
    graph.node(
        name,
        label="\\n".join(str(graphviz.escape(plain_text(line))) for line in lines),
        pos=_at(at),
        shape="box",
        color="#FFFFFF00",
        margin="0",
        fixedsize="true",
        width=f"{width / 72:.3f}",
        height=f"{size * 1.25 * len(lines) / 72:.3f}",
        fontsize=str(size),
        fontcolor=color,
        tooltip=" ",
        **({"fontname": "Helvetica-Bold"} if bold else {}),
    )


def _touching(sketch: Sketch, placed: Placed, cells: int) -> dict[tuple[int, str], int]:
    """Return where lines touch the bars: opposite their boxes, one place each while there are any.

    Graphviz sends all lines to the middle of a bar, or to the place that is named.
    """
    axis, start = (1, placed.frame.top) if placed.rankdir == "LR" else (0, placed.frame.left)
    found: dict[tuple[int, str], int] = {}
    for bar in BARS:
        wanted = []
        for number, line in enumerate(sketch.lines):
            other = line.sender if bar == line.receiver else line.receiver
            if bar in (line.sender, line.receiver) and other not in BARS:
                cell = int(abs(placed.boxes[other][axis] - start) / CELL) + _ASIDE[line.port]
                along = abs(placed.boxes[other][1 - axis] - _bars(sketch, placed)[bar][1 - axis])
                wanted.append((min(cells - 1, max(0, cell)), along, number))
            elif bar in (line.sender, line.receiver):
                found[number, bar] = cells // 2
        taken: set[int] = set()
        for cell, _, number in sorted(wanted):
            near = sorted(range(cells), key=lambda at, cell=cell: abs(at - cell))  # type: ignore[misc]
            best = next((at for at in near[:9] if at not in taken), cell)
            taken.add(best)
            found[number, bar] = best
    return found


def _ports(
    line: Line, number: int, placed: Placed, touching: Mapping[tuple[int, str], int]
) -> tuple[str, str]:
    """Return where a line leaves its first box and enters its second."""
    out, into = {"TB": ("s", "n"), "BT": ("n", "s"), "LR": ("e", "w")}[placed.rankdir]
    if not {line.sender, line.receiver} & set(BARS):
        axis = 0 if placed.rankdir == "LR" else 1
        way = placed.boxes[line.receiver][axis] - placed.boxes[line.sender][axis]
        if way > 0 if placed.rankdir == "TB" else way < 0:
            # Against the stream, at the corners, beside a line that may run the usual way.
            return {"TB": ("ne", "se"), "BT": ("se", "ne"), "LR": ("sw", "se")}[placed.rankdir]
    inside, outside = ("a", "b") if placed.rankdir == "BT" else ("b", "a")
    tail = f"{inside}{touching[number, 'embed']}:{out}" if line.sender == "embed" else out
    if line.receiver == "logits":
        return tail, f"{outside}{touching[number, 'logits']}:{into}"
    return tail, into if line.port == "in" else f"{line.port}:{into}"


def _label(line: Line) -> str:
    if line.value is not None:
        return signed(line.value)
    return f"{line.count}×" if line.count > 1 else ""


def _at(place_of: tuple[float, float]) -> str:
    return f"{place_of[0]:g},{place_of[1]:g}"
