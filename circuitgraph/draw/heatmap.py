"""Effects as heatmaps: layer by head, one image or several, with names and numbers on hover."""

import math
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from circuitgraph.draw.marks import add_bars, add_image, tidy_axes
from circuitgraph.draw.palette import LEAST
from circuitgraph.draw.panels import Grid, Panel, lay_out
from circuitgraph.draw.plot import color_axis, describe, layout, note
from circuitgraph.draw.sheet import Sheet
from circuitgraph.effects import Effects
from circuitgraph.errors import EffectsError
from circuitgraph.request.brief import brief

__all__ = ["add_panel", "bold", "heatmap", "metric_words", "notes"]

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

    Show it in a notebook, or keep it with ``circuitgraph.draw.save_figure(figure, "heatmap.svg")``:
    as a page (``.html``), or, with kaleido and Chrome installed, as ``.svg``, ``.png`` or ``.pdf``.

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
    sheet = Sheet.of(grid)
    figure = make_subplots(
        rows=sheet.rows,
        cols=sheet.columns,
        subplot_titles=[bold(panel.title) for panel in grid.panels],
        horizontal_spacing=sheet.gaps[0],
        vertical_spacing=sheet.gaps[1],
    )
    figure.update_annotations(font={"size": 12})
    for number, panel in enumerate(grid.panels):
        row, col = number // sheet.columns + 1, number % sheet.columns + 1
        add_panel(figure, grid, panel, unit, (row, col), "coloraxis", values)
        tidy_axes(figure, grid, (row, col), sheet)
        if number + sheet.columns >= len(grid.panels):
            figure.update_xaxes(title_text=escape(grid.column_title), row=row, col=col)
        if col == 1:
            words = f"share of {unit}" if grid.bars else grid.row_title
            figure.update_yaxes(title_text=escape(words), row=row, col=col)
    heading = brief(effects.attrs.get("request", "effects")) if title is None else title
    figure.update_layout(
        **layout(
            str(heading),
            describe(effects),
            sheet.size,
            scales=0 if grid.bars else 1,
            below=sheet.below,
            beside=sheet.beside,
        ),
        coloraxis=color_axis(limit or grid.limit, "effect", sheet.size, shown=not grid.bars),
    )
    if grid.bars and 0 < grid.largest < LEAST:
        figure.update_yaxes(range=[-LEAST, LEAST])
    note(figure, notes(grid, found, values), sheet.below)
    return figure


def add_panel(
    figure: go.Figure,
    grid: Grid,
    panel: Panel,
    unit: str,
    place: tuple[int, int],
    coloraxis: str,
    values: bool,
    apart: str = "",
) -> None:
    """Add one panel to a figure: an image, or bars; ``apart`` says what a difference is between."""
    if grid.bars:
        add_bars(figure, panel, unit, place, coloraxis, apart)
    else:
        add_image(figure, panel, unit, place, coloraxis, values, apart)


def bold(words: str) -> str:
    """Return a panel's title as plotly writes it, with nothing in it that is markup."""
    return f"<b>{escape(words)}</b>" if words else ""


def metric_words(effects: Effects) -> str:
    """Return what an effect is a share of: ``the logit difference``."""
    metric = str(effects.attrs.get("metric") or "metric")
    return metric if metric.startswith("the ") else f"the {metric}"


def notes(
    grid: Grid,
    statistics: xr.Dataset | None,
    values: bool = False,
    apart: Sequence[Panel] = (),
) -> list[str]:
    """Return what the marks of a figure mean: only those it has.

    Args:
        grid: Panels of effects.
        statistics: What the marks were made from.
        values: Whether numbers stand in the cells, in place of dots.
        apart: Panels that show a difference.
    """
    found = []
    if 0 < grid.largest < LEAST:
        found.append(f"no effect is larger than {grid.largest:.1g}")
    differ = any(panel.significant.any() for panel in apart)
    if statistics is not None and (differ or any(panel.significant.any() for panel in grid.panels)):
        share = f"{100 * float(statistics.attrs.get('confidence', 0.95)):g} %"
        if grid.bars:
            found.append(f"whiskers: {share} interval")
        elif not values:
            tested = statistics.attrs.get("n_tested")
            family = f", corrected for {tested} cells" if tested else ""
            also = "; in the difference: differs by more than chance" if differ else ""
            found.append(f"• stands out from zero ({share}{family}){also}")
    if any(not panel.filled.all() for panel in grid.panels):
        found.append("× no such request" if grid.bars else "grey: no such request")
    if grid.left_out:
        found.append(
            f"{grid.left_out} panel{'s' * (grid.left_out != 1)} with smaller effects not shown"
        )
    return found


def _statistics(effects: Effects, given: xr.Dataset | bool | None) -> xr.Dataset | None:
    if isinstance(given, xr.Dataset):
        return given
    if given is None:
        given = effects.n_prompts > 1 and math.prod(effects.shape) <= _MANY
    return effects.statistics() if given else None
