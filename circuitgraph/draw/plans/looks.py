"""What happens to a node in a run, and how that is painted: a colour, a symbol and a border each.

Blue stands for clean values, vermilion for corrupt ones, green for what answers to a change, purple
for what reads a change. Every look has its own symbol or border as well, and the fills differ in
lightness, so nothing is lost in grey or to colour-blind readers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from circuitgraph.draw.palette import FAINT, INK, PAPER

__all__ = ["DIFFERS", "LOOKS", "Look", "Paint"]

Look = Literal[
    "corrupt", "sent", "frozen", "recomputed", "patched", "unchanged", "idle", "live", "replayed"
]
"""What happens to a node: the first seven in a plan, the last two and ``idle`` in a schedule."""

DIFFERS = "#C2185B"
"""The frame around what differs between two plans."""


@dataclass(frozen=True, slots=True)
class Paint:
    """How a look is painted, and what the legend says of it.

    Args:
        fill: The colour of the cell.
        border: The colour of its border; empty for none.
        ink: The colour of what is written in it.
        mark: The symbol in it, where the node has none of its own.
        words: What the legend says.
    """

    fill: str
    border: str
    ink: str
    mark: str
    words: str


LOOKS: Mapping[Look, Paint] = MappingProxyType(
    {
        "corrupt": Paint(
            "#D55E00", "#8A3D00", PAPER, "×", "sender: set to its write in the {} run"
        ),
        "sent": Paint("#F0A93B", "#99650F", INK, "»", "sender: set to its write in an earlier run"),
        "frozen": Paint("#D7E6F3", "#AFC7DC", "#4C7396", "=", "frozen: set to its clean write"),
        "recomputed": Paint(
            "#86C9A8", "#3F8F69", "#0E4A30", "~", "recomputed: answers to a change"
        ),
        "patched": Paint(
            "#6A3D9A", "#3F2063", PAPER, "+", "receiver: reads a patched value at q, k, v"
        ),
        "unchanged": Paint(
            PAPER, "#ABABAB", FAINT, "", "as in the clean run: nothing before it differs"
        ),
        "idle": Paint(PAPER, "", FAINT, "·", "not run: nothing that is kept needs it"),
        "live": Paint("#86C9A8", "#3F8F69", "#0E4A30", "", "run live, in so many rows"),
        "replayed": Paint("#D7E6F3", "#AFC7DC", "#4C7396", "=", "replayed from the recording"),
    }
)
