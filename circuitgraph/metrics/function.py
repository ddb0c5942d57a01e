"""Any function of all logits as a metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.errors import CircuitGraphError, MetricError
from circuitgraph.lens.shortage import is_shortage
from circuitgraph.metrics.base import Metric, Prompts, Unbound

__all__ = ["AnyMetric", "as_metric", "called", "checked"]


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
        shape = (prompts.n_prompts, prompts.n_pos, prompts.d_vocab)
        trial = torch.zeros(shape, dtype=prompts.dtype, device=prompts.device)
        checked(called(self.function, trial, self.name), prompts.n_prompts, self.name)
        return self

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        """Return one number per prompt, row by row."""
        rows = logits.flatten(0, -4) if logits.ndim > 3 else logits[None]
        found = [
            checked(called(self.function, row, self.name), row.shape[0], self.name) for row in rows
        ]
        return torch.stack(found).reshape(logits.shape[:-2])


def called(function: Callable[[Tensor], Any], value: Tensor, metric: str) -> Any:
    """Return what a user's function gives, or raise what it raised as the metric's problem.

    The function gets a copy, which it may write into, and what it gives is copied at once: it may
    be the same tensor every time.
    """
    try:
        given = function(value.clone())
    except CircuitGraphError:
        raise
    except Exception as error:
        if is_shortage(error):
            raise
        raise MetricError(
            f"the metric {metric!r} raised {type(error).__name__} on a tensor of shape "
            f"{tuple(value.shape)}: {error}"
        ) from error
    return given.clone() if isinstance(given, Tensor) else given


def checked(value: Any, n_prompts: int, metric: str) -> Tensor:
    """Return what a user's function gave, or raise if it is not one number per prompt."""
    if not isinstance(value, Tensor) or value.shape != (n_prompts,):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise MetricError(
            f"the metric {metric!r} gave {got} for {n_prompts} prompts: "
            f"it must return a tensor of shape ({n_prompts},), one number per prompt"
        )
    if value.is_complex():
        raise MetricError(f"the metric {metric!r} gave complex numbers: a metric is real")
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
        f"{metric!r} ({type(metric).__name__}) is no metric: give cg.LogitDiff(...) or the like, "
        "cg.Activation(...), or a function from logits [prompt, pos, d_vocab] to [prompt]"
    )
