"""Effects and their statistics as labelled data sets and as tables with one row per cell."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from circuitgraph.arguments import flag, whole
from circuitgraph.effects.cells import cell_columns
from circuitgraph.effects.checks import cell_dims
from circuitgraph.effects.statistics import Measured, Measurement
from circuitgraph.errors import EffectsError

if TYPE_CHECKING:
    from circuitgraph.effects.results import Effects

__all__ = ["as_dataset", "ranked", "rows", "significant_table", "top_table", "whole_table"]


def as_dataset(data: xr.Dataset, measured: Measured, how: Measurement) -> xr.Dataset:
    """Return statistics over the cells of the data they were made from."""
    dims = cell_dims(data)
    shape = tuple(data.sizes[dim] for dim in dims)
    coords = {name: coord for name, coord in data.coords.items() if set(coord.dims) <= set(dims)}
    columns = {name: values.reshape(shape) for name, values in _columns(measured).items()}
    tested = int((~np.isnan(measured.p)).sum())
    return xr.Dataset(
        {name: (dims, values.copy()) for name, values in columns.items()},
        coords=coords,
        attrs=how.describe(tested, int(data.sizes["prompt"])),
    )


def rows(data: xr.Dataset, measured: Measured, chosen: NDArray[np.intp]) -> pd.DataFrame:
    """Return the chosen cells as a table: name, coordinates, statistics."""
    columns: dict[str, Any] = cell_columns(data) | _columns(measured)
    return pd.DataFrame({name: values[chosen] for name, values in columns.items()})


def ranked(effect: NDArray[np.float64], by: str) -> NDArray[np.intp]:
    """Return the numbers of the filled cells, the strongest first; equals keep their order."""
    match by if isinstance(by, str) else None:
        case "absolute":
            key, asked = -np.abs(effect), ~np.isnan(effect)
        case "negative":
            key, asked = effect, effect < 0
        case "positive":
            key, asked = -effect, effect > 0
        case _:
            raise EffectsError(f"by must be 'absolute', 'negative' or 'positive', got {by!r}")
    order = np.argsort(key, kind="stable")
    return order[asked[order]]


def top_table(effects: "Effects", n: int, by: str, how: Measurement) -> pd.DataFrame:
    """Return the strongest cells; only theirs are resampled, so many cells cost little."""
    n = whole("n", n, EffectsError, 1)
    chosen = ranked(effects.normalized().to_numpy().ravel(), by)[:n]
    return rows(effects.data, effects.measure(how, chosen), chosen)


def significant_table(effects: "Effects", how: Measurement) -> pd.DataFrame:
    """Return the cells that stand out from zero."""
    found = effects.measure(how, np.array([], dtype=np.intp))
    order = ranked(found.effect, "absolute")
    chosen = order[found.significant[order]]
    return rows(effects.data, effects.measure(how, chosen), chosen)


def whole_table(effects: "Effects", how: Measurement, *, empty: bool) -> pd.DataFrame:
    """Return every cell in order."""
    flag("empty", empty, EffectsError)
    measured = effects.measure(how)
    asked = np.ones(len(measured.effect), dtype=bool) if empty else ~np.isnan(measured.effect)
    return rows(effects.data, measured, np.flatnonzero(asked))


def _columns(measured: Measured) -> dict[str, NDArray[Any]]:
    return {field.name: getattr(measured, field.name) for field in fields(measured)}
