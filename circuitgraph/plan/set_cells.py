"""Cells of a sweep over sets of edges, made when looked at: a set may have 32,000 edges."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, overload

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Edge
from circuitgraph.plan.ops import FromSource, PatchWrite, ReadLogits, ReplaceSenders, Run, Source
from circuitgraph.plan.plan import Cell
from circuitgraph.request.edge_sets import EdgeSets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SetCells"]


@dataclass(frozen=True)
class SetCells(Sequence[Cell]):
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

    @overload
    def __getitem__(self, number: int) -> Cell: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Cell, ...]: ...
    def __getitem__(self, number: int | slice) -> Cell | tuple[Cell, ...]:
        """Return a cell, made anew."""
        if isinstance(number, slice):
            return tuple(self[at] for at in range(*number.indices(len(self))))
        at = range(len(self))[number]
        run = Run("measure", (*self._replaced(~self.kept[at]), ReadLogits()))
        return Cell((at,), self.request.names[at], (run,))

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
