"""What the lines of a picture mean: only what the picture really has, in as many rows as needed."""

from collections.abc import Mapping

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.dot import Html, text
from circuitgraph.draw.lines import THICK, is_against
from circuitgraph.draw.palette import INK, STROKES
from circuitgraph.draw.sketch import Sketch

__all__ = ["Item", "legend_items", "legend_label"]

Item = tuple[str, str]
"""A sample, as a cell of a table, and the words beside it."""

_NARROW = 330.0
"""A legend need not be narrower than this, in points, even below a very narrow picture."""

_MARKS: Mapping[bool, str] = {False: "→", True: "⊣"}


def legend_items(sketch: Sketch, quantity: str, helps: int) -> list[Item]:
    """Return samples and words for the ports, signs and widths that a picture has."""
    ports = {line.port for line in sketch.lines}
    items = [
        (_sample(stroke.color, stroke.style, 2), f"into {_receivers(sketch, stroke.words)}")
        for port, stroke in STROKES.items()
        if port in ports
    ]
    signs = {is_against(line, helps) for line in sketch.lines if line.value}
    words = {False: "positive", True: "negative"}
    if helps:
        words = {False: "helps", True: "works against"}
    items += [
        (f"<TD>{mark}</TD>", words[against]) for against, mark in _MARKS.items() if against in signs
    ]
    if sketch.largest > 0:
        widest = _sample(INK, "solid", round(THICK))
        items.append((widest, f"widest: {quantity} ±{signed(sketch.largest)}"))
    return items


def legend_label(items: list[Item], width: float) -> Html:
    """Return the legend as a table that is about as wide as the picture, columns aligned."""
    wide = [46 + 4.6 * len(words) for _, words in items]
    columns = len(items)
    if sum(wide) > width:
        columns = max(1, min(len(items), int(max(width, _NARROW) / max(wide))))
    rows = [items[at : at + columns] for at in range(0, len(items), columns)]
    lines = "".join(f"<TR>{''.join(map(_cells, row))}</TR>" for row in rows)
    return Html(f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="3" CELLPADDING="0">{lines}</TABLE>')


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
    return (
        f'<TD WIDTH="28" HEIGHT="6" FIXEDSIZE="TRUE" SIDES="B" BORDER="{width}" '
        f'STYLE="{style}" COLOR="{color}"></TD>'
    )
