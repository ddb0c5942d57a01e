"""Running some cells of a sweep and leaving out the others."""

import os
from typing import Any

import numpy as np

from circuitgraph.errors import RequestError
from circuitgraph.plan import Plan

__all__ = ["check_size", "plan_of_cells"]

MOST_CELLS = 1_000_000
"""How many cells are measured at once, unless the environment variable below says otherwise."""

RAISED_BY = "CIRCUITGRAPH_MAX_CELLS"


def check_size(plan: Plan, *, is_estimate: bool) -> None:
    """Refuse to measure more cells one by one than anybody can mean; estimates cost no cell.

    Raises:
        RequestError: The plan has more cells than the limit, or the limit is no whole number.
    """
    given, n_cells = os.environ.get(RAISED_BY, str(MOST_CELLS)), len(plan.cells)
    if not given.isdecimal():
        raise RequestError(f"{RAISED_BY}={given!r} must be a whole number")
    if is_estimate or n_cells <= int(given):
        return
    raise RequestError(
        f"{plan.title!r} has {n_cells:,} cells, more than {int(given):,}: name fewer nodes, choose "
        f"cells with only=, estimate with engine=cg.EAP(), or raise the limit with {RAISED_BY}"
    )


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
