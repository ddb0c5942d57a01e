"""What is really run: stages of jobs, each one run of the plan, perhaps shared by many cells."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from circuitgraph.arguments import instance
from circuitgraph.errors import RequestError
from circuitgraph.nodes import Embed, Logits
from circuitgraph.plan import FromRun, PatchPort, PatchWrite, Plan, ReplaceSenders, Run

if TYPE_CHECKING:
    from circuitgraph.draw import Chart

__all__ = ["METRIC", "Job", "Schedule", "Stage", "Where", "references", "with_jobs", "with_stages"]

Where = frozenset[str | int] | None
"""A set of positions by name or index, `METRIC` among them; None means all."""

METRIC = "<metric>"
"""The position that the metric reads, which a plan does not name."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run, done once.

    Args:
        run: What is patched, frozen and recorded.
        needs: For each earlier run that the run refers to, its number and the job that answers it.
        first: The first point of the residual stream that can differ from clean.
        last: The last point that matters.
        attention: Layers whose attention runs live; in all others it is replayed.
        mlps: Layers whose MLP runs live.
    """

    run: Run
    needs: tuple[tuple[int, int], ...]
    first: int
    last: int
    attention: frozenset[int]
    mlps: frozenset[int]

    @property
    def first_layer(self) -> int:
        """The first layer of which something is patched; the number of layers for the logits."""
        nodes = [op.node for op in self.run.patched] + [op.port.node for op in self.run.ports]
        return min(
            0
            if isinstance(node, Embed)
            else self.last // 2
            if isinstance(node, Logits)
            else node.layer
            for node in nodes
        )

    def source(self, run: int) -> int:
        """Return the job that did an earlier run of the same cell."""
        return dict(self.needs)[run]


@dataclass(frozen=True, slots=True)
class Stage:
    """The same step of every cell.

    Args:
        name: As the runs are called in the plan.
        jobs: What is run.
        where: The positions that are run; None for all.
        from_first: Whether the run starts at the first of ``where`` and goes on to the end, since
            attention carries a change to later positions.
        job_of_cell: For each cell of the plan, which job answers it.
    """

    name: str
    jobs: tuple[Job, ...]
    where: Where
    from_first: bool
    job_of_cell: tuple[int, ...]

    @property
    def mixes_positions(self) -> bool:
        """Whether some attention runs live, which carries a change from position to position."""
        return any(job.attention for job in self.jobs)


@dataclass(frozen=True)
class Schedule:
    """The stages that answer a plan, in order.

    Args:
        plan: What is answered.
        stages: The steps; the last one reads the logits.
        passes: Names of the passes that made it.
        stacks: In how many stacks each stage runs; known where the prompts and the memory budget
            are: `Experiment.schedule` knows.
    """

    plan: Plan
    stages: tuple[Stage, ...]
    passes: tuple[str, ...] = ()
    stacks: tuple[int, ...] = ()

    @classmethod
    def of(cls, plan: Plan) -> "Schedule":
        """Return the plan as stages, with nothing saved yet: a stage for each run of its cells."""
        instance("plan", plan, Plan, "as cg.compile returns", RequestError)
        n_layers = plan.graph.shape.n_layers
        layers = frozenset(range(n_layers))
        with_mlp = frozenset(mlp.layer for mlp in plan.graph.mlps)
        names = [run.name for run in plan.cells[0].runs] if plan.cells else []
        stages = []
        for number, name in enumerate(names):
            jobs = tuple(
                Job(
                    cell.runs[number],
                    tuple((run, at) for run in references(cell.runs[number])),
                    first=0,
                    last=2 * n_layers,
                    attention=layers,
                    mlps=with_mlp,
                )
                for at, cell in enumerate(plan.cells)
            )
            stages.append(Stage(name, jobs, None, False, tuple(range(len(jobs)))))
        return cls(plan, tuple(stages))

    @property
    def layer_runs(self) -> tuple[int, int]:
        """How many attentions and how many MLPs run live, counted over all jobs."""
        jobs = [job for stage in self.stages for job in stage.jobs]
        return sum(len(job.attention) for job in jobs), sum(len(job.mlps) for job in jobs)

    @property
    def forward_passes(self) -> float:
        """What the jobs cost in whole forward passes, by counting live attentions and MLPs.

        Positions that are left out and the smaller stacks at early layers are not counted.
        """
        shape = self.plan.graph.shape
        attention, mlps = self.layer_runs
        parts = shape.n_layers + len(self.plan.graph.mlps)
        return (attention + mlps) / parts

    def draw(self, *, title: str | None = None, legend: bool = True) -> "Chart":
        """Draw what is run live, replayed and left out (see `circuitgraph.draw.draw_schedule`)."""
        from circuitgraph.draw import draw_schedule

        return draw_schedule(self, title=title, legend=legend)

    def __str__(self) -> str:
        from circuitgraph.schedule.table import schedule_table

        return schedule_table(self)

    def __repr__(self) -> str:
        plan = self.plan
        stages = ", ".join(
            f"{stage.name} {len(stage.jobs)} row{'s' * (len(stage.jobs) != 1)}"
            for stage in self.stages
        )
        settings = f"variant {plan.variant}, mode {plan.mode}"
        return (
            f"Schedule of {plan.title!r} ({settings}): {stages}\n"
            f"  {self.forward_passes:.1f} forward passes' worth of live modules, "
            f"the plan has {plan.cost.forward_passes}"
        )

    def _repr_html_(self) -> str:
        from circuitgraph.draw import schedule_html

        return schedule_html(self)


def with_stages(schedule: Schedule, name: str, stages: Iterable[Stage]) -> Schedule:
    """Return the schedule that a pass of that name makes of another one."""
    return replace(schedule, stages=tuple(stages), passes=(*schedule.passes, name))


def with_jobs(schedule: Schedule, name: str, change: Callable[[Job], Job]) -> Schedule:
    """Return the schedule that a pass of that name makes by changing each job."""
    stages = (replace(stage, jobs=tuple(map(change, stage.jobs))) for stage in schedule.stages)
    return with_stages(schedule, name, stages)


def references(run: Run) -> tuple[int, ...]:
    """Return which earlier runs of its cell a run refers to."""
    found: dict[int, None] = {}
    for op in run.ops:
        match op:
            case PatchPort(delta_from=number):
                found[number] = None
            case PatchWrite(value=FromRun(run=number)):
                found[number] = None
            case ReplaceSenders(senders=senders):
                for sender in senders:
                    if isinstance(sender.value, FromRun):
                        found[sender.value.run] = None
            case _:
                pass
    return tuple(sorted(found))
