"""What the lines of a picture mean: only what the picture really has, in as many rows as needed."""

from collections.abc import Mapping

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.circuits.boxes import html_text
from circuitgraph.draw.circuits.sketch import Line, Sketch
from circuitgraph.draw.lettering import text_width
from circuitgraph.draw.palette import INK, LEAST, STROKES

__all__ = ["explain", "is_against", "pen_width", "widest"]

THIN, THICK, PLAIN = 0.9, 5.0, 1.4

_NARROW = 370.0
"""A legend need not be narrower than this, in points, even below a very narrow picture."""

_BARE = 'BORDER="0" CELLBORDER="0" CELLPADDING="0"'

_MARKS: Mapping[bool, str] = {False: "→", True: "⊣"}


def pen_width(size: float, largest: float) -> float:
    """Return how wide a line of some weight is drawn; never thinner than print can show.

    Example:
        >>> pen_width(0.5, 0.5), pen_width(0.0, 0.5), pen_width(0.0, 0.0)
        (5.0, 0.9, 1.4)
    """
    return THIN + (THICK - THIN) * (size / largest) if largest > 0 else PLAIN


def widest(sketch: Sketch, quantity: str) -> float:
    """Return the weight of the widest line: an effect that is rounding gets none so wide."""
    return max(sketch.largest, LEAST) if quantity == "effect" else sketch.largest


def is_against(line: Line, helps: int) -> bool:
    """Return whether a line ends in a bar instead of an arrow.

    Args:
        line: The line.
        helps: The sign of weights that speak for an edge; 0 where that is not known, and then
            negative weights end in a bar.
    """
    value = line.value or 0.0
    return value > 0 if helps < 0 else value < 0


def explain(sketch: Sketch, quantity: str, helps: int, width: float) -> str:
    """Return the legend as a table about as wide as the picture: ports first, then weights."""
    present = {line.port for line in sketch.lines}
    ports = [
        (_sample(stroke.color, stroke.style, 2), f"into {_receivers(sketch, stroke.words)}")
        for port, stroke in STROKES.items()
        if port in present
    ]
    signs = {is_against(line, helps) for line in sketch.lines if line.value}
    words = {False: "helps", True: "works against"}
    words = words if helps else {False: "positive", True: "negative"}
    weights = [
        (f'<TD WIDTH="28"><FONT POINT-SIZE="13">{mark}</FONT></TD>', words[against])
        for against, mark in _MARKS.items()
        if against in signs
    ]
    if sketch.largest > 0:
        most = f"widest: {quantity} ±{signed(widest(sketch, quantity))}"
        weights.append((_sample(INK, "solid", round(THICK)), most))
    rows: list[str] = []
    for items in (ports, weights):
        room = 0.0
        for sample, said in items:
            long = 46 + text_width(said, 9)
            if long > room:
                rows.append("")
                room = max(width, _NARROW)
            room -= long
            line = f'<TD ALIGN="LEFT"><FONT POINT-SIZE="9">{html_text(said)}</FONT></TD>'
            rows[-1] += f'{sample}{line}<TD WIDTH="8"></TD>'
    body = "".join(f"<TR>{row}</TR>" for row in rows)
    return f'<<TABLE {_BARE} CELLSPACING="3">{body}</TABLE>>' if rows else ""


def _receivers(sketch: Sketch, words: str) -> str:
    """Return what a port's lines enter; MLPs and logits share one kind of line."""
    if words != STROKES["in"].words:
        return words
    ends = {line.receiver == "logits" for line in sketch.lines if line.port == "in"}
    return "MLPs and the logits" if len(ends) == 2 else "the logits" if True in ends else "MLPs"


def _sample(color: str, style: str, width: int) -> str:
    """Return a cell with a line in its middle; a table of its own keeps it off the cell's edge."""
    line = (
        f'<TD WIDTH="28" HEIGHT="{width}" FIXEDSIZE="TRUE" SIDES="B" BORDER="{width}" '
        f'STYLE="{style}" COLOR="{color}"></TD>'
    )
    return f'<TD><TABLE {_BARE} CELLSPACING="0"><TR>{line}</TR></TABLE></TD>'
