"""From a plan to what is really run: pure passes over plain data, no torch.

A plan says what the answer means, one request at a time. A `Schedule` says how to get the same
numbers with less work: equal runs shared, frozen modules replayed, untouched layers and positions
left out, requests stacked. Each pass is a function from schedule to schedule that can be left out.
"""

from collections.abc import Callable

from circuitgraph.arguments import collection
from circuitgraph.errors import RequestError
from circuitgraph.plan import Plan
from circuitgraph.schedule.passes import (
    replay_frozen,
    share_runs,
    trim_layers,
    trim_positions,
)
from circuitgraph.schedule.schedule import Job, Schedule, Stage, Where

__all__ = [
    "PASSES",
    "Job",
    "Schedule",
    "Stage",
    "Where",
    "replay_frozen",
    "schedule",
    "share_runs",
    "trim_layers",
    "trim_positions",
]

Pass = Callable[[Schedule], Schedule]

PASSES: tuple[Pass, ...] = (share_runs, trim_layers, replay_frozen, trim_positions)
"""All passes, in order. The stacking itself depends on memory and happens when a stage is run."""


def schedule(plan: Plan, passes: tuple[Pass, ...] = PASSES) -> Schedule:
    """Return what to run for a plan.

    Args:
        plan: A linted plan.
        passes: Which passes to apply; leaving one out costs time, never correctness.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> plan = compile(ModelGraph(ModelShape(12, 12)), "5.5 -> head.q => logits")
        >>> [(stage.name, len(stage.jobs)) for stage in schedule(plan).stages]
        [('send', 1), ('measure', 72)]
    """
    found = Schedule.of(plan)
    for apply in collection("passes", passes, "passes, such as cg.schedule.PASSES", RequestError):
        if not callable(apply) or isinstance(apply, type):
            raise RequestError(f"a pass takes a schedule and returns one, got {apply!r}")
        found = apply(found)
    return found
