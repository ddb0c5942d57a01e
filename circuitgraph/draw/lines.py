"""How each line of a picture is drawn: width, dash, head, and where it leaves and enters."""

from collections.abc import Mapping, Sequence

from circuitgraph.draw.dot import quoted
from circuitgraph.draw.layout import Placed
from circuitgraph.draw.palette import LEAST, STROKES
from circuitgraph.draw.sketch import BARS, Line, Sketch
from circuitgraph.nodes import PortName

__all__ = ["is_against", "line_ends", "line_style", "pen_width", "places_on_bars", "widest"]

THIN, THICK, PLAIN = 0.9, 5.0, 1.4

_ASIDE: Mapping[PortName, int] = {"q": -1, "k": 0, "v": 1, "in": 0}
"""How many places beside the middle of its box a line leaves a bar, so that lines run parallel."""

Ends = tuple[int | None, int | None]
"""The place on the first bar and on the last, where a line touches them."""


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


def line_style(line: Line, largest: float, helps: int) -> dict[str, object]:
    """Return the attributes of a line that do not depend on where it runs."""
    stroke = STROKES[line.port]
    against = is_against(line, helps)
    return {
        "color": stroke.color,
        "style": stroke.style,
        "penwidth": pen_width(line.size, largest),
        "arrowhead": "tee" if against else "normal",
        "arrowsize": 0.9 if against else 0.6,
    }


def places_on_bars(lines: Sequence[Line], placed: Placed) -> list[Ends]:
    """Return where lines touch the bars: opposite their boxes, one place each while there are any.

    Of boxes in one column the nearest to the bar comes first, so that the others pass by its side.
    """
    ends: list[list[int | None]] = [[None, None] for _ in lines]
    for side, bar in enumerate(BARS):
        touching = [
            (placed.cell(other) + _ASIDE[line.port], placed.way(other, bar), number)
            for number, line in enumerate(lines)
            if bar == (line.receiver if side else line.sender)
            and (other := line.sender if side else line.receiver) not in BARS
        ]
        taken: set[int] = set()
        for wanted, _, number in sorted(touching):
            cell = _free(placed.clamp(wanted), taken, 1 + side, placed)
            taken.add(cell)
            ends[number][side] = cell
        for number, line in enumerate(lines):
            if (line.sender, line.receiver) == BARS:
                ends[number][side] = placed.cells // 2
    return [(first, last) for first, last in ends]


def line_ends(line: Line, at: Ends, placed: Placed) -> tuple[str, str]:
    """Return both ends of a line with their ports: a place on a bar, or one side of a box."""
    out, into = {"TB": ("s", "n"), "BT": ("n", "s"), "LR": ("e", "w")}[placed.rankdir]
    if line.sender not in BARS and line.receiver not in BARS and placed.against_stream(line):
        # At the corners, beside a line that may run between the same two the usual way.
        tail, head = {"TB": ("ne", "se"), "BT": ("se", "ne"), "LR": ("sw", "se")}[placed.rankdir]
        return f"{quoted(line.sender)}:{tail}", f"{quoted(line.receiver)}:{head}"
    inside, outside = ("a", "b") if placed.rankdir == "BT" else ("b", "a")
    first, last = at
    lane = "k" if line.port == "in" else line.port
    tail_port = f"from_{lane}" if first is None else f"{inside}{first}"
    head_port = line.port if last is None else f"{outside}{last}"
    head = f"{quoted(line.receiver)}:{head_port}:{into}"
    if last is None and line.port == "in":
        head = f"{quoted(line.receiver)}:{into}"
    return f"{quoted(line.sender)}:{tail_port}:{out}", head


def _free(wanted: int, taken: set[int], apart: int, placed: Placed) -> int:
    """Return the place nearest to the wanted one that is free, and so far from those taken."""
    for distance in range(apart, 0, -1):
        for step in range(4):
            for cell in (wanted + step, wanted - step):
                near = range(cell - distance + 1, cell + distance)
                if cell == placed.clamp(cell) and taken.isdisjoint(near):
                    return cell
    return wanted
