"""Circuits of one model as rows of 0 and 1: what can be joined, inverted and counted at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circuitgraph.circuit.circuit import Circuit
from circuitgraph.errors import CircuitError
from circuitgraph.graph import EdgeIndex, ModelGraph
from circuitgraph.nodes import Edge, Embed, Logits, Node

__all__ = ["EdgeMasks", "Mask"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class EdgeMasks:
    """The edges of a graph, numbered as `ModelGraph.edge_index` does.

    Args:
        graph: The model's graph.

    Example:
        >>> from circuitgraph.graph import ModelShape
        >>> masks = EdgeMasks(ModelGraph(ModelShape(n_layers=1, n_heads=1, attn_only=True)))
        >>> [str(edge) for edge in masks.edges]
        ['embed -> 0.0.q', 'embed -> 0.0.k', 'embed -> 0.0.v', 'embed -> logits', '0.0 -> logits']
        >>> masks.mask([masks.edges[4]]).astype(int)
        array([0, 0, 0, 0, 1])
    """

    graph: ModelGraph

    @property
    def index(self) -> EdgeIndex:
        """Which number each edge has."""
        return self.graph.edge_index

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, receiver by receiver."""
        return tuple(self.graph.edges())

    @cached_property
    def node_number(self) -> dict[Node, int]:
        """The number of each node, in the order of the residual stream."""
        return {node: at for at, node in enumerate(self.graph.nodes)}

    @cached_property
    def senders(self) -> NDArray[np.intp]:
        """The number of each edge's sending node, ``[edge]``: its place among all writers."""
        first = np.repeat(self.index.starts[:-1], self.index.heard)
        return np.arange(len(self.index), dtype=np.intp) - first

    @cached_property
    def receivers(self) -> NDArray[np.intp]:
        """The number of each edge's receiving node, ``[edge]``."""
        nodes = [self.node_number[port.node] for port in self.graph.ports]
        return np.repeat(np.array(nodes, dtype=np.intp), self.index.heard)

    def mask(self, edges: Iterable[Edge]) -> Mask:
        """Return which edges these are, ``[edge]``."""
        return self.index.row(edges)

    def of_circuit(self, circuit: Circuit) -> Mask:
        """Return which edges are in a circuit, ``[edge]``.

        Raises:
            CircuitError: A circuit of another model.
        """
        if not isinstance(circuit, Circuit):
            raise CircuitError(f"a Circuit is judged, got {type(circuit).__name__}")
        if circuit.shape != self.graph.shape:
            raise CircuitError(
                f"this circuit is of another model: it has {ModelGraph(circuit.shape)}, the "
                f"experiment's has {self.graph}"
            )
        return self.mask(circuit.members)

    def without(self, mask: Mask, nodes: Iterable[Node]) -> Mask:
        """Return a circuit without the edges that touch any of some nodes."""
        gone = np.zeros(len(self.node_number), dtype=bool)
        gone[[self.node_number[node] for node in nodes]] = True
        return mask & ~gone[self.senders] & ~gone[self.receivers]

    def on_a_way(self, mask: Mask) -> Mask:
        """Return the edges that lie on a way from embedding to logits within a circuit."""
        reached = np.zeros(len(self.node_number), dtype=bool)
        leads = reached.copy()
        reached[self.node_number[Embed()]] = leads[self.node_number[Logits()]] = True
        senders, receivers = self.senders[mask], self.receivers[mask]
        for marked, start, end in ((reached, senders, receivers), (leads, receivers, senders)):
            before = -1
            while before < (before := int(marked.sum())):
                marked[end[marked[start]]] = True
        return mask & reached[self.senders] & leads[self.receivers]

    def nodes_of(self, mask: Mask) -> Sequence[Node]:
        """Return the nodes that a circuit's edges touch, in order."""
        touched = np.union1d(self.senders[mask], self.receivers[mask])
        return [self.graph.nodes[at] for at in touched]
