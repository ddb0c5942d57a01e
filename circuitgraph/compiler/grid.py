"""What the compiler lays out: cells, and in each what is patched together. Plain data."""

from dataclasses import dataclass

from circuitgraph.nodes import Logits, Port, Writer
from circuitgraph.plan import Axis
from circuitgraph.request import Positions

__all__ = ["Candidate", "EdgeSet", "Grid", "Hop", "Path", "Receiver", "Sender"]


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


@dataclass(frozen=True, slots=True)
class Candidate:
    """One cell of the grid, possible or not.

    Args:
        index: Position along each axis.
        steps: The cell's own request as text, step by step.
        asks: What it patches.
    """

    index: tuple[int, ...]
    steps: tuple[str, ...]
    asks: Path | EdgeSet

    @property
    def name(self) -> str:
        """The cell's own request as text."""
        text, asks = " -> ".join(self.steps), self.asks
        if isinstance(asks, Path) and asks.recompute and not asks.stops_at_logits:
            return f"{text} => logits"
        return text


@dataclass(frozen=True, slots=True)
class Grid:
    """The swept dimensions and every cell of their product."""

    axes: tuple[Axis, ...]
    candidates: tuple[Candidate, ...]
