"""Cells of a sweep over sets of edges, made when looked at: a set may have 32,000 edges."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Edge
from circuitgraph.plan.cells import Cell, Cells
from circuitgraph.plan.ops import FromSource, PatchWrite, ReadLogits, ReplaceSenders, Run, Source
from circuitgraph.request.edge_sets import EdgeSets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SetCells"]


@dataclass(frozen=True, eq=False)
class SetCells(Cells):
    """One cell for each set: its edges' senders replaced in what their receivers read.

    Args:
        graph: The model's graph.
        request: The sets.
        source: Where patched values come from.
    """

    graph: ModelGraph
    request: EdgeSets
    source: Source

    def __len__(self) -> int:
        return len(self.request.names)

    def cell(self, number: int) -> Cell:
        """Return a cell, made anew."""
        run = Run("measure", (*self._replaced(~self.kept[number]), ReadLogits()))
        return Cell((number,), self.name(number), (run,))

    def place(self, number: int) -> tuple[int, ...]:
        """Return where a cell stands in the grid."""
        return (number,)

    def name(self, number: int) -> str:
        """Return what a set is called."""
        return self.request.names[number]

    def sent(self) -> Iterator[PatchWrite]:
        """Yield every write that some set patches."""
        return iter(self.patched)

    @cached_property
    def kept(self) -> "NDArray[np.bool_]":
        """Which edges each set keeps live, ``[set edge]``."""
        return self.request.kept_rows(self.graph.edge_index)

    @cached_property
    def patched(self) -> tuple[PatchWrite, ...]:
        """The writes that some set patches."""
        import numpy as np

        index = self.graph.edge_index
        edges = np.flatnonzero(~self.kept.all(axis=0))
        ports = np.searchsorted(index.starts, edges, side="right") - 1
        return tuple(self._writes[place] for place in np.unique(edges - index.starts[ports]))

    def edges(self, number: int) -> tuple[Edge, ...]:
        """Return the edges that a cell patches."""
        import numpy as np

        return self.graph.edge_index.edges(np.flatnonzero(~self.kept[number]).tolist())

    @cached_property
    def _writes(self) -> tuple[PatchWrite, ...]:
        value = FromSource(self.source)
        return tuple(PatchWrite(writer, value) for writer in self.graph.writers)

    def _replaced(self, patched: "NDArray[np.bool_]") -> list[ReplaceSenders]:
        import numpy as np

        index, found = self.graph.edge_index, []
        for port, start, stop in zip(
            self.graph.ports, index.starts[:-1].tolist(), index.starts[1:].tolist(), strict=True
        ):
            places = np.flatnonzero(patched[start:stop]).tolist()
            if places:
                found.append(ReplaceSenders(port, tuple(self._writes[place] for place in places)))
        return found
