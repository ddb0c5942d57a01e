"""Places for the boxes of a sketch: layers as ranks, groups kept together, few crossings.

Graphviz's ``dot`` orders and places the boxes, but is shown only a skeleton of the edges. Were it
shown all, it would keep a lane free for every edge that skips a layer, and most edges of a circuit
do; the picture would be all lanes. Several skeletons are tried, and the shortest picture is kept.
The edges are routed afterwards, around the boxes where they then stand.
"""

import json
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from circuitgraph.draw.dot import Html, attributes, quoted, text
from circuitgraph.draw.rendering import render
from circuitgraph.draw.shapes import BAR, BAR_SIDEWAYS, CELL, box_size
from circuitgraph.draw.sketch import BARS, Line, Sketch

__all__ = ["FONT", "Frame", "Placed", "Rankdir", "group_title", "place"]

Rankdir = Literal["TB", "BT", "LR"]
"""Where the residual stream runs: top to bottom, bottom to top, left to right."""

_GAP = 40.0
_LONG = 22
"""How many letters of a group's name stand in one line."""

FONT = "Helvetica,Arial,sans-serif"


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle: its left, lower, right and upper edge, in points."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def center(self) -> tuple[float, float]:
        """The middle of the rectangle."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def __str__(self) -> str:
        return f"{self.left:g},{self.bottom:g},{self.right:g},{self.top:g}"


@dataclass(frozen=True, slots=True)
class Placed:
    """Where everything in a sketch stands.

    Args:
        boxes: The middle of every box and bar.
        groups: The rectangle around each group.
        titles: The rectangle for the name of each group.
        frame: The rectangle around all of it.
        cells: How many places for edges each bar has.
        rankdir: Where the residual stream runs.
    """

    boxes: Mapping[str, tuple[float, float]]
    groups: Mapping[str, Frame]
    titles: Mapping[str, Frame]
    frame: Frame
    cells: int
    rankdir: Rankdir

    def cell(self, name: str) -> int:
        """Return which place along a bar is nearest to a box."""
        x, y = self.boxes[name]
        if self.rankdir == "LR":
            nearest = (self.frame.top - y) / CELL
        else:
            nearest = (x - self.frame.left) / CELL
        return self.clamp(int(nearest))

    def way(self, one: str, other: str) -> float:
        """Return how far two boxes are apart along the stream."""
        axis = 0 if self.rankdir == "LR" else 1
        return abs(self.boxes[one][axis] - self.boxes[other][axis])

    def against_stream(self, line: Line) -> bool:
        """Return whether a line runs against the stream, as one between two groups may."""
        axis = 0 if self.rankdir == "LR" else 1
        way = self.boxes[line.receiver][axis] - self.boxes[line.sender][axis]
        return way > 0 if self.rankdir == "TB" else way < 0

    def clamp(self, cell: int) -> int:
        """Return the place along a bar that is nearest to one that may lie beyond its end."""
        return min(self.cells - 1, max(0, cell))


def place(sketch: Sketch, rankdir: Rankdir, ranked: bool) -> Placed:
    """Return where everything stands: of several layouts the one whose lines stray least.

    Args:
        sketch: What is to be placed.
        rankdir: Where the residual stream runs.
        ranked: Whether boxes of one rank share a row. If not, the edges alone decide.
    """
    if not ranked:
        return _place(sketch, inner_lines(sketch), rankdir, ranked)
    layouts = [_place(sketch, lines, rankdir, ranked) for lines in skeletons(sketch)]
    return min(layouts, key=lambda placed: _strays(sketch, placed))


def group_title(group: str) -> Html:
    """Return the name of a group, in lines: a long one would make its box wider than its heads.

    Example:
        >>> group_title("negative name movers (copy suppression)")
        '<B>negative name movers</B><BR/><B>(copy suppression)</B>'
    """
    lines = textwrap.wrap(group, _LONG, break_long_words=False) or [group]
    return Html("<BR/>".join(f"<B>{text(line)}</B>" for line in lines))


def inner_lines(sketch: Sketch) -> list[Line]:
    """Return one line for every two boxes that are joined, the strongest.

    Lines to the bars decide nothing, since the bars are as long as the picture.
    """
    kept: dict[tuple[str, str], Line] = {}
    for line in sketch.lines:
        ends = (line.sender, line.receiver)
        if not set(ends) & set(BARS) and (ends not in kept or line.size > kept[ends].size):
            kept[ends] = line
    return [kept[ends] for ends in sorted(kept)]


def skeletons(sketch: Sketch) -> list[list[Line]]:
    """Return several choices of lines that may decide where boxes stand.

    Into every box the nearest; into and out of every box the strongest for its length; and between
    every two groups, or boxes outside groups, one.
    """
    rank = {box.name: box.rank for box in sketch.boxes}
    group = {box.name: (box.group is not None, box.group or box.name) for box in sketch.boxes}

    def length(line: Line) -> int:
        return max(1, rank[line.receiver] - rank[line.sender])

    lines = inner_lines(sketch)
    nearest = sorted(lines, key=lambda line: (length(line), -line.size))
    strong = sorted(lines, key=lambda line: (-line.size / length(line), length(line)))
    into = {line.receiver: line for line in reversed(strong)}
    out_of = {line.sender: line for line in reversed(strong)}
    between = {(group[line.sender], group[line.receiver]): line for line in reversed(strong)}
    choices: list[Iterable[Line]] = [
        {line.receiver: line for line in reversed(nearest)}.values(),
        (line for line in lines if line in (into.get(line.receiver), out_of.get(line.sender))),
    ]
    if sketch.groups:
        choices.append(between.values())
    ordered = [sorted(choice, key=lambda line: (line.sender, line.receiver)) for choice in choices]
    return [choice for at, choice in enumerate(ordered) if choice not in ordered[:at]]


def _strays(sketch: Sketch, placed: Placed) -> float:
    """Return how far the lines run across the stream, all together."""
    axis = 1 if placed.rankdir == "LR" else 0
    return sum(
        abs(placed.boxes[line.sender][axis] - placed.boxes[line.receiver][axis])
        for line in inner_lines(sketch)
    )


def _place(sketch: Sketch, lines: Sequence[Line], rankdir: Rankdir, ranked: bool) -> Placed:
    boxes: dict[str, tuple[float, float]] = {}
    groups: dict[str, Frame] = {}
    titles: dict[str, Frame] = {}
    if sketch.boxes:
        source = _skeleton_dot(sketch, lines, rankdir, ranked)
        for thing in json.loads(render(source, "dot", "json")).get("objects", ()):
            if "bb" in thing:
                name = sketch.groups[int(thing["name"].removeprefix("cluster_"))]
                groups[name] = Frame(*map(float, thing["bb"].split(",")))
                titles[name] = _title(thing)
            elif "pos" in thing:
                x, y = map(float, thing["pos"].split(","))
                boxes[thing["name"]] = (x, y)
    frame = _around(sketch, boxes, groups.values(), rankdir)
    span = frame.top - frame.bottom if rankdir == "LR" else frame.right - frame.left
    cells = max(4, round(span / CELL))
    boxes |= _bars(sketch, frame, rankdir)
    return Placed(boxes, groups, titles, frame, cells, rankdir)


def _skeleton_dot(sketch: Sketch, skeleton: Sequence[Line], rankdir: Rankdir, ranked: bool) -> str:
    graph = {
        "rankdir": rankdir,
        "newrank": "true",
        "nodesep": 0.28,
        "ranksep": 0.45 if rankdir != "LR" else 0.6,
        "fontname": FONT,
        "fontsize": 10,
    }
    lines = ["digraph {", f"graph {attributes(graph)}", 'node [shape="box" fixedsize="true"]']
    members: dict[str | None, list[str]] = defaultdict(list)
    for box in sketch.boxes:
        width, height = box_size(box)
        size = attributes({"label": "", "width": width / 72, "height": height / 72})
        members[None if box.kind == "group" else box.group].append(f"{quoted(box.name)} {size};")
    for number, group in enumerate(sketch.groups):
        if members[group]:
            style = attributes({"label": group_title(group), "margin": 9})
            lines += [f"subgraph cluster_{number} {{ graph {style}", *members[group], "}"]
    lines += members[None]
    lines += _ranks(sketch) if ranked else _last(sketch)
    lines += [f"{quoted(line.sender)} -> {quoted(line.receiver)};" for line in skeleton]
    return "\n".join([*lines, "}"])


def _ranks(sketch: Sketch) -> list[str]:
    """Return the rows, each held together and after the one before."""
    rows: dict[int, list[str]] = defaultdict(list)
    for box in sketch.boxes:
        rows[box.rank].append(quoted(box.name))
    ordered = [rows[rank] for rank in sorted(rows)]
    lines = [f"{{ rank=same; {'; '.join(row)} }}" for row in ordered]
    chain = " -> ".join(f"row{number}" for number in range(len(ordered)))
    if len(ordered) > 1:
        hidden = attributes({"style": "invis", "width": 0, "height": 0, "label": ""})
        lines += [f"{{ rank=same; row{at} {hidden}; {row[0]} }}" for at, row in enumerate(ordered)]
        lines.append(f"{chain} {attributes({'style': 'invis'})};")
    return lines


def _last(sketch: Sketch) -> list[str]:
    """Return hidden lines that hold boxes joined to the logits alone at their place in the stream.

    Each is kept below the box that comes last before it.
    """
    joined = {end for line in inner_lines(sketch) for end in (line.sender, line.receiver)}
    loose = {line.sender for line in sketch.lines if line.receiver == "logits"} - joined
    hidden = attributes({"style": "invis", "weight": 0})
    lines = []
    for box in sketch.boxes:
        before = [other for other in sketch.boxes if other.name in joined and other.rank < box.rank]
        if box.name in loose and before:
            last = max(before, key=lambda other: other.rank)
            lines.append(f"{quoted(last.name)} -> {quoted(box.name)} {hidden};")
    return lines


def _title(cluster: Mapping[str, str]) -> Frame:
    """Return where dot kept room for the name of a group."""
    x, y = map(float, cluster["lp"].split(","))
    wide, high = 72 * float(cluster["lwidth"]), 72 * float(cluster["lheight"])
    return Frame(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)


def _around(
    sketch: Sketch,
    boxes: Mapping[str, tuple[float, float]],
    groups: Iterable[Frame],
    rankdir: Rankdir,
) -> Frame:
    """Return the rectangle around all boxes and groups, large enough for a bar to be read."""
    frames = list(groups)
    for box in sketch.boxes:
        (x, y), (width, height) = boxes[box.name], box_size(box)
        frames.append(Frame(x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    if not frames:
        frames = [Frame(0, 0, 0, 0)]
    left, right = min(frame.left for frame in frames), max(frame.right for frame in frames)
    bottom, top = min(frame.bottom for frame in frames), max(frame.top for frame in frames)
    smallest = 80.0
    wider = 0.0 if rankdir == "LR" else max(0.0, smallest - (right - left)) / 2
    higher = max(0.0, smallest - (top - bottom)) / 2 if rankdir == "LR" else 0.0
    return Frame(left - wider, bottom - higher, right + wider, top + higher)


def _bars(sketch: Sketch, frame: Frame, rankdir: Rankdir) -> dict[str, tuple[float, float]]:
    """Return the middle of each bar: before the first row and after the last."""
    x, y = frame.center
    gap = _GAP + (BAR_SIDEWAYS if rankdir == "LR" else BAR) / 2
    places: tuple[tuple[float, float], tuple[float, float]]
    match rankdir:
        case "TB":
            places = ((x, frame.top + gap), (x, frame.bottom - gap))
        case "BT":
            places = ((x, frame.bottom - gap), (x, frame.top + gap))
        case "LR":
            places = ((frame.left - gap, y), (frame.right + gap, y))
        case _:
            assert_never(rankdir)
    there = (sketch.has_embed, sketch.has_logits)
    return {name: at for name, at, shown in zip(BARS, places, there, strict=True) if shown}
