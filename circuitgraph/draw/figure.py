"""The finished DOT text of a circuit: boxes and lines in their places, and words around them.

The text carries every place and asks for the engine that keeps them, so any Graphviz draws the same
picture from it: ``dot -Tpdf circuit.dot``.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.dot import Html, attributes, quoted, text
from circuitgraph.draw.labels import label_size, place_labels
from circuitgraph.draw.layout import FONT, Frame, Placed, group_title
from circuitgraph.draw.legend import legend_items, legend_label
from circuitgraph.draw.lines import line_ends, line_style, places_on_bars, widest
from circuitgraph.draw.palette import FAINT, INK, STROKES
from circuitgraph.draw.routing import Route, route
from circuitgraph.draw.shapes import BAR_SIDEWAYS, bar_label, box_label, box_size, tint_of
from circuitgraph.draw.sketch import BARS, Box, Line, Sketch
from circuitgraph.draw.titles import clear_titles, runs_behind
from circuitgraph.nodes import PortName

__all__ = ["Caption", "figure_dot"]

_MARGIN = 58.0
_WORDS = 64
"""How many letters of a title stand in one line at least."""
"""Room for the names of the layers at the left of the picture."""


@dataclass(frozen=True, slots=True)
class Caption:
    """What is said around the picture.

    Args:
        title: The line above it; None leaves it out.
        notes: Smaller lines under the title.
        quantity: What the weights are, for the legend.
        helps: The sign of a weight that speaks for its edge: -1 where patching the edge and so
            lowering the metric shows that it helps, 1 the other way, 0 where nobody said.
        legend: Whether there is a legend.
        labels: Whether every line shows its weight.
    """

    title: str | None
    notes: tuple[str, ...]
    quantity: str
    helps: int
    legend: bool
    labels: bool


def figure_dot(sketch: Sketch, placed: Placed, caption: Caption) -> str:
    """Return the DOT text of a circuit whose boxes have their places."""
    boxes = [*_boxes(sketch, placed), *_bars(placed)]
    lines = _lines(sketch, placed, caption)
    routes = route(boxes, lines)
    titles = clear_titles(placed, routes)
    names = _names_of_groups(sketch, titles)
    if behind := runs_behind(sketch, titles, routes):
        around = route([*boxes, *names], lines)
        routes = [around[at] if at in behind else way for at, way in enumerate(routes)]
    graph: dict[str, object] = {
        "layout": "nop2",
        "outputorder": "edgesfirst",
        "rankdir": placed.rankdir,
        "bgcolor": "white",
        "pad": 0.15,
        "fontname": FONT,
        "fontsize": 10,
    }
    if caption.legend and (items := legend_items(sketch, caption.quantity, caption.helps)):
        width = placed.frame.right - placed.frame.left + _MARGIN
        graph |= {"label": legend_label(items, width), "labelloc": "b", "labeljust": "l"}
    node = {"shape": "plain", "fontname": FONT, "fontsize": 10, "fontcolor": INK}
    parts = [
        "digraph circuit {",
        f"graph {attributes(graph)}",
        f"node {attributes(node)}",
        *_groups(sketch, placed),
        *boxes,
        *_rows(sketch),
        *names,
        *_names_of_layers(sketch, placed),
        *_title(placed, caption),
        *_routed(sketch, lines, routes),
        *(_labels(sketch, placed, titles, routes) if caption.labels else ()),
        "}",
    ]
    return "\n".join(parts) + "\n"


# -- boxes -----------------------------------------------------------------------------------------


def _boxes(sketch: Sketch, placed: Placed) -> list[str]:
    statements = []
    sideways, upwards = placed.rankdir == "LR", placed.rankdir == "BT"
    used: dict[str, set[PortName]] = {}
    for line in sketch.lines:
        used.setdefault(line.receiver, set()).add(line.port)
    for box in sketch.boxes:
        tint = tint_of(box.group, sketch.groups)
        style = {
            "pos": _position(placed.boxes[box.name]),
            "label": box_label(box, used.get(box.name, ()), tint, sideways, upwards),
            "tooltip": _tooltip(box),
            "class": box.kind,
        }
        statements.append(f"{quoted(box.name)} {attributes(style)};")
    return statements


def _tooltip(box: Box) -> str:
    if box.kind == "group":
        return f"{box.group}: {', '.join(cell for row in box.rows for cell in row)}"
    return box.name if box.group is None else f"{box.name} ({box.group})"


def _bars(placed: Placed) -> list[str]:
    statements = []
    for name in BARS:
        if name in placed.boxes:
            style = {
                "pos": _position(placed.boxes[name]),
                "label": bar_label(name, placed.cells, placed.rankdir == "LR"),
                "tooltip": name,
                "class": name,
            }
            statements.append(f"{quoted(name)} {attributes(style)};")
    return statements


def _groups(sketch: Sketch, placed: Placed) -> list[str]:
    statements = []
    for number, group in enumerate(sketch.groups):
        tint = tint_of(group, sketch.groups)
        if group in placed.groups and tint:
            style = {
                "label": "",
                "bb": str(placed.groups[group]),
                "style": "filled,rounded",
                "color": tint.border,
                "fillcolor": tint.fill,
                "tooltip": group,
            }
            inside = "; ".join(quoted(box.name) for box in sketch.boxes if box.group == group)
            statements.append(f"subgraph cluster_{number} {{ graph {attributes(style)} {inside} }}")
    return statements


def _rows(sketch: Sketch) -> list[str]:
    """Return which boxes are of one rank; for readers of the DOT text, and other layouts."""
    rows: dict[int, list[str]] = {}
    for box in sketch.boxes:
        rows.setdefault(box.rank, []).append(quoted(box.name))
    return [f"{{ rank=same; {'; '.join(rows[rank])} }}" for rank in sorted(rows)]


# -- names -----------------------------------------------------------------------------------------


def _names_of_groups(sketch: Sketch, titles: Mapping[str, Frame]) -> list[str]:
    """Return the names of groups as boxes of their own, so that no line runs over them."""
    statements = []
    for group, frame in titles.items():
        tint = tint_of(group, sketch.groups)
        style = {
            "pos": _position(frame.center),
            "shape": "box",
            "style": "filled,rounded",
            "color": tint.fill if tint else None,
            "fillcolor": tint.fill if tint else None,
            "width": (frame.right - frame.left - 6) / 72,
            "height": (frame.top - frame.bottom) / 72,
            "fixedsize": "true",
            "label": group_title(group),
            "tooltip": group,
        }
        statements.append(f"{quoted(f'name of {group}')} {attributes(style)};")
    return statements


def _names_of_layers(sketch: Sketch, placed: Placed) -> list[str]:
    """Return the number of the layer beside each row; none where boxes are whole groups."""
    if any(box.kind == "group" for box in sketch.boxes):
        return []
    statements = []
    first = {box.layer: box for box in reversed(sketch.boxes)}
    for layer in sorted(layer for layer in first if layer is not None):
        x, y = placed.boxes[first[layer].name]
        sideways = placed.rankdir == "LR"
        at = (x, placed.frame.bottom - 14) if sideways else (placed.frame.left - 34, y)
        style = {
            "pos": _position(at),
            "shape": "plaintext",
            "label": f"layer {layer}",
            "fontsize": 9,
            "fontcolor": FAINT,
        }
        statements.append(f"{quoted(f'layer {layer}')} {attributes(style)};")
    return statements


def _title(placed: Placed, caption: Caption) -> list[str]:
    """Return title and notes, left-aligned above everything."""
    title = caption.title or ""
    room = max(_WORDS, int((placed.frame.right - placed.frame.left) / (0.62 * 13)))
    lines = textwrap.wrap(title, room, break_long_words=False) or [title]
    said = [(line, 13.0, INK, "B") for line in lines if title]
    said += [(note, 9.0, FAINT, "I") for note in caption.notes]
    if not said:
        return []
    rows = "".join(
        f'<TR><TD ALIGN="LEFT"><FONT POINT-SIZE="{size:g}" COLOR="{color}"><{mark}>{text(words)}'
        f"</{mark}></FONT></TD></TR>"
        for words, size, color, mark in said
    )
    width = max(0.62 * size * len(words) for words, size, _, _ in said)
    height = sum(size + 6 for _, size, _, _ in said)
    tops = [placed.frame.top] + [placed.boxes[name][1] + 9 for name in BARS if name in placed.boxes]
    sideways = placed.rankdir == "LR"
    bar = placed.boxes.get("embed", (placed.frame.left, 0.0))[0] - BAR_SIDEWAYS / 2
    left = min(bar, placed.frame.left) if sideways else placed.frame.left - _MARGIN
    table = (
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1" '
        f'WIDTH="{width:.0f}">{rows}</TABLE>'
    )
    style = {
        "pos": _position((left + width / 2, max(tops) + 12 + height / 2)),
        "label": Html(table),
        "tooltip": title or said[0][0],
    }
    return [f'"title" {attributes(style)};']


# -- lines -----------------------------------------------------------------------------------------


def _lines(sketch: Sketch, placed: Placed, caption: Caption) -> list[tuple[str, dict[str, object]]]:
    """Return for every line its two ends, and how it is drawn."""
    places = places_on_bars(sketch.lines, placed)
    return [
        (
            " -> ".join(line_ends(line, at, placed)),
            line_style(line, widest(sketch, caption.quantity), caption.helps),
        )
        for line, at in zip(sketch.lines, places, strict=True)
    ]


def _routed(
    sketch: Sketch, lines: Sequence[tuple[str, dict[str, object]]], routes: Sequence[Route]
) -> list[str]:
    """Return the statements of all lines, each with its way and what it says."""
    statements = []
    for line, (ends, style), way in zip(sketch.lines, lines, routes, strict=True):
        said = {
            "key": line.port,
            "class": f"edge-{line.port}",
            "tooltip": line.words,
            "pos": way.pos,
        }
        statements.append(f"{ends} {attributes({**style, **said})};")
    return statements


def _labels(
    sketch: Sketch, placed: Placed, titles: Mapping[str, Frame], routes: Sequence[Route]
) -> list[str]:
    """Return the weights beside their lines, on a patch of paper so that they can be read."""
    words = [_label(line) for line in sketch.lines]
    obstacles = [*titles.values()]
    for box in sketch.boxes:
        (x, y), (width, height) = placed.boxes[box.name], box_size(box)
        obstacles.append(Frame(x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    statements = []
    for number, at in enumerate(place_labels(words, routes, obstacles)):
        if words[number]:
            width, height = label_size(words[number])
            style = {
                "pos": _position(at),
                "shape": "box",
                "style": "filled,rounded",
                "color": "#FFFFFF00",
                "fillcolor": "#FFFFFFD8",
                "fontcolor": STROKES[sketch.lines[number].port].color,
                "fontsize": 8,
                "width": width / 72,
                "height": height / 72,
                "fixedsize": "true",
                "label": words[number],
                "tooltip": sketch.lines[number].words,
            }
            statements.append(f"{quoted(f'weight {number}')} {attributes(style)};")
    return statements


def _label(line: Line) -> str:
    if line.value is not None:
        return signed(line.value)
    return f"{line.count}×" if line.count > 1 else ""


def _position(at: tuple[float, float]) -> str:
    return f"{at[0]:g},{at[1]:g}"
