"""Which nodes a run reaches: those that can differ from clean there and that matter to it.

The one owner of that rule; tables, pictures and schedules ask it.
"""

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Embed, Logits, Writer
from circuitgraph.plan.ops import Run

__all__ = ["first_change", "last_point", "reached"]


def first_change(graph: ModelGraph, run: Run) -> int:
    """Return the first point of the residual stream that can differ from clean in a run.

    A patched port changes only what its own node writes, so other heads of its layer stay clean.
    """
    writers = [op.node for op in run.patched] + [op.port.node for op in run.ports]
    points = [graph.writes_at(node) for node in writers if not isinstance(node, Logits)]
    return min(points, default=graph.reads_at(Logits().port))


def last_point(graph: ModelGraph, run: Run) -> int:
    """Return the last point of the residual stream that a run needs."""
    points = [graph.reads_at(port) for port in run.recorded_ports]
    points += [graph.writes_at(node) for node in run.recorded_writes]
    if run.reads_logits:
        points.append(graph.reads_at(Logits().port))
    return max(points, default=0)


def reached(graph: ModelGraph, run: Run) -> tuple[Writer, ...]:
    """Return the nodes that a run computes from an input that can differ, and needs.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelShape
        >>> graph = ModelGraph(ModelShape(n_layers=12, n_heads=12))
        >>> plan = compile(graph, "5.5 -> 8.6.v => logits")
        >>> [str(node) for node in reached(graph, plan.cells[0].runs[0])]
        ['mlp5', 'mlp6', 'mlp7']
    """
    first, last = first_change(graph, run), last_point(graph, run)
    held = run.frozen | {op.node for op in run.patched} | {op.port.node for op in run.ports}
    return tuple(
        node
        for node in graph.writers
        if node not in held
        and not isinstance(node, Embed)
        and graph.reads_at(graph.ports_of(node)[0]) >= first
        and graph.writes_at(node) <= last
    )
