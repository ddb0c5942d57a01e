"""Metrics of answers that several tokens can give: years above another, names of one gender.

Each prompt has a set of right tokens and, most often, one of wrong ones; sets may differ in size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.arguments import collection
from circuitgraph.errors import MetricError
from circuitgraph.metrics.base import Metric, Position, Prompts, keep_copies

__all__ = ["LogOdds", "LogitMargin", "ProbabilityDiff", "TokenSets"]

TokenSets = Sequence[Sequence[int]] | Sequence[Sequence[str]]
"""Per prompt the tokens of one set: ids, or words that are single tokens."""


@dataclass(frozen=True, eq=False)
class _OfSets:
    """A metric at one position about sets of tokens; subclasses say what they make of them."""

    correct: TokenSets
    incorrect: TokenSets | None = None
    position: Position = "end"
    ids: Int[Tensor, "prompt token"] | None = None
    side: Int[Tensor, "prompt token"] | None = None

    def __post_init__(self) -> None:
        keep_copies(self)

    @property
    def name(self) -> str:
        return type(self).__name__  # pragma: no cover

    @property
    def read(self) -> Int[Tensor, "prompt"] | None:
        """The position of each prompt."""
        assert isinstance(self.position, Tensor), "metrics are bound before they are used"
        return self.position

    @property
    def tokens(self) -> Int[Tensor, "prompt token"] | None:
        """All tokens, where a probability is asked for."""
        return None

    def bind(self, prompts: Prompts) -> Metric:
        """Return the metric fitted to the prompts.

        Raises:
            MetricError: Not one set per prompt, an empty set, a word of several tokens, or a token
                in both sets of a prompt.
        """
        rows = self._rows(prompts)
        width = max(len(right) + len(wrong) for right, wrong in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        side = torch.zeros_like(ids)
        for number, (right, wrong) in enumerate(rows):
            both = [*right, *wrong]
            ids[number, : len(both)] = torch.tensor(both)
            side[number, : len(right)] = 1
            side[number, len(right) : len(both)] = -1
        return replace(
            self,
            position=prompts.position(self.position, self.name),
            ids=ids.to(prompts.device),
            side=side.to(prompts.device),
        )

    def of_prompts(self, rows: slice) -> Metric:
        """Return the bound metric of some of the prompts."""
        assert self.ids is not None
        assert self.side is not None
        assert isinstance(self.position, Tensor)
        return replace(self, position=self.position[rows], ids=self.ids[rows], side=self.side[rows])

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one number per prompt."""
        raise NotImplementedError  # pragma: no cover

    def _rows(self, prompts: Prompts) -> list[tuple[list[int], list[int]]]:
        """Return each prompt's right and wrong tokens as ids."""
        sides: list[list[list[int]]] = []
        for what, given in (("correct", self.correct), ("incorrect", self.incorrect)):
            if given is None:
                sides.append([[] for _ in range(prompts.n_prompts)])
                continue
            per_prompt = f"{self.name}'s {what} answers"
            sets = collection(per_prompt, given, "lists of tokens, one per prompt", MetricError)
            if len(sets) != prompts.n_prompts:
                raise MetricError(
                    f"{self.name} has {len(sets)} sets of {what} answers for {prompts.n_prompts} "
                    "prompts: give one list of tokens per prompt"
                )
            sides.append([self._set(row, what, at, prompts) for at, row in enumerate(sets)])
        rows = list(zip(sides[0], sides[1], strict=True))
        for number, (right, wrong) in enumerate(rows):
            if both := sorted(set(right) & set(wrong)):
                raise MetricError(
                    f"{self.name}: token {both[0]} is both correct and incorrect in prompt {number}"
                )
        return rows

    def _set(
        self, row: Sequence[int] | Sequence[str], what: str, at: int, prompts: Prompts
    ) -> list[int]:
        where = f"{self.name}'s {what} answers of prompt {at}"
        if isinstance(row, str):
            row = [row]
        row = collection(where, row, "tokens", MetricError)
        if len(row) == 0:
            raise MetricError(f"{where} are none: give at least one token")
        one = replace(prompts, n_prompts=len(row))
        found: list[int] = one.token_ids(row, where).tolist()
        if len(set(found)) < len(found):
            raise MetricError(f"{where} name a token twice")
        return found

    def _picked(self, values: Float[Tensor, "*row prompt d_vocab"]) -> Tensor:
        assert self.ids is not None
        return values.gather(-1, self.ids.expand(*values.shape[:-1], -1))

    def _side(self, which: int) -> Tensor:
        assert self.side is not None
        return self.side == which


