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

__all__ = ["Advance", "Asked", "Description", "Executor", "Finished", "InProcess"]

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
        parts: What it is cut into.
        passes: What all parts cost, in forward passes over all prompts.
        seconds: What all parts take in this process, as estimated; None where nothing was tried.
    """

    manifest: Manifest
    frame: Frame
    parts: tuple[Part, ...]
    passes: float = 0.0
    seconds: float | None = None


class Asked(Protocol):
    """A question that a process with a model has prepared to answer."""

    @property
    def question(self) -> Question:
        """What was asked."""

    def measure(self, part: Part, advance: Advance) -> Finished:
        """Run one part."""


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
