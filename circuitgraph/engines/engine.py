"""What an engine is: the seam between an experiment and whatever answers its plans.

An engine is prepared on a setup and shares nothing with another engine but that setup: clean,
corrupt and patched runs are all measured by itself, in one arithmetic, so that what an engine says
about a patch never depends on a second one. `EngineChoice` is what ``engine=`` takes: a value that
says which engine, and prepares it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.setup import Setup
from circuitgraph.plan import Plan

__all__ = ["Engine", "EngineChoice", "EngineOptions", "MeasuredCells"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an experiment says to every engine.

    Args:
        memory_budget: What an engine may hold at once: bytes, ``"2GiB"``, or None for a fraction of
            what is free.
        self_check: Whether an engine that replays parts of the model first proves that it can.
        at_once: How many prompts an engine may run at once; None for as many as fit.
    """

    memory_budget: str | int | None = None
    self_check: bool = True
    at_once: int | None = None


@dataclass(frozen=True, slots=True)
class MeasuredCells:
    """Some cells of a plan on some of the prompts, measured.

    Args:
        cells: Their numbers in the plan.
        prompts: Which prompts of the setup.
        values: The metric of each cell, as `Readout.split` reads it.
    """

    cells: Sequence[int]
    prompts: slice
    values: Float[Tensor, "cell value"]


@runtime_checkable
class Engine(Protocol):
    """Answers plans on one setup."""

    @property
    def name(self) -> str:
        """What the engine is called in results."""

    @property
    def setup(self) -> Setup:
        """The experiment that it was prepared on."""

    @property
    def clean_metric(self) -> Float[Tensor, "value"]:
        """The metric on the clean prompts, measured by this engine."""

    @property
    def corrupt_metric(self) -> Float[Tensor, "value"]:
        """The metric on the corrupt prompts, measured by this engine."""

    def answering(self, plan: Plan) -> "Engine":
        """Return the engine that answers a plan: this one, or one that can where this one cannot.

        Clean, corrupt and patched values of one result must come from what this returns.
        """

    def with_setup(self, setup: Setup) -> "Engine":
        """Return an engine of the same kind for other patched values or metrics.

        It may share recordings: ``setup`` has the same model and prompts.
        """

    def run(self, plan: Plan) -> Iterator[MeasuredCells]:
        """Yield the plan's cells, measured, as they come: every cell on every prompt once."""


@runtime_checkable
class EngineChoice(Protocol):
    """A value that says which engine is to answer; it is compared and hashed by value."""

    @property
    def name(self) -> str:
        """What the engine is called: in names of comparisons, and in ``attrs["engine"]``."""

    @property
    def is_estimate(self) -> bool:
        """Whether it estimates. Results then say so: ``attrs["estimate"]`` is True."""

    def prepare(self, setup: Setup, options: EngineOptions) -> Engine:
        """Return the engine on an experiment; nothing is run yet."""