def _summed(logits: Tensor, inside: Tensor) -> Tensor:
    """Return the logarithm of the summed exponentials of what is inside."""
    return logits.masked_fill(~inside, -torch.inf).logsumexp(dim=-1)


@dataclass(frozen=True, eq=False)
class LogOdds(_OfSets):
    """Log-probability of any right answer, less that of any wrong one where there are wrong ones.

    With one right and one wrong answer it is their logit difference; with none wrong, and one
    right, its log-probability.

    Args:
        correct: Per prompt, the tokens that are right.
        incorrect: Per prompt, those that are wrong; None where any other token is.
        position: Where the answer is read: a named position, an index, or one index per prompt.

    Example:
        >>> metric = LogOdds(correct=[[3, 2]], incorrect=[[1]], position=[0])
        >>> prompts = Prompts(1, 2, 5, {}, torch.tensor([2]))
        >>> logits = torch.tensor([[9.0, 1.0, 2.0, 2.0, 9.0]])
        >>> metric.bind(prompts).measure(logits)  # log(exp(2) + exp(2)) - 1
        tensor([1.6931])
    """

    @property
    def name(self) -> str:
        """What the metric is called in tables."""
        return "log odds" if self.incorrect is not None else "log-probability of any answer"

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one number per prompt."""
        picked = self._picked(logits)
        right = _summed(picked, self._side(1))
        if self.incorrect is None:
            return right - logits.logsumexp(dim=-1)
        return right - _summed(picked, self._side(-1))


@dataclass(frozen=True, eq=False)
class LogitMargin(_OfSets):
    """Largest logit of the right answers minus the largest of the wrong ones.

    The measure of the docstring circuit (Heimersheim and Janiak 2023).

    Args:
        correct: Per prompt, the tokens that are right.
        incorrect: Per prompt, those that are wrong.
        position: Where the answer is read: a named position, an index, or one index per prompt.

    Example:
        >>> metric = LogitMargin(correct=[[3]], incorrect=[[0, 1]], position=[0])
        >>> prompts = Prompts(1, 2, 5, {}, torch.tensor([2]))
        >>> metric.bind(prompts).measure(torch.tensor([[0.5, 1.0, 9.0, 4.0, 9.0]]))
        tensor([3.])
    """

    @property
    def name(self) -> str:
        """What the metric is called in tables."""
        return "logit margin"

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one number per prompt."""
        picked = self._picked(logits)
        right, wrong = (
            picked.masked_fill(~self._side(which), -torch.inf).amax(dim=-1) for which in (1, -1)
        )
        return right - wrong

    def _rows(self, prompts: Prompts) -> list[tuple[list[int], list[int]]]:
        if self.incorrect is None:
            raise MetricError("LogitMargin compares two sets of answers: give incorrect=, too")
        return super()._rows(prompts)


@dataclass(frozen=True, eq=False)
class ProbabilityDiff(_OfSets):
    """Probability of the right answers together, minus that of the wrong ones.

    The measure of greater-than (Hanna et al. 2023): years above minus years below.

    Args:
        correct: Per prompt, the tokens that are right.
        incorrect: Per prompt, those that are wrong; None for none.
        position: Where the answer is read: a named position, an index, or one index per prompt.

    Example:
        >>> metric = ProbabilityDiff(correct=[[3, 2]], incorrect=[[1]], position=[0])
        >>> prompts = Prompts(1, 2, 4, {}, torch.tensor([2]))
        >>> metric.bind(prompts).measure(torch.zeros(1, 4))
        tensor([0.2500])
    """

    @property
    def name(self) -> str:
        """What the metric is called in tables."""
        return "probability difference"

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one number per prompt, between -1 and 1."""
        assert self.side is not None
        return (self._picked(logits.softmax(dim=-1)) * self.side).sum(dim=-1)
