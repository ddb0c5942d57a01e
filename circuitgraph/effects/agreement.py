"""Whether effects can be set side by side, and how far two of them agree."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitgraph.effects.checks import reading_problem
from circuitgraph.effects.results import Effects
from circuitgraph.effects.tables import ranked

__all__ = ["TAKEN", "agreement", "what_differs"]

TAKEN = frozenset(
    {
        *("name", "label", "metric", "position", "sender", "receiver", "layer", "head", "kv_head"),
        *("difference", "ci_low", "ci_high", "differs", "range"),
    }
)
"""Columns of the tables of a comparison: what is compared cannot be called so."""

HALF = frozenset({"bfloat16", "float16"})


def what_differs(one: Effects, other: Effects) -> str | None:
    """Return how two effects differ in cells or readings, or None where they can be compared."""
    if one.dims != other.dims:
        return f"cells over ({', '.join(one.dims)}) against ({', '.join(other.dims)})"
    first, second = one.data, other.data
    for dim in one.dims:
        a, b = first[dim].to_numpy(), second[dim].to_numpy()
        if not np.array_equal(a, b):
            if len(a) != len(b):
                return f"{dim} has {len(a)} cells against {len(b)}"
            at = int((a != b).argmax())
            return f"{dim} has {a[at]} against {b[at]} at place {at}"
    engines = {data.attrs.get("engine") for data in (first, second)}
    if len(engines) == 1:
        return reading_problem(first, second)
    # Each engine measures clean and corrupt in an arithmetic of its own.
    half = HALF & {str(data.attrs.get("dtype")) for data in (first, second)}
    return reading_problem(first, second, at_least=5e-2 if half else 1e-4)


def agreement(
    a: NDArray[np.float64], b: NDArray[np.float64], labels: NDArray[np.str_], k: int
) -> dict[str, Any]:
    """Return correlations, shared strongest cells and the largest difference of two effects."""
    from scipy import stats

    both = ~np.isnan(a) & ~np.isnan(b)
    a, b, labels = a[both], b[both], labels[both]
    k = min(k, len(a))
    varied = len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0
    apart = np.abs(a - b)
    shared = len(set(ranked(a, "absolute")[:k].tolist()) & set(ranked(b, "absolute")[:k].tolist()))
    return {
        "n_cells": len(a),
        "pearson": float(stats.pearsonr(a, b).statistic) if varied else np.nan,
        "spearman": float(stats.spearmanr(a, b).statistic) if varied else np.nan,
        "sign": float((np.sign(a) == np.sign(b)).mean()) if k else np.nan,
        "k": k,
        "shared": shared,
        "jaccard": shared / (2 * k - shared) if k else np.nan,
        "max_difference": float(apart.max()) if k else np.nan,
        "at": str(labels[apart.argmax()]) if k else "",
    }
