"""The cells of a sweep, counted and named without being made.

A sweep over both ends of every edge has a million cells and more, of a few hundred kinds. What is
asked of all of them (how many, where they stand, what they cost, whether they are well formed) is
answered kind by kind; a cell itself is made when somebody looks at it.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Edge
from circuitgraph.plan.ops import FromSource, PatchWrite, ReplaceSenders, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Cell", "Cells", "ListedCells", "SomeCells"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One request of a sweep: where it stands in the grid, its text, and its runs.

    Args:
        index: Position along each axis of the plan.
        name: The cell's own request as text, such as ``9.9 -> logits``.
        runs: The runs in order; ops refer to earlier runs by their number.
    """

    index: tuple[int, ...]
    name: str
    runs: tuple[Run, ...]


class Cells(Sequence[Cell], ABC):
    """All cells of a plan, in order.

    Two of them are equal where their cells are, however these are made.
    """

    @abstractmethod
    def cell(self, number: int) -> Cell:
        """Return a cell, made anew or not."""

    @abstractmethod
    def place(self, number: int) -> tuple[int, ...]:
        """Return where a cell stands in the grid."""

    @abstractmethod
    def edges(self, number: int) -> tuple[Edge, ...]:
        """Return the edges that a cell patches; none where it sets what senders write."""

    def name(self, number: int) -> str:
        """Return a cell's own request as text."""
        return self.cell(number).name

    def kind(self, number: int) -> Hashable:
        """Return what cells have in common that do the same to other nodes at the same points."""
        return number

    def kinds(self) -> Iterator[tuple[int, int]]:
        """Yield the first cell of each kind, in order, and how many there are of it."""
        first: dict[Hashable, int] = {}
        many: dict[Hashable, int] = {}
        for number in range(len(self)):
            kind = self.kind(number)
            first.setdefault(kind, number)
            many[kind] = many.get(kind, 0) + 1
        for kind, number in first.items():
            yield number, many[kind]

    def samples(self) -> Iterable[int]:
        """Return cells of every kind, with every node and port that is patched among them."""
        return range(len(self))

    def sent(self) -> Iterator[PatchWrite]:
        """Yield every write whose value comes from the plan's source, replaced senders' too."""
        for number, _ in self.kinds():
            for run in self[number].runs:
                for op in run.ops:
                    for write in op.senders if isinstance(op, ReplaceSenders) else (op,):
                        if isinstance(write, PatchWrite) and isinstance(write.value, FromSource):
                            yield write

    def places(self) -> "NDArray[np.intp]":
        """Return where all cells stand, ``[cell axis]``."""
        import numpy as np

        places = [self.place(number) for number in range(len(self))]
        n_axes = len(places[0]) if places else 0
        return np.array(places, dtype=np.intp).reshape(len(places), n_axes)

    def part(self, numbers: Sequence[int]) -> "Cells":
        """Return some of the cells, in the order of their numbers; they keep their places."""
        return SomeCells(self, tuple(int(number) for number in numbers))

    @overload
    def __getitem__(self, number: int) -> Cell: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Cell, ...]: ...
    def __getitem__(self, number: int | slice) -> Cell | tuple[Cell, ...]:
        if isinstance(number, slice):
            return tuple(map(self.cell, range(*number.indices(len(self)))))
        return self.cell(range(len(self))[number])

    def __iter__(self) -> Iterator[Cell]:
        return map(self.cell, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        if isinstance(other, type(self)) and _parts(self) == _parts(other):
            return True
        return len(self) == len(other) and all(map(operator.eq, self, other))

    def __hash__(self) -> int:
        return hash((len(self), *self[:1]))


def _parts(cells: Any) -> list[object]:
    return [getattr(cells, part.name) for part in fields(cells)]


@dataclass(frozen=True, eq=False)
class ListedCells(Cells):
    """Cells that are there already.

    Args:
        graph: The model's graph.
        listed: The cells.
    """

    graph: ModelGraph
    listed: tuple[Cell, ...]

    def __len__(self) -> int:
        return len(self.listed)

    def cell(self, number: int) -> Cell:
        """Return a cell."""
        return self.listed[number]

    def place(self, number: int) -> tuple[int, ...]:
        """Return where a cell stands in the grid."""
        return self.listed[number].index

    def edges(self, number: int) -> tuple[Edge, ...]:
        """Return the edges that a cell's runs patch."""
        found: list[Edge] = []
        for run in self.listed[number].runs:
            hops = [([op.node for op in run.patched], run.recorded_ports)]
            hops += [
                ([sender.node for sender in op.senders], (op.port,))
                for op in run.ports
                if isinstance(op, ReplaceSenders)
            ]
            for senders, ports in hops:
                found += self.graph.edges_between(senders, ports)
        return tuple(dict.fromkeys(found))

    def part(self, numbers: Sequence[int]) -> "ListedCells":
        """Return some of the cells."""
        return ListedCells(self.graph, tuple(self.listed[number] for number in numbers))


@dataclass(frozen=True, eq=False)
class SomeCells(Cells):
    """Some of the cells of a sweep.

    Args:
        cells: All of them.
        numbers: Which of them.
    """

    cells: Cells
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def cell(self, number: int) -> Cell:
        """Return a cell."""
        return self.cells.cell(self.numbers[number])

    def place(self, number: int) -> tuple[int, ...]:
        """Return where a cell stands in the grid."""
        return self.cells.place(self.numbers[number])

    def name(self, number: int) -> str:
        """Return a cell's own request as text."""
        return self.cells.name(self.numbers[number])

    def edges(self, number: int) -> tuple[Edge, ...]:
        """Return the edges that a cell patches."""
        return self.cells.edges(self.numbers[number])

    def kind(self, number: int) -> Hashable:
        """Return what cells have in common that do the same to other nodes at the same points."""
        return self.cells.kind(self.numbers[number])

    def kinds(self) -> Iterator[tuple[int, int]]:
        """Yield the first cell of each kind, in order, and how many there are of it."""
        return iter(self._kinds)

    @cached_property
    def _kinds(self) -> tuple[tuple[int, int], ...]:
        return tuple(Cells.kinds(self))

    def places(self) -> "NDArray[np.intp]":
        """Return where all cells stand, ``[cell axis]``."""
        found: NDArray[np.intp] = self.cells.places()[list(self.numbers)]
        return found

    def part(self, numbers: Sequence[int]) -> "SomeCells":
        """Return some of the cells."""
        return SomeCells(self.cells, tuple(self.numbers[number] for number in numbers))
