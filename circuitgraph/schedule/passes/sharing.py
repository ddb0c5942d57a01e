"""Equal runs are done once."""

from dataclasses import replace

from circuitgraph.plan import ReadLogits, Record, Run
from circuitgraph.schedule.schedule import Job, Schedule, Stage, with_stages

__all__ = ["share_runs"]


def share_runs(schedule: Schedule) -> Schedule:
    """Return a schedule in which runs that patch the same are done once.

    Runs that differ only in what they record become one job that records it all: every receiver of
    a sender shares the sender's run.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> plan = compile(ModelGraph(ModelShape(12, 12)), "5.5 -> head.q => logits")
        >>> [len(stage.jobs) for stage in share_runs(Schedule.of(plan)).stages]
        [1, 72]
    """
    stages: list[Stage] = []
    for stage in schedule.stages:
        found: dict[object, int] = {}
        jobs: list[Job] = []
        records: list[list[Record]] = []
        job_of_cell: list[int] = []
        for cell, number in enumerate(stage.job_of_cell):
            job = stage.jobs[number]
            needs = tuple((run, stages[run].job_of_cell[cell]) for run, _ in job.needs)
            acts = tuple(op for op in job.run.ops if not isinstance(op, Record))
            at = found.setdefault((job.run.name, acts, needs), len(jobs))
            if at == len(jobs):
                jobs.append(replace(job, needs=needs))
                records.append([])
            job_of_cell.append(at)
            records[at] += [op for op in job.run.ops if isinstance(op, Record)]
        shared = tuple(
            replace(job, run=_recording(job.run, kept)) if len(kept) > 1 else job
            for job, kept in zip(jobs, records, strict=True)
        )
        stages.append(replace(stage, jobs=shared, job_of_cell=tuple(job_of_cell)))
    return with_stages(schedule, "share runs", stages)


def _recording(run: Run, records: list[Record]) -> Run:
    """Return a run that records what any of ``records`` does."""
    ports = tuple(sorted({port for record in records for port in record.ports}))
    writes = tuple(sorted({node for record in records for node in record.writes}))
    acts = tuple(op for op in run.ops if not isinstance(op, Record | ReadLogits))
    ends = tuple(op for op in run.ops if isinstance(op, ReadLogits))
    return replace(run, ops=(*acts, Record(ports, writes), *ends))
