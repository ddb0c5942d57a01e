"""What a plan asks an estimate for: which changes meet which gradients, cell by cell.

Of the last run of a cell two things matter: the ports (or writes) that it sets, each with the
change that arrives there; and which of these a change of another one would reach. In mode ``set``
such a port keeps what it was given, whatever happens before it, so no gradient flows through it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from circuitgraph.errors import UnsupportedError
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Logits, Port, Writer
from circuitgraph.plan import (
    Cell,
    Freeze,
    Op,
    PatchPort,
    PatchWrite,
    Plan,
    ReadLogits,
    Record,
    ReplaceSenders,
    Run,
)
from circuitgraph.request import Positions

__all__ = ["Asked", "HeldPlaces", "Meeting", "as_sent", "asked_of", "check_mode"]


@dataclass(frozen=True, slots=True)
class HeldPlaces:
    """What is held in a cell's measuring run, and at which positions; plain data.

    Args:
        ports: Ports that keep what they were given.
        writes: Nodes that do.
    """

    ports: tuple[tuple[Port, Positions], ...] = ()
    writes: tuple[tuple[Writer, Positions], ...] = ()


@dataclass(frozen=True, slots=True)
class Meeting:
    """A change that meets a gradient.

    Args:
        cell: The cell it counts for.
        run: Which run of the cell recorded the change.
        recorded: Where the run recorded it.
        point: The point of the stream whose gradient it meets.
        port: The port whose gradient it meets; None for everything that reads the stream there.
        at: At which positions.
        held: What is held meanwhile.
    """

    cell: int
    run: int
    recorded: int
    point: int
    port: Port | None
    at: Positions
    held: HeldPlaces


@dataclass(frozen=True, slots=True)
class Asked:
    """A plan whose last runs only say what they set, and what they set.

    Args:
        plan: With every change that matters recorded by some run.
        meetings: All of them, cell by cell.
    """

    plan: Plan
    meetings: tuple[Meeting, ...]

    @property
    def held(self) -> tuple[HeldPlaces, ...]:
        """Every distinct set of things held."""
        return tuple(dict.fromkeys(meeting.held for meeting in self.meetings))


def asked_of(plan: Plan) -> Asked:
    """Return what a plan asks for.

    Args:
        plan: In mode ``set`` or ``add``.
    """
    meetings = tuple(_meetings(plan))
    return Asked(as_sent(plan) if _sets_writes(plan) else plan, meetings)


def _meetings(plan: Plan) -> Iterator[Meeting]:
    graph = plan.graph
    for number, cell in enumerate(plan.cells):
        *_, last = cell.runs
        ports = [op for op in last.ports if isinstance(op, PatchPort)]
        assert len(ports) == len(last.ports), "mode 'replace' is asked as 'set'"
        held = HeldPlaces(ports=_reached_ports(graph, ports))
        for op in ports:
            point = graph.reads_at(op.port)
            yield Meeting(number, op.delta_from, point, point, op.port, op.at, held)
        end = graph.reads_at(Logits().port)
        writes = HeldPlaces(writes=_reached_writes(graph, last.patched))
        for run, group in enumerate(_by_point(graph, last.patched)):
            point = graph.writes_at(group[0].node)
            yield Meeting(number, run, end, point, None, None, writes)


def _reached_ports(
    graph: ModelGraph, ports: Sequence[PatchPort]
) -> tuple[tuple[Port, Positions], ...]:
    """Return the ports that a change of another one would reach, where they keep their value."""
    return tuple(
        (op.port, op.at)
        for op in ports
        if op.mode == "set"
        and any(
            not isinstance(other.port.node, Logits) and graph.precedes(other.port.node, op.port)
            for other in ports
        )
    )


def _reached_writes(
    graph: ModelGraph, writes: Sequence[PatchWrite]
) -> tuple[tuple[Writer, Positions], ...]:
    """Return the nodes that a change of another one would reach: their writes are set."""
    return tuple(
        (op.node, op.at)
        for op in writes
        if any(
            graph.precedes(other.node, port) for other in writes for port in graph.ports_of(op.node)
        )
    )


# -- senders that are measured themselves ----------------------------------------------------------


def _sets_writes(plan: Plan) -> bool:
    return any(cell.runs[-1].patched for cell in plan.cells)


def as_sent(plan: Plan) -> Plan:
    """Return a plan that records what senders write where another one lets them be measured.

    ``9.9 => logits`` sets a write. With all else frozen, what arrives at the end of the stream is
    this write's change; senders that write at one point are recorded together, since a block may
    norm what they write together.
    """
    graph = plan.graph
    everything = frozenset(graph.writers)
    most = max(len(_by_point(graph, cell.runs[-1].patched)) for cell in plan.cells)
    cells = []
    for cell in plan.cells:
        last = cell.runs[-1]
        groups = _by_point(graph, last.patched)
        groups += [groups[-1]] * (most - len(groups))  # runs of all cells have the same names
        runs: list[Run] = []
        for group in groups:
            nodes = frozenset(op.node for op in group if op.at is None)
            ops: tuple[Op, ...] = (
                *group,
                Freeze(everything - nodes),
                Record(ports=(Logits().port,)),
            )
            runs.append(Run("send", ops))
        arriving = (PatchPort(Logits().port, number, "add") for number in range(most))
        runs.append(Run("measure", (*arriving, ReadLogits())))
        cells.append(replace(cell, runs=tuple(runs)))
    return replace(plan, cells=tuple(cells))


def _by_point(graph: ModelGraph, writes: Sequence[PatchWrite]) -> list[tuple[PatchWrite, ...]]:
    points: dict[int, list[PatchWrite]] = {}
    for op in writes:
        points.setdefault(graph.writes_at(op.node), []).append(op)
    return [tuple(points[point]) for point in sorted(points)]


# -- modes -----------------------------------------------------------------------------------------


def check_mode(plan: Plan) -> UnsupportedError | None:
    """Return what keeps a plan of mode ``replace`` from being estimated, or None.

    Where no receiver's change reaches another receiver, or one of its senders, all modes agree.
    """
    graph = plan.graph
    for cell in plan.cells if plan.mode == "replace" else ():
        ops = [op for op in cell.runs[-1].ports if isinstance(op, ReplaceSenders)]
        if meet := _meets(graph, cell, ops):
            return meet
    return None


def _meets(graph: ModelGraph, cell: Cell, ops: Sequence[ReplaceSenders]) -> UnsupportedError | None:
    senders = {sender.node for op in ops for sender in op.senders}
    for op in ops:
        node = op.port.node
        if isinstance(node, Logits):
            continue
        reached = [str(other.port) for other in ops if graph.precedes(node, other.port)] + [
            str(sender)
            for sender in senders
            if sender == node or any(graph.precedes(node, port) for port in graph.ports_of(sender))
        ]
        if reached:
            return UnsupportedError(
                f"{cell.name!r} in mode 'replace' cannot be estimated: what changes at {op.port} "
                f"reaches {reached[0]}, which is patched too. Estimate in mode 'set' or 'add', "
                "patch them one at a time, or take engine='fast'"
            )
    return None
