"""Positions that need not be run."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from circuitgraph.plan import FromRun, PatchPort, PatchWrite, ReplaceSenders, Run
from circuitgraph.request import EachPosition, Positions
from circuitgraph.schedule.schedule import METRIC, Schedule, Stage, Where, with_stages

__all__ = ["trim_positions"]


def trim_positions(schedule: Schedule) -> Schedule:
    """Return a schedule that runs only positions that can matter.

    Direct paths keep their position, so a sender run needs only the positions that its receivers
    read. Where attention runs live, a change spreads to later positions only.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> from circuitgraph.schedule import replay_frozen
        >>> plan = compile(ModelGraph(ModelShape(12, 12)), "9.9 -> logits", "mlps")
        >>> trim_positions(replay_frozen(Schedule.of(plan))).stages[0].where
        frozenset({'<metric>'})
    """
    changed: list[Where] = []
    arriving: list[Where] = []
    for stage in schedule.stages:
        changed.append(_changed(stage, arriving))
        keeps_position = stage.name == "send" and not stage.mixes_positions
        arriving.append(changed[-1] if keeps_position else None)
    stages = list(schedule.stages)
    needed: list[Where] = [frozenset() for _ in stages]
    for number in reversed(range(len(stages))):
        stages[number] = _trim(stages[number], needed[number], changed[number])
        for run, where in _needs(stages[number], needed[number]):
            needed[run] = _union(needed[run], where)
    return with_stages(schedule, "trim positions", stages)


def _trim(stage: Stage, needed: Where, changed: Where) -> Stage:
    """Return a stage with the positions that it has to run."""
    match stage.name:
        case "read out":
            return replace(stage, where=frozenset({METRIC}))
        case "measure":
            return replace(stage, where=changed, from_first=changed is not None)
        case "send" if not stage.mixes_positions:
            return replace(stage, where=changed if needed is None else needed)
        case _:
            return replace(stage, where=None)


def _changed(stage: Stage, arriving: Sequence[Where]) -> Where:
    """Return the positions at which a stage's runs differ from clean at first; None for any.

    Args:
        stage: The stage.
        arriving: At which positions a change arrives at the ports that each earlier stage recorded.
    """
    where: Where = frozenset()
    for job in stage.jobs:
        for op in job.run.ops:
            match op:
                case PatchWrite(value=FromRun()):
                    return None
                case PatchPort(at=None, delta_from=run):
                    where = _union(where, arriving[run])
                case PatchWrite(at=at) | PatchPort(at=at) | ReplaceSenders(at=at):
                    where = _union(where, _keys(at))
                case _:
                    pass
        if where is None:
            return None
    return where


def _needs(stage: Stage, needed: Where) -> Iterator[tuple[int, Where]]:
    """Yield at which positions a stage needs what earlier runs recorded."""
    seen: set[tuple[int, Where]] = set()
    for job in stage.jobs:
        for need in _run_needs(job.run, stage, needed):
            if need not in seen:
                seen.add(need)
                yield need


def _run_needs(run: Run, stage: Stage, needed: Where) -> Iterator[tuple[int, Where]]:
    for op in run.ops:
        match op:
            case PatchPort(delta_from=number) if stage.name == "read out":
                yield number, frozenset({METRIC})
            case PatchPort(port=port, delta_from=number, at=None) if stage.name == "recompute":
                # Keys and values at any position reach what is written at the needed ones.
                yield number, None if port.name in ("k", "v") else needed
            case PatchPort(delta_from=number, at=at):
                yield number, _keys(at)
            case PatchWrite(value=FromRun(run=number), at=at):
                yield number, stage.where if at is None else _keys(at)
            case ReplaceSenders(senders=senders):
                for sender in senders:
                    if isinstance(sender.value, FromRun):
                        yield sender.value.run, None
            case _:
                pass


def _keys(at: Positions) -> Where:
    if at is None:
        return None
    assert not isinstance(at, EachPosition), "the compiler writes positions out"
    return frozenset(at)


def _union(one: Where, other: Where) -> Where:
    return None if one is None or other is None else one | other
