"""Rectangles and texts in their places: what a picture of boards is made of.

Units are points (1/72 inch), x to the right and y downwards. Two writers read these: `tiles_dot`
here, for pictures that are saved, and the report's, for HTML.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from circuitgraph.draw.dot import Html, attributes, quoted, text
from circuitgraph.draw.layout import FONT
from circuitgraph.draw.looks import DIFFERS, LOOKS, Look
from circuitgraph.draw.palette import FAINT, INK

__all__ = ["Canvas", "Frame", "Rect", "Text", "headline", "stacked", "tiles_dot", "wrapped"]


@dataclass(frozen=True, slots=True)
class Rect:
    """A cell: how it looks, what is written in it, what it says when pointed at.

    ``kept`` cells have a thick border, ``plain`` ones none.
    """

    x: float
    y: float
    width: float
    height: float
    look: Look
    mark: str = ""
    words: str = ""
    kept: bool = False
    size: float = 7.0
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame around cells that differ."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text; ``anchor`` says which part of it stands at x, and y is its middle."""

    x: float
    y: float
    words: str
    size: float = 8.0
    bold: bool = False
    faint: bool = False
    anchor: str = "start"

    @property
    def width(self) -> float:
        """About how wide the line is."""
        return (0.56 if self.bold else 0.52) * self.size * len(self.words)


@dataclass(frozen=True, slots=True)
class Canvas:
    """Cells, lines of text and frames on a sheet of some size."""

    rects: tuple[Rect, ...]
    texts: tuple[Text, ...]
    width: float
    height: float
    frames: tuple[Frame, ...] = ()

    def moved(self, x: float, y: float) -> "Canvas":
        """Return the same, further to the right and further down."""
        return replace(
            self,
            rects=tuple(replace(rect, x=rect.x + x, y=rect.y + y) for rect in self.rects),
            texts=tuple(replace(line, x=line.x + x, y=line.y + y) for line in self.texts),
            frames=tuple(replace(frame, x=frame.x + x, y=frame.y + y) for frame in self.frames),
            width=self.width + x,
            height=self.height + y,
        )


def stacked(parts: Iterable[Canvas]) -> Canvas:
    """Return several canvases on one sheet, each where it already stands."""
    found = list(parts)
    return Canvas(
        tuple(rect for part in found for rect in part.rects),
        tuple(line for part in found for line in part.texts),
        max((part.width for part in found), default=0.0),
        max((part.height for part in found), default=0.0),
        tuple(frame for part in found for frame in part.frames),
    )


def wrapped(
    words: str, width: float, x: float, y: float, size: float = 8.0, faint: bool = False
) -> Canvas:
    """Return a text broken into lines of at most so wide, from y downwards."""
    room = max(8, int(width / (0.5 * size)))
    lines = textwrap.wrap(words, room, break_long_words=False)
    step = size * 1.28
    texts = tuple(
        Text(x, y + step * (at + 0.5), line, size, faint=faint) for at, line in enumerate(lines)
    )
    return Canvas((), texts, x + width, y + step * len(lines))


def headline(words: str, width: float, size: float = 13.0) -> Canvas:
    """Return a text in bold at the top left, broken into lines of at most so wide."""
    lines = wrapped(words, width, 0.0, 0.0, size)
    return replace(lines, texts=tuple(replace(line, bold=True) for line in lines.texts))


def tiles_dot(canvas: Canvas) -> str:
    """Return the DOT text of a canvas: a node per cell and line of text, all in their places."""
    graph = {"layout": "nop2", "bgcolor": "white", "pad": 0.12, "fontname": FONT}
    node = {
        "shape": "box",
        "fixedsize": "true",
        "fontname": FONT,
        "style": "filled",
        "label": "",
        "margin": 0,
    }
    point = {"style": "invis", "width": 0.01, "height": 0.01}
    corners = [
        f'"corner {name}" {attributes({"pos": _at(x, y)} | point)};'
        for name, x, y in (("first", 0.0, 0.0), ("last", canvas.width, canvas.height))
    ]
    parts = [
        "digraph {",
        f"graph {attributes(graph)}",
        f"node {attributes(node)}",
        *corners,
        *_cells(canvas.rects),
        *(_frame(frame, number) for number, frame in enumerate(canvas.frames)),
        *(_line(line, number) for number, line in enumerate(canvas.texts)),
        "}",
    ]
    return "\n".join(parts) + "\n"


def _cells(rects: Sequence[Rect]) -> list[str]:
    """Return the cells; their names are what they say when pointed at, so no two may be alike."""
    statements, names = [], set()
    for rect in rects:
        paint = LOOKS[rect.look]
        name = rect.words or "cell"
        while name in names:
            name += "\N{ZERO WIDTH SPACE}"
        names.add(name)
        style = {
            "pos": _at(rect.x + rect.width / 2, rect.y + rect.height / 2),
            "width": rect.width / 72,
            "height": rect.height / 72,
            "label": rect.mark or None,
            "fontsize": rect.size,
            "fillcolor": paint.fill,
            "fontcolor": INK if rect.kept and not paint.border else paint.ink,
            "color": INK if rect.kept else paint.border,
            "penwidth": 1.6 if rect.kept else 0.5,
            "class": rect.look,
        }
        if not rect.kept and (rect.plain or not paint.border):
            style |= {"color": paint.fill, "penwidth": 0}
        statements.append(f"{quoted(name)} {attributes(style)};")
    return statements


def _frame(frame: Frame, number: int) -> str:
    style = {
        "pos": _at(frame.x + frame.width / 2, frame.y + frame.height / 2),
        "width": frame.width / 72,
        "height": frame.height / 72,
        "style": "dashed",
        "color": DIFFERS,
        "penwidth": 1.8,
        "class": "differs",
    }
    return f'"differs {number}" {attributes(style)};'


def _line(line: Text, number: int) -> str:
    """Return a line of text, as a table that is as wide as the line may need."""
    width = line.width + 8
    x = {"start": line.x + width / 2, "middle": line.x, "end": line.x - width / 2}[line.anchor]
    align = {"start": "LEFT", "middle": "CENTER", "end": "RIGHT"}[line.anchor]
    words = f"<B>{text(line.words)}</B>" if line.bold else text(line.words)
    label = Html(
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"><TR>'
        f'<TD ALIGN="{align}" WIDTH="{width:.0f}">{words}</TD></TR></TABLE>'
    )
    style = {
        "shape": "plain",
        "fixedsize": "false",
        "style": "",
        "pos": _at(x, line.y),
        "label": label,
        "fontsize": line.size,
        "fontcolor": FAINT if line.faint else INK,
    }
    return f'"text {number}" {attributes(style)};'


def _at(x: float, y: float) -> str:
    return f"{x:.2f},{-y:.2f}"
