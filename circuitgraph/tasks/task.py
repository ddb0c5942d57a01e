"""What every task returns: the prompts as tokens and as text, their positions, their metric."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.errors import Problems, PromptError
from circuitgraph.metrics import LogitDiff

__all__ = ["Task"]

_SHOWN = 3


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
        answers: Per prompt, the correct and the incorrect continuation as text.
        positions: Named positions in the clean prompts, one index per prompt.
        corrupt_positions: The same names in the corrupt prompts.
        metric: The logit difference of the two answers at the prompt's last token.
        lengths: Tokens of each prompt, padding not counted.

    Raises:
        PromptError: The parts do not fit together; all problems are listed at once.
    """

    name: str
    question: str
    clean: Int[Tensor, "prompt pos"]
    corrupt: Int[Tensor, "prompt pos"]
    clean_text: tuple[str, ...]
    corrupt_text: tuple[str, ...]
    answers: tuple[tuple[str, str], ...]
    positions: Mapping[str, Int[Tensor, " prompt"]]
    corrupt_positions: Mapping[str, Int[Tensor, " prompt"]]
    metric: LogitDiff
    lengths: Int[Tensor, " prompt"]

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        problems = Problems()
        for problem in self._misfits():
            problems.add(PromptError(problem))
        problems.raise_if_any(f"task {self.name!r} is not well formed")

    def __len__(self) -> int:
        """Return the number of prompt pairs."""
        return len(self.clean_text)

    def __str__(self) -> str:
        """Show the question and the first pairs, as a person would want to read them."""
        lines = [f"{self.name}: {self.question} ({len(self)} prompt pairs)"]
        pairs = zip(self.clean_text, self.corrupt_text, self.answers, strict=True)
        for number, (clean, corrupt, (correct, incorrect)) in enumerate(pairs):
            if number == _SHOWN:
                lines.append(f"  ... and {len(self) - _SHOWN} more")
                break
            lines.append(f"  clean    {clean} ->{correct}, not{incorrect}")
            lines.append(f"  corrupt  {corrupt}")
        return "\n".join(lines)

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
