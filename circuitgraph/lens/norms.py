"""Norms in closed form: what a function does to the stream, found by trying it.

``norm(x) = weight * n(x) + bias``, ``n(x)`` being ``x`` (less its mean, in a LayerNorm) over its
size. Its vector-Jacobian product is then a scale and two numbers per position. Nothing here looks
at a module's class: the parameters are read off what the function makes of a few streams, and what
is read off must give what the function gives on the model's own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Identity", "Norm", "find_norm"]

Stream = Float[Tensor, "*place d_model"]


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A LayerNorm or an RMSNorm.

    Args:
        weight: What the normalised stream is multiplied by.
        bias: What is added then.
        eps: What is added to the mean square.
        centered: Whether the mean is taken away first.
    """

    weight: Float[Tensor, "d_model"]
    bias: Float[Tensor, "d_model"]
    eps: float
    centered: bool

    def scale(self, stream: Stream) -> Float[Tensor, "*place 1"]:
        """Return one over the size of each stream."""
        if self.centered:
            stream = stream - stream.mean(dim=-1, keepdim=True)
        return (stream.square().mean(dim=-1, keepdim=True) + self.eps).rsqrt()

    def normalized(self, stream: Stream) -> Stream:
        """Return ``n(x)``."""
        scale = self.scale(stream)
        if self.centered:
            stream = stream - stream.mean(dim=-1, keepdim=True)
        return stream * scale

    def __call__(self, stream: Stream) -> Stream:
        """Return what the norm makes of a stream."""
        return self.weight * self.normalized(stream) + self.bias


@dataclass(frozen=True, slots=True)
class Identity:
    """No norm at all: what is read is the stream."""


def find_norm(
    function: Callable[[Tensor], Tensor], stream: Stream, made: Stream
) -> Norm | Identity | None:
    """Return the norm that a function is; None where it is something else.

    Args:
        function: From streams ``[1 place d_model]`` to what is read.
        stream: The model's own streams, on which the answer is proved.
        made: What the function made of them.
    """
    if made.shape != stream.shape:
        return None
    if torch.equal(stream, made):
        return Identity()
    width = stream.shape[-1]
    if width < 4:
        return None
    for centered in (True, False):
        norm = _read_off(function, stream.new_zeros(width), centered)
        if _same(norm(stream.double()), made):
            return norm
    return None


def _read_off(
    function: Callable[[Tensor], Tensor], nothing: Float[Tensor, "d_model"], centered: bool
) -> Norm:
    """Return the norm that a function is if it is one: bias, weight and eps from five streams."""
    width = len(nothing)
    # Two streams of mean 0 and known size; between them no place is 0 twice.
    one = nothing + 1
    one[: width // 2] = -1
    one[2 * (width // 2) :] = 0
    other = one.roll(1)
    size = one.double().square().mean().sqrt()
    large, small = 2.0**6, 2.0**-9
    trial = torch.stack([one * large, -one * large, other * large, -other * large, one * small])
    with torch.no_grad():
        made = function(trial[None])[0].double()
    bias = (made[0] + made[1]) / 2
    signs = torch.where(one != 0, one, other).double()
    half = torch.where(one != 0, made[0] - made[1], made[2] - made[3]) / 2
    weight = half * signs * size
    there = (one != 0) & (weight.abs() > weight.abs().amax() / 2)
    shrunk = ((made[4] - bias)[there] / weight[there]).abs().median()
    eps = float((small / shrunk) ** 2 - (small * size) ** 2)
    eps = eps if 0 < eps < 1 else 0.0
    return Norm(weight * (1 + eps / (large * size) ** 2).sqrt(), bias, eps, centered)


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors agree to the precision of the second's type."""
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-4}.get(other.dtype, 2e-2)
    scale = other.abs().amax().clamp_min(1e-6)
    return bool(((one - other.double()).abs().amax() <= tolerance * scale).item())
