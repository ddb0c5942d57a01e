"""Is a plan well formed? Every problem is collected and raised once."""

from typing import TYPE_CHECKING

from circuitgraph.errors import PlanError, Problems
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Head, Logits, Port, Writer
from circuitgraph.plan.ops import (
    Freeze,
    FromRun,
    PatchPort,
    PatchWrite,
    ReadLogits,
    Record,
    ReplaceSenders,
    Run,
)

if TYPE_CHECKING:
    from circuitgraph.plan.plan import Cell, Plan

__all__ = ["lint_plan"]


def lint_plan(plan: "Plan") -> None:
    """Raise `PlanError` unless the plan is well formed."""
    problems = Problems()
    seen: set[tuple[int, ...]] = set()
    for cell in plan.cells:
        if len(cell.index) != len(plan.axes) or any(
            not 0 <= at < len(axis.values) for at, axis in zip(cell.index, plan.axes, strict=False)
        ):
            problems.add(PlanError(f"cell {cell.index} is outside the grid {plan.shape}"))
        if cell.index in seen:
            problems.add(PlanError(f"cell {cell.index} stands twice"))
        seen.add(cell.index)
        _lint_cell(plan.graph, cell, problems)
    problems.raise_if_any(f"the plan for {str(plan.request)!r} is not well formed")


def _lint_cell(graph: ModelGraph, cell: "Cell", problems: Problems) -> None:
    def bad(number: int, what: str) -> None:
        problems.add(PlanError(f"{cell.name}, run {number + 1}: {what}"))

    if not cell.runs or not cell.runs[-1].reads_logits:
        problems.add(PlanError(f"{cell.name}: its last run does not read the logits"))
    for number, run in enumerate(cell.runs):
        if run.reads_logits and number < len(cell.runs) - 1:
            bad(number, "reads the logits before the last run")
        patched: list[Writer] = []
        ports: list[Port] = []
        for op in run.ops:
            match op:
                case PatchWrite(node=node, value=value):
                    patched.append(node)
                    if problem := _lint_value(graph, cell, number, op):
                        bad(number, problem)
                    if isinstance(value, FromRun) and run.name == "recompute":
                        bad(number, f"{node} is both recomputed and patched")
                case Freeze(nodes=nodes):
                    if missing := [node for node in nodes if graph.problem(node)]:
                        bad(number, f"freezes {missing[0]}, which is not in the graph")
                case PatchPort(port=port, delta_from=source):
                    ports.append(port)
                    if not 0 <= source < number:
                        bad(number, f"{port} takes its change from run {source + 1}")
                    elif port not in cell.runs[source].recorded_ports:
                        bad(number, f"run {source + 1} did not record {port}")
                case ReplaceSenders(port=port, senders=senders):
                    ports.append(port)
                    for sender in senders:
                        if problem := _lint_value(graph, cell, number, sender):
                            bad(number, problem)
                        elif not graph.precedes(sender.node, port):
                            bad(number, f"{sender.node} does not come before {port}")
                case Record(ports=recorded, writes=writes):
                    for thing in (*recorded, *writes):
                        if graph.problem(thing):
                            bad(number, f"records {thing}, which is not in the graph")
                    for port in recorded:
                        if not any(graph.precedes(sender.node, port) for sender in run.patched):
                            bad(number, f"records {port}, which no patched sender comes before")
                case ReadLogits():
                    pass
        if twice := [node for node in patched if patched.count(node) > 1 and _all(run, node)]:
            bad(number, f"patches {twice[0]} twice")
        everywhere = {op.node for op in run.patched if op.at is None}
        if both := sorted(everywhere & run.frozen):
            bad(number, f"patches and freezes {both[0]}")
        if held := [p for p in ports if isinstance(p.node, Head) and p.node in run.frozen]:
            bad(number, f"patches the port {held[0]} of a frozen node")
        if gone := [port for port in ports if graph.problem(port)]:
            bad(number, f"patches {gone[0]}, which is not in the graph")
        if Logits().port in ports and not run.reads_logits:
            bad(number, "patches the logits' port but does not read the logits")


def _all(run: Run, node: Writer) -> bool:
    return any(op.at is None for op in run.patched if op.node == node)


def _lint_value(graph: ModelGraph, cell: "Cell", number: int, op: PatchWrite) -> str | None:
    if graph.problem(op.node):
        return f"patches {op.node}, which is not in the graph"
    if isinstance(op.value, FromRun):
        if not 0 <= op.value.run < number:
            return f"{op.node} takes its write from run {op.value.run + 1}"
        if op.node not in cell.runs[op.value.run].recorded_writes:
            return f"run {op.value.run + 1} did not record the write of {op.node}"
    return None
