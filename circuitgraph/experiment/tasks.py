"""A task given whole: prompts, positions and metric together, so that none of them is forgotten."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from circuitgraph.errors import Problems, PromptError
from circuitgraph.experiment.prompts import PositionsGiven, PromptsGiven

__all__ = ["TaskGiven", "TaskParts", "task_parts"]


@runtime_checkable
class TaskGiven(Protocol):
    """What a task brings along, such as a `circuitgraph.tasks.Task`."""

    @property
    def clean(self) -> Int[Tensor, "prompt pos"]:
        """Tokens that are run and measured."""

    @property
    def corrupt(self) -> Int[Tensor, "prompt pos"]:
        """Tokens that supply the patched values."""

    @property
    def metric(self) -> Any:
        """What is measured."""

    @property
    def positions(self) -> Mapping[str, Int[Tensor, "prompt"]]:
        """Named positions in the clean prompts."""

    @property
    def corrupt_positions(self) -> Mapping[str, Int[Tensor, "prompt"]]:
        """The same names in the corrupt prompts."""

    @property
    def lengths(self) -> Int[Tensor, "prompt"]:
        """Real length of each prompt."""


class TaskParts(NamedTuple):
    """What an experiment is made of, whether it came one by one or as a task."""

    clean: PromptsGiven
    corrupt: Any
    metric: Any
    positions: PositionsGiven | None
    corrupt_positions: PositionsGiven | None
    lengths: Any


def task_parts(given: TaskParts, problems: Problems) -> TaskParts:
    """Return the parts of a task that was given whole; other parts are returned as they are.

    Only the metric of a task may be replaced by another one.
    """
    task: Any = given.clean
    if isinstance(task, type) or not isinstance(task, TaskGiven):
        missing = [name for name in ("corrupt", "metric") if getattr(given, name) is None]
        if missing:
            problems.add(
                PromptError(
                    f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing: give "
                    "a task whole, Experiment(model, task), or clean, corrupt and metric"
                )
            )
        return given
    for name in ("corrupt", "positions", "corrupt_positions", "lengths"):
        if getattr(given, name) is not None:
            problems.add(
                PromptError(f"{name} is given beside a task, which brings its own: leave it out")
            )
    return TaskParts(
        task.clean,
        task.corrupt,
        task.metric if given.metric is None else given.metric,
        task.positions,
        task.corrupt_positions,
        task.lengths,
    )
