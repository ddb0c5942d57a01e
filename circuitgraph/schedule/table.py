"""The table that ``print(schedule)`` shows."""

from io import StringIO
from typing import TYPE_CHECKING

from circuitgraph.schedule.schedule import METRIC, Stage

if TYPE_CHECKING:
    from circuitgraph.schedule.schedule import Schedule

__all__ = ["schedule_table"]

WIDTH = 100


def schedule_table(schedule: "Schedule") -> str:
    """Return the schedule as text of at most 100 columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    plan = schedule.plan
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, width=WIDTH)
    stacked = ("stacks",) if schedule.stacks else ()
    headings = ("stage", "rows", *stacked, "layers", "attention live", "MLPs live", "positions")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for number, stage in enumerate(schedule.stages):
        table.add_row(
            stage.name,
            str(len(stage.jobs)),
            *(str(schedule.stacks[number]) for _ in stacked),
            _span([job.first // 2 for job in stage.jobs], [job.last // 2 for job in stage.jobs]),
            _layers(stage, "attention"),
            _layers(stage, "mlps"),
            where_text(stage),
        )
    console = Console(width=WIDTH, file=StringIO(), color_system=None, force_jupyter=False)
    console.print(Text(f"Schedule of {plan.title}   variant {plan.variant}, mode {plan.mode}"))
    console.print(table)
    console.print(Text(f"passes: {', '.join(schedule.passes) or 'none'}"))
    console.print(
        Text(
            f"cost: {schedule.forward_passes:.1f} forward passes' worth of live modules, "
            f"the plan's {plan.cost.forward_passes}; recordings {plan.cost.recordings}"
        )
    )
    file = console.file
    assert isinstance(file, StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())


def _layers(stage: Stage, kind: str) -> str:
    found = [sorted(getattr(job, kind)) for job in stage.jobs]
    used = sorted({layer for layers in found for layer in layers})
    if not used:
        return "none"
    total = sum(map(len, found))
    return f"{_span(used, used)} ({total} over the rows)"


def _span(low: list[int], high: list[int]) -> str:
    first, last = min(low), max(high)
    return str(first) if first == last else f"{first}-{last}"


def where_text(stage: Stage) -> str:
    """Return the positions of a stage in words."""
    if stage.where is None:
        return "all"
    names = sorted("the metric's" if key == METRIC else str(key) for key in stage.where)
    text = ", ".join(names) or "none"
    return f"from {text} on" if stage.from_first else text
