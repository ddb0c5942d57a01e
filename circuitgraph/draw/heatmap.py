"""Effects as heatmaps: layer by head, one image or several, with names and numbers on hover."""

import math
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from circuitgraph.draw.panels import Grid, lay_out
from circuitgraph.draw.plot import (
    add_bars,
    add_image,
    color_axis,
    describe,
    layout,
    note,
    tidy_axes,
)
from circuitgraph.effects import Effects
from circuitgraph.errors import EffectsError

__all__ = ["heatmap"]

_MANY = 4000
"""More cells than this, and statistics are made only when asked for: they would take seconds."""


def heatmap(
    effects: Effects,
    *,
    title: str | None = None,
    statistics: xr.Dataset | bool | None = None,
    values: bool = False,
    limit: float | None = None,
    max_panels: int = 12,
) -> go.Figure:
    """Return a plotly figure of the normalised effects: 0 unharmed, −1 all lost.

    Two swept dimensions make an image (layers downwards, heads to the right), one makes bars, and
    further ones (several receivers, positions, metrics) make small multiples. White is zero, red
    below it and blue above, by the same scale on both sides and in all panels. Grey cells are cells
    that no request fills. A dot marks cells that stand out from zero.

    Show it in a notebook, or keep it with ``figure.write_html("heatmap.html")``. Plotly's own
    ``figure.write_image("heatmap.png")`` needs the package ``kaleido`` and Chrome.

    Args:
        effects: What to show.
        title: The title; the request by default.
        statistics: What ``effects.statistics(...)`` gave, for intervals and dots. None makes them
            with the usual settings where there are few thousand cells at most; False leaves
            them out.
        values: Write the number into every cell instead of dots.
        limit: The effect at both ends of the colour scale; the largest one by default.
        max_panels: Show at most this many small multiples, those with the largest effects; the
            figure says how many are left out.

    Raises:
        EffectsError: The metric cannot tell clean from corrupt, or a limit that is not positive.

    Example:
        >>> effects = Effects.from_arrays(
        ...     [[[3.0, 1.0], [4.0, 2.0]]],
        ...     clean=[4.0, 2.0],
        ...     corrupt=[0.0, -2.0],
        ...     sweep={"layer": [9], "head": [6, 9]},
        ...     request="head -> logits",
        ... )
        >>> figure = heatmap(effects)
        >>> figure.data[0].z
        array([[-0.25,  0.  ]])
    """
    if limit is not None and not (limit > 0 and math.isfinite(limit)):
        raise EffectsError(f"limit must be a positive number, got {limit!r}")
    if max_panels < 1:
        raise EffectsError(f"max_panels must be 1 or more, got {max_panels}")
    found = _statistics(effects, statistics)
    grid = lay_out(effects, found, max_panels)
    unit = metric_words(effects)
    columns = _columns(grid)
    rows = math.ceil(len(grid.panels) / columns)
    figure = _subplots(grid, rows, columns)
    for number, panel in enumerate(grid.panels):
        place = (number // columns + 1, number % columns + 1)
        if grid.bars:
            add_bars(figure, panel, unit, place, "coloraxis")
        else:
            add_image(figure, panel, unit, place, "coloraxis", values)
        last = number + columns >= len(grid.panels)
        tidy_axes(figure, grid, place, titles=False)
        if last:
            figure.update_xaxes(title_text=grid.column_title, row=place[0], col=place[1])
        if place[1] == 1:
            words = f"share of {unit}" if grid.bars else grid.row_title
            figure.update_yaxes(title_text=words, row=place[0], col=1)
    heading = effects.attrs.get("request", "effects") if title is None else title
    width, height = figure_size(grid, rows, columns)
    figure.update_layout(
        **layout(str(heading), describe(effects), width, height),
        margin=MARGIN,
        coloraxis=color_axis(limit or grid.largest, 1 + 14 / (width - 160), "effect"),
    )
    note(figure, _notes(grid, found, values))
    return figure


MARGIN = {"l": 64, "r": 96, "t": 84, "b": 76}
"""Room around the panels for titles, ticks, notes and the colour scale, in pixels."""


def cell_size(grid: Grid, panels: int) -> tuple[float, float]:
    """Return how large a cell is drawn: smaller where there are many, or several panels."""
    if grid.bars:
        return max(14.0, min(46.0, 720.0 / len(grid.columns))), 280.0 if panels == 1 else 170.0
    few = panels == 1
    wide = max(9.0, min(40.0 if few else 24.0, (760.0 if few else 340.0) / len(grid.columns)))
    high = max(8.0, min(30.0 if few else 18.0, (640.0 if few else 330.0) / len(grid.rows)))
    return wide, high


def figure_size(grid: Grid, rows: int, columns: int) -> tuple[float, float]:
    """Return width and height of a figure with so many panels."""
    wide, high = cell_size(grid, rows * columns)
    width = columns * max(120.0, wide * len(grid.columns)) + (columns - 1) * GAP[0]
    height = rows * max(60.0, high * len(grid.rows)) + (rows - 1) * GAP[1]
    return max(420.0, width + MARGIN["l"] + MARGIN["r"]), height + MARGIN["t"] + MARGIN["b"]


GAP = (46.0, 58.0)
"""Room between panels, across and down, in pixels."""


def metric_words(effects: Effects) -> str:
    """Return what an effect is a share of: ``the logit difference``."""
    metric = str(effects.attrs.get("metric") or "metric")
    return metric if metric.startswith("the ") else f"the {metric}"


def subplot_gaps(grid: Grid, rows: int, columns: int) -> dict[str, Any]:
    """Return the room between panels as the shares that plotly asks for."""
    width, height = figure_size(grid, rows, columns)
    inner_width = width - MARGIN["l"] - MARGIN["r"]
    inner_height = height - MARGIN["t"] - MARGIN["b"]
    return {
        "horizontal_spacing": GAP[0] / inner_width if columns > 1 else 0,
        "vertical_spacing": GAP[1] / inner_height if rows > 1 else 0,
    }


def _subplots(grid: Grid, rows: int, columns: int) -> go.Figure:
    return make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[f"<b>{panel.title}</b>" if panel.title else "" for panel in grid.panels],
        **subplot_gaps(grid, rows, columns),
    )


def _columns(grid: Grid) -> int:
    """Return how many panels stand side by side."""
    count = len(grid.panels)
    wide, _ = cell_size(grid, count)
    room = max(1, int(1200 // (max(120.0, wide * len(grid.columns)) + GAP[0])))
    best = math.ceil(math.sqrt(count))
    return max(1, min(count, room, best if count > 3 else count))


def _statistics(effects: Effects, given: xr.Dataset | bool | None) -> xr.Dataset | None:
    if isinstance(given, xr.Dataset):
        return given
    if given is None:
        given = effects.n_prompts > 1 and math.prod(effects.shape) <= _MANY
    return effects.statistics() if given else None


def _notes(grid: Grid, statistics: xr.Dataset | None, values: bool) -> list[str]:
    notes = []
    if statistics is not None and not values and any(p.significant.any() for p in grid.panels):
        share = 100 * float(statistics.attrs.get("confidence", 0.95))
        mark = "whiskers: interval" if grid.bars else "• stands out from zero"
        notes.append(f"{mark} ({share:g} %)")
    if any(not panel.filled.all() for panel in grid.panels):
        notes.append("× no such request" if grid.bars else "grey: no such request")
    if grid.left_out:
        notes.append(
            f"{grid.left_out} panel{'s' * (grid.left_out != 1)} with smaller effects not shown"
        )
    return notes
