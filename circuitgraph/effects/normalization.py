"""From the metric's readings to effects: what patching changed, over clean minus corrupt."""

import numpy as np
import xarray as xr

from circuitgraph.effects.checks import cell_dims, precision
from circuitgraph.effects.statistics import Signal
from circuitgraph.errors import EffectsError

__all__ = ["changes", "normalized", "signal_of"]


def changes(data: xr.Dataset) -> xr.DataArray:
    """Return ``patched - clean`` for every cell and prompt."""
    wide = data[["patched", "clean"]].astype(np.float64)
    change = wide["patched"] - wide["clean"]
    return change.transpose(*cell_dims(data), "prompt").rename("difference")


def normalized(data: xr.Dataset, *, per_prompt: bool) -> xr.DataArray:
    """Return the change over the mean of clean minus corrupt, which must not be zero."""
    clean, corrupt = _means(data)
    change = changes(data)
    with np.errstate(over="ignore"):
        effect = (change if per_prompt else change.mean("prompt")) / (clean - corrupt)
    if bool(np.isinf(effect).any()):
        raise _undefined(clean, corrupt, "is too close to")
    return effect.rename("normalized")


def signal_of(data: xr.Dataset) -> Signal:
    """Return what statistics are made of: changes and spans per prompt, flat over the cells."""
    _means(data)
    n_metrics, n_prompts = data.sizes.get("metric", 1), data.sizes["prompt"]
    arrays = [data[name].to_numpy() for name in ("patched", "clean", "corrupt")]
    step = precision(*arrays)
    patched, clean, corrupt = (
        array.astype(np.float64).reshape(n_metrics, -1, n_prompts) for array in arrays
    )
    noise = 4 * step * np.maximum(np.abs(patched), np.abs(clean))
    if "noise" in data:
        noise = np.maximum(noise, data["noise"].to_numpy().reshape(n_metrics, 1, n_prompts))
    return Signal(patched - clean, (clean - corrupt)[:, 0, :], noise)


def _means(data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the mean clean and corrupt metric, known to differ by more than rounding."""
    readings = [data[name] for name in ("clean", "corrupt")]
    step = precision(*(reading.to_numpy() for reading in readings))
    clean, corrupt = (reading.astype(np.float64).mean("prompt") for reading in readings)
    size, other = (abs(reading.astype(np.float64)).mean("prompt") for reading in readings)
    if bool((abs(clean - corrupt) <= 4 * step * np.maximum(size, other)).any()):
        raise _undefined(clean, corrupt, "equals")
    if "noise" in data and bool((abs(clean - corrupt) <= data["noise"].mean("prompt")).any()):
        raise _undefined(clean, corrupt, "equals, but for rounding of the model's logits,")
    return clean, corrupt


def _undefined(clean: xr.DataArray, corrupt: xr.DataArray, relation: str) -> EffectsError:
    which = ""
    if clean.ndim:
        worst = int(np.abs(clean.to_numpy() - corrupt.to_numpy()).argmin())
        which = f" of {clean['metric'].to_numpy()[worst]}"
        clean, corrupt = clean[worst], corrupt[worst]
    return EffectsError(
        f"effects cannot be normalized: the mean{which} over clean prompts "
        f"({clean.item():.6g}) {relation} the mean over corrupt prompts "
        f"({corrupt.item():.6g}); difference() gives the raw changes"
    )
