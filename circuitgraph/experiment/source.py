"""Where patched values come from, as values: a data set comes with its mean, tensors with `Given`.

The words of ``source=`` stand for the same, with ``dataset=`` and ``values=`` beside them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor

from circuitgraph.errors import RequestError
from circuitgraph.nodes import Writer
from circuitgraph.plan import Source

__all__ = ["Given", "Mean", "SourceGiven", "SourceParts", "source_parts"]


class Mean:
    """The mean of each node's write over a data set.

    Args:
        dataset: Tokens ``[sample, pos]``, none of them padding; by default the corrupt prompts. It
            is copied.
        per_position: Whether each position has a mean of its own.

    Example:
        >>> Mean(per_position=True)
        Mean(per_position=True)
    """

    __slots__ = ("dataset", "per_position")

    def __init__(
        self, dataset: Int[Tensor, "sample pos"] | None = None, *, per_position: bool = False
    ) -> None:
        if dataset is not None and not isinstance(dataset, Tensor):
            got = type(dataset).__name__
            raise RequestError(f"the data set must be tokens [sample, pos], got {got}")
        if not isinstance(per_position, bool):
            raise RequestError(f"per_position={per_position!r} must be True or False")
        self.dataset = None if dataset is None else dataset.detach().clone()
        self.per_position = per_position

    @property
    def word(self) -> Source:
        """The word that stands for it."""
        return "mean-position" if self.per_position else "mean"

    def __repr__(self) -> str:
        shape = [] if self.dataset is None else [f"tokens {list(self.dataset.shape)}"]
        return f"Mean({', '.join(shape + ['per_position=True'] * self.per_position)})"


class Given:
    """Values of one's own, to be patched in.

    Args:
        values: Each sender's value, broadcast to ``[prompt, pos, width]``; a head's is its ``z``
            (before ``W_O``). They are copied.

    Example:
        >>> import torch
        >>> from circuitgraph.nodes import Head
        >>> Given({Head(9, 9): torch.zeros(64)})
        Given(9.9)
    """

    __slots__ = ("values",)

    word: Source = "given"

    def __init__(self, values: Mapping[Writer, Tensor]) -> None:
        if not isinstance(values, Mapping):
            raise RequestError(
                "values are given by sender, {cg.Head(9, 9): tensor}, got " + type(values).__name__
            )
        self.values = {
            node: value.detach().clone() if isinstance(value, Tensor) else value
            for node, value in values.items()
        }

    def __repr__(self) -> str:
        return f"Given({', '.join(map(str, self.values))})"


SourceGiven = Source | Mean | Given
"""What ``source=`` takes: a word, or a value."""


class SourceParts(NamedTuple):
    """A source in words, with what it needs."""

    word: Source
    values: Mapping[Writer, Tensor] | None
    dataset: Int[Tensor, "sample pos"] | None


def source_parts(source: SourceGiven, values: Any = None, dataset: Any = None) -> SourceParts:
    """Return a source in words, with what it needs.

    Raises:
        RequestError: A class where a value is wanted, or values given twice.
    """
    if isinstance(source, type):
        raise RequestError(f"source={source.__name__} is a class: make a value of it")
    if not isinstance(source, Mean | Given):
        return SourceParts(source, values, dataset)
    if values is not None or dataset is not None:
        raise RequestError(f"source={source!r} brings its own: leave values and dataset out")
    if isinstance(source, Mean):
        return SourceParts(source.word, None, source.dataset)
    return SourceParts(source.word, source.values, None)
