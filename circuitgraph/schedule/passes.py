"""The passes. Each returns a new schedule with the same answer and less to do."""

from dataclasses import replace

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Head, Logits, Port
from circuitgraph.plan import (
    FromRun,
    PatchPort,
    PatchWrite,
    ReadLogits,
    Record,
    ReplaceSenders,
    Run,
)
from circuitgraph.request import EachPosition, Positions
from circuitgraph.schedule.schedule import METRIC, Job, Schedule, Stage, Where

__all__ = ["replay_frozen", "share_runs", "trim_layers", "trim_positions"]


def share_runs(schedule: Schedule) -> Schedule:
    """Return a schedule in which runs that patch the same are done once.

    Runs that differ only in what they record become one job that records it all: every receiver of
    a sender shares the sender's run.
    """
    stages: list[Stage] = []
    job_of: list[tuple[int, ...]] = []
    for number, stage in enumerate(schedule.stages):
        found: dict[object, int] = {}
        runs: list[Job] = []
        records: list[list[Record]] = []
        mapping: list[int] = []
        for cell, at in enumerate(stage.job_of_cell):
            job = stage.jobs[at]
            needs = tuple((run, job_of[run][cell]) for run, _ in job.needs)
            acts = tuple(op for op in job.run.ops if not isinstance(op, Record))
            key = (job.run.name, acts, needs)
            if key not in found:
                found[key] = len(runs)
                runs.append(replace(job, needs=needs))
                records.append([])
            mapping.append(found[key])
            records[found[key]] += [op for op in job.run.ops if isinstance(op, Record)]
        jobs = tuple(
            replace(job, run=_with_records(job.run, recorded))
            for job, recorded in zip(runs, records, strict=True)
        )
        stages.append(replace(stage, jobs=jobs, job_of_cell=tuple(mapping)))
        job_of.append(tuple(mapping))
        assert number == len(job_of) - 1
    return _done(schedule, stages, "share runs")


def _with_records(run: Run, records: list[Record]) -> Run:
    if not records:
        return run
    ports = tuple(sorted({port for record in records for port in record.ports}))
    writes = tuple(sorted({node for record in records for node in record.writes}))
    acts = tuple(op for op in run.ops if not isinstance(op, Record | ReadLogits))
    ends = tuple(op for op in run.ops if isinstance(op, ReadLogits))
    return replace(run, ops=(*acts, Record(ports, writes), *ends))


def trim_layers(schedule: Schedule) -> Schedule:
    """Return a schedule that starts where something first changes and stops after the last use."""
    graph = schedule.plan.graph
    stages = [
        replace(stage, jobs=tuple(_trim(graph, job) for job in stage.jobs))
        for stage in schedule.stages
    ]
    return _done(schedule, stages, "trim layers")


def _trim(graph: ModelGraph, job: Job) -> Job:
    first, last = first_point(graph, job.run), last_point(graph, job.run)
    attention = frozenset(
        layer for layer in job.attention if _touches(graph, Head(layer, 0).q, first, last)
    )
    mlps = frozenset(layer for layer in job.mlps if _touches(graph, MLP(layer).port, first, last))
    return replace(job, first=first, last=last, attention=attention, mlps=mlps)


def _touches(graph: ModelGraph, port: Port, first: int, last: int) -> bool:
    """Return whether a node reads no earlier than ``first`` and writes no later than ``last``."""
    node = port.node
    assert not isinstance(node, Logits)
    return graph.reads_at(port) >= first and graph.writes_at(node) <= last


def first_point(graph: ModelGraph, run: Run) -> int:
    """Return the first point of the residual stream that a run changes, or reads changed."""
    points = [graph.writes_at(op.node) for op in run.patched]
    points += [graph.reads_at(op.port) for op in run.ports]
    return min(points)


def last_point(graph: ModelGraph, run: Run) -> int:
    """Return the last point of the residual stream that a run needs."""
    points = [graph.reads_at(port) for port in run.recorded_ports]
    points += [graph.writes_at(node) for node in run.recorded_writes]
    if run.reads_logits:
        points.append(graph.reads_at(Logits().port))
    return max(points)


