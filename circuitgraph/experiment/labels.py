"""Putting names to numbers."""

import json
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitgraph.effects import Effects
from circuitgraph.lens.backend import Backend
from circuitgraph.plan import Plan

__all__ = ["Measurements", "labelled"]

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured.

    Args:
        patched: The metrics of every patched run, ``[metric *axes prompt]``.
        clean: The metrics of the clean run, ``[metric prompt]``.
        corrupt: The metrics of the corrupt run, ``[metric prompt]``.
        noise: How much of the metrics is rounding, ``[metric prompt]``.
    """

    patched: Values
    clean: Values
    corrupt: Values
    noise: Values


def labelled(
    plan: Plan,
    measured: Measurements,
    *,
    engine: str,
    estimate: bool,
    metrics: tuple[str, ...],
    names: tuple[str, ...] | None,
    backend: Backend,
    prompts: str,
) -> Effects:
    """Return measured values as effects.

    Args:
        plan: What was run.
        measured: The numbers.
        engine: Which engine ran the plan.
        estimate: Whether it estimates.
        metrics: What each metric calls itself.
        names: What the user calls them; None for one metric without a dimension of its own.
        backend: The model, for its name, shape and type.
        prompts: The prompts' fingerprint.
    """
    attrs = {
        "request": str(plan.request),
        "variant": str(plan.variant),
        "mode": plan.mode,
        "source": plan.source,
        "engine": engine,
        "metric": metrics[0] if names is None else ", ".join(names),
        **({} if names is None else {"measures": list(metrics)}),
        **({"estimate": True} if estimate else {}),
        "dtype": str(backend.limits.dtype).removeprefix("torch."),
        "model": backend.name,
        "shape": json.dumps(asdict(backend.shape)),
        "n_prompts": measured.clean.shape[-1],
        "prompts": prompts,
    }
    dims = tuple(axis.dim for axis in plan.axes)
    of_metric = () if names is None else ("metric",)
    arrays = {
        "patched": ((*of_metric, *dims, "prompt"), measured.patched),
        "clean": ((*of_metric, "prompt"), measured.clean),
        "corrupt": ((*of_metric, "prompt"), measured.corrupt),
        "noise": ((*of_metric, "prompt"), measured.noise),
    }
    if names is None:
        arrays = {name: (where, array[0]) for name, (where, array) in arrays.items()}
    coords: dict[str, list[int | str]] = {axis.dim: list(axis.values) for axis in plan.axes}
    if names is not None:
        coords["metric"] = list(names)
    return Effects(xr.Dataset(arrays, coords=coords, attrs=attrs))
