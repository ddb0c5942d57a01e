"""The closed set of operations that a run is made of, and the run itself.

Six ops say everything: `PatchWrite` and `Freeze` set what nodes write, `PatchPort` and
`ReplaceSenders` set what ports read, `Record` keeps values for later runs, `ReadLogits` ends a
cell. A node that no op mentions is recomputed from its live input. All runs start from the clean
prompt.
"""

from dataclasses import dataclass
from typing import Literal

from circuitgraph.nodes import MLP, Head, Node, Port, Writer
from circuitgraph.request import Positions

__all__ = [
    "Freeze",
    "FromRun",
    "FromSource",
    "Op",
    "PatchPort",
    "PatchWrite",
    "ReadLogits",
    "Record",
    "ReplaceSenders",
    "Run",
    "Source",
    "Value",
]

Source = Literal["corrupt", "zero", "mean", "mean-position", "given"]
"""Where a sender's patched value comes from; ``corrupt`` is the run on the corrupt prompt."""


@dataclass(frozen=True, slots=True)
class FromSource:
    """The write that a node has in a source, usually the corrupt run."""

    source: Source = "corrupt"

    def __str__(self) -> str:
        return self.source


@dataclass(frozen=True, slots=True)
class FromRun:
    """The write that a node had in an earlier run of the same cell (which recorded it)."""

    run: int

    def __str__(self) -> str:
        return f"run {self.run + 1}"


Value = FromSource | FromRun


@dataclass(frozen=True, slots=True)
class PatchWrite:
    """Set the write of a sender node.

    At positions other than ``at`` it keeps its clean write where the run also freezes the node, and
    its live write otherwise.
    """

    node: Writer
    value: Value = FromSource()
    at: Positions = None


@dataclass(frozen=True, slots=True)
class Freeze:
    """Set the writes of nodes to their clean values."""

    nodes: frozenset[Writer]


@dataclass(frozen=True, slots=True)
class PatchPort:
    """Set what a port reads to its clean (``set``) or live (``add``) value plus a change.

    The change is what the run ``delta_from`` recorded there, less the clean value. At positions
    other than ``at`` the port reads its live value.
    """

    port: Port
    delta_from: int
    mode: Literal["set", "add"] = "set"
    at: Positions = None


@dataclass(frozen=True, slots=True)
class ReplaceSenders:
    """Set what a port reads to its live value with each sender's live write replaced.

    This is mode ``replace``. Nodes of ``through`` that lie between are recomputed with the senders
    replaced; all other nodes keep their live writes.
    """

    port: Port
    senders: tuple[PatchWrite, ...]
    through: frozenset[Head | MLP] = frozenset()
    at: Positions = None


@dataclass(frozen=True, slots=True)
class Record:
    """Keep what ports read, and what nodes write, for later runs of the cell."""

    ports: tuple[Port, ...] = ()
    writes: tuple[Writer, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadLogits:
    """Norm and unembed the end of the residual stream, and apply the metric."""


Op = PatchWrite | Freeze | PatchPort | ReplaceSenders | Record | ReadLogits


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over the model, or over a part of it, on the clean prompt.

    Args:
        name: What it is for: ``send``, ``recompute``, ``measure`` or ``read out``.
        ops: What is set, recorded and read.
    """

    name: Literal["send", "recompute", "measure", "read out"]
    ops: tuple[Op, ...]

    @property
    def patched(self) -> tuple[PatchWrite, ...]:
        """The senders that this run sets."""
        return tuple(op for op in self.ops if isinstance(op, PatchWrite))

    @property
    def frozen(self) -> frozenset[Writer]:
        """The nodes that this run sets to their clean writes."""
        sets = [op.nodes for op in self.ops if isinstance(op, Freeze)]
        return sets[0] if len(sets) == 1 else frozenset().union(*sets)

    @property
    def ports(self) -> tuple[PatchPort | ReplaceSenders, ...]:
        """The ports that this run patches."""
        return tuple(op for op in self.ops if isinstance(op, PatchPort | ReplaceSenders))

    @property
    def recorded_ports(self) -> tuple[Port, ...]:
        """The ports whose input this run records."""
        return tuple(port for op in self.ops if isinstance(op, Record) for port in op.ports)

    @property
    def recorded_writes(self) -> tuple[Writer, ...]:
        """The nodes whose write this run records."""
        return tuple(node for op in self.ops if isinstance(op, Record) for node in op.writes)

    @property
    def reads_logits(self) -> bool:
        """Whether the metric is applied to this run's logits."""
        return any(isinstance(op, ReadLogits) for op in self.ops)

    def recomputed(self, nodes: tuple[Node, ...]) -> frozenset[Node]:
        """Return which of a graph's nodes this run computes from their live input."""
        held = self.frozen | {op.node for op in self.patched}
        return frozenset(nodes) - held
