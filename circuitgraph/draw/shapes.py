"""How big each box is and what stands in it, in points (1/72 inch).

Sizes are fixed before anything is laid out, so the layout and the finished picture agree. Along the
side where a head reads the residual stream lies a thin strip, one third each for q, k and v, in
the colour of the port, wherever an edge enters through it.
"""

from collections.abc import Collection

from circuitgraph.draw.dot import Html, text
from circuitgraph.draw.palette import BAND, BAR_FILL, INK, PAPER, STROKES, TINTS, Tint
from circuitgraph.draw.sketch import Box
from circuitgraph.nodes import PortName

__all__ = ["BAR", "BAR_SIDEWAYS", "CELL", "bar_label", "box_label", "box_size", "tint_of"]

BAR = 18
"""Thickness of the bars for the embedding and the logits."""
BAR_SIDEWAYS = 48
"""The same where the stream runs from left to right, and the bars stand."""
CELL = 10
"""Length of one of the places along a bar where edges can leave or enter."""

_HEAD = (40, 24)
_MLP = (50, 24)
_CHIP = (34, 18)
_STRIP = 4
_TITLE = 16
_HEAD_PORTS: tuple[PortName, ...] = ("q", "k", "v")


def box_size(box: Box) -> tuple[float, float]:
    """Return width and height of a box."""
    match box.kind:
        case "group":
            wide = max(len(row) for row in box.rows)
            title = 6.3 * len(str(box.group)) + 12
            width = max(wide * (_CHIP[0] + 4) + 12, title)
            return width, _TITLE + len(box.rows) * (_CHIP[1] + 4) + 12
        case "mlp":
            return _MLP
        case _:
            return _HEAD


def tint_of(group: str | None, groups: Collection[str]) -> Tint | None:
    """Return the colours of a group; groups beyond the eighth start over."""
    if group is None:
        return None
    return TINTS[list(groups).index(group) % len(TINTS)]


def box_label(
    box: Box, used: Collection[PortName], tint: Tint | None, sideways: bool, upwards: bool
) -> Html:
    """Return what stands in a box: the strip of its ports on the reading side, and its text.

    Args:
        box: The box.
        used: The ports of it that edges enter.
        tint: The colours of its group.
        sideways: Whether the stream runs from left to right.
        upwards: Whether the stream runs from bottom to top.
    """
    width, height = box_size(box)
    border = tint.border if tint else INK
    fill = PAPER
    if box.kind == "mlp":
        fill = BAND
    elif box.kind == "group" and tint:
        fill = tint.fill
    body = _group_body(box, tint) if box.kind == "group" else _plain_body(box)
    long, wide = (height, width) if sideways else (width, height)
    fifth = (long - 2) / 5
    one_port = box.kind == "mlp"
    reading = _blank(fifth, sideways) if one_port else _strip(used, fifth, sideways)
    sending = _way_out(fifth, sideways)
    inner = wide - 2 - (1 if one_port else _STRIP) - 1
    if sideways:
        middle = (
            f'<TD ROWSPAN="5" WIDTH="{inner:g}" HEIGHT="{height - 2:g}" FIXEDSIZE="TRUE">'
            f"{body}</TD>"
        )
        rows = "".join(
            f"<TR>{near}{middle if at == 0 else ''}{far}</TR>"
            for at, (near, far) in enumerate(zip(reading, sending, strict=True))
        )
    else:
        middle = (
            f'<TD COLSPAN="5" WIDTH="{width - 2:g}" HEIGHT="{inner:g}" FIXEDSIZE="TRUE">{body}</TD>'
        )
        ordered = ("".join(reading), middle, "".join(sending))
        rows = "".join(f"<TR>{row}</TR>" for row in (reversed(ordered) if upwards else ordered))
    return Html(
        f'<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0" STYLE="ROUNDED" '
        f'COLOR="{border}" BGCOLOR="{fill}">{rows}</TABLE>'
    )


def bar_label(name: str, cells: int, sideways: bool) -> Html:
    """Return a bar with so many places for edges on each of its long sides.

    They are ``a0 a1 ...`` along the top or left side, ``b0 b1 ...`` along the other.
    """
    table = f'BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0" BGCOLOR="{BAR_FILL}"'
    word = f"<B>{text(name)}</B>"
    if sideways:
        size = f'WIDTH="2" HEIGHT="{CELL}" FIXEDSIZE="TRUE"'
        middle = (
            f'<TD ROWSPAN="{cells}" WIDTH="{BAR_SIDEWAYS - 4}" HEIGHT="{CELL * cells}" '
            f'FIXEDSIZE="TRUE">{word}</TD>'
        )
        rows = [
            f'<TD PORT="a{at}" {size}></TD>{middle if at == 0 else ""}<TD PORT="b{at}" {size}></TD>'
            for at in range(cells)
        ]
    else:
        size = f'WIDTH="{CELL}" HEIGHT="2" FIXEDSIZE="TRUE"'
        middle = (
            f'<TD COLSPAN="{cells}" WIDTH="{CELL * cells}" HEIGHT="{BAR - 4}" '
            f'FIXEDSIZE="TRUE">{word}</TD>'
        )
        first, last = (
            "".join(f'<TD PORT="{side}{at}" {size}></TD>' for at in range(cells)) for side in "ab"
        )
        rows = [first, middle, last]
    return Html(f"<TABLE {table}>{''.join(f'<TR>{row}</TR>' for row in rows)}</TABLE>")


def _cell(length: float, thick: float, sideways: bool, more: str = "") -> str:
    width, height = (thick, length) if sideways else (length, thick)
    return f'<TD WIDTH="{width:g}" HEIGHT="{height:g}" FIXEDSIZE="TRUE"{more}></TD>'


def _strip(used: Collection[PortName], length: float, sideways: bool) -> list[str]:
    """Return the five cells on the reading side: a margin, q, k, v, a margin."""
    margin = _cell(length, _STRIP, sideways)
    ports = [
        _cell(
            length,
            _STRIP,
            sideways,
            f' PORT="{port}"' + (f' BGCOLOR="{STROKES[port].color}"' if port in used else ""),
        )
        for port in _HEAD_PORTS
    ]
    return [margin, *ports, margin]


def _blank(length: float, sideways: bool) -> list[str]:
    """Return the five cells on the reading side of a box with one port."""
    return [_cell(length, 1, sideways)] * 5


def _way_out(length: float, sideways: bool) -> list[str]:
    """Return the five cells on the far side: lines leave below the port they will enter."""
    margin = _cell(length, 1, sideways)
    ports = [_cell(length, 1, sideways, f' PORT="from_{port}"') for port in _HEAD_PORTS]
    return [margin, *ports, margin]


def _plain_body(box: Box) -> str:
    return text(box.rows[0][0])


def _group_body(box: Box, tint: Tint | None) -> str:
    border = tint.border if tint else INK
    rows = "".join(
        "<TR>"
        + "".join(
            f'<TD BORDER="1" COLOR="{border}" BGCOLOR="{PAPER}" STYLE="ROUNDED" '
            f'WIDTH="{_CHIP[0]}" HEIGHT="{_CHIP[1]}" FIXEDSIZE="TRUE">{text(cell)}</TD>'
            for cell in row
        )
        + "</TR>"
        for row in box.rows
    )
    return (
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="4" CELLPADDING="0"><TR>'
        f'<TD COLSPAN="{len(box.rows[0])}"><B>{text(box.group)}</B></TD></TR>{rows}</TABLE>'
    )
