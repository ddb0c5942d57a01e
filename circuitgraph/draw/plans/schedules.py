"""Schedules as pictures: what is really run, layer by layer, live or replayed, in how many rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from circuitgraph.draw.chart import Chart, Spec, heading, with_notes
from circuitgraph.draw.plans.boards import Label, Tile, tiles_spec
from circuitgraph.draw.plans.looks import LOOKS, Look
from circuitgraph.draw.plans.phrases import listed, span
from circuitgraph.errors import PlanError
from circuitgraph.nodes import MLP, Head
from circuitgraph.schedule import Job, Schedule, Stage
from circuitgraph.schedule.table import where_text

__all__ = ["Lane", "draw_schedule", "schedule_html", "stage_words"]

_TRACK, _LEFT, _GAP = 122.0, 24.0, 8.0
_WIDTH = _LEFT + 2 * _TRACK + _GAP
_LOOKS: dict[Look, str] = {
    "live": LOOKS["live"].words,
    "replayed": f"= {LOOKS['replayed'].words}",
    "idle": "· left out: not changed yet, or not needed",
}


@dataclass(frozen=True, slots=True)
class Lane:
    """What a stage does with one module: how many rows run it live, and whether any replays it."""

    live: int
    replayed: bool

    @property
    def look(self) -> Look:
        """How its cell looks."""
        return "live" if self.live else "replayed" if self.replayed else "idle"


def draw_schedule(schedule: Schedule, *, title: str | None = None, legend: bool = True) -> Chart:
    """Return a picture of what is really run: a panel per stage, a row per layer.

    Attention and MLPs that run live are bars as long as the share of rows that need them, with
    their number; what is replayed from the recordings and what is left out look different.

    Args:
        schedule: What to draw.
        title: The line above the picture; None takes the request. An empty text leaves it out.
        legend: Explain colours and symbols below the picture.

    Raises:
        PlanError: A schedule without stages.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> from circuitgraph.schedule import schedule
        >>> draw_schedule(schedule(compile(ModelGraph(ModelShape(12, 12)), "head -> logits")))
        Chart: head -> logits, variant mlps: 39.0 forward passes' worth of live modules, ...
    """
    if not schedule.stages:
        raise PlanError(f"nothing to draw: the schedule of {schedule.plan.request} has no stages")
    plan = schedule.plan
    head = f"{plan.title}, variant {plan.variant}" if title is None else title
    panels = [_stage_spec(schedule, at, legend) for at in range(len(schedule.stages))]
    said = _notes(schedule)
    spec: Spec = {"concat": panels, "columns": 3, "spacing": 34}
    spec = with_notes(spec, heading(head, [said], min(3, len(panels)) * (_WIDTH + 34)), ())
    return Chart(spec, ": ".join(filter(None, (head, said))))


def schedule_html(schedule: Schedule) -> str:
    """Return a schedule for a notebook: its stages, and the table below."""
    table = f"<pre>{escape(str(schedule))}</pre>"
    if not schedule.stages:
        return table
    picture = draw_schedule(schedule)._repr_html_()
    return f"{picture}<details><summary>as a table</summary>{table}</details>"


def _notes(schedule: Schedule) -> str:
    """Return what the schedule costs beside the plan it answers."""
    plan = schedule.plan
    cells = len(plan.cells)
    return (
        f"{schedule.forward_passes:.1f} forward passes' worth of live modules, where the plan "
        f"has {plan.cost.forward_passes}; {cells} cell{'s' * (cells != 1)}; "
        f"passes: {', '.join(schedule.passes) or 'none'}"
    )


def _stage_spec(schedule: Schedule, number: int, legend: bool) -> Spec:
    """Return one stage as a panel."""
    stage, shape = schedule.stages[number], schedule.plan.graph.shape
    total = len(stage.jobs)
    title = f"{number + 1} {stage.name}: {total} row{'s' * (total != 1)}"
    row = max(6.5, min(18.0, 510.0 / shape.n_layers))
    labels: list[Label] = [
        (_LEFT + at * (_TRACK + _GAP) + _TRACK / 2, 5.0, name, "center")
        for at, name in enumerate(("attention", "MLP"))
    ]
    tiles: list[Tile] = []
    every = 1 if row >= 9 else 2 if row >= 6.5 else 5
    for layer in range(shape.n_layers):
        y = 14.0 + (shape.n_layers - 1 - layer) * (row + 1.3)
        if layer % every == 0:
            labels.append((_LEFT - 5, y + row / 2, str(layer), "right"))
        for at, lane in enumerate(_lanes(schedule, stage, layer)):
            if lane is not None:
                kind = f"{number + 1} {stage.name}: {('attention', 'MLP')[at]} of layer {layer}"
                tiles.append(_track(lane, total, (_LEFT + at * (_TRACK + _GAP), y, row), kind))
    size = (_WIDTH, 14.0 + shape.n_layers * (row + 1.3))
    return tiles_spec(title, tiles, labels, stage_words(schedule, number), size, _LOOKS, legend)


def stage_words(schedule: Schedule, number: int) -> str:
    """Return what a stage runs, in a sentence or two.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> from circuitgraph.schedule import schedule
        >>> found = schedule(compile(ModelGraph(ModelShape(12, 12)), "5.5 -> head.q => logits"))
        >>> stage_words(found, 0)
        'MLPs 5–10 run live, attention is replayed. 72 cells share 1 row. Positions: all.'
    """
    stage = schedule.stages[number]
    attention = sorted({layer for job in stage.jobs for layer in job.attention})
    mlps = sorted({layer for job in stage.jobs for layer in job.mlps})
    live = []
    if attention:
        live.append(f"attention of layer{'s' * (len(attention) > 1)} {span(attention)}")
    if mlps:
        live.append(f"MLP{'s' * (len(mlps) > 1)} {span(mlps)}")
    where = f"Positions: {where_text(stage)}."
    if not live:
        closed = "norm and unembedding" if stage.name == "read out" else "a sum of recorded writes"
        return f"No module runs: {closed}. {where}"
    one = len(attention) + len(mlps) == 1
    said = f"{listed(live)} {'runs' if one else 'run'} live"
    if not attention:
        said += ", attention is replayed"
    if not mlps and schedule.plan.graph.mlps:
        said += ", MLPs are replayed"
    cells, rows = len(schedule.plan.cells), len(stage.jobs)
    spared = f" {cells} cells share {rows} row{'s' * (rows != 1)}." if cells > rows else ""
    return f"{said[0].upper()}{said[1:]}.{spared} {where}"


def _lanes(schedule: Schedule, stage: Stage, layer: int) -> Sequence[Lane | None]:
    """Return what happens to attention and MLP of a layer; None where there is no MLP."""
    graph = schedule.plan.graph
    attention = Lane(
        sum(layer in job.attention for job in stage.jobs),
        any(_inside(schedule, job, Head(layer, 0)) for job in stage.jobs),
    )
    if not graph.shape.has_mlp(layer):
        return (attention, None)
    mlp = Lane(
        sum(layer in job.mlps for job in stage.jobs),
        any(_inside(schedule, job, MLP(layer)) for job in stage.jobs),
    )
    return (attention, mlp)


def _inside(schedule: Schedule, job: Job, node: Head | MLP) -> bool:
    """Return whether a module lies between the first change and the last use."""
    graph = schedule.plan.graph
    reads = graph.reads_at(graph.ports_of(node)[0])
    return reads >= job.first and graph.writes_at(node) <= job.last


def _track(lane: Lane, total: int, place: tuple[float, float, float], kind: str) -> Tile:
    """Return the bar of the rows that run a module live, or what happens to it."""
    x, y, row = place
    size = max(5.0, min(10.0, row - 3))
    if not lane.live:
        said = "replayed from the recording" if lane.replayed else "left out"
        mark = LOOKS[lane.look].mark
        return Tile(x, y, _TRACK, row, lane.look, mark, f"{kind}: {said}", size=size)
    said = f"{kind}: live in {lane.live} of {total} row{'s' * (total != 1)}"
    width = max(16.0, _TRACK * lane.live / total)
    return Tile(x, y, width, row, "live", str(lane.live), said, size=size)
