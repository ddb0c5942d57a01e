"""How exactly a model computes: what two ways of doing one sum may differ by.

Many models take their norms and softmaxes in float32, whatever type their weights have. Then two
sums that are equal on paper differ by float32 rounding, also where the weights are float64.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.lens.backend import Backend
from circuitgraph.nodes import Embed

__all__ = ["Precision", "measure_precision"]

ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-4}
COARSE = 5e-2
"""For types of half the width, which keep two or three digits."""

SMALL, TINY = 1e-5, 1e-11


@dataclass(frozen=True, slots=True)
class Precision:
    """What may differ, relative to the difference between clean and corrupt run.

    Args:
        dtype: The type of the weights.
        float64_inside: Whether everything between is as exact as float64 weights.
    """

    dtype: torch.dtype
    float64_inside: bool

    @property
    def allowed(self) -> float:
        """Between two ways to the same number: 1e-9 in float64, 1e-4 in float32.

        Example:
            >>> Precision(torch.float64, True).allowed, Precision(torch.float64, False).allowed
            (1e-09, 0.0001)
        """
        if self.dtype == torch.float64 and not self.float64_inside:
            return ALLOWED[torch.float32]
        return ALLOWED.get(self.dtype, COARSE)

    @property
    def words(self) -> str:
        """The precision as people say it.

        Example:
            >>> Precision(torch.float64, False).words
            'float64, float32 inside'
        """
        name = str(self.dtype).removeprefix("torch.")
        inside = self.dtype != torch.float64 or self.float64_inside
        return name if inside else f"{name}, float32 inside"


def measure_precision(backend: Backend, tokens: Int[Tensor, "prompt pos"]) -> Precision:
    """Return how exactly a model computes, found by trying it out; costs three forward passes.

    A change of the embedding's write that float64 holds and float32 does not must come out at the
    logits in proportion, as a larger one does.
    """
    dtype = backend.limits.dtype
    if dtype != torch.float64:
        return Precision(dtype, float64_inside=False)

    def logits(step: float) -> Tensor:
        def nudge(value: Tensor, hook: Any) -> Tensor:  # noqa: ARG001  # called by name
            ramp = torch.linspace(-1, 1, value.shape[-1], dtype=value.dtype, device=value.device)
            return value + step * value.std() * ramp

        with backend.hooks([(backend.write_site(Embed()), nudge)]):
            return backend.logits(tokens)

    plain = logits(0.0)
    small, tiny = ((logits(step) - plain) / step for step in (SMALL, TINY))
    apart = ((small - tiny).norm() / small.norm().clamp_min(1e-30)).item()
    return Precision(dtype, float64_inside=apart < 0.1)
