"""What the page's script reads: numbers and names, rounded to what a picture can show."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitgraph.draw.effects.panels import Panel
from circuitgraph.draw.report.results import Result

__all__ = ["number", "result_data"]


def result_data(result: Result) -> dict[str, Any]:
    """Return the grids of a result as plain data.

    Cells are flat and run over all panels, so one number names a cell in every view.
    """
    grid = result.views[0].grid
    largest = {
        kind: max((view.limit for view in result.views if view.difference == kind), default=1.0)
        for kind in (False, True)
    }
    return {
        "title": result.title,
        "unit": result.unit,
        "bars": grid.bars,
        "rows": list(grid.rows),
        "columns": list(grid.columns),
        "row": grid.row_title,
        "column": grid.column_title,
        "panels": [panel.title for panel in grid.panels],
        "names": [name for panel in grid.panels for name in panel.names.ravel().tolist()],
        "confidence": result.confidence,
        "views": [
            {
                "name": view.name,
                "difference": view.difference,
                "limit": number(largest[view.difference]),
                "values": _numbers([panel.values for panel in view.grid.panels]),
                "low": _numbers([panel.low for panel in view.grid.panels]),
                "high": _numbers([panel.high for panel in view.grid.panels]),
                "stands": _standing(view.grid.panels),
            }
            for view in result.views
        ],
    }


def number(value: float) -> float | None:
    """Return a number with five significant digits; None for one that is not finite.

    Example:
        >>> number(-0.123456789), number(float("nan"))
        (-0.12346, None)
    """
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _numbers(parts: list[NDArray[np.float64]]) -> list[float | None]:
    """Return all numbers of all panels; an empty list where none is finite."""
    flat = [number(float(value)) for part in parts for value in part.ravel()]
    return flat if any(value is not None for value in flat) else []


def _standing(panels: tuple[Panel, ...]) -> list[int]:
    """Return the cells that stand out from zero."""
    flat = [bool(mark) for panel in panels for mark in panel.significant.ravel()]
    return [at for at, mark in enumerate(flat) if mark]
