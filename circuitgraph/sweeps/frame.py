"""All of a result but its patched values: names, and what clean and corrupt prompts measure."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitgraph.effects import Effects
from circuitgraph.plan import Axis

__all__ = ["Frame"]

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frame:
    """What makes effects of patched values.

    Args:
        axes: The swept dimensions.
        attrs: What was asked, in plain values.
        metrics: What the user calls the metrics; None for one without a dimension of its own.
        clean: The metrics of the clean run, ``[metric prompt]``.
        corrupt: Of the corrupt run, ``[metric prompt]``.
        noise: How much of the metrics is rounding, ``[metric prompt]``.
    """

    axes: tuple[Axis, ...]
    attrs: dict[str, Any] = field(repr=False)
    metrics: tuple[str, ...] | None
    clean: Values
    corrupt: Values
    noise: Values

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each swept dimension."""
        return tuple(len(axis.values) for axis in self.axes)

    def empty(self) -> Values:
        """Return a grid of NaN, ``[metric cell prompt]``, the swept dimensions in one."""
        n_metrics, n_prompts = self.clean.shape
        cells = int(np.prod(self.shape, dtype=np.int64))
        return np.full((n_metrics, cells, n_prompts), np.nan)

    def effects(self, patched: Values) -> Effects:
        """Return effects.

        Args:
            patched: The metrics of every patched run, ``[metric cell prompt]``; NaN in empty cells.
        """
        dims = tuple(axis.dim for axis in self.axes)
        n_metrics, n_prompts = self.clean.shape
        grid = patched.reshape(n_metrics, *self.shape, n_prompts)
        of_metric = () if self.metrics is None else ("metric",)
        arrays = {
            "patched": ((*of_metric, *dims, "prompt"), grid),
            "clean": ((*of_metric, "prompt"), self.clean),
            "corrupt": ((*of_metric, "prompt"), self.corrupt),
            "noise": ((*of_metric, "prompt"), self.noise),
        }
        if self.metrics is None:
            arrays = {name: (where, array[0]) for name, (where, array) in arrays.items()}
        coords: dict[str, list[int | str]] = {axis.dim: list(axis.values) for axis in self.axes}
        if self.metrics is not None:
            coords["metric"] = list(self.metrics)
        return Effects(xr.Dataset(arrays, coords=coords, attrs=self.attrs))
