"""The kinds of nodes, their ports, and edges; ``str`` of each is its name in the notation."""

import operator
from dataclasses import dataclass
from functools import total_ordering
from typing import Literal

from circuitgraph.errors import NodeError

__all__ = [
    "MLP",
    "Edge",
    "Embed",
    "Head",
    "Logits",
    "Node",
    "Port",
    "PortName",
    "Reader",
    "Receiver",
    "Writer",
    "receiver_port",
]

PortName = Literal["q", "k", "v", "in"]


class _Ordered:
    """Orders nodes and ports of any kinds along the residual stream, for stable listings."""

    __slots__ = ()

    def _key(self) -> tuple[int, ...]:
        raise NotImplementedError  # pragma: no cover

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, _Ordered):
            return NotImplemented
        return self._key() < other._key()


def _index(owner: str, name: str, value: object) -> int:
    """Return a layer or head number as a plain int; NumPy's integers are welcome."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise NodeError(f"{owner}: {name} must be an integer of 0 or more, got {value!r}")
    return number


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class Embed(_Ordered):
    """The embedding: token plus position embeddings, the first write of the residual stream.

    Example:
        >>> str(Embed())
        'embed'
    """

    def _key(self) -> tuple[int, ...]:
        return (-1, 0, 0, 0)

    def __str__(self) -> str:
        return "embed"


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class Head(_Ordered):
    """One attention head. Its write is ``z_h @ W_O[h]``, without the layer's output bias.

    Example:
        >>> str(Head(9, 6)), str(Head(9, 6).q)
        ('9.6', '9.6.q')
    """

    layer: int
    head: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", _index("Head", "layer", self.layer))
        object.__setattr__(self, "head", _index("Head", "head", self.head))

    @property
    def q(self) -> "Port":
        """The port through which the head reads its queries."""
        return Port(self, "q")

    @property
    def k(self) -> "Port":
        """The port through which the head reads its own copy of the keys."""
        return Port(self, "k")

    @property
    def v(self) -> "Port":
        """The port through which the head reads its own copy of the values."""
        return Port(self, "v")

    def _key(self) -> tuple[int, ...]:
        return (self.layer, 0, self.head, 0)

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class MLP(_Ordered):
    """The MLP of one layer; a mixture of experts counts as one MLP.

    Example:
        >>> str(MLP(3))
        'mlp3'
    """

    layer: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", _index("MLP", "layer", self.layer))

    @property
    def port(self) -> "Port":
        """The one port of the MLP."""
        return Port(self, "in")

    def _key(self) -> tuple[int, ...]:
        return (self.layer, 1, 0, 0)

    def __str__(self) -> str:
        return f"mlp{self.layer}"


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class Logits(_Ordered):
    """The end of the residual stream: final norm and unembedding.

    Example:
        >>> str(Logits())
        'logits'
    """

    @property
    def port(self) -> "Port":
        """The one port of the logits."""
        return Port(self, "in")

    def _key(self) -> tuple[int, ...]:
        return (2**62, 0, 0, 0)

    def __str__(self) -> str:
        return "logits"


Writer = Embed | Head | MLP
Reader = Head | MLP | Logits
Node = Embed | Head | MLP | Logits


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class Port(_Ordered):
    """Where a node reads the residual stream: ``q``, ``k`` or ``v`` of a head, ``in`` of the rest.

    Example:
        >>> Port(Head(8, 6), "v") == Head(8, 6).v
        True
        >>> str(MLP(3).port)
        'mlp3'
    """

    node: Reader
    name: PortName

    def __post_init__(self) -> None:
        match self.node:
            case Head():
                allowed: tuple[str, ...] = ("q", "k", "v")
            case MLP() | Logits():
                allowed = ("in",)
            case _:
                raise NodeError(
                    f"{self.node} reads nothing, so it has no port; "
                    "heads, MLPs and the logits can receive"
                )
        if not isinstance(self.name, str) or self.name not in allowed:
            raise NodeError(
                f"no port {self.name!r} on {self.node}: its ports are {', '.join(allowed)}"
            )

    def _key(self) -> tuple[int, ...]:
        return (*self.node._key()[:3], ("q", "k", "v", "in").index(self.name))

    def __str__(self) -> str:
        return f"{self.node}.{self.name}" if isinstance(self.node, Head) else str(self.node)


Receiver = Port | MLP | Logits


def receiver_port(receiver: Receiver) -> Port:
    """Return the port that a receiver means: an MLP or the logits stand for their only port.

    Raises:
        NodeError: A head without a port, the embedding, or not a receiver at all.

    Example:
        >>> receiver_port(Logits())
        Port(node=Logits(), name='in')
    """
    match receiver:
        case Port():
            return receiver
        case MLP() | Logits():
            return receiver.port
        case Head():
            raise NodeError(
                f"the receiver {receiver} needs a port: "
                f"write {receiver}.q, {receiver}.k or {receiver}.v"
            )
        case Embed():
            raise NodeError("embed reads nothing, so it cannot receive")
        case _:
            raise NodeError(
                f"a receiver is a port, an MLP or the logits, got {receiver!r} "
                f"({type(receiver).__name__})"
            )


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class Edge(_Ordered):
    """A sender node and the receiver port it is read through.

    Args:
        sender: `Embed`, `Head` or `MLP`.
        receiver: A `Port`; an `MLP` or `Logits` stands for its only port.

    Example:
        >>> edge = Edge(Head(5, 5), Head(8, 6).v)
        >>> str(edge)
        '5.5 -> 8.6.v'
        >>> Edge(Head(9, 9), Logits()).receiver
        Port(node=Logits(), name='in')
    """

    sender: Writer
    receiver: Port

    def __init__(self, sender: Writer, receiver: Receiver) -> None:
        """Join a sender to a receiver."""
        if not isinstance(sender, Embed | Head | MLP):
            raise NodeError(
                f"a sender is the embedding, a head or an MLP, got {sender!r} "
                f"({type(sender).__name__})"
            )
        object.__setattr__(self, "sender", sender)
        object.__setattr__(self, "receiver", receiver_port(receiver))

    def _key(self) -> tuple[int, ...]:
        return (*self.sender._key(), *self.receiver._key())

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver}"
