"""The parts of a model that patching needs, whatever library it comes from.

A back end finds them (`bridge`, `huggingface`); everything else in this room is written once, on
parts. A part is a module, called by the model's own forward: what it reads or gives is watched with
hooks, and its forward is replaced for a moment to set what it gives. Some libraries wrap modules:
then the wrapper is watched, and what it wraps is called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["BlockParts", "ModelParts", "Projection", "Wrapped", "is_conv1d", "weight_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Wrapped:
    """A module, and what it wraps.

    Args:
        module: What the model calls.
        inner: What it wraps, which computes the same; the module itself where nothing is wrapped.
    """

    module: Any
    inner: Any


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Where a layer's queries, keys or values are made.

    Args:
        module: What the model calls; several ports share it where their weights are one matrix.
        inner: What it wraps, or itself.
        features: Which of its output features are these, in the order of the heads; None for all.
    """

    module: Any
    inner: Any
    features: slice | Int[Tensor, "width"] | None = None

    def of(self, output: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows part"]:
        """Return these features of the module's output."""
        return output if self.features is None else output[..., self.features]

    @property
    def fused(self) -> bool:
        """Whether other ports share the module."""
        return self.features is not None


@dataclass(frozen=True, slots=True, eq=False)
class BlockParts:
    """One block.

    Args:
        block: Called with the residual stream and the block's other arguments.
        attn: The attention; its first output is what is added, or normed and added.
        q: Where queries are made, before norms of their own and rotation; likewise ``k``, ``v``.
        o: The output projection: reads the heads' values side by side.
        mlp: The module whose output is what the MLP writes; None without an MLP.
        reader: The module that reads the residual stream for the MLP: its norm, or itself.
        parallel: Whether attention and MLP read the same residual stream.
        attn_norm: The norm before the attention, where the MLP does not read it too.
        alone: Norm and MLP that can be called by themselves; None for no norm.
    """

    block: Any
    attn: Any
    q: Projection
    k: Projection
    v: Projection
    o: Wrapped
    mlp: Any
    reader: Any
    parallel: bool
    attn_norm: Any | None = None
    alone: tuple[Any | None, Any] | None = None

    @property
    def ports(self) -> dict[str, Projection]:
        """The projections by the name of their port."""
        return {"q": self.q, "k": self.k, "v": self.v}


@dataclass(frozen=True, slots=True, eq=False)
class ModelParts:
    """A whole model.

    Args:
        blocks: Its blocks, first to last.
        n_heads: Query heads of a layer.
        final_norm: The norm after the last block; None without one.
        unembed: Makes the logits, or what the model still caps or scales.
        run: From tokens to logits; the second argument says whether keys and values are to be left
            in a cache.
    """

    blocks: tuple[BlockParts, ...]
    n_heads: int
    final_norm: Wrapped | None
    unembed: Wrapped
    run: Callable[[Int[Tensor, "prompt pos"], bool], Float[Tensor, "prompt read d_vocab"]]


def is_conv1d(module: Any) -> bool:
    """Return whether a module is the affine map of early models, its weight ``[in out]``."""
    return type(module).__name__ == "Conv1D"


def weight_of(module: Any) -> Float[Tensor, "inputs outputs"]:
    """Return the weight of an affine module as ``[in out]``, whatever way it stores it."""
    if type(module) is torch.nn.Linear:
        weight: Tensor = module.weight.T
        return weight
    weight = module.weight
    if is_conv1d(module):
        return weight
    width = weight.shape[1]
    with torch.no_grad():
        eye = torch.eye(width, dtype=weight.dtype, device=weight.device)
        nothing = torch.zeros(1, width, dtype=weight.dtype, device=weight.device)
        made: Tensor = module(eye) - module(nothing)
        return made
