"""What a metric is, before and after it has met the prompts."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.errors import MetricError, PromptError
from circuitgraph.lens.sites import NO_HOOKS, HookNames

__all__ = ["Metric", "Position", "Prompts", "Tokens", "Unbound", "keep_copies"]

Position = str | int | Int[Tensor, "prompt"] | Sequence[int]
Tokens = Int[Tensor, "prompt"] | Sequence[int] | Sequence[str]


@runtime_checkable
class Unbound(Protocol):
    """A metric as users write it, which has not met the prompts yet."""

    def bind(self, prompts: "Prompts") -> Any:
        """Return the metric fitted to the prompts, or raise what is wrong with it.

        That is a `Metric`, which reads logits, or a bound `Activation`, which reads a hook.
        """


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


def keep_copies(metric: Any) -> None:
    """Replace what a metric was given by copies: a caller may write into tensors and lists later.

    Args:
        metric: A frozen dataclass, as it is being made.
    """
    for field in fields(metric):
        given = getattr(metric, field.name)
        if isinstance(given, Tensor):
            object.__setattr__(metric, field.name, given.detach().clone())
        elif isinstance(given, list | np.ndarray):
            object.__setattr__(metric, field.name, deepcopy(given))


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
        dtype: Their type.
        hooks: Which activations can be read; none where they are not known.
        n_heads: Heads per layer.
    """

    n_prompts: int
    n_pos: int
    d_vocab: int
    positions: Mapping[str, Int[Tensor, "prompt"]]
    lengths: Int[Tensor, "prompt"]
    tokenizer: Any = None
    device: Any = "cpu"
    dtype: torch.dtype = torch.float32
    hooks: HookNames = NO_HOOKS
    n_heads: int = 0

    def of_prompts(self, rows: slice) -> "Prompts":
        """Return the same of some of the prompts."""
        return replace(
            self,
            n_prompts=len(self.lengths[rows]),
            positions={name: index[rows] for name, index in self.positions.items()},
            lengths=self.lengths[rows],
        )

    def position(self, position: Position, metric: str) -> Int[Tensor, "prompt"]:
        """Return one index per prompt."""
        match position:
            case None:
                raise MetricError(f"{metric} reads no position: give a name, an index or indices")
            case str():
                if position not in self.positions:
                    known = ", ".join(self.positions) or "none are named"
                    raise PromptError(
                        f"{metric} reads position {position!r}, but known are {known}: "
                        "name it with Experiment(..., positions={...}) or give indices"
                    )
                found = self.positions[position]
            case int() if not isinstance(position, bool) and abs(position) < 2**62:
                found = torch.full((self.n_prompts,), position)
            case _:
                found = _whole_numbers(position, f"the position of {metric}")
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
        return found.to(self.device).clone()

    def token_ids(self, tokens: Tokens, what: str) -> Int[Tensor, "prompt"]:
        """Return one token per prompt, from ids or from words that are single tokens."""
        if isinstance(tokens, str):
            tokens = [tokens] * self.n_prompts
        words = isinstance(tokens, Sequence) and any(isinstance(token, str) for token in tokens)
        if words and not isinstance(tokens, Tensor):
            found = torch.tensor([self._one_token(str(word), what) for word in tokens])
        else:
            found = _numbers(tokens, what)
        if found.ndim == 0:
            found = found.expand(self.n_prompts)
        if found.shape != (self.n_prompts,):
            raise MetricError(
                f"{what} has shape {tuple(found.shape)} for {self.n_prompts} prompts: "
                "give one token per prompt"
            )
        if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
            raise MetricError(f"{what} holds {found.dtype} values: token ids are integers")
        if ((found < 0) | (found >= self.d_vocab)).any():
            raise MetricError(f"{what} holds ids outside the vocabulary of {self.d_vocab} tokens")
        return found.to(self.device).clone()

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


def _numbers(value: Any, what: str) -> Tensor:
    """Return numbers as a tensor, or raise what else they are."""
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise MetricError(
            f"{what} is {value!r}: give one whole number per prompt, or one for all"
        ) from None


def _whole_numbers(value: Any, what: str) -> Tensor:
    """Return integers as a tensor, or raise what else they are."""
    found = _numbers(value, what)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise MetricError(f"{what} is {value!r}: give one whole number per prompt, or one for all")
    return found
