"""Effects and comparisons as what the page shows: grids of views, sentences, table rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from circuitgraph.draw.effects.panels import Grid, Panel, lay_out
from circuitgraph.effects import Comparison, Effects
from circuitgraph.report.words import effect_findings, heading, in_words
from circuitgraph.request.brief import brief

__all__ = ["MAX_PANELS", "Result", "View", "read_results"]

MAX_PANELS = 12
"""Small multiples shown per result: those with the largest effects."""


@dataclass(frozen=True)
class View:
    """One set of numbers over the cells: the effects under one name, or a difference of two.

    Args:
        name: ``mlps``, or ``mlps − single-pass``.
        grid: The numbers, panel by panel; all views of a result have the same panels.
        difference: Whether it is a difference.
    """

    name: str
    grid: Grid
    difference: bool = False

    @property
    def limit(self) -> float:
        """The value at both ends of its colour scale."""
        return self.grid.limit


@dataclass(frozen=True)
class Result:
    """Everything the page says of some effects or of a comparison.

    Args:
        name: What the caller called it.
        title: The request.
        words: The request in words.
        line: Model, variant, prompts, metric clean and corrupt.
        findings: Sentences.
        unit: What an effect is a share of.
        views: The numbers; differences come last.
        left_out: How many panels are not shown.
        confidence: Of the intervals; None where there are none.
        readings: The metric per prompt, clean and corrupt; None with several metrics.
        about: What was asked, in plain values.
        kind: What it is, for a heading: ``Effects``, ``Variants compared``.
    """

    name: str
    title: str
    words: str
    line: str
    findings: tuple[str, ...]
    unit: str
    views: tuple[View, ...]
    left_out: int
    confidence: float | None
    readings: tuple[tuple[float, ...], tuple[float, ...]] | None
    about: Mapping[str, Any]
    kind: str


def read_results(
    named: Sequence[tuple[str, Effects | Comparison]], statistics: Mapping[str, Any] | None
) -> tuple[Result, ...]:
    """Return what the page shows of each result.

    Args:
        named: The results with the names they were given.
        statistics: Settings of `Effects.statistics`; None for no statistics.
    """
    return tuple(_read(name, shown, statistics) for name, shown in named)


def _read(name: str, shown: Effects | Comparison, how: Mapping[str, Any] | None) -> Result:
    if isinstance(shown, Comparison):
        first = shown.effects[shown.names[0]]
        each = dict(shown.effects)
    else:
        first, each = shown, {"effect": shown}
    settings = how if how is not None and first.n_prompts > 1 else None
    found = {
        key: effects.statistics(**settings) if settings is not None else None
        for key, effects in each.items()
    }
    views = [View(key, lay_out(effects, found[key])) for key, effects in each.items()]
    if isinstance(shown, Comparison):
        findings = shown.sentences(**(settings or {}))
        views += [_difference(shown, number, settings, views) for number in range(1, len(each))]
    else:
        findings = effect_findings(first, next(iter(found.values())))
    views, left_out = _kept(views)
    shared = _shared(list(each.values()))
    sources = {str(effects.attrs.get("source", "corrupt")) for effects in each.values()}
    statistics = next(iter(found.values()))
    return Result(
        name=name,
        title=brief(str(first.attrs.get("request") or name or "effects")),
        words=in_words(
            str(first.attrs.get("request", "")), sources.pop() if len(sources) == 1 else "several"
        ),
        line=heading(first, shared),
        findings=tuple(findings),
        unit=f"the {first.attrs.get('metric') or 'metric'}",
        views=tuple(views),
        left_out=left_out,
        confidence=None if statistics is None else float(statistics.attrs["confidence"]),
        readings=_readings(first),
        about=shared,
        kind=_kind(list(each.values())),
    )


def _difference(
    comparison: Comparison, number: int, settings: Mapping[str, Any] | None, views: Sequence[View]
) -> View:
    """Return how much the effects under the first name exceed those under another."""
    first, second = comparison.names[0], comparison.names[number]
    name = f"{first} − {second}"
    if settings is not None:
        apart = comparison.difference(first, second, **settings)
        return View(name, lay_out(comparison.effects[first], apart), difference=True)
    one, other = _by_title(views[0]), _by_title(views[number])
    panels = tuple(
        replace(
            panel,
            values=panel.values - other[title].values,
            low=np.full_like(panel.values, np.nan),
            high=np.full_like(panel.values, np.nan),
            significant=np.zeros_like(panel.significant),
        )
        for title, panel in one.items()
        if title in other
    )
    return View(name, replace(views[0].grid, panels=panels), difference=True)


def _kept(views: Sequence[View]) -> tuple[list[View], int]:
    """Return the views with only the panels that all have, the largest ones, in order."""
    titled = [_by_title(view) for view in views]
    shared = [title for title in titled[0] if all(title in other for other in titled)]
    sizes = {title: max(panels[title].largest for panels in titled) for title in shared}
    large = set(sorted(shared, key=lambda title: -sizes[title])[:MAX_PANELS])
    kept = [title for title in shared if title in large]
    return [
        replace(view, grid=replace(view.grid, panels=tuple(panels[title] for title in kept)))
        for view, panels in zip(views, titled, strict=True)
    ], len(shared) - len(kept)


def _by_title(view: View) -> dict[str, Panel]:
    return {panel.title: panel for panel in view.grid.panels}


def _kind(each: Sequence[Effects]) -> str:
    """Return what is shown: effects, or what they differ in, compared."""
    if len(each) == 1:
        return "Effects"
    words = {"variant": "Variants", "mode": "Modes", "source": "Sources", "engine": "Engines"}
    differing = [
        word
        for key, word in words.items()
        if any(other.attrs.get(key) != each[0].attrs.get(key) for other in each)
    ]
    return " and ".join(differing).capitalize() + " compared" if differing else "Compared"


def _shared(each: Sequence[Effects]) -> dict[str, Any]:
    """Return what all were asked alike."""
    attrs = each[0].attrs
    return {
        key: value
        for key, value in attrs.items()
        if all(other.attrs.get(key) == value for other in each)
    }


def _readings(effects: Effects) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    data: xr.Dataset = effects.data
    if data["clean"].ndim != 1:
        return None
    clean, corrupt = (
        tuple(float(value) for value in data[name].to_numpy()) for name in ("clean", "corrupt")
    )
    return clean, corrupt
