"""Effects as panels: which dimensions span an image, which are spread over several of them.

Plain arrays with names, before any picture. Two dimensions make an image (layer by head where there
are such), one makes bars, and whatever is left becomes small multiples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitgraph.draw.palette import LEAST
from circuitgraph.effects import Effects

__all__ = ["Grid", "Panel", "image_dims", "lay_out"]

Floats = NDArray[np.float64]

_PAIRS = (
    ("layer", "head"),
    ("receiver_layer", "receiver_head"),
    ("receiver_layer", "receiver_kv_head"),
    ("layer", "position"),
    ("sender", "receiver"),
)


@dataclass(frozen=True)
class Panel:
    """One image, or one row of bars (an image of one row).

    Args:
        title: What sets it apart from the others; empty where it is alone.
        values: Normalised effects by row and column; NaN where no request fills a cell.
        names: The name of each cell.
        low: Lower end of each interval, NaN where there is none.
        high: Upper end.
        significant: Whether a cell stands out from zero.
    """

    title: str
    values: Floats
    names: NDArray[np.str_]
    low: Floats
    high: Floats
    significant: NDArray[np.bool_]

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which cells a request fills."""
        return np.isfinite(self.values)

    @property
    def largest(self) -> float:
        """The largest effect without its sign; 0 where no cell is filled."""
        return float(np.abs(self.values[self.filled]).max(initial=0.0))


@dataclass(frozen=True)
class Grid:
    """Panels of one shape, with what stands along their axes.

    Args:
        panels: The panels, in order.
        rows: What stands along the vertical axis; one empty text for bars.
        columns: What stands along the horizontal axis.
        row_title: The name of the vertical axis.
        column_title: The name of the horizontal axis.
        left_out: How many panels there are beside these.
    """

    panels: tuple[Panel, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_title: str
    column_title: str
    left_out: int = 0

    @property
    def bars(self) -> bool:
        """Whether these are bars: a single row."""
        return len(self.rows) == 1 and not self.row_title

    @property
    def largest(self) -> float:
        """The largest effect of all panels, without its sign."""
        return max((panel.largest for panel in self.panels), default=0.0)

    @property
    def limit(self) -> float:
        """The effect at both ends of a colour scale, so long that no rounding looks strong."""
        return max(self.largest, LEAST) if self.largest else 1.0


def image_dims(dims: Sequence[str]) -> tuple[str, ...]:
    """Return the dimensions that span an image: two where there are two, else those there are.

    Example:
        >>> image_dims(("layer", "head", "receiver")), image_dims(("sender",))
        (('layer', 'head'), ('sender',))
    """
    for pair in _PAIRS:
        if set(pair) <= set(dims):
            return pair
    swept = [dim for dim in dims if dim != "metric"]
    return tuple(swept[:2])


def lay_out(
    effects: Effects, statistics: xr.Dataset | None = None, max_panels: int | None = None
) -> Grid:
    """Return the panels of some effects.

    Args:
        effects: What is to be shown.
        statistics: Over the same cells, with ``effect`` (shown instead of the effects' own),
            ``ci_low``, ``ci_high`` and ``significant``.
        max_panels: Keep at most this many panels: those with the largest effects, in order.
    """
    values = effects.normalized() if statistics is None else statistics["effect"]
    dims = image_dims(tuple(map(str, values.dims)))
    others = tuple(str(dim) for dim in values.dims if dim not in dims)
    names = effects.names
    layers = {"values": values, "names": names.broadcast_like(values)}
    for key in ("ci_low", "ci_high", "significant"):
        empty = xr.full_like(values, False if key == "significant" else np.nan, dtype=None)
        layers[key] = empty if statistics is None else statistics[key]
    arrays = {key: array.transpose(*others, *dims) for key, array in layers.items()}
    panels = [
        _panel(arrays, dict(zip(others, places, strict=True)), dims)
        for places in product(*(range(values.sizes[dim]) for dim in others))
    ]
    filled = [number for number, panel in enumerate(panels) if panel.filled.any()] or [0]
    kept = sorted(filled, key=lambda number: -panels[number].largest)[:max_panels]
    row, column = dims if len(dims) == 2 else ("", *dims) if dims else ("", "")
    return Grid(
        panels=tuple(panels[number] for number in sorted(kept)),
        rows=_texts(values, row) if row else ("",),
        columns=_columns(values, column, names) if not row else _texts(values, column),
        row_title=_words(row),
        column_title="" if not row and column == "sender" else _words(column),
        left_out=len(filled) - len(kept),
    )


def _panel(
    arrays: Mapping[str, xr.DataArray], at: Mapping[str, int], dims: tuple[str, ...]
) -> Panel:
    cut = {key: array.isel(at) for key, array in arrays.items()}
    shape = tuple(cut["values"].sizes[dim] for dim in dims)
    high, wide = (1, *shape)[-2:] if shape else (1, 1)
    flat = {key: array.to_numpy().reshape(high, wide) for key, array in cut.items()}
    return Panel(
        title=_title(cut["values"], cut["names"], tuple(at)),
        values=flat["values"].astype(np.float64),
        names=flat["names"].astype(np.str_),
        low=flat["ci_low"].astype(np.float64),
        high=flat["ci_high"].astype(np.float64),
        significant=flat["significant"].astype(np.bool_),
    )


def _title(values: xr.DataArray, names: xr.DataArray, fixed: tuple[str, ...]) -> str:
    """Return what sets a panel apart: its receiver, its position, its metric."""
    parts = []
    receivers = {dim for dim in fixed if dim.startswith("receiver")}
    if receivers:
        first = str(names.to_numpy().ravel()[0]).rpartition(" -> ")[2]
        # A swept position stands along an axis, or in a part of the title of its own.
        parts.append(f"→ {first.partition('@')[0] if 'position' in values.coords else first}")
    for dim in fixed:
        value = values[dim].item()
        if dim == "position":
            parts.append(f"position {value}")
        elif dim in ("metric", "sender"):
            parts.append(str(value))
        elif dim not in receivers:
            parts.append(f"{_words(dim)} {value}")
    return ", ".join(parts)


def _texts(values: xr.DataArray, dim: str) -> tuple[str, ...]:
    """Return what stands along an axis; positions have an axis or panels of their own."""
    return tuple(str(step).replace("@each", "") for step in values[dim].to_numpy().tolist())


def _columns(values: xr.DataArray, dim: str, names: xr.DataArray) -> tuple[str, ...]:
    """Return what stands below bars: the names of the cells where they are one per bar."""
    if names.ndim <= 1:
        return tuple(map(str, names.to_numpy().ravel().tolist()))
    return _texts(values, dim)


def _words(dim: Any) -> str:
    return str(dim).replace("_", " ")
