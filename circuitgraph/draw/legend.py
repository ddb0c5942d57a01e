"""What the lines of a picture mean: only what the picture really has, in as many rows as needed."""

from collections.abc import Mapping, Sequence

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.dot import Html, text
from circuitgraph.draw.lines import THICK, is_against, widest
from circuitgraph.draw.palette import INK, STROKES
from circuitgraph.draw.sketch import Sketch

__all__ = ["Item", "legend_items", "legend_label"]

Item = tuple[str, str]
"""A sample, as a cell of a table, and the words beside it."""

_NARROW = 370.0
"""A legend need not be narrower than this, in points, even below a very narrow picture."""

_BARE = 'BORDER="0" CELLBORDER="0" CELLPADDING="0"'

_MARKS: Mapping[bool, str] = {False: "→", True: "⊣"}


def legend_items(sketch: Sketch, quantity: str, helps: int) -> list[list[Item]]:
    """Return samples and words for what a picture has: its ports, then its signs and widths."""
    present = {line.port for line in sketch.lines}
    ports = [
        (_sample(stroke.color, stroke.style, 2), f"into {_receivers(sketch, stroke.words)}")
        for port, stroke in STROKES.items()
        if port in present
    ]
    signs = {is_against(line, helps) for line in sketch.lines if line.value}
    words = {False: "positive", True: "negative"}
    if helps:
        words = {False: "helps", True: "works against"}
    weights = [
        (f'<TD WIDTH="28"><FONT POINT-SIZE="13">{mark}</FONT></TD>', words[against])
        for against, mark in _MARKS.items()
        if against in signs
    ]
    if sketch.largest > 0:
        sample = _sample(INK, "solid", round(THICK))
        most = widest(sketch, quantity)
        weights.append((sample, f"widest: {quantity} ±{signed(most)}"))
    return [items for items in (ports, weights) if items]


def legend_label(sections: Sequence[Sequence[Item]], width: float) -> Html:
    """Return the legend as a table about as wide as the picture: every section begins a row."""
    room = max(width, _NARROW)
    rows = [list(items) for items in sections]
    for columns in range(max(map(len, sections)), 0, -1):
        rows = [
            list(items[at : at + columns])
            for items in sections
            for at in range(0, len(items), columns)
        ]
        wide = [max(map(_width, column)) for column in _columns(rows)]
        if sum(wide) <= room:
            break
    lines = "".join(f"<TR>{''.join(map(_cells, row))}</TR>" for row in rows)
    return Html(f'<TABLE {_BARE} CELLSPACING="3">{lines}</TABLE>')


def _columns(rows: Sequence[Sequence[Item]]) -> list[list[Item]]:
    return [[row[at] for row in rows if at < len(row)] for at in range(max(map(len, rows)))]


def _width(item: Item) -> float:
    return 46 + 4.6 * len(item[1])


def _cells(item: Item) -> str:
    sample, words = item
    said = f'<TD ALIGN="LEFT"><FONT POINT-SIZE="9">{text(words)}</FONT></TD>'
    return f'{sample}{said}<TD WIDTH="8"></TD>'


def _receivers(sketch: Sketch, words: str) -> str:
    """Return what a port's lines enter; MLPs and logits share one kind of line."""
    if words != STROKES["in"].words:
        return words
    ends = {line.receiver == "logits" for line in sketch.lines if line.port == "in"}
    if len(ends) == 2:
        return "MLPs and the logits"
    return "the logits" if True in ends else "MLPs"


def _sample(color: str, style: str, width: int) -> str:
    """Return a cell with a line in its middle; a table of its own keeps it off the cell's edge."""
    line = (
        f'<TD WIDTH="28" HEIGHT="{width}" FIXEDSIZE="TRUE" SIDES="B" BORDER="{width}" '
        f'STYLE="{style}" COLOR="{color}"></TD>'
    )
    return f'<TD><TABLE {_BARE} CELLSPACING="0"><TR>{line}</TR></TABLE></TD>'
