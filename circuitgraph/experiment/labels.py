"""Saying in plain values what was asked."""

import json
from dataclasses import asdict
from typing import Any

from circuitgraph.lens.backend import Backend
from circuitgraph.plan import Plan

__all__ = ["attributes"]


def attributes(
    plan: Plan,
    *,
    engine: str,
    estimate: bool,
    metrics: tuple[str, ...],
    names: tuple[str, ...] | None,
    backend: Backend,
    prompts: str,
    n_prompts: int,
) -> dict[str, Any]:
    """Return what effects say of themselves.

    Args:
        plan: What was run.
        engine: Which engine ran the plan.
        estimate: Whether it estimates.
        metrics: What each metric calls itself.
        names: What the user calls them; None for one metric without a dimension of its own.
        backend: The model, for its name, shape and type.
        prompts: The prompts' fingerprint.
        n_prompts: How many there are.
    """
    return {
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
        "n_prompts": n_prompts,
        "prompts": prompts,
    }
