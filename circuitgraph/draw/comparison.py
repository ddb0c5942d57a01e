"""Variants side by side: heatmaps with their difference; `scatter` has a room of its own."""

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuitgraph.draw.heatmap import add_panel, bold, metric_words, notes
from circuitgraph.draw.marks import tidy_axes
from circuitgraph.draw.panels import Grid, Panel, lay_out
from circuitgraph.draw.plot import color_axis, describe_comparison, layout, note
from circuitgraph.draw.scatter import pair_of, scatter
from circuitgraph.draw.sheet import Sheet
from circuitgraph.effects import Comparison, Effects
from circuitgraph.request.brief import brief

__all__ = ["heatmaps", "scatter"]

_MANY = 4000
"""More cells than this, and statistics are made only when asked for: they would take seconds."""


def heatmaps(
    comparison: Comparison,
    a: str | None = None,
    b: str | None = None,
    *,
    title: str | None = None,
    statistics: bool | None = None,
    values: bool = False,
    max_panels: int = 4,
) -> go.Figure:
    """Return a plotly figure: the effects under every name side by side, then the difference.

    All effects share one colour scale; the difference (``a`` minus ``b``) has its own, since it is
    usually smaller. Where effects are spread over several panels (receivers, positions), each is a
    row. See `circuitgraph.draw.heatmap.heatmap` for colours, marks and files.

    Args:
        comparison: What to show.
        a: The name that the difference is taken of; the first by default.
        b: The name that is taken from it; the second by default.
        title: The title; the request by default.
        statistics: Whether cells that stand out from zero are marked: dots in the difference are
            cells where the two differ by more than chance explains. None does so where there are
            few thousand cells at most.
        values: Write the number into every cell instead of dots.
        max_panels: Show at most this many rows, those with the largest effects.

    Raises:
        EffectsError: No such name, or the metric cannot tell clean from corrupt.
    """
    pair = pair_of(comparison, a, b)
    first = comparison.effects[comparison.names[0]]
    marked = _few(first) if statistics is None else statistics
    columns = _columns(comparison, pair, marked, max_panels)
    grid, kept = columns[-1][1], len(columns[-1][1].panels)
    sheet = Sheet.of(grid, rows=kept, columns=len(columns))
    titles = [
        bold(", ".join(filter(None, (name, column.panels[row].title))))
        for row in range(kept)
        for name, column in columns
    ]
    figure = make_subplots(
        rows=kept,
        cols=len(columns),
        subplot_titles=titles,
        horizontal_spacing=sheet.gaps[0],
        vertical_spacing=sheet.gaps[1],
    )
    figure.update_annotations(font={"size": 12})
    unit = metric_words(first)
    for col, (name, column) in enumerate(columns, start=1):
        apart = name if col == len(columns) else ""
        axis = "coloraxis2" if apart else "coloraxis"
        for row, panel in enumerate(column.panels, start=1):
            add_panel(figure, column, panel, unit, (row, col), axis, values, apart)
            tidy_axes(figure, column, (row, col), sheet)
        figure.update_xaxes(title_text=escape(grid.column_title), row=kept, col=col)
    words = f"share of {unit}" if grid.bars else grid.row_title
    figure.update_yaxes(title_text=escape(words), col=1)
    effects = max(column.limit for _, column in columns[:-1])
    if grid.bars:
        _same_scale(figure, columns, kept)
    heading = brief(first.attrs.get("request", "comparison")) if title is None else title
    bars, size = grid.bars, sheet.size
    figure.update_layout(
        **layout(
            str(heading),
            describe_comparison(comparison),
            size,
            scales=0 if bars else 2,
            below=sheet.below,
            beside=sheet.beside,
        ),
        coloraxis=color_axis(effects, "effect", size, shown=not bars),
        coloraxis2=color_axis(columns[-1][1].limit, "difference", size, 1, shown=not bars),
    )
    said = comparison.difference(*pair) if marked else None
    every = tuple(panel for _, column in columns[:-1] for panel in column.panels)
    shown = replace(columns[0][1], panels=every)
    note(figure, notes(shown, said, values, grid.panels), sheet.below)
    return figure


def _columns(
    comparison: Comparison, pair: tuple[str, str], marked: bool, max_panels: int
) -> list[tuple[str, Grid]]:
    """Return a grid per name and one for the difference, all with the same panels."""
    grids = {
        name: lay_out(effects, effects.statistics() if marked else None)
        for name, effects in comparison.effects.items()
    }
    first, second = pair
    if marked:
        apart = lay_out(comparison.effects[first], comparison.difference(first, second))
    else:
        apart = _minus(grids[first], grids[second])
    columns = [*grids.items(), (f"{first} − {second}", apart)]
    sizes = [max(panels, key=_largest).largest for panels in _rows(columns)]
    kept = sorted(sorted(range(len(sizes)), key=lambda row: -sizes[row])[:max_panels])
    left_out = len(sizes) - len(kept)
    return [
        (name, replace(grid, panels=tuple(grid.panels[row] for row in kept), left_out=left_out))
        for name, grid in columns
    ]


def _rows(columns: Sequence[tuple[str, Grid]]) -> list[tuple[Panel, ...]]:
    return list(zip(*(grid.panels for _, grid in columns), strict=True))


def _largest(panel: Panel) -> float:
    return panel.largest


def _minus(one: Grid, other: Grid) -> Grid:
    panels = tuple(
        replace(
            left,
            values=left.values - right.values,
            low=np.full_like(left.low, np.nan),
            high=np.full_like(left.high, np.nan),
            significant=np.zeros_like(left.significant),
        )
        for left, right in zip(one.panels, other.panels, strict=True)
    )
    return replace(one, panels=panels)


def _same_scale(figure: go.Figure, columns: Sequence[tuple[str, Grid]], rows: int) -> None:
    """Give all bars of a row one vertical scale, so that their heights can be compared."""
    ends = [0.0]
    for _, grid in columns:
        for panel in grid.panels:
            for part in (panel.values, panel.low, panel.high):
                ends += [float(np.nanmin(part, initial=0.0)), float(np.nanmax(part, initial=0.0))]
    room = 0.06 * (max(ends) - min(ends) or 1.0)
    for row in range(1, rows + 1):
        figure.update_yaxes(range=[min(ends) - room, max(ends) + room], row=row)


def _few(effects: Effects) -> bool:
    return effects.n_prompts > 1 and int(np.prod(effects.shape)) <= _MANY
