"""Which axes of a block's arguments are prompts and which are positions, found by trying.

Sizes alone cannot tell: with as many prompts as tokens, or as heads, they are the same. So the
model is run on a few tokens of two shapes, and what grows with the prompts is their axis.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.errors import UnsupportedError
from circuitgraph.lens.parts import ModelParts

__all__ = ["Axes", "argument_axes", "check_axes", "tensors_in"]

PROBES = ((5, 2), (7, 3))
"""Prompts and positions of the two runs. No multiple of the one grows as the other does."""

_KNOWN: WeakKeyDictionary[Any, dict[int, tuple[Mapping[str, "Axes"], ...]]] = WeakKeyDictionary()
"""Axes of every block's arguments, by how many positions were tried; they follow from a model's
code, not from its weights."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of one tensor among a block's arguments.

    Args:
        ndim: How many axes it has.
        batch: Which of them is the prompts'; None where it is the same for all.
        per_prompt: How many entries each prompt has on that axis: heads, where they lie there too.
        positions: Which of them are positions.

    Example:
        >>> axes_between((5, 1, 2, 2), (7, 1, 3, 3))
        Axes(ndim=4, batch=0, per_prompt=1, positions=(2, 3))
        >>> axes_between((1, 2, 4), (1, 3, 4))
        Axes(ndim=3, batch=None, per_prompt=1, positions=(1,))
        >>> axes_between((20, 1, 2), (28, 1, 3)).per_prompt
        4
    """

    ndim: int
    batch: int | None = None
    per_prompt: int = 1
    positions: tuple[int, ...] = ()

    def of_prompts(self, value: Tensor, prompts: slice, n_prompts: int) -> Tensor:
        """Return an argument for some of the prompts."""
        if self.batch is None:
            return value
        first, last, _ = prompts.indices(n_prompts)
        times = self.per_prompt
        return value.narrow(self.batch, first * times, max(0, last - first) * times)

    def shared(self, value: Tensor) -> Tensor:
        """Return an argument that takes one prompt's memory where it is the same for all.

        Its shape stays: a model may count its prompts.
        """
        if self.batch is None or self.per_prompt > 1:
            return value
        first = value.narrow(self.batch, 0, 1)
        if not bool((value == first).all()):
            return value
        return first.clone().expand(value.shape)

    def repeated(self, value: Tensor, n_rows: int) -> Tensor:
        """Return an argument for a stack of rows, each of all prompts."""
        if self.batch is None or n_rows == 1:
            return value
        size = n_rows * value.shape[self.batch]
        if value.stride(self.batch) == 0 or value.shape[self.batch] == 1:
            shape = list(value.shape)
            shape[self.batch] = size
            return value.narrow(self.batch, 0, 1).expand(shape)
        return value.repeat([n_rows if axis == self.batch else 1 for axis in range(value.ndim)])


def axes_between(one: tuple[int, ...], other: tuple[int, ...]) -> Axes | None:
    """Return the axes of a tensor that had these shapes in the two runs; None if unclear."""
    if len(one) != len(other):
        return None
    batch, per_prompt, positions = None, 1, []
    (b1, p1), (b2, p2) = PROBES
    for axis, (size, larger) in enumerate(zip(one, other, strict=True)):
        if size == larger:
            continue
        if (size, larger) == (p1, p2):
            positions.append(axis)
        elif batch is None and size % b1 == 0 and larger * b1 == size * b2:
            batch, per_prompt = axis, size // b1
        else:
            return None
    return Axes(len(one), batch, per_prompt, tuple(positions))


def argument_axes(
    parts: ModelParts, tokens: Int[Tensor, "prompt pos"]
) -> tuple[Mapping[str, Axes], ...]:
    """Return the axes of every tensor that a block is handed, by its name, for every block.

    Costs two passes over a few tokens, once per model (again for prompts of one or two tokens).

    Args:
        parts: The parts of a model in eval mode.
        tokens: Prompts whose tokens may be used.
    """
    known = _KNOWN.setdefault(parts.unembed.module, {})
    # No more positions than the prompts have: the model may not take them. Then what is a position
    # stays unknown, and all of them are run.
    longest = min(tokens.shape[1], max(n_pos for _, n_pos in PROBES))
    if longest not in known:
        one, other = (
            _shapes(parts, tokens, n_prompts, min(n_pos, longest)) for n_prompts, n_pos in PROBES
        )
        found: list[dict[str, Axes]] = []
        for before, after in zip(one, other, strict=True):
            both = before.keys() & after.keys()
            axes = {name: axes_between(before[name], after[name]) for name in both}
            found.append({name: value for name, value in axes.items() if value is not None})
        known[longest] = tuple(found)
    return known[longest]


def check_axes(
    axes: Mapping[str, Axes], name: str, value: Tensor, n_prompts: int, layer: int
) -> Axes:
    """Return the axes of an argument.

    Raises:
        UnsupportedError: They are not known, or it has not as many prompts as it should.
    """
    found = axes.get(name)
    if (
        found is None
        or found.ndim != value.ndim
        or (found.batch is not None and value.shape[found.batch] != n_prompts * found.per_prompt)
    ):
        raise UnsupportedError(
            f"layer {layer} of this model is handed a tensor {name!r} of shape "
            f"{tuple(value.shape)} of which one cannot tell where its prompts are: its blocks "
            "cannot be run by themselves"
        )
    return found


def tensors_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor among a block's arguments, with its name."""
    named = [*((str(number), value) for number, value in enumerate(args)), *kwargs.items()]
    for name, value in named:
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, tuple):
            for number, part in enumerate(value):
                if isinstance(part, Tensor):
                    yield f"{name}.{number}", part


def _shapes(
    parts: ModelParts, tokens: Int[Tensor, "prompt pos"], n_prompts: int, n_pos: int
) -> list[dict[str, tuple[int, ...]]]:
    """Return the shapes of every block's arguments on a few tokens."""
    wanted = n_prompts * n_pos
    few = tokens.flatten()[:wanted]
    few = few.repeat(-(-wanted // len(few)))[:wanted].view(n_prompts, n_pos)
    found: list[dict[str, tuple[int, ...]]] = []

    def see(_: Any, args: Any, kwargs: Any) -> None:
        rest = {name: value for name, value in kwargs.items() if args or name != "hidden_states"}
        found.append({name: tuple(value.shape) for name, value in tensors_in(args[1:], rest)})

    with ExitStack() as stack, torch.no_grad():
        for block in parts.blocks:
            stack.callback(block.block.register_forward_pre_hook(see, with_kwargs=True).remove)
        parts.run(few, True)
    return found
