"""How much of a metric is rounding: what it makes of logits that differ by nothing else.

A metric subtracts numbers that are larger than what is left: two logits of 14 are known to a
millionth in float32, and so is their difference, however small that is. So what is noise is found
by asking the metric itself: how far does it move when every logit moves by the rounding step of the
largest one that it reads? That holds for any metric, of logits or of activations.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.metrics.activations import Activation
from circuitgraph.metrics.base import Metric, Prompts
from circuitgraph.metrics.readout import Readout

__all__ = ["rounding"]

DRAWS = 8
"""How often the logits are moved."""

FACTOR = 4.0
"""How many times the mean square root of what the metric moves by is still called rounding."""


def rounding(readout: Readout) -> Readout:
    """Return what measures, in place of each metric, how much of it is rounding.

    An engine measures it as any other metric, on the clean or on the corrupt run. Changes of the
    metric that are no larger are no effects.

    Example:
        >>> from circuitgraph.metrics import LogitDiff
        >>> prompts = Prompts(1, 1, 5, {}, torch.tensor([1]))
        >>> metric = LogitDiff([3], [1], [0]).bind(prompts)
        >>> noise = rounding(Readout((metric,), prompts)).measure(torch.tensor([[14.0, 14.0]]))
        >>> bool(1e-6 < noise < 3e-5)
        True
    """
    dtype = readout.prompts.dtype
    parts = tuple(
        replace(part, function=_moved_by(part.function, dtype))
        if isinstance(part, Activation)
        else _Rounding(part, dtype)
        for part in readout.parts
    )
    return Readout(parts, readout.prompts)


@dataclass(frozen=True, eq=False)
class _Rounding:
    """How much of a bound metric of logits is rounding.

    Args:
        metric: The metric.
        dtype: The type that the model computes in.
    """

    metric: Metric
    dtype: torch.dtype

    @property
    def name(self) -> str:
        return f"rounding of {self.metric.name}"

    @property
    def read(self) -> Int[Tensor, "prompt"] | None:
        return self.metric.read

    @property
    def tokens(self) -> Int[Tensor, "prompt token"] | None:
        return self.metric.tokens

    def bind(self, prompts: Prompts) -> "_Rounding":
        return self

    @property
    def of_prompts(self) -> Callable[[slice], "_Rounding"] | None:
        """How to cut it up; None where the metric cannot be."""
        cut: Callable[[slice], Any] | None = getattr(self.metric, "of_prompts", None)
        return None if cut is None else lambda rows: _Rounding(cut(rows), self.dtype)

    def measure(
        self, logits: Float[Tensor, "*row prompt read"], clean: Tensor | None = None
    ) -> Float[Tensor, "*row prompt"]:
        """Return how much of the metric is rounding, one number per prompt."""
        n_read = 1 if self.read is not None else 2

        def measured(moved: Tensor) -> Tensor:
            return self.metric.measure(moved, None if clean is None else clean.clone())

        return _moves(measured, logits, n_read, self.dtype)


def _moved_by(function: Callable[[Tensor], Any], dtype: torch.dtype) -> Callable[[Tensor], Any]:
    """Return how much of a function of an activation is rounding."""
    return lambda value: _moves(function, value, value.ndim - 1, dtype)


def _moves(
    function: Callable[[Tensor], Tensor], values: Tensor, n_read: int, dtype: torch.dtype
) -> Tensor:
    """Return how far a function moves when what it reads moves by rounding.

    Args:
        function: From ``[*row prompt *read]`` to ``[*row prompt]``.
        values: What it reads.
        n_read: How many of the last dimensions are one prompt's.
        dtype: The type that the model computes in.
    """
    # In a mask, -inf stands for what is never read.
    size = torch.where(values.abs() < 1e30, values.abs(), 0).flatten(-n_read).amax(-1)
    step = torch.finfo(_kept_as(values, dtype)).eps * size[(..., *[None] * n_read)]
    generator = torch.Generator().manual_seed(0)
    base = function(values.clone()).double()
    square = torch.zeros_like(base)
    for _ in range(DRAWS):
        drawn = torch.randn(values.shape[-n_read:], generator=generator).to(values)
        square += (function(values + step * drawn).double() - base).nan_to_num(0, 0, 0) ** 2
    found = FACTOR * (square / DRAWS).sqrt()
    return found.to(values.dtype if values.is_floating_point() else torch.float32)


def _kept_as(values: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the type that values were rounded to: the model's, where they all fit into it."""
    if torch.finfo(dtype).eps <= torch.finfo(values.dtype).eps:
        return values.dtype
    rounded = values.to(dtype).to(values.dtype)
    return dtype if torch.equal(rounded, values) else values.dtype
