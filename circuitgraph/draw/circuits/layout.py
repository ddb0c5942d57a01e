"""Places for the boxes of a sketch: layers as ranks, groups kept together, few crossings.

Graphviz's ``dot`` orders and places the boxes, but is shown only a skeleton of the edges. Were it
shown all, it would keep a lane free for every edge that skips a layer, and most edges of a circuit
do; the picture would be all lanes. Several skeletons are tried, and the shortest picture is kept.
The edges are routed afterwards, by Graphviz as well, around the boxes where they then stand.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import graphviz

from circuitgraph.draw.circuits.boxes import box_size, group_lines
from circuitgraph.draw.circuits.rendering import render
from circuitgraph.draw.circuits.sketch import BARS, Line, Sketch
from circuitgraph.draw.lettering import text_width

__all__ = ["Frame", "Placed", "Rankdir", "place"]

Rankdir = Literal["TB", "BT", "LR"]
"""Where the residual stream runs: top to bottom, bottom to top, left to right."""

_HIDDEN = {"style": "invis", "label": "", "width": "0", "height": "0"}


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle: its left, lower, right and upper edge, in points."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, center: tuple[float, float], size: tuple[float, float]) -> "Frame":
        """Return the rectangle of this size around a point."""
        (x, y), (width, height) = center, size
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

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
        boxes: The middle of every box.
        groups: The rectangle around each group.
        titles: The middle of the name of each group.
        frame: The rectangle around all of it.
        rankdir: Where the residual stream runs.
    """

    boxes: Mapping[str, tuple[float, float]]
    groups: Mapping[str, Frame]
    titles: Mapping[str, tuple[float, float]]
    frame: Frame
    rankdir: Rankdir


def place(sketch: Sketch, rankdir: Rankdir, ranked: bool) -> Placed:
    """Return where everything stands: of several layouts the one whose lines stray least.

    Args:
        sketch: What is to be placed.
        rankdir: Where the residual stream runs.
        ranked: Whether boxes of one rank share a row. If not, the edges alone decide.
    """
    choices = skeletons(sketch) if ranked else [inner_lines(sketch)]
    layouts = [_place(sketch, lines, rankdir, ranked) for lines in choices]
    axis = 1 if rankdir == "LR" else 0

    def strays(placed: Placed) -> float:
        ends = ((placed.boxes[a.sender], placed.boxes[a.receiver]) for a in inner_lines(sketch))
        return sum(abs(one[axis] - other[axis]) for one, other in ends)

    return min(layouts, key=strays)


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


def _place(sketch: Sketch, lines: Sequence[Line], rankdir: Rankdir, ranked: bool) -> Placed:
    boxes: dict[str, tuple[float, float]] = {}
    groups: dict[str, Frame] = {}
    titles: dict[str, tuple[float, float]] = {}
    drawn = json.loads(render(_skeleton(sketch, lines, rankdir, ranked), "dot", "json"))
    for thing in drawn.get("objects", ()):
        if "bb" in thing:
            name = sketch.groups[int(thing["name"].removeprefix("cluster_"))]
            groups[name] = Frame(*map(float, thing["bb"].split(",")))
            x, y = map(float, thing["lp"].split(","))
            titles[name] = (x, y)
        elif "pos" in thing and thing["name"].startswith("n"):
            x, y = map(float, thing["pos"].split(","))
            boxes[sketch.boxes[int(thing["name"][1:])].name] = (x, y)
    frames = [Frame.around(boxes[box.name], box_size(box)) for box in sketch.boxes]
    least = (24, 80) if rankdir == "LR" else (80, 24)  # a bar is long enough for its name
    frames += [*groups.values(), Frame.around(frames[0].center if frames else (0, 0), least)]
    frame = Frame(
        min(frame.left for frame in frames),
        min(frame.bottom for frame in frames),
        max(frame.right for frame in frames),
        max(frame.top for frame in frames),
    )
    return Placed(boxes, groups, titles, frame, rankdir)


def _skeleton(sketch: Sketch, skeleton: Sequence[Line], rankdir: Rankdir, ranked: bool) -> str:
    """Return the DOT text from which ``dot`` places the boxes."""
    ranksep = "0.6" if rankdir == "LR" else "0.45"
    graph = graphviz.Digraph(
        graph_attr={"rankdir": rankdir, "newrank": "true", "nodesep": "0.28", "ranksep": ranksep},
        node_attr={"shape": "box", "fixedsize": "true", "label": ""},
    )
    number = {box.name: f"n{at}" for at, box in enumerate(sketch.boxes)}
    for at, group in enumerate(sketch.groups):
        inside = [box for box in sketch.boxes if box.group == group and box.kind != "group"]
        if inside:
            with graph.subgraph(name=f"cluster_{at}") as cluster:
                cluster.attr(margin="9", label=_room_for(group))
                for box in inside:
                    cluster.node(number[box.name])
    for box in sketch.boxes:
        width, height = box_size(box)
        graph.node(number[box.name], width=f"{width / 72:.3f}", height=f"{height / 72:.3f}")
    if ranked:
        rows: dict[int, list[str]] = {}
        for box in sketch.boxes:
            rows.setdefault(box.rank, []).append(number[box.name])
        for rank, row in rows.items():
            with graph.subgraph(graph_attr={"rank": "same"}) as same:
                same.node(f"row{rank}", **_HIDDEN)
                for name in row:
                    same.node(name)
        for before, after in pairwise(sorted(rows)):
            graph.edge(f"row{before}", f"row{after}", style="invis")
    else:
        for one, other in _last(sketch):
            graph.edge(number[one], number[other], style="invis", weight="0")
    for line in skeleton:
        graph.edge(number[line.sender], number[line.receiver])
    return str(graph.source)


def _room_for(group: str) -> str:
    """Return a label that keeps as much room free as a group's name will take."""
    lines = group_lines(group)
    width = max(text_width(line, 10, bold=True) for line in lines) + 6
    cell = f'<TD FIXEDSIZE="TRUE" WIDTH="{width:.0f}" HEIGHT="{13 * len(lines)}"></TD>'
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLPADDING="0"><TR>{cell}</TR></TABLE>>'


def _last(sketch: Sketch) -> list[tuple[str, str]]:
    """Return pairs that hold boxes joined to the logits alone at their place in the stream.

    Each is kept below the box that comes last before it.
    """
    joined = {end for line in inner_lines(sketch) for end in (line.sender, line.receiver)}
    loose = {line.sender for line in sketch.lines if line.receiver == "logits"} - joined
    pairs = []
    for box in sketch.boxes:
        before = [other for other in sketch.boxes if other.name in joined and other.rank < box.rank]
        if box.name in loose and before:
            pairs.append((max(before, key=lambda other: other.rank).name, box.name))
    return pairs
