"""What a cell patches together: senders, and the receivers of each hop. Plain data."""

from dataclasses import dataclass

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Edge, Logits, Port, Writer
from circuitgraph.request import Positions

__all__ = ["EdgeSet", "Hop", "Path", "Receiver", "Sender"]


@dataclass(frozen=True, slots=True)
class Sender:
    """A node that sends, and where."""

    node: Writer
    at: Positions = None


@dataclass(frozen=True, slots=True)
class Receiver:
    """A port that receives, and where."""

    port: Port
    at: Positions = None


@dataclass(frozen=True, slots=True)
class Path:
    """What a cell of a path patches: senders, then the receivers of each hop."""

    senders: tuple[Sender, ...]
    receivers: tuple[tuple[Receiver, ...], ...]
    recompute: bool

    @property
    def last(self) -> tuple[Receiver, ...]:
        """The receivers that are measured; none where the senders are."""
        return self.receivers[-1] if self.receivers else ()

    @property
    def stops_at_logits(self) -> bool:
        """Whether nothing is downstream of the last receivers, as for one cell of ``port``."""
        return bool(self.last) and all(to.port.node == Logits() for to in self.last)

    def edges(self, graph: ModelGraph) -> tuple[Edge, ...]:
        """Return the edges of every hop.

        A receiver that no sender comes before receives nothing, and sends nothing on.
        """
        found: list[Edge] = []
        senders: tuple[Writer, ...] = tuple(sender.node for sender in self.senders)
        for receivers in self.receivers:
            edges = graph.edges_between(senders, (receiver.port for receiver in receivers))
            found += edges
            nodes = dict.fromkeys(edge.receiver.node for edge in edges)
            senders = tuple(node for node in nodes if not isinstance(node, Logits))
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Hop:
    """Receivers and the senders that all of them hear."""

    senders: tuple[Sender, ...]
    receivers: tuple[Receiver, ...]


@dataclass(frozen=True, slots=True)
class EdgeSet:
    """What a list of edges patches: hops side by side, since equal senders share a run."""

    hops: tuple[Hop, ...]

    @property
    def last(self) -> tuple[Receiver, ...]:
        """The receivers that are measured: all of them."""
        return tuple(receiver for hop in self.hops for receiver in hop.receivers)

    def edges(self, graph: ModelGraph) -> tuple[Edge, ...]:
        """Return the edges, hop by hop."""
        return tuple(
            edge
            for hop in self.hops
            for edge in graph.edges_between(
                (sender.node for sender in hop.senders), (to.port for to in hop.receivers)
            )
        )
