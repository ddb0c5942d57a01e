"""From logits to one number per prompt, and what of the logits that needs.

A metric that declares which positions and tokens it reads lets an engine compute no others. This
room knows nothing of engines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.errors import MetricError, PromptError

__all__ = [
    "Accuracy",
    "AnyMetric",
    "KLDivergence",
    "LogProb",
    "LogitDiff",
    "Metric",
    "Probability",
    "Rank",
    "Unbound",
    "as_metric",
]

Position = str | int | Int[Tensor, "prompt"] | Sequence[int]
Tokens = Int[Tensor, "prompt"] | Sequence[int] | Sequence[str]


@runtime_checkable
class Unbound(Protocol):
    """A metric as users write it, which has not met the prompts yet."""

    def bind(self, prompts: "Prompts") -> "Metric":
        """Return the metric fitted to the prompts, or raise what is wrong with it."""


@runtime_checkable
class Metric(Protocol):
    """What engines ask of a metric that has been bound to an experiment's prompts."""

    @property
    def name(self) -> str:
        """What the metric is called in tables."""

    @property
    def read(self) -> Int[Tensor, "prompt"] | None:
        """The one position per prompt whose logits are read; None where all are."""

    @property
    def tokens(self) -> Int[Tensor, "prompt token"] | None:
        """The tokens whose logits are read; None where all are."""

    def measure(
        self, logits: Float[Tensor, "*row prompt read"], clean: Tensor | None = None
    ) -> Float[Tensor, "*row prompt"]:
        """Return one number per prompt.

        Args:
            logits: At `read`, of `tokens` (or of all tokens); ``[*row prompt pos d_vocab]`` where
                `read` is None.
            clean: The same logits of the clean run, for metrics that compare with it.
        """


@dataclass(frozen=True)
class Prompts:
    """What binding a metric needs to know of the prompts.

    Args:
        n_prompts: Number of prompts.
        n_pos: Padded length.
        d_vocab: Number of tokens in the vocabulary.
        positions: Named positions, ``[prompt]`` each.
        lengths: Real length of each prompt.
        tokenizer: Turns words into tokens; None where there is none.
        device: Where logits live.
    """

    n_prompts: int
    n_pos: int
    d_vocab: int
    positions: Mapping[str, Int[Tensor, "prompt"]]
    lengths: Int[Tensor, "prompt"]
    tokenizer: Any = None
    device: Any = "cpu"

    def position(self, position: Position, metric: str) -> Int[Tensor, "prompt"]:
        """Return one index per prompt."""
        match position:
            case str():
                if position not in self.positions:
                    known = ", ".join(self.positions) or "none are named"
                    raise PromptError(
                        f"{metric} reads position {position!r}, but known are {known}: "
                        "name it with Experiment(..., positions={...}) or give indices"
                    )
                found = self.positions[position]
            case int():
                found = torch.full((self.n_prompts,), position)
            case _:
                found = torch.as_tensor(position)
        if found.shape != (self.n_prompts,):
            raise MetricError(
                f"{metric} has positions of shape {tuple(found.shape)} for {self.n_prompts} "
                "prompts: give one index per prompt, one integer, or a name"
            )
        lengths = self.lengths.to(found.device)
        outside = ((found < 0) | (found >= lengths)).nonzero().flatten()
        if len(outside):
            which = int(outside[0])
            raise PromptError(
                f"{metric} reads position {int(found[which])} of prompt {which}, which has "
                f"{int(lengths[which])} positions (0..{int(lengths[which]) - 1})"
            )
        return found.to(self.device)

    def token_ids(self, tokens: Tokens, what: str) -> Int[Tensor, "prompt"]:
        """Return one token per prompt, from ids or from words that are single tokens."""
        if isinstance(tokens, str):
            tokens = [tokens] * self.n_prompts
        if not isinstance(tokens, Tensor) and any(isinstance(token, str) for token in tokens):
            found = torch.tensor([self._one_token(str(word), what) for word in tokens])
        else:
            found = torch.as_tensor(tokens)
        if found.ndim == 0:
            found = found.expand(self.n_prompts)
        if found.shape != (self.n_prompts,):
            raise MetricError(
                f"{what} has shape {tuple(found.shape)} for {self.n_prompts} prompts: "
                "give one token per prompt"
            )
        if found.is_floating_point() or found.dtype == torch.bool:
            raise MetricError(f"{what} holds {found.dtype} values: token ids are integers")
        if ((found < 0) | (found >= self.d_vocab)).any():
            raise MetricError(f"{what} holds ids outside the vocabulary of {self.d_vocab} tokens")
        return found.to(self.device)

    def _one_token(self, word: str, what: str) -> int:
        if self.tokenizer is None:
            raise MetricError(f"{what} holds words, but the model has no tokenizer: give token ids")
        ids = self.tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            pieces = [self.tokenizer.decode([token]) for token in ids]
            raise MetricError(
                f"{what} {word!r} is {len(ids)} tokens ({pieces}): an answer must be one token "
                "(mind the leading space), since the metric reads one position"
            )
        return int(ids[0])


