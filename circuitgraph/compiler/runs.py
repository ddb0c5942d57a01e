"""The runs of every cell, hop by hop: the three-step algorithm, and what each mode makes of it."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal, cast

from circuitgraph.compiler.grid import EdgeSet, Path, Receiver, Sender
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Head, Port, Writer
from circuitgraph.plan import (
    Freeze,
    FromRun,
    FromSource,
    Op,
    PatchPort,
    PatchWrite,
    ReadLogits,
    Record,
    ReplaceSenders,
    Run,
    Source,
)
from circuitgraph.request import Mode

__all__ = ["RunWriter", "by_point"]

Patches = tuple[PatchWrite, ...]


def by_point(graph: ModelGraph, receivers: Iterable[Receiver]) -> list[list[Receiver]]:
    """Return receivers that read the same point of the residual stream together, in order.

    Those of one point cannot reach each other; an earlier one can reach a later one.
    """
    points: dict[int, list[Receiver]] = {}
    for receiver in receivers:
        points.setdefault(graph.reads_at(receiver.port), []).append(receiver)
    return [points[point] for point in sorted(points)]


class RunWriter:
    """Writes the runs of one cell after the other; those of all cells have the same names.

    Args:
        graph: The model's graph.
        through: What direct paths may pass through.
        mode: What patching several receivers means.
        source: Where patched values come from.
        recomputes: For each inner hop, how many runs recompute its receivers.
    """

    def __init__(
        self,
        graph: ModelGraph,
        through: frozenset[Head | MLP],
        mode: Mode,
        source: Source,
        recomputes: tuple[int, ...] = (),
    ) -> None:
        self.graph = graph
        self.through = through
        self.mode = mode
        self.source = FromSource(source)
        self.recomputes = recomputes
        self.everything = frozenset(graph.writers)
        # Cell after cell sends and freezes the same; equal parts of a plan are one object.
        self.sent = cache(self._sent)
        self.sending = cache(self._sending)
        self.freeze_all_but = cache(self._freeze_all_but)

    @property
    def arriving(self) -> Literal["set", "add"]:
        """What becomes of the change that arrives at a receiver."""
        return "add" if self.mode == "add" else "set"

    def runs(self, asks: Path | EdgeSet) -> list[Run]:
        """Return the runs of one cell."""
        match asks:
            case EdgeSet():
                return self.edge_set(asks)
            case Path(receivers=()):
                return [self.measure(self.sent(asks.senders))]
            case Path():
                return self.path(asks)

    def path(self, path: Path) -> list[Run]:
        """Each hop sends; inner receivers are recomputed and send on, the last ones measured."""
        runs: list[Run] = []
        patches = self.sent(path.senders)
        *inner, last = path.receivers
        for receivers, times in zip(inner, self.recomputes, strict=True):
            runs.append(self.send(patches, receivers))
            ports = self.patched_ports(receivers, patches, len(runs) - 1, "set")
            recomputed = self.recompute(ports, times)
            patches = tuple(
                PatchWrite(node, FromRun(len(runs) + number))
                for number, run in enumerate(recomputed)
                for node in run.recorded_writes
            )
            runs += recomputed
        if path.recompute and self.mode == "replace":
            return [*runs, self.measure(self.replacements(last, patches))]
        runs.append(self.send(patches, last))
        ports = self.patched_ports(last, patches, len(runs) - 1, self.arriving)
        if not path.recompute:
            return [*runs, Run("read out", self.frozen_but_read(ports))]
        if path.stops_at_logits:
            return [*runs, Run("measure", self.frozen_but_read(ports))]
        return [*runs, self.measure(ports)]

    def edge_set(self, edges: EdgeSet) -> list[Run]:
        """Each receiver with its own senders; receivers of equal senders share a sender run."""
        runs: list[Run] = []
        ports: list[Op] = []
        for hop in edges.hops:
            patches = self.sent(hop.senders)
            if self.mode == "replace":
                ports += self.replacements(hop.receivers, patches)
                continue
            runs.append(self.send(patches, hop.receivers))
            ports += self.patched_ports(hop.receivers, patches, len(runs) - 1, self.arriving)
        return [*runs, self.measure(ports)]

    # -- the kinds of run -----------------------------------------------------------------------

    def send(self, patches: Patches, receivers: Sequence[Receiver]) -> Run:
        """Senders patched, everything outside the variant frozen; record what arrives.

        A sender that is patched at some positions only is frozen at the others, unless a direct
        path may pass through it.
        """
        ports = tuple(receiver.port for receiver in self.reached(receivers, patches))
        return Run("send", (*self.sending(patches), Record(ports=ports)))

    def _sending(self, patches: Patches) -> tuple[Op, ...]:
        live = frozenset(patch.node for patch in patches if patch.at is None) | self.through
        return (*patches, self.freeze_all_but(live))

    def recompute(self, ports: Sequence[PatchPort], times: int) -> list[Run]:
        """Inner receivers recomputed, each from its patched ports alone; record what they write.

        Receivers that could reach each other are recomputed in runs of their own. Where other cells
        of the sweep have more of them, runs that change nothing fill up.
        """
        runs = []
        receivers = [Receiver(op.port, op.at) for op in ports]
        ops = {op.port: op for op in ports}
        for group in by_point(self.graph, receivers):
            nodes = tuple(dict.fromkeys(cast(Writer, receiver.port.node) for receiver in group))
            patched = tuple(ops[receiver.port] for receiver in group)
            frozen = self.freeze_all_but(frozenset(nodes))
            runs.append(Run("recompute", (*patched, frozen, Record(writes=nodes))))
        nothing = Run("recompute", (self.freeze_all_but(frozenset()), Record()))
        return runs + [nothing] * (times - len(runs))

    @staticmethod
    def measure(patches: Sequence[Op]) -> Run:
        """Senders or receivers patched, everything downstream recomputed."""
        return Run("measure", (*patches, ReadLogits()))

    def frozen_but_read(self, ports: Sequence[Op]) -> tuple[Op, ...]:
        """Only norm and unembedding run: what arrives at the logits is known."""
        return (*ports, self.freeze_all_but(frozenset()), ReadLogits())

    # -- what they patch ------------------------------------------------------------------------

    def _sent(self, senders: tuple[Sender, ...]) -> Patches:
        """Return the ops that patch senders."""
        return tuple(PatchWrite(sender.node, self.source, sender.at) for sender in senders)

    def _freeze_all_but(self, live: frozenset[Writer]) -> Freeze:
        """Return the op that freezes all writers but some."""
        return Freeze(self.everything - live)

    def patched_ports(
        self,
        receivers: Sequence[Receiver],
        patches: Patches,
        sent: int,
        mode: Literal["set", "add"],
    ) -> tuple[PatchPort, ...]:
        """Return the ops that patch ports with what a sender run recorded there."""
        reached = self.reached(receivers, patches)
        return tuple(PatchPort(receiver.port, sent, mode, receiver.at) for receiver in reached)

    def replacements(self, receivers: Sequence[Receiver], patches: Patches) -> list[ReplaceSenders]:
        """Return the ops that replace senders' live writes in what ports read."""
        found = []
        for receiver in self.reached(receivers, patches):
            port = receiver.port
            before = tuple(patch for patch in patches if self.graph.precedes(patch.node, port))
            senders = {patch.node for patch in before}
            # A sender that is patched at some positions only may be passed through at the others.
            held = {patch.node for patch in before if patch.at is None}
            between = (node for node in self.through - held if self.between(senders, node, port))
            found.append(ReplaceSenders(port, before, frozenset(between), receiver.at))
        return found

    def between(self, senders: Iterable[Writer], node: Head | MLP, port: Port) -> bool:
        """Return whether a direct path from a sender to the port can pass through the node."""
        reads = self.graph.ports_of(node)[0]
        return self.graph.precedes(node, port) and any(
            self.graph.precedes(sender, reads) for sender in senders
        )

    def reached(self, receivers: Sequence[Receiver], patches: Patches) -> list[Receiver]:
        """Return the receivers that a patched sender comes before; a sweep may have others."""
        graph = self.graph
        return [
            receiver
            for receiver in receivers
            if any(graph.precedes(patch.node, receiver.port) for patch in patches)
        ]
