"""The table that ``print(plan)`` shows."""

from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Embed, Head, Logits, Node
from circuitgraph.plan.ops import PatchPort, PatchWrite, ReplaceSenders, Run
from circuitgraph.plan.reach import reached
from circuitgraph.request.sites import positions_text

if TYPE_CHECKING:
    from circuitgraph.plan.plan import Plan

__all__ = ["describe_nodes", "plan_table"]

WIDTH = 100

MOST_REPLACED = 6
"""Ports that replace more different senders than this are counted rather than listed."""


def describe_nodes(graph: ModelGraph, nodes: Iterable[Node]) -> str:
    """Return a set of nodes in few words.

    Example:
        >>> from circuitgraph.graph import ModelShape
        >>> graph = ModelGraph(ModelShape(12, 12))
        >>> describe_nodes(graph, set(graph.heads) - {Head(9, 9)})
        'all heads but 9.9'
    """
    wanted = set(nodes)
    parts: list[str] = []
    if Embed() in wanted:
        parts.append("embed")
    kinds: tuple[tuple[str, tuple[Node, ...]], ...] = (("heads", graph.heads), ("mlps", graph.mlps))
    for kind, members in kinds:
        chosen = [node for node in members if node in wanted]
        missing = [node for node in members if node not in wanted]
        if not chosen:
            continue
        if not missing:
            parts.append(f"all {kind}")
        elif len(missing) <= 3 < len(chosen):
            parts.append(f"all {kind} but {', '.join(map(str, missing))}")
        elif tail := _layers_from(chosen, members):
            parts.append(f"{kind} of layer {tail}" if kind == "heads" else f"{kind} {tail}")
        elif len(chosen) <= 6:
            parts.append(", ".join(map(str, chosen)))
        else:
            parts.append(f"{len(chosen)} {kind}")
    if Logits() in wanted:
        parts.append("logits")
    return ", ".join(parts) or "-"


def _layers_from(chosen: list[Node], members: tuple[Node, ...]) -> str:
    """Return ``3-11`` where the nodes are all of their kind in a range of whole layers."""
    layers = [node.layer for node in chosen if isinstance(node, Head | MLP)]
    low, high = min(layers), max(layers)
    whole = [n for n in members if isinstance(n, Head | MLP) and low <= n.layer <= high]
    if len(whole) != len(chosen) or len(chosen) < 4:
        return ""
    return f"{low}-{high}" if low != high else str(low)


def patched_text(run: Run) -> str:
    """Return what a run patches, in few words."""
    parts: list[str] = []
    replaced = [op for op in run.ports if isinstance(op, ReplaceSenders)]
    if len({op.senders for op in replaced}) > MOST_REPLACED:
        n_edges = sum(len(op.senders) for op in replaced)
        return f"{n_edges} edges into {len(replaced)} ports: live with their senders replaced"
    writes: dict[str, list[str]] = {}
    for op in run.patched:
        writes.setdefault(str(op.value), []).append(f"{op.node}{positions_text(op.at)}")
    for value, names in writes.items():
        parts.append(f"{_few(names)} <- {value}")
    ports: dict[str, list[str]] = {}
    for port in run.ports:
        ports.setdefault(_port_value(port), []).append(f"{port.port}{positions_text(port.at)}")
    for value, names in ports.items():
        parts.append(f"{_few(names)} <- {value}")
    return "; ".join(parts) or "-"


def _port_value(op: PatchPort | ReplaceSenders) -> str:
    match op:
        case PatchPort(delta_from=run, mode="set"):
            return f"clean + change of run {run + 1}"
        case PatchPort(delta_from=run):
            return f"live + change of run {run + 1}"
        case ReplaceSenders(senders=senders):
            return f"live with {_few([_write(sender) for sender in senders])} replaced"


def _write(op: PatchWrite) -> str:
    return f"{op.node}{positions_text(op.at)}"


def _few(names: list[str], most: int = 6) -> str:
    if len(names) <= most:
        return ", ".join(names)
    return ", ".join(names[: most - 1]) + f" and {len(names) - most + 1} more"


def plan_table(plan: "Plan") -> str:
    """Return the plan as text of at most 100 columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not plan.cells:
        return f"Plan of {plan.title}: no valid cell"
    cell = plan.cells[0]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, width=WIDTH)
    for heading in ("run", "", "patched", "frozen", "recomputed", "kept"):
        table.add_column(heading, overflow="fold")
    table.add_row("", "record", "-", "-", "all (clean prompt)", "every write and port")
    table.add_row("", "record", "-", "-", f"all ({plan.source} prompt)", "every write")
    for number, run in enumerate(cell.runs, start=1):
        live: list[Node] = [*reached(plan.graph, run), *run.recorded_writes]
        live += [Logits()] * run.reads_logits
        kept = [str(port) for port in run.recorded_ports]
        kept += [f"write of {node}" for node in run.recorded_writes]
        kept += ["metric"] * run.reads_logits
        closed = plan.is_closed_form(run)
        nothing = "- (closed form)" if closed else "-"
        table.add_row(
            str(number),
            run.name,
            patched_text(run),
            describe_nodes(plan.graph, run.frozen),
            nothing if closed and not live else describe_nodes(plan.graph, live),
            _few(kept) or "-",
        )
    console = Console(width=WIDTH, file=StringIO(), color_system=None, force_jupyter=False)
    n_cells = len(plan.cells)
    swept = " x ".join(map(str, plan.axes))
    console.print(Text(f"Plan of {plan.title}   variant {plan.variant}, mode {plan.mode}"))
    if plan.axes:
        empty = 1
        for length in plan.shape:
            empty *= length
        note = f", {empty - n_cells} cells have no valid request" if empty > n_cells else ""
        console.print(Text(f"{n_cells} cells over {swept}{note}; the first of them, {cell.name}:"))
    console.print(table)
    console.print(Text(f"cost: {plan.cost}"))
    file = console.file
    assert isinstance(file, StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())
