"""Everything that is measured in one patched run: some metrics of logits, some of activations."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.metrics.activations import Activation
from circuitgraph.metrics.answers import (
    Accuracy,
    KLDivergence,
    LogitDiff,
    LogProb,
    Probability,
    Rank,
)
from circuitgraph.metrics.base import Metric, Prompts
from circuitgraph.metrics.function import AnyMetric

__all__ = ["Readout"]

READ_ONLY = (Accuracy, AnyMetric, KLDivergence, LogProb, LogitDiff, Probability, Rank)
"""Metrics that leave their logits as they are; `AnyMetric` copies them for its function."""


@dataclass(frozen=True, eq=False)
class Readout:
    """Bound metrics that are measured together.

    To an engine it is one metric of the logits, with more than one number per prompt, and the
    activations that are to be read beside them.

    Args:
        parts: The metrics.
        prompts: The prompts that they were bound to.
    """

    parts: tuple[Metric | Activation, ...]
    prompts: Prompts

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Those that read logits."""
        return tuple(part for part in self.parts if not isinstance(part, Activation))

    @cached_property
    def activations(self) -> tuple[Activation, ...]:
        """Those that read activations."""
        return tuple(part for part in self.parts if isinstance(part, Activation))

    @property
    def name(self) -> str:
        """What is measured."""
        return ", ".join(part.name for part in self.parts)

    @cached_property
    def read(self) -> Int[Tensor, "prompt"] | None:
        """The one position per prompt whose logits are read; None where all are."""
        if not self.metrics:
            return self._nowhere[:, 0]
        first = self.metrics[0].read
        for metric in self.metrics[1:]:
            read = metric.read
            if first is None or read is None or not torch.equal(first, read):
                return None
        return first

    @cached_property
    def tokens(self) -> Int[Tensor, "prompt token"] | None:
        """The tokens whose logits are read; None where all are."""
        found = [metric.tokens for metric in self.metrics]
        if not found:
            return self._nowhere[:, :0]
        columns = [tokens for tokens in found if tokens is not None]
        if self.read is None or len(columns) < len(found):
            return None
        return torch.cat(columns, dim=1)

    @property
    def _nowhere(self) -> Int[Tensor, "prompt 1"]:
        prompts = self.prompts
        return torch.zeros(prompts.n_prompts, 1, dtype=torch.long, device=prompts.device)

    def measure(
        self, logits: Float[Tensor, "*row prompt read"], clean: Tensor | None = None
    ) -> Float[Tensor, "*row value"]:
        """Return every logit metric, one after another, each with one number per prompt.

        A metric of somebody else's gets copies, which it may write into, and what it gives is
        copied before the next one is called.

        Args:
            logits: At `read`, of `tokens`; ``[*row prompt pos d_vocab]`` where `read` is None.
            clean: The same logits of the clean run.
        """
        found, column = [], 0
        for metric in self.metrics:
            mine, other = (
                None if value is None else self._narrowed(value, metric, column)
                for value in (logits, clean)
            )
            assert mine is not None
            if type(metric) not in READ_ONLY:
                mine, other = mine.clone(), None if other is None else other.clone()
            found.append(metric.measure(mine, other).clone())
            column += 0 if metric.tokens is None else metric.tokens.shape[1]
        if found:
            return torch.cat(found, dim=-1)
        return logits.new_zeros(*logits.shape[:-2], 0)

    def _narrowed(self, logits: Tensor, metric: Metric, column: int) -> Tensor:
        """Return of the logits that were read the ones that one metric reads."""
        if self.read is None:
            if metric.read is None:
                return logits
            rows = torch.arange(self.prompts.n_prompts, device=logits.device)
            logits = logits[..., rows, metric.read, :]
        if metric.tokens is None:
            return logits
        if self.tokens is not None:
            return logits[..., column : column + metric.tokens.shape[1]]
        return logits.gather(-1, metric.tokens.expand(*logits.shape[:-1], -1))

    def of_prompts(self, rows: slice) -> "Readout | None":
        """Return what is measured of some prompts; None where that cannot be told.

        A metric of one's own takes part if it has such a method too.
        """
        parts = []
        for part in self.parts:
            cut = getattr(part, "of_prompts", None)
            if cut is None:
                return None
            parts.append(cut(rows))
        prompts = self.prompts.of_prompts(rows)
        return Readout(tuple(parts), prompts)

    def split(self, values: Float[Tensor, "*row value"]) -> list[Float[Tensor, "*row prompt"]]:
        """Return what every part measured, in the order of `parts`.

        Args:
            values: What an engine gives: the metrics of logits, then those of activations.
        """
        chunks = values.split(self.prompts.n_prompts, dim=-1)
        of_logits = iter(chunks[: len(self.metrics)])
        of_activations = iter(chunks[len(self.metrics) :])
        return [
            next(of_activations if isinstance(part, Activation) else of_logits)
            for part in self.parts
        ]
