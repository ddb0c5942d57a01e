"""Where the parts of a sweep run: the seam between what is asked and the processes that answer.

An experiment hands its parts to an executor and labels what comes back. `InProcess` is the first;
others send parts to workers that each hold a model. Order and place never change a number: a part
says by itself what it computes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from circuitgraph.sweeps.frame import Frame
from circuitgraph.sweeps.manifest import Manifest, Part
from circuitgraph.sweeps.question import Question

__all__ = [
    "Advance",
    "Answering",
    "Answers",
    "Asked",
    "Cut",
    "Description",
    "Executor",
    "Finished",
    "InProcess",
    "Sizes",
]

Advance = Callable[[float], None]
"""Told how many cells more are done."""


@dataclass(frozen=True, eq=False)
class Finished:
    """A part with its numbers.

    Args:
        part: Which.
        places: Where each cell stands in the grid, the swept dimensions in one.
        values: The metrics, ``[metric cell prompt]``.
        seconds: How long it took.
    """

    part: Part
    places: NDArray[np.int64]
    values: NDArray[np.float64]
    seconds: float


@dataclass(frozen=True, eq=False)
class Description:
    """A question as a worker understands it.

    Args:
        manifest: What is computed.
        frame: What makes effects of the numbers.
    """

    manifest: Manifest
    frame: Frame


@dataclass(frozen=True, slots=True)
class Cut:
    """What a sweep is cut into, and what it costs.

    Args:
        parts: All cells on all prompts, once each.
        passes: What all parts cost, in forward passes over all prompts.
        seconds: What all parts take on one worker, from a trial of some cells.
    """

    parts: tuple[Part, ...]
    passes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """How a sweep is to be cut.

    Args:
        seconds: How long a part is to take.
        least: How many parts there are to be, where they take a second or more each.
        cells: How many cells each part has, whatever it takes; None to go by time.
    """

    seconds: float = 20.0
    least: int = 1
    cells: int | None = None


class Asked(Protocol):
    """A question that a process with a model has prepared to answer."""

    @property
    def question(self) -> Question:
        """What was asked."""

    @property
    def manifest(self) -> Manifest:
        """What is computed."""

    @property
    def n_prompts(self) -> int:
        """How many prompts there are."""

    def measure(self, part: Part, advance: Advance) -> Finished:
        """Run one part."""


class Answering(Asked, Protocol):
    """What a worker asks of an experiment, beyond running parts."""

    def describe(self) -> Description:
        """Measure clean and corrupt prompts, and say what is computed."""

    def cut(self, sizes: Sizes) -> Cut:
        """Cut the sweep into parts, after a trial of some cells."""


class Answers(Protocol):
    """What a recipe makes: an experiment."""

    def answering(self, question: Question) -> Answering:
        """Return a question with its plan and its engine, all of it checked."""


@runtime_checkable
class Executor(Protocol):
    """Runs parts, in any order, anywhere."""

    @property
    def workers(self) -> int:
        """How many parts run at once."""

    def run(self, asked: Asked, parts: Sequence[Part], advance: Advance) -> Iterator[Finished]:
        """Yield each part with its numbers as it is finished."""


@dataclass(frozen=True, slots=True)
class InProcess:
    """Runs one part after the other in this process."""

    workers = 1

    def run(self, asked: Asked, parts: Sequence[Part], advance: Advance) -> Iterator[Finished]:
        """Yield each part with its numbers as it is finished."""
        for part in parts:
            yield asked.measure(part, advance)
