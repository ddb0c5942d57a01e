"""Variants side by side: heatmaps with their difference; `scatter` has a room of its own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from circuitgraph.draw.chart import Chart, Spec, heading, with_notes
from circuitgraph.draw.effects.heatmap import MANY, describe, metric_words, notes
from circuitgraph.draw.effects.marks import panel_size, panel_spec
from circuitgraph.draw.effects.panels import Grid, Panel, lay_out
from circuitgraph.effects import Comparison, Effects
from circuitgraph.errors import EffectsError
from circuitgraph.request.brief import brief

__all__ = ["describe_comparison", "heatmaps", "pair_of", "view_charts"]


def heatmaps(
    comparison: Comparison,
    a: str | None = None,
    b: str | None = None,
    *,
    title: str | None = None,
    statistics: bool | None = None,
    values: bool = False,
    max_panels: int = 4,
) -> Chart:
    """Return a chart: the effects under every name side by side, then the difference.

    All effects share one colour scale; the difference (``a`` minus ``b``) has its own, since it is
    usually smaller. Where effects are spread over several panels (receivers, positions), each is a
    row. See `circuitgraph.draw.effects.heatmap.heatmap` for colours, marks and files.

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
    said = comparison.difference(*pair) if marked else None
    apart = columns[-1][1].panels
    every = tuple(panel for _, column in columns[:-1] for panel in column.panels)
    below = notes(replace(columns[0][1], panels=every), said, values, apart)
    head = str(brief(first.attrs.get("request", "comparison")) if title is None else title)
    line = describe_comparison(comparison)
    unit = metric_words(first)
    wide = len(columns) * (panel_size(columns[0][1], len(columns))[0] + 60)
    spec = view_charts(columns, unit, values)
    return Chart(with_notes(spec, heading(head, [line], wide), below), f"{head}: {line}")


def view_charts(
    columns: Sequence[tuple[str, Grid]], unit: str, values: bool = False, differences: int = 1
) -> Spec:
    """Return panels of several views side by side; each row of panels is one of the grid's.

    Args:
        columns: Every view with its name; the differences come last.
        unit: What an effect is a share of.
        values: Write the number into every cell instead of dots.
        differences: How many of them are differences, which have a colour scale of their own.
    """
    first, count = columns[0][1], len(columns) * len(columns[0][1].panels)
    ends = _ends([grid for _, grid in columns]) if first.bars else None
    effects, apart = columns[: len(columns) - differences], columns[len(columns) - differences :]
    parts = [
        {
            "hconcat": [
                {
                    "vconcat": [
                        panel_spec(
                            grid,
                            panel,
                            unit,
                            count,
                            max(other.limit for _, other in views),
                            title=", ".join(filter(None, (name, panel.title))),
                            values=values,
                            apart=name if views is apart else "",
                            ends=ends,
                        )
                        for panel in grid.panels
                    ]
                }
                for name, grid in views
            ],
            "resolve": {"scale": {"fill": "shared"}},
        }
        for views in (effects, apart)
        if views
    ]
    return {"hconcat": parts, "resolve": {"scale": {"fill": "independent"}}}


def _ends(grids: Sequence[Grid]) -> tuple[float, float]:
    """Return the lowest and highest value of all bars, so that their heights can be compared."""
    parts = [
        part
        for grid in grids
        for panel in grid.panels
        for part in (panel.values, panel.low, panel.high)
    ]
    low = min(float(np.nanmin(part, initial=0.0)) for part in parts)
    return low, max(float(np.nanmax(part, initial=0.0)) for part in parts)


def describe_comparison(comparison: Comparison) -> str:
    """Return one line: the names of what is compared, and what all of them share."""
    every = list(comparison.effects.values())
    shared = dict(every[0].attrs)
    for effects in every[1:]:
        shared = {key: value for key, value in shared.items() if effects.attrs.get(key) == value}
    first = every[0].data
    said = describe(Effects(first.assign_attrs({**dict.fromkeys(first.attrs, ""), **shared})))
    *names, last = comparison.names
    return f"{', '.join(names)} and {last} · {said}"


def pair_of(comparison: Comparison, a: str | None, b: str | None) -> tuple[str, str]:
    """Return the two names that are meant: those given, else the first two."""
    first = comparison.names[0] if a is None else a
    second = next(name for name in comparison.names if name != first) if b is None else b
    for name in (first, second):
        if name not in comparison.effects:
            raise EffectsError(f"no {name!r} in this comparison of {', '.join(comparison.names)}")
    return first, second


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


def _few(effects: Effects) -> bool:
    return effects.n_prompts > 1 and int(np.prod(effects.shape)) <= MANY
