"""What a run has to compute, found the slow way: by following every node at every position.

A schedule says which layers and which positions are run. Here the same is worked out from a plan
alone, with sets of (thing, position), so that a schedule can be checked to leave out nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Embed, Head, Logits, Port, Writer
from circuitgraph.plan import Cell, FromRun, PatchPort, PatchWrite, ReplaceSenders, Run

Places = frozenset[int]
NOWHERE: Places = frozenset()


@dataclass
class Done:
    """What a run does: where each write and each port can differ from clean.

    Of what a node writes, ``computed`` is what the run does not set.
    """

    computed: dict[Writer, Places] = field(default_factory=dict)
    writes: dict[Writer, Places] = field(default_factory=dict)
    ports: dict[Port, Places] = field(default_factory=dict)


@dataclass
class Needed:
    """What of a run matters: where each write and each port is read for what it keeps."""

    writes: dict[Writer, Places] = field(default_factory=dict)
    ports: dict[Port, Places] = field(default_factory=dict)


@dataclass
class Dependencies:
    """Follows the runs of one cell, forwards and then backwards.

    Args:
        graph: The model's graph.
        n_positions: Length of the prompts.
        names: Where the named positions stand.
        metric: The position that the metric reads.
    """

    graph: ModelGraph
    n_positions: int
    names: Mapping[str, int]
    metric: int

    def follow(self, cell: Cell) -> tuple[list[Done], list[Needed]]:
        """For each run, what it changes and what of it is needed."""
        done: list[Done] = []
        for run in cell.runs:
            done.append(self.forwards(run, done))
        needed = [Needed() for _ in cell.runs]
        for number in reversed(range(len(cell.runs))):
            self.backwards(cell.runs[number], needed, number)
        return done, needed

    def places(self, at: object) -> Places:
        """The positions that an op names."""
        if at is None:
            return frozenset(range(self.n_positions))
        return frozenset(p if isinstance(p, int) else self.names[p] for p in at)  # type: ignore[attr-defined]

    # -- what changes ---------------------------------------------------------------------------

    def forwards(self, run: Run, earlier: list[Done]) -> Done:
        done = Done()
        for node in self.graph.nodes:
            for port in self.graph.ports_of(node):
                done.ports[port] = self.read(port, run, done, earlier)
            if not isinstance(node, Logits):
                done.writes[node] = self.written(node, run, done, earlier)
        return done

    def read(self, port: Port, run: Run, done: Done, earlier: list[Done]) -> Places:
        before = (w for w in done.writes if self.graph.precedes(w, port))
        live = NOWHERE.union(*(done.writes[writer] for writer in before))
        for op in run.ports:
            if op.port != port:
                continue
            at = self.places(op.at)
            match op:
                case PatchPort(delta_from=number, mode=mode):
                    arrives = earlier[number].ports[port] & at
                    live = live | arrives if mode == "add" else (live - at) | arrives
                case ReplaceSenders(senders=senders):
                    for sender in senders:
                        live |= self.sent(sender, earlier) & at
        return live

    def sent(self, op: PatchWrite, earlier: list[Done]) -> Places:
        value = op.value
        if isinstance(value, FromRun):
            return earlier[value.run].writes[op.node] & self.places(op.at)
        return self.places(op.at)

    def written(self, node: Writer, run: Run, done: Done, earlier: list[Done]) -> Places:
        places = NOWHERE
        if node not in run.frozen:
            for port in self.graph.ports_of(node):
                changed = done.ports[port]
                if port.name in ("k", "v") and changed:
                    changed = frozenset(range(min(changed), self.n_positions))
                places |= changed
        set_to = NOWHERE
        for op in run.patched:
            if op.node == node:
                places -= self.places(op.at)
                set_to |= self.sent(op, earlier)
        done.computed[node] = places
        return places | set_to

    # -- what is needed -------------------------------------------------------------------------

    def backwards(self, run: Run, all_needed: list[Needed], number: int) -> None:
        needed = all_needed[number]
        if run.reads_logits:
            needed.ports[Logits().port] = frozenset({self.metric})
        for node in reversed(self.graph.nodes):
            if not isinstance(node, Logits):
                self.compute(node, run, needed)
            for port in self.graph.ports_of(node):
                self.hear(port, run, needed, all_needed)
        for op in run.patched:
            if isinstance(op.value, FromRun):
                self.want_write(op, needed.writes.get(op.node, NOWHERE), all_needed)

    def compute(self, node: Writer, run: Run, needed: Needed) -> None:
        """What a node's ports have to hold for what it writes."""
        held = node in run.frozen or any(op.node == node and op.at is None for op in run.patched)
        places = needed.writes.get(node, NOWHERE)
        if held or isinstance(node, Embed) or not places:
            return
        for port in self.graph.ports_of(node):
            reach = frozenset(range(max(places) + 1)) if port.name in ("k", "v") else places
            needed.ports[port] = needed.ports.get(port, NOWHERE) | reach

    def hear(self, port: Port, run: Run, needed: Needed, all_needed: list[Needed]) -> None:
        """What earlier writes, in this run or before it, have to be for what a port reads."""
        places = needed.ports.get(port, NOWHERE)
        live = places
        for op in run.ports:
            if op.port != port:
                continue
            at = self.places(op.at) & places
            match op:
                case PatchPort(delta_from=number, mode=mode):
                    earlier = all_needed[number].ports
                    earlier[port] = earlier.get(port, NOWHERE) | at
                    live = live - at if mode == "set" else live
                case ReplaceSenders(senders=senders):
                    for sender in senders:
                        if isinstance(sender.value, FromRun):
                            self.want_write(sender, at, all_needed)
        for writer in self.graph.writers:
            if live and self.graph.precedes(writer, port):
                needed.writes[writer] = needed.writes.get(writer, NOWHERE) | live

    def want_write(self, op: PatchWrite, places: Places, all_needed: list[Needed]) -> None:
        assert isinstance(op.value, FromRun)
        writes = all_needed[op.value.run].writes
        writes[op.node] = writes.get(op.node, NOWHERE) | (places & self.places(op.at))


def live_layers(graph: ModelGraph, done: Done, needed: Needed) -> tuple[set[int], set[int]]:
    """Layers whose attention, and whose MLP, has something to compute in a run."""
    attention, mlps = set(), set()
    for node in graph.writers:
        matters = done.computed[node] & needed.writes.get(node, NOWHERE)
        if matters and not isinstance(node, Embed):
            (attention if isinstance(node, Head) else mlps).add(node.layer)
    return attention, mlps
