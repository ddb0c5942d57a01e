"""What layers are made of: norms, MLPs, rotary embeddings, and the heads of a joint matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def layer_norm(weight: Tensor, bias: Tensor | None, eps: float) -> Function:
    """LayerNorm: centre, divide by the standard deviation, scale, shift."""

    def norm(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight
        return scaled if bias is None else scaled + bias

    return norm


def rms_norm(weight: Tensor, eps: float, dtype: torch.dtype) -> Function:
    """RMSNorm as Llama has it: normalised in `dtype`, scaled outside of it."""

    def norm(x: Tensor) -> Tensor:
        inner = x.to(dtype)
        inner = inner * torch.rsqrt(inner.pow(2).mean(-1, keepdim=True) + eps)
        return weight * inner.to(x.dtype)

    return norm


def gemma_rms_norm(weight: Tensor, eps: float, dtype: torch.dtype) -> Function:
    """RMSNorm as Gemma has it: the weight is an offset from one, and applied in `dtype` too."""

    def norm(x: Tensor) -> Tensor:
        inner = x.to(dtype)
        inner = inner * torch.rsqrt(inner.pow(2).mean(-1, keepdim=True) + eps)
        return (inner * (1.0 + weight.to(dtype))).to(x.dtype)

    return norm


def no_norm(x: Tensor) -> Tensor:
    """No normalisation."""
    return x


ACTIVATIONS: dict[str, Function] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


def plain_mlp(
    w_in: Float[Tensor, "d_model d_mlp"],
    b_in: Float[Tensor, " d_mlp"],
    w_out: Float[Tensor, "d_mlp d_model"],
    b_out: Float[Tensor, " d_model"],
    activation: str,
) -> Function:
    """Two matrices with an activation between."""
    return lambda x: ACTIVATIONS[activation](x @ w_in + b_in) @ w_out + b_out


def gated_mlp(mlp: Any, activation: str) -> Function:
    """The MLP of Llama and its relatives: `gate_proj`, `up_proj`, `down_proj`."""
    gate, up, down = (linear(getattr(mlp, f"{name}_proj")) for name in ("gate", "up", "down"))

    def forward(x: Tensor) -> Tensor:
        hidden = ACTIVATIONS[activation](x @ gate[0] + gate[1]) * (x @ up[0] + up[1])
        return hidden @ down[0] + down[1]

    return forward


def linear(module: Any) -> tuple[Float[Tensor, "d_in d_out"], Float[Tensor, " d_out"]]:
    """Weight, to be multiplied from the right, and bias (zero where there is none)."""
    weight = module.weight.detach().T
    bias = weight.new_zeros(weight.shape[1]) if module.bias is None else module.bias.detach()
    return weight, bias


def split_heads(
    weight: Float[Tensor, "d_model head_x_d_head"],
    bias: Float[Tensor, " head_x_d_head"],
    n_heads: int,
    repeats: int = 1,
) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head"]]:
    """One matrix and bias per head, each repeated so that every query head has its own."""
    weight = torch.stack(weight.chunk(n_heads, dim=1))
    bias = torch.stack(bias.chunk(n_heads))
    return weight.repeat_interleave(repeats, dim=0), bias.repeat_interleave(repeats, dim=0)


@dataclass(frozen=True, eq=False)
class Rotary:
    """Rotary position embedding of the first `2 * len(frequencies)` dimensions.

    The angles are taken in float32, as in Hugging Face: they are constants of the model.
    """

    frequencies: Float[Tensor, " d_rotary_half"]
    scaling: float = 1.0

    @classmethod
    def of(cls, module: Any) -> "Rotary":
        """Read off a Hugging Face rotary embedding module."""
        return cls(module.inv_freq.detach().to(torch.float32), module.attention_scaling)

    def __call__(self, x: Float[Tensor, "prompt pos d_head"]) -> Float[Tensor, "prompt pos d_head"]:
        """Rotate the vector at position p by the angles of p."""
        angles = torch.arange(x.shape[1], dtype=torch.float32)[:, None] * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        cos, sin = ((f(angles) * self.scaling).to(x.dtype) for f in (torch.cos, torch.sin))
        width = angles.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        half = torch.cat([-turned[..., width // 2 :], turned[..., : width // 2]], dim=-1)
        return torch.cat([turned * cos + half * sin, rest], dim=-1)
