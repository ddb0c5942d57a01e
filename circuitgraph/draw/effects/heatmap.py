"""Effects as heatmaps: layer by head, one image or several, with names and numbers on hover."""

import math
from collections.abc import Sequence

import xarray as xr

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.chart import Chart, Spec, heading, with_notes
from circuitgraph.draw.effects.marks import panel_size, panel_spec
from circuitgraph.draw.effects.panels import Grid, Panel, lay_out
from circuitgraph.draw.palette import LEAST
from circuitgraph.effects import Effects
from circuitgraph.effects.display import estimated
from circuitgraph.errors import EffectsError
from circuitgraph.request.brief import brief

__all__ = ["MANY", "describe", "heatmap", "metric_words", "notes", "panels_spec"]

MANY = 4000
"""More cells than this, and statistics are made only when asked for: they would take seconds."""

_WIDEST = 1200.0


def heatmap(
    effects: Effects,
    *,
    title: str | None = None,
    statistics: xr.Dataset | bool | None = None,
    values: bool = False,
    limit: float | None = None,
    max_panels: int = 12,
) -> Chart:
    """Return a chart of the normalised effects: 0 unharmed, −1 all lost.

    Two swept dimensions make an image (layers downwards, heads to the right), one makes bars, and
    further ones (several receivers, positions, metrics) make small multiples. White is zero, red
    below it and blue above, by the same scale on both sides and in all panels. Grey cells are cells
    that no request fills. A dot marks cells that stand out from zero.

    Show it in a notebook, or keep it: ``effects.heatmap().save("heads.svg")`` (or ``.png``,
    ``.pdf``, ``.html``).

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
        >>> heatmap(effects)
        Chart: head -> logits: 2 prompts · metric 3 clean, −1 corrupt
    """
    number = isinstance(limit, int | float) and not isinstance(limit, bool)
    if limit is not None and not (number and limit > 0 and math.isfinite(limit)):
        raise EffectsError(f"limit must be a positive number, got {limit!r:.60}")
    if not isinstance(max_panels, int) or isinstance(max_panels, bool) or max_panels < 1:
        raise EffectsError(f"max_panels must be 1 or more, a whole number, got {max_panels!r:.60}")
    if not isinstance(values, bool):
        raise EffectsError(f"values must be True or False, got {values!r:.60}")
    if statistics is not None and not isinstance(statistics, bool | xr.Dataset):
        raise EffectsError(
            f"statistics is what effects.statistics() gave, or False, got {statistics!r:.60}"
        )
    found = _statistics(effects, statistics)
    grid = lay_out(effects, found, max_panels)
    head = str(brief(effects.attrs.get("request", "effects")) if title is None else title)
    line, unit = describe(effects), metric_words(effects)
    spec, width = panels_spec(grid, unit, limit or grid.limit, values=values)
    above = heading(head, [line], width)
    return Chart(with_notes(spec, above, notes(grid, found, values)), f"{head}: {line}")


def panels_spec(grid: Grid, unit: str, limit: float, *, values: bool = False) -> tuple[Spec, float]:
    """Return all panels of a grid as one chart without a heading, and about how wide it is."""
    count = len(grid.panels)
    panels = [panel_spec(grid, panel, unit, count, limit, values=values) for panel in grid.panels]
    wide = panel_size(grid, count)[0] + 60
    columns = min(count, max(1, int(_WIDEST // wide)), max(3, math.ceil(math.sqrt(count))))
    columns = min(2, columns) if count == 4 else columns
    spec: Spec = {"concat": panels, "columns": columns, "spacing": 24}
    return spec | {"resolve": {"scale": {"fill": "shared"}}}, columns * wide


def metric_words(effects: Effects) -> str:
    """Return what an effect is a share of: ``the logit difference``."""
    metric = str(effects.attrs.get("metric") or "metric")
    return metric if metric.startswith("the ") else f"the {metric}"


def describe(effects: Effects) -> str:
    """Return one line: variant, mode, prompts, and what the metric was clean and corrupt."""
    attrs, data = effects.attrs, effects.data
    parts = [f"{key} {attrs[key]}" for key in ("variant", "mode") if attrs.get(key)]
    parts += filter(None, [estimated(attrs)])
    if attrs.get("model"):
        parts.insert(0, str(attrs["model"]))
    parts.append(f"{effects.n_prompts} prompt{'s' * (effects.n_prompts != 1)}")
    if "metric" not in data.dims:
        clean, corrupt = (float(data[name].mean()) for name in ("clean", "corrupt"))
        metric = attrs.get("metric", "metric")
        parts.append(f"{metric} {signed(clean, 3)} clean, {signed(corrupt, 3)} corrupt")
    return " · ".join(parts)


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
        given = effects.n_prompts > 1 and math.prod(effects.shape) <= MANY
    return effects.statistics() if given else None
