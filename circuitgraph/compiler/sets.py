"""Sweeps over sets of edges: one cell for each set, made when an engine looks at it."""

from circuitgraph.compiler.checks import check_words, nodes_passed
from circuitgraph.errors import CircuitGraphError, Problems, UnsupportedError
from circuitgraph.graph import ModelGraph
from circuitgraph.plan import Axis, Plan, SetCells, Source
from circuitgraph.request import EdgeSets, Mode, Variant

__all__ = ["compile_sets"]


def compile_sets(
    graph: ModelGraph, asked: EdgeSets, variant: Variant, mode: Mode, source: Source
) -> Plan:
    """Return the plan of a sweep over sets of edges; it costs the same for many edges as for few.

    Raises:
        UnsupportedError: Another variant or mode than circuits are judged in.
    """
    problems = Problems()
    through = nodes_passed(graph, variant, problems)
    check_words(mode, source, problems)
    if mode != "replace" or through:
        problems.add(
            UnsupportedError(
                "sets of edges are patched with variant='single-pass', mode='replace', got "
                f"variant {variant}, mode {mode}: ask for one list of edges at a time otherwise"
            )
        )
    cells = SetCells(graph, asked, source)
    try:
        _ = cells.kept
    except CircuitGraphError as error:
        problems.add(error)
    problems.raise_if_any(f"cannot compile {str(asked)!r}")
    return Plan(graph, asked, variant, mode, source, (Axis("set", asked.names),), cells)
