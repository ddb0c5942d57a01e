"""The canonical numbering of a graph's edges, so that sets of edges are rows of 0 and 1.

Edges are numbered receiver by receiver, in the order of `ModelGraph.edges`. Senders stand in the
order of the residual stream, so those that a port hears are always the first few of all writers:
the edges into one port are one block of numbers, and a sender's place in it is its place among all
writers. Everything that reads sets of edges as matrices stands on these two sentences.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from circuitgraph.errors import NodeError
from circuitgraph.nodes import Edge, Port, Receiver, Writer, receiver_port

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from circuitgraph.graph.graph import ModelGraph

__all__ = ["EdgeIndex"]


@dataclass(frozen=True)
class EdgeIndex:
    """Edges by number, and numbers by edge.

    Args:
        graph: Whose edges.

    Example:
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> from circuitgraph.nodes import Head, Logits
        >>> index = ModelGraph(ModelShape(n_layers=12, n_heads=12)).edge_index
        >>> len(index), str(index.edge(0)), str(index.edge(len(index) - 1))
        (32491, 'embed -> 0.0.q', 'mlp11 -> logits')
        >>> index.number(Edge(Head(9, 9), Logits())) - index.block(Logits()).start
        127
        >>> str(index.graph.writers[127])
        '9.9'
    """

    graph: "ModelGraph"

    def __len__(self) -> int:
        return int(self.starts[-1])

    # -- where everything stands ----------------------------------------------------------------

    @cached_property
    def writer_places(self) -> dict[Writer, int]:
        """The place of each sender among all writers."""
        return {writer: place for place, writer in enumerate(self.graph.writers)}

    @cached_property
    def port_places(self) -> dict[Port, int]:
        """The place of each port among all ports."""
        return {port: place for place, port in enumerate(self.graph.ports)}

    @cached_property
    def heard(self) -> "NDArray[np.intp]":
        """How many writers come before each port: the first so many of all writers."""
        import numpy as np

        points = np.array([self.graph.writes_at(writer) for writer in self.graph.writers])
        reads = [self.graph.reads_at(port) for port in self.graph.ports]
        return np.searchsorted(points, reads, side="right").astype(np.intp)

    @cached_property
    def starts(self) -> "NDArray[np.intp]":
        """The first number of each port's block; one more at the end, the number of edges."""
        import numpy as np

        return np.concatenate([[0], np.cumsum(self.heard)]).astype(np.intp)

    def block(self, receiver: Receiver) -> slice:
        """Return the numbers of the edges into a receiver, in the order of its senders."""
        place = self._place(receiver_port(receiver))
        return slice(int(self.starts[place]), int(self.starts[place + 1]))

    # -- edges and numbers ----------------------------------------------------------------------

    def number(self, edge: Edge) -> int:
        """Return the number of an edge.

        Raises:
            NodeError: An end is not in the graph, or the sender does not come before the receiver.
        """
        port, writer = self.port_places.get(edge.receiver), self.writer_places.get(edge.sender)
        if port is None or writer is None or writer >= self.heard[port]:
            for thing in (edge.sender, edge.receiver):
                self.graph.check(thing)
            problem = self.graph.order_problem(edge.sender, edge.receiver)
            assert problem is not None
            raise problem
        return int(self.starts[port]) + writer

    def edge(self, number: int) -> Edge:
        """Return the edge of a number."""
        import numpy as np

        if not 0 <= number < len(self):
            raise NodeError(f"no edge {number} in this graph: they are numbered 0..{len(self) - 1}")
        port = int(np.searchsorted(self.starts, number, side="right")) - 1
        writer = self.graph.writers[number - int(self.starts[port])]
        return Edge(writer, self.graph.ports[port])

    def numbers(self, edges: Iterable[Edge]) -> "NDArray[np.intp]":
        """Return the numbers of some edges, in their order."""
        import numpy as np

        return np.fromiter((self.number(edge) for edge in edges), dtype=np.intp)

    def edges(self, numbers: Iterable[int]) -> tuple[Edge, ...]:
        """Return the edges of some numbers, in their order."""
        return tuple(self.edge(int(number)) for number in numbers)

    def row(self, edges: Iterable[Edge]) -> "NDArray[np.bool_]":
        """Return a set of edges as a row of truth values, ``[edge]``."""
        import numpy as np

        row = np.zeros(len(self), dtype=np.bool_)
        row[self.numbers(edges)] = True
        return row

    def rows(self, sets: Sequence[Iterable[Edge]]) -> "NDArray[np.bool_]":
        """Return sets of edges as rows, ``[set edge]``."""
        import numpy as np

        rows = np.zeros((len(sets), len(self)), dtype=np.bool_)
        for row, edges in zip(rows, sets, strict=True):
            row[self.numbers(edges)] = True
        return rows

    def _place(self, port: Port) -> int:
        self.graph.check(port)
        return self.port_places[port]
