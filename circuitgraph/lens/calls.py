"""Calling a block with fewer positions or more rows than it was recorded with.

The arguments that a block receives besides its hidden states (masks, rotary embeddings, position
numbers) were recorded for all positions of every prompt. Here they are cut to the query positions
that are run, and repeated for a stack of rows.
"""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.lens.axes import Axes
from circuitgraph.lens.cache import FixedKeys
from circuitgraph.lens.record import BlockCall

__all__ = ["CannotSlice", "FixedKeys", "adapt_call", "with_keys"]

Queries = slice | Int[Tensor, "prompt query"] | None


class CannotSlice(Exception):  # noqa: N818  # no error: the engine runs all positions then
    """A block has an argument that we do not know how to cut to some positions."""


_CACHE_NAMES = ("past_key_values", "layer_past", "past_key_value")


def adapt_call(
    call: BlockCall,
    n_rows: int,
    n_prompts: int,
    n_pos: int,
    queries: Queries = None,
    keys: FixedKeys | None = None,
) -> BlockCall:
    """Return a block's arguments for a stack of rows at some query positions.

    Args:
        call: The recorded arguments.
        n_rows: How often the prompts are repeated on the batch axis.
        n_prompts: Number of prompts.
        n_pos: Number of recorded positions.
        queries: Which positions are run; None for all.
        keys: Where the attention gets its keys and values; None for those of the run positions.

    Raises:
        CannotSlice: ``queries`` or ``keys`` was given and an argument is of an unknown kind.
    """

    def fit(name: str, axes: Axes, value: Tensor) -> Tensor:
        if queries is not None:
            value = _cut(name, axes, value, n_pos, n_prompts, queries)
            if isinstance(queries, Tensor):  # each prompt is cut at its own positions
                axes = replace(axes, batch=0)
        return axes.repeated(value, n_rows)

    fitted = call.changed(fit)
    return fitted if keys is None else with_keys(fitted, keys)


def with_keys(call: BlockCall, keys: FixedKeys) -> BlockCall:
    """Return a block's arguments with a stand-in for its key-value cache.

    Raises:
        CannotSlice: The block takes no cache.
    """
    # Attention asks for the cache by these names; GPT-2's block takes it as its second positional
    # argument.
    name = next((name for name in _CACHE_NAMES if name in call.kwargs), None)
    if name is not None:
        return replace(call, kwargs={**call.kwargs, name: keys})
    if call.args and (call.args[0] is None or isinstance(call.args[0], FixedKeys)):
        return replace(call, args=(keys, *call.args[1:]))
    raise CannotSlice("the block takes no key-value cache")


def _cut(
    name: str, axes: Axes, value: Tensor, n_pos: int, n_prompts: int, queries: slice | Tensor
) -> Tensor:
    """Return an argument at the query positions only."""
    by_prompt = axes.batch in (0, None) and axes.per_prompt == 1
    if axes.batch is None and value.ndim > 1 and value.shape[0] != 1:
        by_prompt = False
    cut = [value.shape[axis] == n_pos for axis in axes.positions]
    if by_prompt and all(cut):
        rows = torch.arange(n_prompts, device=value.device)[:, None]
        full = value.expand(n_prompts, *value.shape[1:]) if value.ndim > 1 else value
        if value.ndim == 4 and axes.positions == (2, 3):
            if isinstance(queries, slice):
                return value[:, :, queries]
            return full[rows, :, queries].transpose(1, 2)
        if value.ndim in (2, 3) and axes.positions == (1,):
            return value[:, queries] if isinstance(queries, slice) else full[rows, queries]
        if value.ndim == 1 and axes.positions == (0,) and isinstance(queries, slice):
            return value[queries]
    raise CannotSlice(f"argument {name} of shape {tuple(value.shape)}")
