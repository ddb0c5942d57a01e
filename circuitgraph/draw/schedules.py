"""Schedules as pictures: what is really run, layer by layer, live or replayed, in how many rows."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from circuitgraph.draw.boards import legend_canvas
from circuitgraph.draw.drawing import Drawing
from circuitgraph.draw.looks import LOOKS, Look
from circuitgraph.draw.phrases import listed, span
from circuitgraph.draw.rendering import draw_dot
from circuitgraph.draw.tiles import Canvas, Rect, Text, headline, stacked, tiles_dot, wrapped
from circuitgraph.errors import PlanError
from circuitgraph.nodes import MLP, Head
from circuitgraph.schedule import Job, Schedule, Stage
from circuitgraph.schedule.table import where_text

__all__ = ["Lane", "draw_schedule", "schedule_key", "schedule_notes", "stage_canvas", "stage_words"]

_TRACK = 92.0
_LEFT = 17.0
_GAP = 6.0
_WIDTH = _LEFT + 2 * _TRACK + _GAP
_BETWEEN = 24.0
_WIDEST = 720.0


@dataclass(frozen=True, slots=True)
class Lane:
    """What a stage does with one module: how many rows run it live, and whether any replays it."""

    live: int
    replayed: bool

    @property
    def look(self) -> Look:
        """How its cell looks."""
        return "live" if self.live else "replayed" if self.replayed else "idle"


def draw_schedule(schedule: Schedule, *, title: str | None = None, legend: bool = True) -> Drawing:
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
        Drawing: head -> logits, variant mlps: 39.0 forward passes' worth of live modules, ...
    """
    if not schedule.stages:
        raise PlanError(f"nothing to draw: the schedule of {schedule.plan.request} has no stages")
    plan = schedule.plan
    heading = f"{plan.title}, variant {plan.variant}" if title is None else title
    panels = [stage_canvas(schedule, at, words=True) for at in range(len(schedule.stages))]
    fits = max(1, int((_WIDEST + _BETWEEN) // (_WIDTH + _BETWEEN)))
    width = min(len(panels), fits) * (_WIDTH + _BETWEEN) - _BETWEEN
    parts, top = [], 0.0
    if heading:
        parts.append(headline(heading, width))
        top = parts[-1].height + 3.0
    said = schedule_notes(schedule)
    parts.append(wrapped(said, width, 0.0, top, 9.0, faint=True))
    top = parts[-1].height + 10.0
    for start in range(0, len(panels), fits):
        bottom = top
        for at, panel in enumerate(panels[start : start + fits]):
            parts.append(panel.moved(at * (_WIDTH + _BETWEEN), top))
            bottom = max(bottom, parts[-1].height)
        top = bottom + 16.0
    if legend:
        there = {rect.look for panel in panels for rect in panel.rects}
        parts.append(legend_canvas(schedule_key(there), max(width, 420.0)).moved(0.0, top))
    return draw_dot(tiles_dot(stacked(parts)), ": ".join(filter(None, (heading, said))))


def schedule_key(there: Collection[Look]) -> list[tuple[Look, str]]:
    """Return the looks that a schedule's picture has, each with what the legend says of it."""
    words: dict[Look, str] = {
        "live": LOOKS["live"].words,
        "replayed": LOOKS["replayed"].words,
        "idle": "left out: not changed yet, or not needed",
    }
    return [(look, said) for look, said in words.items() if look in there]


def schedule_notes(schedule: Schedule) -> str:
    """Return what the schedule costs beside the plan it answers."""
    plan = schedule.plan
    cells = len(plan.cells)
    return (
        f"{schedule.forward_passes:.1f} forward passes' worth of live modules, where the plan "
        f"has {plan.cost.forward_passes}; {cells} cell{'s' * (cells != 1)}; "
        f"passes: {', '.join(schedule.passes) or 'none'}"
    )


def stage_canvas(schedule: Schedule, number: int, *, words: bool) -> Canvas:
    """Return one stage as a panel.

    Args:
        schedule: What it belongs to.
        number: Which stage.
        words: Whether title and caption are part of it.
    """
    stage, shape = schedule.stages[number], schedule.plan.graph.shape
    total = len(stage.jobs)
    rows = f"{total} row{'s' * (total != 1)}"
    top = 17.0 if words else 0.0
    texts = (
        [Text(_LEFT, 6.0, f"{number + 1} {stage.name}: {rows}", 11.0, bold=True)] if words else []
    )
    row = max(5.0, min(14.0, 390.0 / shape.n_layers))
    for at, name in enumerate(("attention", "MLP")):
        middle = _LEFT + at * (_TRACK + _GAP) + _TRACK / 2
        texts.append(Text(middle, top + 4.0, name, 6.5, faint=True, anchor="middle"))
    top += 10.0
    rects: list[Rect] = []
    every = 1 if row >= 7 else 2 if row >= 5 else 5
    for layer in range(shape.n_layers):
        y = top + (shape.n_layers - 1 - layer) * (row + 1.0)
        if layer % every == 0:
            texts.append(Text(_LEFT - 3, y + row / 2, str(layer), 6.5, faint=True, anchor="end"))
        for at, lane in enumerate(_lanes(schedule, stage, layer)):
            if lane is not None:
                kind = f"{number + 1} {stage.name}: {('attention', 'MLP')[at]} of layer {layer}"
                x = _LEFT + at * (_TRACK + _GAP)
                rects += _track(lane, total, (x, y, row), kind)
    bottom = top + shape.n_layers * (row + 1.0)
    panel = Canvas(tuple(rects), tuple(texts), _WIDTH, bottom)
    if not words:
        return panel
    said = stage_words(schedule, number)
    return stacked([panel, wrapped(said, _WIDTH - _LEFT, _LEFT, bottom + 4.0, 8.0)])


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


def _track(lane: Lane, total: int, place: tuple[float, float, float], kind: str) -> list[Rect]:
    """Return the bar of the live rows, and behind it what happens to the others."""
    x, y, row = place
    size = max(4.0, min(7.5, row - 2))
    if not lane.live:
        said = "replayed from the recording" if lane.replayed else "left out"
        mark = LOOKS[lane.look].mark
        return [Rect(x, y, _TRACK, row, lane.look, mark, f"{kind}: {said}", size=size)]
    said = f"{kind}: live in {lane.live} of {total} row{'s' * (total != 1)}"
    width = max(12.0, _TRACK * lane.live / total)
    return [Rect(x, y, width, row, "live", str(lane.live), said, size=size)]
