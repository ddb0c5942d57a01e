"""Putting names to numbers."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from circuitgraph.effects import Effects
from circuitgraph.graph import ModelShape
from circuitgraph.plan import Plan

__all__ = ["labelled"]

Values = np.ndarray[Any, Any]


def labelled(
    plan: Plan,
    grid: Values,
    clean: Values,
    corrupt: Values,
    noise: Values,
    *,
    engine: str,
    estimate: bool,
    metric: str,
    model: str,
    dtype: str,
    shape: ModelShape,
    prompts: str,
) -> Effects:
    """Return measured values as effects.

    Args:
        plan: What was run.
        grid: The metric of every patched run, ``[*axes prompt]``.
        clean: The metric of the clean run, ``[prompt]``.
        corrupt: The metric of the corrupt run, ``[prompt]``.
        noise: How much of the metric is rounding, ``[prompt]``.
        engine: Which engine ran the plan.
        estimate: Whether it estimates.
        metric: What the metric is called.
        model: What the model is called.
        dtype: What its weights are held in.
        shape: Its shape.
        prompts: The prompts' fingerprint.
    """
    attrs = {
        "request": str(plan.request),
        "variant": str(plan.variant),
        "mode": plan.mode,
        "source": plan.source,
        "engine": engine,
        "metric": metric,
        **({"estimate": True} if estimate else {}),
        "dtype": dtype,
        "model": model,
        "shape": json.dumps(asdict(shape)),
        "n_prompts": len(clean),
        "prompts": prompts,
    }
    dims = tuple(axis.dim for axis in plan.axes)
    values = {
        "patched": ((*dims, "prompt"), grid),
        "clean": (("prompt",), clean),
        "corrupt": (("prompt",), corrupt),
        "noise": (("prompt",), noise),
    }
    coords = {axis.dim: list(axis.values) for axis in plan.axes}
    return Effects(xr.Dataset(values, coords=coords, attrs=attrs))
