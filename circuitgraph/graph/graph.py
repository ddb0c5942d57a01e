"""The graph that a shape spans: nodes, ports, edges, and which sender comes before which port."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, assert_never

from circuitgraph.arguments import instance
from circuitgraph.errors import NodeError
from circuitgraph.graph.edge_index import EdgeIndex
from circuitgraph.graph.shape import ModelShape
from circuitgraph.nodes import (
    MLP,
    Edge,
    Embed,
    Head,
    Logits,
    Node,
    Port,
    Receiver,
    Writer,
    receiver_port,
)

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["ModelGraph"]


@dataclass(frozen=True)
class ModelGraph:
    """The directed graph of a model's heads, MLPs, embedding and logits.

    Nodes, edges and their order come from the shape alone, so this needs no model and no torch.
    Questions about single edges and nodes are answered without building the networkx graph.

    Args:
        shape: The model's shape.

    Example:
        >>> graph = ModelGraph(ModelShape(n_layers=12, n_heads=12))
        >>> len(graph.nodes), graph.n_edges
        (158, 32491)
        >>> graph.precedes(Head(5, 5), Head(8, 6).v), graph.precedes(Head(8, 6), Head(8, 6).q)
        (True, False)
        >>> graph.dag.edges[Head(0, 1), MLP(0), "in"]["edge"]
        Edge(sender=Head(layer=0, head=1), receiver=Port(node=MLP(layer=0), name='in'))
    """

    shape: ModelShape

    def __post_init__(self) -> None:
        instance("shape", self.shape, ModelShape, "cg.ModelShape(12, 12)", NodeError)

    @classmethod
    def from_model(cls, model: Any) -> "ModelGraph":
        """Return the graph of a model: a TransformerLens bridge, or one of Hugging Face.

        Raises:
            ModelError: The object is not a model whose shape can be read.
        """
        from circuitgraph.lens.backend import backend_of

        return cls(backend_of(model).shape)

    # -- nodes and ports ------------------------------------------------------------------------

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """All heads, layer by layer."""
        layers, heads = range(self.shape.n_layers), range(self.shape.n_heads)
        return tuple(Head(layer, head) for layer in layers for head in heads)

    @cached_property
    def mlps(self) -> tuple[MLP, ...]:
        """All MLPs, layer by layer."""
        return tuple(
            MLP(layer) for layer in range(self.shape.n_layers) if self.shape.has_mlp(layer)
        )

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        """Everything that writes to the residual stream, in the order of the stream."""
        writers: list[Writer] = [Embed(), *self.heads, *self.mlps]
        return tuple(sorted(writers))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in the order of the residual stream."""
        return (*self.writers, Logits())

    @cached_property
    def ports(self) -> tuple[Port, ...]:
        """All ports, in the order of the residual stream."""
        return tuple(port for node in self.nodes for port in self.ports_of(node))

    def ports_of(self, node: Node) -> tuple[Port, ...]:
        """Return the ports of a node; the embedding has none."""
        match node:
            case Embed():
                return ()
            case Head():
                return (node.q, node.k, node.v)
            case MLP() | Logits():
                return (node.port,)
            case _:
                raise NodeError(f"{node!r} is no node: write for instance cg.Head(9, 9)")

    # -- order ----------------------------------------------------------------------------------

    def writes_at(self, writer: Writer) -> int:
        """Return the first point of the residual stream that holds the writer's write.

        Points are numbered from 0 (after the embedding), two per block: ``2 * layer`` is a block's
        input, ``2 * layer + 1`` what lies between attention and MLP.
        """
        match writer:
            case Embed():
                return 0
            case Head(layer=layer):
                return 2 * layer + (2 if self.shape.parallel else 1)
            case MLP(layer=layer):
                return 2 * layer + 2
            case _:
                raise NodeError(
                    f"{writer} writes nothing: a sender is the embedding, a head or an MLP"
                )

    def reads_at(self, port: Port) -> int:
        """Return the point of the residual stream that the port reads."""
        match receiver_port(port).node:
            case Head(layer=layer):
                return 2 * layer
            case MLP(layer=layer):
                return 2 * layer + (0 if self.shape.parallel else 1)
            case Logits():
                return 2 * self.shape.n_layers
            case _:
                assert_never(port.node)

    def precedes(self, sender: Writer, receiver: Receiver) -> bool:
        """Return whether the sender writes at a point that the receiver reads."""
        return self.writes_at(sender) <= self.reads_at(receiver_port(receiver))

    # -- edges ----------------------------------------------------------------------------------

    @cached_property
    def n_edges(self) -> int:
        """Number of edges, counted without making them."""
        points = [self.writes_at(writer) for writer in self.writers]
        before = [0] * (2 * self.shape.n_layers + 1)
        for point in points:
            before[point] += 1
        for point in range(1, len(before)):
            before[point] += before[point - 1]
        return sum(before[self.reads_at(port)] for port in self.ports)

    def edges_into(self, receiver: Receiver) -> tuple[Edge, ...]:
        """Return the edges from every sender that comes before the receiver."""
        port = receiver_port(receiver)
        self.check(port)
        return tuple(Edge(writer, port) for writer in self.writers if self.precedes(writer, port))

    def edges_from(self, sender: Writer) -> tuple[Edge, ...]:
        """Return the edges to every port that comes after the sender."""
        self.check(sender)
        return tuple(Edge(sender, port) for port in self.ports if self.precedes(sender, port))

    def edges_between(self, senders: Iterable[Writer], ports: Iterable[Port]) -> list[Edge]:
        """Return the edges that are patched where some nodes send and some ports receive.

        That is, from each sender to each port that it comes before.
        """
        senders = tuple(senders)
        return [
            Edge(sender, port)
            for port in ports
            for sender in senders
            if self.writes_at(sender) <= self.reads_at(port)
        ]

    def edges(self) -> Iterator[Edge]:
        """Yield every edge, receiver by receiver."""
        for port in self.ports:
            yield from self.edges_into(port)

    @cached_property
    def edge_index(self) -> EdgeIndex:
        """The numbers of the edges, by which sets of edges are rows of 0 and 1."""
        return EdgeIndex(self)

    @cached_property
    def dag(self) -> "nx.MultiDiGraph[Node]":
        """The whole graph: node objects, edges keyed by port name and carrying ``edge=Edge(...)``.

        Built on first use: a tenth of a second for GPT-2 small, about half for SmolLM2-135M.
        """
        import networkx as nx  # a quarter of a second, and most users never need the whole graph

        dag: nx.MultiDiGraph[Node] = nx.MultiDiGraph()
        dag.add_nodes_from(self.nodes)
        for edge in self.edges():
            dag.add_edge(edge.sender, edge.receiver.node, key=edge.receiver.name, edge=edge)
        return dag

    # -- does it exist? -------------------------------------------------------------------------

    def problem(self, thing: Node | Port) -> NodeError | None:
        """Return what is wrong with a node or port on this graph, or None."""
        node = thing.node if isinstance(thing, Port) else thing
        match node:
            case Head(layer=layer, head=head):
                if layer >= self.shape.n_layers:
                    return self._missing(thing, f"layer must be 0..{self.shape.n_layers - 1}")
                if head >= self.shape.n_heads:
                    return self._missing(thing, f"head must be 0..{self.shape.n_heads - 1}")
            case MLP(layer=layer):
                if not self.mlps:
                    return self._missing(thing, "the model has no MLPs")
                if layer >= self.shape.n_layers:
                    return self._missing(thing, f"layer must be 0..{self.shape.n_layers - 1}")
                if not self.shape.has_mlp(layer):
                    return self._missing(thing, f"layer {layer} has no MLP")
            case Embed() | Logits():
                pass
            case _:
                raise NodeError(f"{thing!r} is no node or port: write for instance cg.Head(9, 9)")
        return None

    def check(self, thing: Node | Port) -> None:
        """Raise `NodeError` unless the node or port is in this graph."""
        if problem := self.problem(thing):
            raise problem

    def order_problem(self, sender: Writer, receiver: Port) -> NodeError | None:
        """Return why the sender does not come before the receiver, or None where it does."""
        if self.precedes(sender, receiver):
            return None
        node = receiver.node
        if isinstance(node, MLP) and isinstance(sender, Head) and sender.layer == node.layer:
            why = "attention and MLP of a layer read the same point in this model's parallel blocks"
        else:
            why = "it must write to the residual stream before the receiver reads it"
        return NodeError(f"{sender} does not come before {receiver}: {why}")

    def _missing(self, thing: Node | Port, why: str) -> NodeError:
        shape = self.shape
        size = f"{shape.n_layers} layers of {shape.n_heads} heads"
        near = self._nearest(thing)
        hint = f"; did you mean {near}?" if near else ""
        return NodeError(f"no node {str(thing)!r} in this graph ({size}): {why}{hint}")

    def _nearest(self, thing: Node | Port) -> str:
        last_layer, last_head = self.shape.n_layers - 1, self.shape.n_heads - 1
        match thing:
            case Port(node=Head() as head, name=name):
                return f"{self._nearest(head)}.{name}"
            case Port(node=node):
                return self._nearest(node)
            case Head(layer=layer, head=head_index):
                return str(Head(min(layer, last_layer), min(head_index, last_head)))
            case MLP(layer=layer) if self.mlps:
                return str(min(self.mlps, key=lambda mlp: abs(mlp.layer - layer)))
            case _:
                return ""

    def __str__(self) -> str:
        shape = self.shape
        kv = f" ({shape.kv_heads} key-value heads)" if shape.grouped else ""
        blocks = "parallel" if shape.parallel else "sequential"
        return (
            f"ModelGraph: {shape.n_layers} layers of {shape.n_heads} heads{kv}, "
            f"{len(self.mlps)} MLPs, {blocks} blocks; {len(self.nodes)} nodes, {self.n_edges} edges"
        )
