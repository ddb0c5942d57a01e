"""In how many stacks a schedule is run within a memory budget, told before it is run."""

from math import ceil

from torch import Tensor

from circuitgraph.engines.fast.measure import bytes_per_row, first_position, most_ports
from circuitgraph.engines.fast.memory import rows_that_fit
from circuitgraph.engines.fast.send import Sender
from circuitgraph.engines.fast.state import State
from circuitgraph.schedule import Schedule, Stage

__all__ = ["count_stacks"]


def count_stacks(state: State, schedule: Schedule, budget: int) -> tuple[int, ...]:
    """Return the number of stacks of each stage.

    Args:
        state: The experiment, recorded.
        schedule: What is to be run.
        budget: What a stack may take.
    """

    def recorded_at(number: int) -> Tensor | None:
        return Sender(state, schedule.stages[number], {}).places

    def needed(stage: Stage) -> int:
        match stage.name:
            case "send":
                return Sender(state, stage, {}).bytes_per_row
            case "recompute":
                return bytes_per_row(state, 0, most_ports(stage))
            case "measure":
                return bytes_per_row(
                    state, first_position(state, stage, recorded_at), most_ports(stage)
                )
            case _:
                return 0

    return tuple(
        ceil(len(stage.jobs) / rows_that_fit(budget, needed(stage))) for stage in schedule.stages
    )
