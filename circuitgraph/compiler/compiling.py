"""The steps from a request to a plan, in order. Every step is a pure function of plain values."""

from collections.abc import Iterable

from circuitgraph.arguments import instance
from circuitgraph.compiler.cells import PathCells
from circuitgraph.compiler.checks import (
    check_meeting,
    check_nodes,
    check_order,
    check_positions,
    check_replace,
    check_words,
    nodes_passed,
)
from circuitgraph.compiler.layout import edge_set, lay_out
from circuitgraph.compiler.runs import RunWriter
from circuitgraph.compiler.sets import compile_sets
from circuitgraph.errors import Problems, RequestError
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Edge
from circuitgraph.plan import Cell, Plan, Source
from circuitgraph.request import (
    EdgeSets,
    EdgesRequest,
    Mode,
    PathRequest,
    Request,
    Variant,
    as_request,
)

__all__ = ["compile"]


def compile(
    graph: ModelGraph,
    request: str | Request | Edge | Iterable[Edge],
    variant: Variant = "mlps",
    *,
    mode: Mode = "set",
    source: Source = "corrupt",
    n_positions: int | None = None,
) -> Plan:
    """Return the ordered runs that answer a request.

    Args:
        graph: The model's graph.
        request: Text such as ``head -> logits``, a `Request`, an `Edge` or a collection of them.
        variant: What a direct path may pass through: ``mlps``, ``single-pass`` or `Through`.
        mode: What patching several receivers means: ``set``, ``add`` or ``replace``.
        source: Where patched values come from; ``corrupt`` is the run on the corrupt prompt.
        n_positions: Length of the prompts; only a sweep over positions (``@each``) needs it.

    Returns:
        The plan. In a sweep, cells that no valid request fills are left out of it.

    Raises:
        RequestError: The request cannot be read, or makes no sense on this graph.
        NodeError: A node is not in the graph, or a sender does not come before its receiver (in a
            sweep: in every cell).
        UnsupportedError: The request is well formed but cannot be answered exactly.

    Example:
        >>> from circuitgraph.graph import ModelShape
        >>> graph = ModelGraph(ModelShape(n_layers=12, n_heads=12))
        >>> plan = compile(graph, "5.5 -> 8.6.v => logits")
        >>> [run.name for run in plan.cells[0].runs]
        ['send', 'measure']
        >>> compile(graph, "head -> logits", "single-pass").cost.forward_passes
        0
    """
    how = "cg.ModelGraph(shape) or cg.ModelGraph.from_model(model)"
    instance("graph", graph, ModelGraph, how, RequestError)
    asked = as_request(request)
    problems = Problems()

    if isinstance(asked, EdgeSets):
        return compile_sets(graph, asked, variant, mode, source)
    through = nodes_passed(graph, variant, problems)
    check_words(mode, source, problems)
    check_nodes(graph, asked, problems)
    check_positions(graph, asked, through, n_positions, problems)
    check_meeting(asked, through, problems)
    _raise(asked, problems)

    match asked:
        case EdgesRequest():
            edges = edge_set(graph, asked)
            check_replace([edges.last], through, mode, problems)
            _raise(asked, problems)
            runs = tuple(RunWriter(graph, through, mode, source).runs(edges))
            return Plan(graph, asked, variant, mode, source, (), (Cell((), str(asked), runs),))
        case PathRequest():
            grid = lay_out(graph, asked, n_positions)
            check_order(grid, problems)
            check_replace(grid.measured(), through, mode, problems)
            _raise(asked, problems)
            cells = PathCells(grid, through, mode, source)
            return Plan(graph, asked, variant, mode, source, grid.axes, cells)
        case _:
            raise AssertionError(f"{asked!r} was not checked")


def _raise(asked: Request, problems: Problems) -> None:
    """Raise what is wrong with a request, whose text may be long."""
    if problems.found:
        problems.raise_if_any(f"cannot compile {str(asked)!r}")
