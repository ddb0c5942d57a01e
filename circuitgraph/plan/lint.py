"""Is a plan well formed? Every problem is collected and raised once."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, assert_never

from circuitgraph.errors import PlanError, Problems
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Logits, Node, Port, Writer
from circuitgraph.plan.ops import (
    Freeze,
    FromRun,
    Op,
    PatchPort,
    PatchWrite,
    ReadLogits,
    Record,
    ReplaceSenders,
    Run,
)
from circuitgraph.request import EachPosition, Positions

if TYPE_CHECKING:
    from circuitgraph.plan.cells import Cell
    from circuitgraph.plan.plan import Plan

__all__ = ["lint_plan"]


def lint_plan(plan: "Plan") -> None:
    """Raise `PlanError` unless the plan is well formed."""
    problems = Problems()
    linter = _Linter(plan.graph)
    cells = [plan.cells[number] for number in plan.sweep.samples()]
    for what in _grid(plan.shape, cells):
        problems.add(PlanError(what))
    for cell in cells:
        for what in linter.cell(cell):
            problems.add(PlanError(f"{cell.name}{what}"))
    problems.raise_if_any(f"the plan for {plan.title!r} is not well formed")


def _grid(shape: tuple[int, ...], cells: "Sequence[Cell]") -> Iterator[str]:
    """Yield what is wrong with where cells stand, and with cells that differ in their runs."""
    seen: set[tuple[int, ...]] = set()
    for cell in cells:
        inside = len(cell.index) == len(shape) and all(
            0 <= at < length for at, length in zip(cell.index, shape, strict=True)
        )
        if not inside:
            yield f"cell {cell.index} is outside the grid {shape}"
        if cell.index in seen:
            yield f"cell {cell.index} stands twice"
        seen.add(cell.index)
        if _run_names(cell) != _run_names(cells[0]):
            yield (
                f"{cell.name} has the runs {', '.join(_run_names(cell)) or 'none'}, "
                f"the first cell {', '.join(_run_names(cells[0])) or 'none'}"
            )


def _run_names(cell: "Cell") -> list[str]:
    return [run.name for run in cell.runs]


class _Linter:
    """Reads a plan op by op, as an engine would; each method yields what is wrong."""

    def __init__(self, graph: ModelGraph) -> None:
        self.graph = graph
        self.writers = frozenset(graph.writers)
        self.everything: set[frozenset[Writer]] = set()

    def cell(self, cell: "Cell") -> Iterator[str]:
        """Check the runs of one cell."""
        if not cell.runs or not cell.runs[-1].reads_logits:
            yield ": its last run does not read the logits"
        for number, run in enumerate(cell.runs):
            if run.reads_logits and number < len(cell.runs) - 1:
                yield f", run {number + 1}: reads the logits before the last run"
            for what in self.run(run, cell.runs[:number]):
                yield f", run {number + 1}: {what}"

    def run(self, run: Run, earlier: tuple[Run, ...]) -> Iterator[str]:
        """Check one run: each op by itself, then what they do together."""
        for op in run.ops:
            yield from self.op(op, run, earlier)
        patched, ports, frozen = run.patched, run.ports, run.frozen
        if not patched and not ports and run.name != "recompute":
            yield "patches nothing"
        for write in _overlapping(patched):
            yield f"patches {write.node} twice"
        if twice := _repeated(op.port for op in ports):
            yield f"patches the port {twice} twice"
        held = {op.node for op in patched if op.at is None}
        if both := sorted(held & frozen):
            yield f"patches and freezes {both[0]}"
        for op in ports:
            if op.port.node in frozen or op.port.node in held:
                yield f"patches the port {op.port} of a frozen or patched node"
            if op.port.node == Logits() and not run.reads_logits:
                yield "patches the logits' port but does not read the logits"
        for node in run.recorded_writes:
            if node in frozen or node in held:
                yield f"records the write of {node}, which it does not compute"

    def op(self, op: Op, run: Run, earlier: tuple[Run, ...]) -> Iterator[str]:
        """Check one op by itself."""
        match op:
            case PatchWrite():
                if run.name == "recompute":
                    yield f"patches {op.node} in a run that recomputes"
                yield from self.patch_write(op, earlier)
            case Freeze():
                yield from self.freeze(op)
            case PatchPort():
                yield from self.patch_port(op, earlier)
            case ReplaceSenders():
                yield from self.replace_senders(op, earlier)
            case Record():
                yield from self.record(op, run)
            case ReadLogits():
                pass
            case _:
                assert_never(op)

    def patch_write(self, op: PatchWrite, earlier: tuple[Run, ...]) -> Iterator[str]:
        yield from self.missing("patches", op.node)
        yield from _unplaced(op, op.node)
        if isinstance(op.value, FromRun):
            number = op.value.run
            if not 0 <= number < len(earlier):
                yield f"{op.node} takes its write from run {number + 1}"
            elif op.node not in earlier[number].recorded_writes:
                yield f"run {number + 1} did not record the write of {op.node}"

    def freeze(self, op: Freeze) -> Iterator[str]:
        if op.nodes not in self.everything:  # the same few sets are frozen in cell after cell
            if missing := sorted(op.nodes - self.writers):
                yield from self.missing("freezes", missing[0])
            self.everything.add(op.nodes)

    def patch_port(self, op: PatchPort, earlier: tuple[Run, ...]) -> Iterator[str]:
        yield from self.missing("patches", op.port)
        yield from _unplaced(op, op.port)
        number = op.delta_from
        if not 0 <= number < len(earlier):
            yield f"{op.port} takes its change from run {number + 1}"
        elif op.port not in earlier[number].recorded_ports:
            yield f"run {number + 1} did not record {op.port}"

    def replace_senders(self, op: ReplaceSenders, earlier: tuple[Run, ...]) -> Iterator[str]:
        yield from self.missing("patches", op.port)
        yield from _unplaced(op, op.port)
        if not op.senders:
            yield f"replaces no sender of {op.port}"
        for write in _overlapping(op.senders):
            yield f"replaces {write.node} twice in {op.port}"
        for sender in op.senders:
            yield from self.patch_write(sender, earlier)
            if sender.node in self.writers and not self.graph.precedes(sender.node, op.port):
                yield f"{sender.node} does not come before {op.port}"
        for node in sorted(op.through):
            yield from self.missing("lets paths pass through", node)
            if node in self.writers and not self.graph.precedes(node, op.port):
                yield f"{node} does not come before {op.port}"

    def record(self, op: Record, run: Run) -> Iterator[str]:
        for thing in (*op.ports, *op.writes):
            yield from self.missing("records", thing)
        senders = [sender.node for sender in run.patched if sender.node in self.writers]
        for port in op.ports:
            if not any(self.graph.precedes(sender, port) for sender in senders):
                yield f"records {port}, which no patched sender comes before"

    def missing(self, does: str, thing: Node | Port) -> Iterator[str]:
        if isinstance(thing, Port):
            if thing.node not in self.writers and thing.node != Logits():
                yield f"{does} the port {thing}, which is not in the graph"
        elif isinstance(thing, Logits):
            yield f"{does} the write of the logits, which write nothing"
        elif thing not in self.writers:
            yield f"{does} {thing}, which is not in the graph"


def _unplaced(op: PatchWrite | PatchPort | ReplaceSenders, thing: Node | Port) -> Iterator[str]:
    if isinstance(op.at, EachPosition):
        yield f"patches {thing} at each position, which has to be written out"


def _overlapping(writes: tuple[PatchWrite, ...]) -> Iterator[PatchWrite]:
    """Yield writes whose node an earlier one already sets at some of the same positions."""
    if len({write.node for write in writes}) == len(writes):
        return
    for number, write in enumerate(writes):
        others = [other for other in writes[:number] if other.node == write.node]
        if any(_share(write.at, other.at) for other in others):
            yield write


def _share(one: Positions, other: Positions) -> bool:
    """Return whether two sets of positions have one in common."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return not set(one).isdisjoint(other)
    return True


def _repeated(ports: Iterable[Port]) -> Port | None:
    seen: set[Port] = set()
    for port in ports:
        if port in seen:
            return port
        seen.add(port)
    return None
