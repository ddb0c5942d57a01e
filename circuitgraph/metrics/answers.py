"""Metrics that read logits at one position: what the model answers there.

A metric that declares which positions and tokens it reads lets an engine compute no others.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.errors import MetricError
from circuitgraph.metrics.base import Metric, Position, Prompts, Tokens, keep_copies

__all__ = ["Accuracy", "KLDivergence", "LogProb", "LogitDiff", "Probability", "Rank"]


@dataclass(frozen=True, eq=False)
class _Answered:
    """A metric at one position about one answer token; subclasses say what they make of it."""

    answer: Tokens
    position: Position = "end"

    def __post_init__(self) -> None:
        keep_copies(self)

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def read(self) -> Int[Tensor, "prompt"] | None:
        assert isinstance(self.position, Tensor), "metrics are bound before they are used"
        return self.position

    @property
    def tokens(self) -> Int[Tensor, "prompt token"] | None:
        return None

    def bind(self, prompts: Prompts) -> Metric:
        """Return the metric fitted to the prompts."""
        return replace(
            self,
            answer=prompts.token_ids(self.answer, f"{self.name}'s answer"),
            position=prompts.position(self.position, self.name),
        )

    def of_prompts(self, rows: slice) -> Metric:
        """Return the bound metric of some of the prompts."""
        assert isinstance(self.answer, Tensor)
        assert isinstance(self.position, Tensor)
        return replace(self, answer=self.answer[rows], position=self.position[rows])

    def _pick(self, logits: Tensor) -> Tensor:
        assert isinstance(self.answer, Tensor)
        index = self.answer.expand(logits.shape[:-1])[..., None]
        return logits.gather(-1, index)[..., 0]

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one number per prompt."""
        raise NotImplementedError  # pragma: no cover


@dataclass(frozen=True, eq=False)
class LogitDiff:
    """Logit of the right answer minus logit of the wrong one.

    Args:
        correct: One token per prompt: ids, or words that are single tokens.
        incorrect: Likewise.
        position: Where the answer is read: a named position, an index, or one index per prompt.

    Raises:
        MetricError: An answer of several tokens, not one per prompt, or the same for both.

    Example:
        >>> from circuitgraph.metrics import Prompts
        >>> metric = LogitDiff(correct=[3], incorrect=[1], position=[0])
        >>> prompts = Prompts(1, 2, 5, {}, torch.tensor([2]))
        >>> metric.bind(prompts).measure(torch.tensor([[4.0, 1.5]]))
        tensor([2.5000])
    """

    correct: Tokens
    incorrect: Tokens
    position: Position = "end"

    def __post_init__(self) -> None:
        keep_copies(self)

    @property
    def name(self) -> str:
        """What the metric is called in tables."""
        return "logit difference"

    @property
    def read(self) -> Int[Tensor, "prompt"] | None:
        """The position of each prompt."""
        assert isinstance(self.position, Tensor), "metrics are bound before they are used"
        return self.position

    @property
    def tokens(self) -> Int[Tensor, "prompt token"] | None:
        """The right and the wrong token of each prompt."""
        assert isinstance(self.correct, Tensor)
        assert isinstance(self.incorrect, Tensor)
        return torch.stack([self.correct, self.incorrect], dim=-1)

    def bind(self, prompts: Prompts) -> Metric:
        """Return the metric fitted to the prompts."""
        correct = prompts.token_ids(self.correct, "LogitDiff's correct answer")
        incorrect = prompts.token_ids(self.incorrect, "LogitDiff's incorrect answer")
        same = (correct == incorrect).nonzero().flatten()
        if len(same):
            raise MetricError(
                f"LogitDiff's correct and incorrect answers are the same token "
                f"({int(correct[same[0]])}) in prompt {int(same[0])}"
            )
        return LogitDiff(correct, incorrect, prompts.position(self.position, "LogitDiff"))

    def of_prompts(self, rows: slice) -> Metric:
        """Return the bound metric of some of the prompts."""
        assert isinstance(self.correct, Tensor)
        assert isinstance(self.incorrect, Tensor)
        assert isinstance(self.position, Tensor)
        return LogitDiff(self.correct[rows], self.incorrect[rows], self.position[rows])

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return correct minus incorrect, from logits of those two tokens."""
        return logits[..., 0] - logits[..., 1]


@dataclass(frozen=True, eq=False)
class LogProb(_Answered):
    """Log-probability of the answer, in nats."""

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one log-probability per prompt."""
        return self._pick(logits.log_softmax(dim=-1))


@dataclass(frozen=True, eq=False)
class Probability(_Answered):
    """Probability of the answer, between 0 and 1."""

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one probability per prompt."""
        return self._pick(logits.softmax(dim=-1))


@dataclass(frozen=True, eq=False)
class Rank(_Answered):
    """Rank of the answer among all tokens, 0 for the most likely."""

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return how many tokens have a larger logit."""
        above = (logits > self._pick(logits)[..., None]).sum(dim=-1)
        # Half precision cannot count to a vocabulary's size.
        return above.to(torch.promote_types(logits.dtype, torch.float32))


@dataclass(frozen=True, eq=False)
class Accuracy(_Answered):
    """1 where the answer is the most likely token, else 0."""

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return 1 or 0 per prompt."""
        assert isinstance(self.answer, Tensor)
        return (logits.argmax(dim=-1) == self.answer).to(logits.dtype)


@dataclass(frozen=True, eq=False)
class KLDivergence:
    """Kullback-Leibler divergence of the clean from the patched next-token distribution, in nats.

    ``sum(p_clean * (log p_clean - log p_patched))``: 0 on the clean run by definition.

    Args:
        position: Where the distributions are read.
    """

    position: Position = "end"

    def __post_init__(self) -> None:
        keep_copies(self)

    @property
    def name(self) -> str:
        """What the metric is called in tables."""
        return "KL divergence from clean"

    @property
    def read(self) -> Int[Tensor, "prompt"] | None:
        """The position of each prompt."""
        assert isinstance(self.position, Tensor), "metrics are bound before they are used"
        return self.position

    @property
    def tokens(self) -> Int[Tensor, "prompt token"] | None:
        """All tokens."""
        return None

    def bind(self, prompts: Prompts) -> Metric:
        """Return the metric fitted to the prompts."""
        return KLDivergence(prompts.position(self.position, "KLDivergence"))

    def of_prompts(self, rows: slice) -> Metric:
        """Return the bound metric of some of the prompts."""
        assert isinstance(self.position, Tensor)
        return KLDivergence(self.position[rows])

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one divergence per prompt."""
        assert clean is not None, "engines hand over the clean logits"
        log_clean = clean.log_softmax(dim=-1)
        return (log_clean.exp() * (log_clean - logits.log_softmax(dim=-1))).sum(dim=-1)
