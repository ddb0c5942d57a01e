"""What every task returns: the prompts as tokens and as text, their positions, their metric."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.errors import Problems, PromptError
from circuitgraph.metrics import as_metric
from circuitgraph.tasks.joining import joined, picked_metric
from circuitgraph.tasks.showing import as_html, as_text

__all__ = ["Answer", "Task"]

Answer = str | tuple[str, ...]
"""One answer, or all that are right; an empty tuple for none."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Pairs of prompts, clean and corrupt, aligned token for token, and how to measure a model.

    What `Experiment` takes is here under its own names: `clean`, `corrupt`, `metric`, `positions`.
    Prompts of different lengths are padded on the right, which changes nothing for a causal model;
    positions are counted from the left and never point into padding.

    Attributes:
        name: The task's short name.
        question: What the task asks of a model, in one sentence.
        clean: Tokens that are run and measured.
        corrupt: Tokens that supply the values patched in.
        clean_text: The clean prompts as text.
        corrupt_text: The corrupt prompts as text.
        answers: Per prompt, the correct and the incorrect continuation as text; a tuple of texts
            where several are correct, an empty one where none is called incorrect.
        positions: Named positions in the clean prompts, one index per prompt.
        corrupt_positions: The same names in the corrupt prompts.
        metric: What is measured: a metric or any function of logits, as `Experiment` takes it.
        lengths: Tokens of each prompt, padding not counted.
        from_text: Whether the prompts are texts; otherwise they are tokens, and the texts only show
            what these stand for.

    Raises:
        PromptError: The parts do not fit together; all problems are listed at once.
    """

    name: str
    question: str
    clean: Int[Tensor, "prompt pos"]
    corrupt: Int[Tensor, "prompt pos"]
    clean_text: tuple[str, ...]
    corrupt_text: tuple[str, ...]
    answers: tuple[tuple[Answer, Answer], ...]
    positions: Mapping[str, Int[Tensor, " prompt"]]
    corrupt_positions: Mapping[str, Int[Tensor, " prompt"]]
    metric: Any
    lengths: Int[Tensor, " prompt"]
    from_text: bool = True

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        problems = Problems()
        for problem in self._misfits():
            problems.add(PromptError(problem))
        problems.raise_if_any(f"task {self.name!r} is not well formed")

    def __len__(self) -> int:
        """Return the number of prompt pairs."""
        return len(self.clean_text)

    @property
    def answer_texts(self) -> tuple[tuple[str, str], ...]:
        """The answers for reading: several as one text, with slashes between them."""
        return tuple((_joined(right), _joined(wrong)) for right, wrong in self.answers)

    # -- other tasks from it ---------------------------------------------------------------------

    def with_metric(self, metric: Any) -> "Task":
        """Return the same prompts with another metric.

        Raises:
            MetricError: It is no metric.
        """
        as_metric(metric)
        return replace(self, metric=metric)

    def pick(self, prompts: Sequence[int]) -> "Task":
        """Return the task of some of the prompts, by their numbers.

        Raises:
            PromptError: There are no such prompts, or the metric is a function, of which nobody
                knows how it goes with the prompts.
        """
        rows = list(prompts)
        if not rows or not all(0 <= row < len(self) for row in rows):
            raise PromptError(f"task {self.name!r} has the prompts 0..{len(self) - 1}, got {rows}")
        width = int(self.lengths[rows].max())
        return replace(
            self,
            clean=self.clean[rows, :width],
            corrupt=self.corrupt[rows, :width],
            clean_text=tuple(self.clean_text[row] for row in rows),
            corrupt_text=tuple(self.corrupt_text[row] for row in rows),
            answers=tuple(self.answers[row] for row in rows),
            positions={name: index[rows] for name, index in self.positions.items()},
            corrupt_positions={name: index[rows] for name, index in self.corrupt_positions.items()},
            metric=picked_metric(self.metric, rows, len(self)),
            lengths=self.lengths[rows],
        )

    def split(self, share: float = 0.5, seed: int = 0) -> "tuple[Task, Task]":
        """Return two tasks: prompts to find something on, and prompts held out to test it on.

        Args:
            share: Of the prompts in the first one.
            seed: Which prompts; each part keeps their order.

        Raises:
            PromptError: One part would have no prompts.
        """
        first = round(len(self) * share)
        if not 0 < first < len(self):
            raise PromptError(
                f"a share of {share} of {len(self)} prompts leaves one part without any"
            )
        chosen = set(random.Random(seed).sample(range(len(self)), first))
        return (
            self.pick(sorted(chosen)),
            self.pick([row for row in range(len(self)) if row not in chosen]),
        )

    def __add__(self, other: "Task") -> "Task":
        """Return the prompts of both, one after the other.

        Raises:
            PromptError: They name different positions or measure different things.
        """
        if not isinstance(other, Task):
            return NotImplemented
        return Task(**joined(self, other))

    # -- showing it ------------------------------------------------------------------------------

    def __str__(self) -> str:
        """Show the question and the first pairs, as a person would want to read them."""
        return as_text(self)

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    # -- what must hold --------------------------------------------------------------------------

    def _misfits(self) -> Iterator[str]:
        """Say in words each thing that does not fit the number of prompts or their lengths."""
        if self.clean.ndim != 2 or self.clean.shape != self.corrupt.shape:
            yield (
                "clean and corrupt must be two token tensors [prompt, pos] of one shape, "
                f"got {tuple(self.clean.shape)} and {tuple(self.corrupt.shape)}"
            )
            return
        n, width = self.clean.shape
        if n == 0:
            yield "it holds no prompts"
        for what in ("clean_text", "corrupt_text", "answers", "lengths"):
            if len(getattr(self, what)) != n:
                yield f"{what} has {len(getattr(self, what))} entries for {n} prompts"
        if len(self.lengths) != n:
            return
        if bool(((self.lengths < 1) | (self.lengths > width)).any()):
            yield f"lengths must be 1..{width}, got {self.lengths.tolist()}"
        if self.positions.keys() != self.corrupt_positions.keys():
            yield (
                "positions and corrupt_positions must have the same names, "
                f"got {sorted(self.positions)} and {sorted(self.corrupt_positions)}"
            )
        yield from self._misplaced("positions", self.positions)
        yield from self._misplaced("corrupt_positions", self.corrupt_positions)

    def _misplaced(self, what: str, positions: Mapping[str, Tensor]) -> Iterator[str]:
        """Say which named positions are not one index per prompt, or lie outside their prompt."""
        for name, indices in positions.items():
            if indices.shape != self.lengths.shape or indices.dtype != torch.int64:
                yield (
                    f"{what}[{name!r}] must be an int64 tensor of {len(self.lengths)} indices, "
                    f"got {indices.dtype} of shape {tuple(indices.shape)}"
                )
            elif bool(((indices < 0) | (indices >= self.lengths)).any()):
                yield f"{what}[{name!r}] points outside its prompt, got {indices.tolist()}"


def _joined(answer: Answer) -> str:
    return answer if isinstance(answer, str) else "/".join(answer)
