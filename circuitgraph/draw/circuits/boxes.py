"""How big each box is and what stands in it, in points (1/72 inch).

Along the side where a head reads the residual stream lies a thin strip, one third each for q, k and
v, in the colour of the port, wherever an edge enters through it.
"""

from collections.abc import Collection

from circuitgraph.draw.circuits.sketch import Box
from circuitgraph.draw.lettering import text_width, wrap_text
from circuitgraph.draw.palette import BAND, BAR_FILL, INK, PAPER, STROKES, TINTS, Tint
from circuitgraph.draw.svg import xml_text
from circuitgraph.nodes import PortName

__all__ = [
    "BAR",
    "CELL",
    "bar_label",
    "box_label",
    "box_size",
    "group_lines",
    "html_text",
    "tint_of",
]

BAR = {False: 18, True: 48}
"""Thickness of the bars for the embedding and the logits; where they stand upright, the second."""
CELL = 10
"""Length of one of the places along a bar where edges can leave or enter."""

_CHIP = (34, 18)
_PORTS: tuple[PortName, ...] = ("q", "k", "v")
_BARE = 'BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"'
_LONG = 130.0
"""How wide a line of a group's name may be: a long one would make its box wider than its heads."""


def box_size(box: Box) -> tuple[float, float]:
    """Return width and height of a box."""
    if box.kind == "group":
        lines = group_lines(str(box.group))
        title = max(text_width(line, 10, bold=True) for line in lines) + 22
        across = max(len(row) for row in box.rows) * (_CHIP[0] + 4) + 16
        return max(across, title), 13 * len(lines) + len(box.rows) * (_CHIP[1] + 4) + 14
    return (50, 24) if box.kind == "mlp" else (max(40.0, text_width(box.rows[0][0], 10) + 12), 24)


def group_lines(group: str) -> list[str]:
    """Return the name of a group, in lines."""
    # A label of line breaks alone ends Graphviz with a segmentation fault.
    return wrap_text(group, _LONG, 10, bold=True) or [" "]


def tint_of(group: str | None, groups: Collection[str]) -> Tint | None:
    """Return the colours of a group; groups beyond the eighth start over."""
    return None if group is None else TINTS[list(groups).index(group) % len(TINTS)]


def html_text(words: object) -> str:
    r"""Return text for a label like HTML, where DOT would read ``\N`` as the node's name.

    Example:
        >>> html_text("a < b & c")
        'a &lt; b &amp; c'
    """
    return xml_text(words).replace("\\", "\\\\")


def box_label(box: Box, used: Collection[PortName], tint: Tint | None, rankdir: str) -> str:
    """Return what stands in a box: the strip of its ports on the reading side, and its text.

    Args:
        box: The box.
        used: The ports of it that edges enter.
        tint: The colours of its group.
        rankdir: Where the residual stream runs.
    """
    width, height = box_size(box)
    border = tint.border if tint else INK
    fill = {"mlp": BAND, "group": tint.fill if tint else PAPER}.get(box.kind, PAPER)
    body = _group_body(box, border) if box.kind == "group" else html_text(box.rows[0][0])
    sideways = rankdir == "LR"
    thick = 0 if box.kind == "mlp" else 4
    long = ((height if sideways else width) - 10) / 3
    strip = [
        _cell(thick, long, sideways, f'PORT="{port}"', STROKES[port].color if port in used else "")
        for port in _PORTS
    ]
    size = f'WIDTH="{width - 2 - thick * sideways:.0f}" HEIGHT="{height - 2 - thick:.0f}"'
    if sideways:
        middle = f'<TD ROWSPAN="3" FIXEDSIZE="TRUE" {size}>{body}</TD>'
        rows = "".join(
            f"<TR>{cell}{middle if at == 0 else ''}</TR>" for at, cell in enumerate(strip)
        )
    else:
        ports = f"<TR><TD><TABLE {_BARE}><TR>{''.join(strip)}</TR></TABLE></TD></TR>"
        middle = f'<TR><TD FIXEDSIZE="TRUE" {size}>{body}</TD></TR>'
        rows = middle + ports if rankdir == "BT" else ports + middle
        rows = middle if not thick else rows
    return (
        f'<<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0" STYLE="ROUNDED" '
        f'COLOR="{border}" BGCOLOR="{fill}">{rows}</TABLE>>'
    )


def bar_label(name: str, cells: int, sideways: bool) -> str:
    """Return a bar with so many places for edges on each of its long sides.

    They are ``a0 a1 ...`` along the top or left side, ``b0 b1 ...`` along the other.
    """
    first, last = (
        [_cell(2, CELL, sideways, f'PORT="{side}{at}"', "") for at in range(cells)] for side in "ab"
    )
    span, thick, long = (
        ("ROWSPAN", "WIDTH", "HEIGHT") if sideways else ("COLSPAN", "HEIGHT", "WIDTH")
    )
    size = f'{span}="{cells}" {thick}="{BAR[sideways] - 4}" {long}="{CELL * cells}"'
    word = f'<TD FIXEDSIZE="TRUE" {size}><B>{name}</B></TD>'
    rows = (
        [
            f"{a}{word if at == 0 else ''}{b}"
            for at, (a, b) in enumerate(zip(first, last, strict=True))
        ]
        if sideways
        else ["".join(first), word, "".join(last)]
    )
    body = "".join(f"<TR>{row}</TR>" for row in rows)
    return f'<<TABLE {_BARE} BGCOLOR="{BAR_FILL}">{body}</TABLE>>'


def _cell(thick: float, long: float, sideways: bool, port: str, color: str) -> str:
    wide, high = (thick, long) if sideways else (long, thick)
    paint = f' BGCOLOR="{color}"' if color else ""
    return f'<TD {port} FIXEDSIZE="TRUE" WIDTH="{wide:.0f}" HEIGHT="{high:.0f}"{paint}></TD>'


def _group_body(box: Box, border: str) -> str:
    look = f'BORDER="1" COLOR="{border}" BGCOLOR="{PAPER}" STYLE="ROUNDED" FIXEDSIZE="TRUE"'
    chips = "".join(
        "<TR>"
        + "".join(
            f'<TD {look} WIDTH="{_CHIP[0]}" HEIGHT="{_CHIP[1]}">{html_text(cell)}</TD>'
            for cell in row
        )
        + "</TR>"
        for row in box.rows
    )
    name = "<BR/>".join(f"<B>{html_text(line)}</B>" for line in group_lines(str(box.group)))
    return (
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="4" CELLPADDING="0"><TR>'
        f'<TD COLSPAN="{len(box.rows[0])}">{name}</TD></TR>{chips}</TABLE>'
    )