@dataclass(frozen=True, eq=False)
class _Answered:
    """A metric at one position about one answer token; subclasses say what they make of it."""

    answer: Tokens
    position: Position = "end"

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
        >>> metric = LogitDiff(correct=[3], incorrect=[1], position=[0])
        >>> prompts = Prompts(1, 2, 5, {}, torch.tensor([2]))
        >>> metric.bind(prompts).measure(torch.tensor([[4.0, 1.5]]))
        tensor([2.5000])
    """

    correct: Tokens
    incorrect: Tokens
    position: Position = "end"

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
        return (logits > self._pick(logits)[..., None]).sum(dim=-1).to(logits.dtype)


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

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one divergence per prompt."""
        assert clean is not None, "engines hand over the clean logits"
        log_clean = clean.log_softmax(dim=-1)
        return (log_clean.exp() * (log_clean - logits.log_softmax(dim=-1))).sum(dim=-1)


@dataclass(frozen=True, eq=False)
class AnyMetric:
    """Any function from logits ``[prompt pos d_vocab]`` to ``[prompt]``.

    It reads all logits of all positions, so an engine must compute them all; a metric that declares
    what it reads is much cheaper.
    """

    function: Callable[[Float[Tensor, "prompt pos d_vocab"]], Float[Tensor, "prompt"]]

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @property
    def read(self) -> Int[Tensor, "prompt"] | None:
        """All positions."""
        return None

    @property
    def tokens(self) -> Int[Tensor, "prompt token"] | None:
        """All tokens."""
        return None

    def bind(self, prompts: Prompts) -> Metric:
        """Return the metric after a trial on zeros, so that a wrong shape shows before any run."""
        trial = torch.zeros(
            prompts.n_prompts, prompts.n_pos, prompts.d_vocab, device=prompts.device
        )
        self._checked(self.function(trial), prompts.n_prompts)
        return self

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one number per prompt, row by row."""
        rows = logits.flatten(0, -4) if logits.ndim > 3 else logits[None]
        found = [self._checked(self.function(row), row.shape[0]) for row in rows]
        return torch.stack(found).reshape(logits.shape[:-2])

    def _checked(self, value: Any, n_prompts: int) -> Tensor:
        if not isinstance(value, Tensor) or value.shape != (n_prompts,):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise MetricError(
                f"the metric {self.name!r} gave {got} for {n_prompts} prompts: "
                f"it must return a tensor of shape ({n_prompts},), one number per prompt"
            )
        return value


def as_metric(metric: Any) -> Unbound:
    """Return the metric that an object means: itself, or any callable from logits to ``[prompt]``.

    Raises:
        MetricError: Something that is neither.
    """
    if callable(getattr(metric, "bind", None)) and callable(getattr(metric, "measure", None)):
        return cast(Unbound, metric)
    if callable(metric):
        return AnyMetric(metric)
    raise MetricError(
        f"{metric!r} ({type(metric).__name__}) is no metric: give cg.LogitDiff(...) or a function "
        "from logits [prompt, pos, d_vocab] to [prompt]"
    )