def replay_frozen(schedule: Schedule) -> Schedule:
    """Return a schedule in which modules whose nodes are all frozen or set are replayed."""
    graph = schedule.plan.graph
    stages = []
    for stage in schedule.stages:
        jobs = []
        for job in stage.jobs:
            held = job.run.frozen | {op.node for op in job.run.patched if op.at is None}
            held |= {op.node for op in job.run.patched if op.node in job.run.frozen}
            heads = [node for node in graph.heads if node not in held]
            live = frozenset(head.layer for head in heads)
            mlps = frozenset(layer for layer in job.mlps if MLP(layer) not in held)
            jobs.append(replace(job, attention=job.attention & live, mlps=mlps))
        stages.append(replace(stage, jobs=tuple(jobs)))
    return _done(schedule, stages, "replay frozen modules")


def trim_positions(schedule: Schedule) -> Schedule:
    """Return a schedule that runs only positions that can matter.

    Direct paths keep their position, so a sender run needs only the positions that its receivers
    read. Where attention runs live, a change spreads to later positions only.
    """
    stages = list(schedule.stages)
    needed: dict[int, Where] = {}
    for number in reversed(range(len(stages))):
        stage = stages[number]
        wanted = needed.get(number, frozenset())
        if stage.name == "read out":
            stages[number] = replace(stage, where=frozenset({METRIC}))
        elif stage.name == "measure":
            changed = _changed(stages, number)
            stages[number] = replace(stage, where=changed, from_first=changed is not None)
        elif stage.name == "send":
            heads_live = any(job.attention for job in stage.jobs)
            changed = _changed(stages, number)
            where = None if heads_live else (wanted if wanted is not None else changed)
            stages[number] = replace(stage, where=where)
        for job in stage.jobs:
            for run, where in _needs(job.run, stages[number], wanted).items():
                needed[run] = _union(needed.get(run, frozenset()), where)
    return _done(schedule, stages, "trim positions")


def _needs(run: Run, stage: Stage, wanted: Where) -> dict[int, Where]:
    """Return at which positions a run needs what earlier runs recorded."""
    found: dict[int, Where] = {}
    for op in run.ops:
        match op:
            case PatchPort(port=port, delta_from=number, at=at):
                if stage.name == "read out":
                    where: Where = frozenset({METRIC})
                elif stage.name == "recompute" and port.name in ("q", "in"):
                    where = wanted if at is None else _keys(at)
                else:
                    where = _keys(at)
                found[number] = _union(found.get(number, frozenset()), where)
            case PatchWrite(value=FromRun(run=number), at=at):
                where = stage.where if at is None else _keys(at)
                if stage.name == "send" and any(stage_job.attention for stage_job in stage.jobs):
                    where = None
                found[number] = _union(found.get(number, frozenset()), where)
            case ReplaceSenders(senders=senders):
                for sender in senders:
                    if isinstance(sender.value, FromRun):
                        found[sender.value.run] = None
            case _:
                pass
    return found


def _changed(stages: list[Stage], number: int) -> Where:
    """Return the positions at which a stage's runs differ from clean at first; None for any."""
    where: Where = frozenset()
    for job in stages[number].jobs:
        for op in job.run.ops:
            match op:
                case PatchWrite(at=at, value=value):
                    given = None if isinstance(value, FromRun) else _keys(at)
                    where = _union(where, given)
                case PatchPort(at=at, delta_from=source):
                    sent = stages[source]
                    arrives = _changed(stages, source) if _keeps_position(sent) else None
                    where = _union(where, _keys(at) if at is not None else arrives)
                case ReplaceSenders(at=at):
                    where = _union(where, _keys(at))
                case _:
                    pass
    return where


def _keeps_position(stage: Stage) -> bool:
    return stage.name == "send" and not any(job.attention for job in stage.jobs)


def _keys(at: Positions) -> Where:
    if at is None:
        return None
    assert not isinstance(at, EachPosition), "the compiler writes positions out"
    return frozenset(at)


def _union(one: Where, other: Where) -> Where:
    return None if one is None or other is None else one | other


def _done(schedule: Schedule, stages: list[Stage], name: str) -> Schedule:
    return replace(schedule, stages=tuple(stages), passes=(*schedule.passes, name))
