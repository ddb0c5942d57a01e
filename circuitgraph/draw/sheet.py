"""How panels are spread over a figure: how large each is drawn, and how many stand side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from circuitgraph.draw.panels import Grid

__all__ = ["Sheet"]

_GAP = (46.0, 58.0)
"""Room between panels, across and down, in pixels."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """How panels of one shape are spread over a figure.

    Args:
        rows: How many panels stand above each other.
        columns: How many stand side by side.
        panel: Width and height of one, in pixels.
        cell: Width of one cell, in pixels.
        below: Room for what stands below the panels, in pixels; more where it is turned upright.
        beside: Room for what stands at their left.
    """

    rows: int
    columns: int
    panel: tuple[float, float]
    cell: float
    below: float
    beside: float

    @classmethod
    def of(cls, grid: Grid, rows: int | None = None, columns: int | None = None) -> "Sheet":
        """Return how the panels of a grid are spread, or so many copies of one of them."""
        count = len(grid.panels) if rows is None or columns is None else rows * columns
        wide, high = _cell_size(grid, count)
        panel = max(130.0, wide * len(grid.columns)), max(60.0, high * len(grid.rows))
        if rows is None or columns is None:
            room = max(1, int(1200 // (panel[0] + _GAP[0])))
            columns = min(count, room, max(3, math.ceil(math.sqrt(count))))
            if count == 4:
                columns = min(2, room)
            rows = math.ceil(count / columns)
        longest = _text_width(grid.columns)
        upright = len(grid.columns) > 1 and longest > wide + 2
        return cls(
            rows,
            columns,
            panel,
            wide,
            below=max(1.0, longest - 8) if upright else 0.0,
            beside=max(0.0, _text_width(grid.rows) - 18),
        )

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of all panels with the room between them, in pixels."""
        return (
            self.columns * self.panel[0] + (self.columns - 1) * _GAP[0],
            self.rows * self.panel[1] + (self.rows - 1) * _GAP[1],
        )

    @property
    def gaps(self) -> tuple[float, float]:
        """Room between panels across and down, as shares of the size."""
        width, height = self.size
        return (
            _GAP[0] / width if self.columns > 1 else 0.0,
            _GAP[1] / height if self.rows > 1 else 0.0,
        )

    @property
    def upright(self) -> bool:
        """Whether the names of the columns have no room side by side."""
        return self.below > 0

    @property
    def across(self) -> float:
        """How many cells fit into a panel side by side."""
        return self.panel[0] / self.cell


def _cell_size(grid: Grid, panels: int) -> tuple[float, float]:
    """Return how large a cell is drawn: smaller where there are many, or several panels."""
    few = panels <= 2
    count, longest = len(grid.columns), max(map(len, grid.columns))
    if grid.bars:
        room = 720.0 if panels == 1 else max(220.0, 1160.0 / panels)
        return max(14.0, min(room / count, max(40.0, 7.5 * longest))), 280.0 if few else 190.0
    named = 7.5 * longest if count <= 12 else 0.0
    wide = min(40.0 if few else 24.0, (760.0 if few else 340.0) / count)
    high = min(30.0 if few else 18.0, (640.0 if few else 330.0) / len(grid.rows))
    return max(9.0, wide, named), max(8.0, high)


def _text_width(texts: Sequence[str]) -> float:
    """Return how wide the longest of some texts is, in pixels."""
    return 7.0 * max(map(len, texts), default=0)
