"""Colours and line styles, chosen so that print and colour-blind readers lose nothing.

Ports differ by colour and by dash (the colours are Okabe and Ito's), groups by pale tints whose
hues no port uses, signs by the shape of the arrow head. Nothing is said by colour alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from circuitgraph.nodes import PortName

__all__ = [
    "ACCENT",
    "BAND",
    "BAR_FILL",
    "DIVERGING",
    "FAINT",
    "INK",
    "LEAST",
    "LINES",
    "NO_VALUE",
    "PAPER",
    "QUIET",
    "STROKES",
    "TINTS",
    "Stroke",
    "Tint",
]

INK = "#222222"
FAINT = "#767676"
PAPER = "#FFFFFF"
BAND = "#E4E4E4"
BAR_FILL = "#CDD1D6"
ACCENT = "#D55E00"
QUIET = "#5B8DB8"
NO_VALUE = "#ECECEC"
LINES = "#E6E6E6"

LEAST = 1e-4
"""The least effect that is drawn in full colour or width: smaller ones are mostly rounding."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """How the edges into one kind of port are drawn, and what the legend calls them."""

    color: str
    style: str
    words: str


STROKES: Mapping[PortName, Stroke] = MappingProxyType(
    {
        "q": Stroke("#0072B2", "solid", "queries (q)"),
        "k": Stroke("#D55E00", "dashed", "keys (k)"),
        "v": Stroke("#009E73", "dotted", "values (v)"),
        "in": Stroke("#4D4D4D", "solid", "MLPs, logits"),
    }
)


@dataclass(frozen=True, slots=True)
class Tint:
    """The colours of one group: a pale fill and a border that prints."""

    fill: str
    border: str


TINTS: tuple[Tint, ...] = (
    Tint("#FFF3C4", "#B8960C"),
    Tint("#EBDDF5", "#7E57A6"),
    Tint("#D9F0F7", "#3C8DA8"),
    Tint("#FBDDE6", "#B8527A"),
    Tint("#E6EFCB", "#75913A"),
    Tint("#F3E1D2", "#97663F"),
    Tint("#DEE3F5", "#5A6BB0"),
    Tint("#E7E7E7", "#6E6E6E"),
)

DIVERGING: tuple[tuple[float, str], ...] = (
    (0.0, "#8E0F24"),
    (0.15, "#C43C3C"),
    (0.32, "#EC9878"),
    (0.46, "#FBE3D6"),
    (0.5, "#FFFFFF"),
    (0.54, "#DCEAF4"),
    (0.68, "#86BDDD"),
    (0.85, "#2F79B5"),
    (1.0, "#0A3A70"),
)
"""Red below zero, white at zero, blue above; equally dark at equal distance from zero."""
