"""Layers that need not be run: before the first change, after the last use, or frozen."""

from dataclasses import replace
from functools import cache

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Head, Logits, Writer
from circuitgraph.plan import Run
from circuitgraph.plan.reach import last_point
from circuitgraph.schedule.schedule import Job, Schedule, with_jobs

__all__ = ["first_point", "replay_frozen", "trim_layers"]

Live = tuple[frozenset[int], frozenset[int]]
"""Layers whose attention, and layers whose MLP, have to be run."""


def trim_layers(schedule: Schedule) -> Schedule:
    """Return a schedule that starts where something first changes and stops after the last use.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> plan = compile(ModelGraph(ModelShape(12, 12)), "9.9 => logits")
        >>> trim_layers(Schedule.of(plan)).stages[0].jobs[0].attention
        frozenset({10, 11})
    """
    graph = schedule.plan.graph

    @cache
    def between(first: int, last: int) -> Live:
        heads = (Head(layer, 0) for layer in range(graph.shape.n_layers))
        attention = (head.layer for head in heads if inside(head, first, last))
        mlps = (mlp.layer for mlp in graph.mlps if inside(mlp, first, last))
        return frozenset(attention), frozenset(mlps)

    def inside(node: Head | MLP, first: int, last: int) -> bool:
        reads = graph.reads_at(graph.ports_of(node)[0])
        return reads >= first and graph.writes_at(node) <= last

    def trim(job: Job) -> Job:
        first, last = first_point(graph, job.run), last_point(graph, job.run)
        attention, mlps = between(first, last)
        return replace(
            job,
            first=first,
            last=last,
            attention=job.attention & attention,
            mlps=job.mlps & mlps,
        )

    return with_jobs(schedule, "trim layers", trim)


def first_point(graph: ModelGraph, run: Run) -> int:
    """Return the first point of the residual stream that a run changes, or reads changed."""
    points = [graph.writes_at(op.node) for op in run.patched]
    points += [graph.reads_at(op.port) for op in run.ports]
    return min(points, default=graph.reads_at(Logits().port))


def replay_frozen(schedule: Schedule) -> Schedule:
    """Return a schedule in which modules whose nodes are all frozen or set are replayed.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> plan = compile(ModelGraph(ModelShape(12, 12)), "9.9 -> logits", "mlps")
        >>> send = replay_frozen(Schedule.of(plan)).stages[0].jobs[0]
        >>> len(send.attention), len(send.mlps)
        (0, 12)
    """
    graph = schedule.plan.graph

    @cache
    def live(frozen: frozenset[Writer], patched: frozenset[Writer]) -> Live:
        nodes = [node for node in graph.writers if node not in frozen and node not in patched]
        attention = (node.layer for node in nodes if isinstance(node, Head))
        mlps = (node.layer for node in nodes if isinstance(node, MLP))
        return frozenset(attention), frozenset(mlps)

    def replay(job: Job) -> Job:
        # A sender that is patched at some positions only may be live at the others.
        patched = frozenset(op.node for op in job.run.patched if op.at is None)
        attention, mlps = live(job.run.frozen, patched)
        return replace(job, attention=job.attention & attention, mlps=job.mlps & mlps)

    return with_jobs(schedule, "replay frozen modules", replay)
