"""Running some cells of a sweep and leaving out the others."""

from typing import Any

import numpy as np

from circuitgraph.errors import RequestError
from circuitgraph.plan import Plan

__all__ = ["plan_of_cells"]


def plan_of_cells(plan: Plan, only: Any) -> Plan:
    """Return a plan of some of the cells; they keep their places.

    Args:
        plan: The whole plan.
        only: Which cells, truth values of the plan's shape.

    Raises:
        RequestError: Not truth values of that shape, or no cell among them.
    """
    chosen = np.asarray(only)
    if chosen.dtype != np.bool_ or chosen.shape != plan.shape:
        raise RequestError(
            f"only says which cells to run, truth values of shape {plan.shape}, got "
            f"{chosen.dtype} of shape {chosen.shape}"
        )
    numbers = np.flatnonzero(chosen[tuple(plan.sweep.places().T)])
    if not len(numbers):
        raise RequestError(f"only leaves no cell of {plan.title!r} that could be run")
    return plan.part(numbers.tolist())
