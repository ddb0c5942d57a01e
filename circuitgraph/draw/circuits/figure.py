"""A circuit as a graph: boxes in their places, lines for Graphviz to route, words around them.

Graphviz keeps the places and finds the ways of all lines around boxes and names (engine ``nop``),
so any Graphviz draws the same from the DOT text: ``dot -Tpdf circuit.dot``.
"""

from collections.abc import Mapping, Sequence

import graphviz

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.circuits.boxes import (
    BAR,
    CELL,
    bar_label,
    box_label,
    group_lines,
    tint_of,
)
from circuitgraph.draw.circuits.layout import Frame, Placed
from circuitgraph.draw.circuits.legend import explain, is_against, pen_width, widest
from circuitgraph.draw.circuits.sketch import BARS, Box, Line, Sketch
from circuitgraph.draw.lettering import text_width, wrap_text
from circuitgraph.draw.palette import FAINT, INK, STROKES
from circuitgraph.draw.svg import plain_text
from circuitgraph.nodes import PortName

__all__ = ["figure_dot"]

Point = tuple[float, float]

_FONT = "Helvetica,Arial,sans-serif"
_GAP = 40.0
_MARGIN = 58.0
"""Room for the names of the layers at the left of the picture."""

_ASIDE: Mapping[PortName, int] = {"q": -1, "k": 0, "v": 1, "in": 0}
"""How many places beside the middle of its box a line leaves a bar, so that lines run parallel."""


def figure_dot(
    sketch: Sketch,
    placed: Placed,
    *,
    title: str,
    note: str,
    quantity: str,
    helps: int,
    labels: bool,
    legend: bool,
) -> str:
    """Return the DOT text of a circuit whose boxes have their places.

    Args:
        sketch: What is drawn.
        placed: Where it stands.
        title: The line above it; may be empty.
        note: A smaller line under the title; may be empty.
        quantity: What the weights are, for the legend.
        helps: The sign of a weight that speaks for its edge: -1 where patching the edge and so
            lowering the metric shows that it helps, 1 the other way, 0 where nobody said.
        labels: Whether every line shows its weight.
        legend: Whether there is a legend.
    """
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
    touching = _touching(sketch, placed, bars, cells)
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
    _words_above(graph, placed, bars, title, note)
    if legend and (said := explain(sketch, quantity, helps, _width(placed.frame))):
        graph.attr(label=said, labelloc="b", labeljust="l")
    return str(graph.source)


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


def _bars(sketch: Sketch, placed: Placed) -> dict[str, Point]:
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
    graph: graphviz.Digraph,
    placed: Placed,
    bars: Mapping[str, Point],
    title: str,
    note: str,
) -> None:
    """Write title and note, left-aligned above everything."""
    sideways = placed.rankdir == "LR"
    left = placed.frame.left - (_GAP + BAR[True] if sideways else _MARGIN)
    bottom = max([placed.frame.top, *(y + 9 for _, y in bars.values())]) + 14
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
    at: Point,
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


def _touching(
    sketch: Sketch, placed: Placed, bars: Mapping[str, Point], cells: int
) -> dict[tuple[int, str], int]:
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
                along = abs(placed.boxes[other][1 - axis] - bars[bar][1 - axis])
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


def _at(place_of: Point) -> str:
    return f"{place_of[0]:g},{place_of[1]:g}"
