"""One variant against another: a point per cell, and names where they differ most."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.chart import Chart, Spec, heading
from circuitgraph.draw.effects.comparison import describe_comparison, pair_of
from circuitgraph.draw.lettering import text_width
from circuitgraph.draw.palette import ACCENT, FAINT, PAPER, QUIET
from circuitgraph.effects import Comparison
from circuitgraph.request.brief import brief

__all__ = ["scatter", "scatter_spec"]

_SIDE = 480
"""Length of both axes, in pixels."""


def scatter(
    comparison: Comparison,
    a: str | None = None,
    b: str | None = None,
    *,
    title: str | None = None,
    named: int = 8,
) -> Chart:
    """Return a chart of one against the other: a point per cell, equal ones on the line.

    The cells that differ most are named; every cell says its name and numbers when pointed at.

    Args:
        comparison: What to show.
        a: The name along the horizontal axis; the first by default.
        b: The name along the vertical axis; the second by default.
        title: The title; the request by default.
        named: How many cells to name.

    Raises:
        EffectsError: No such name, or the metric cannot tell clean from corrupt.
    """
    pair = pair_of(comparison, a, b)
    every = comparison.values()
    request = comparison.effects[pair[0]].attrs.get("request", "comparison")
    head = str(brief(request) if title is None else title)
    x, y = every[pair[0]], every[pair[1]]
    spec = scatter_spec(comparison.labels, x, y, pair, named)
    below = _agreement(comparison, *pair)
    line = describe_comparison(comparison)
    spec["title"] = heading(head, [line, below], _SIDE)
    return Chart(spec, f"{head}: {line}")


def scatter_spec(
    labels: NDArray[np.str_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    names: tuple[str, str],
    named: int = 8,
) -> Spec:
    """Return the chart of one against the other, without its heading.

    Args:
        labels: The name of each cell.
        x: Its effect along the horizontal axis.
        y: Its effect along the vertical axis.
        names: What the two axes are.
        named: How many cells to name: those that differ most.
    """
    there = np.isfinite(x) & np.isfinite(y)
    x, y, labels = x[there], y[there], labels[there]
    apart = np.abs(x - y)
    order = np.argsort(-apart, kind="stable")
    differ = [at for at in order[: max(0, named)] if apart[at] > 0.1 * apart.max(initial=0.0)]
    ends = _ends(x, y)
    pixels = _SIDE / (ends[1] - ends[0])
    rows = [
        {
            "x": float(f"{x[at]:.5g}"),
            "y": float(f"{y[at]:.5g}"),
            "says": f"{labels[at]}: {names[0]} {signed(float(x[at]))}, {names[1]} "
            f"{signed(float(y[at]))}, difference {signed(float(x[at] - y[at]))}",
        }
        for at in order
    ]
    spots = [(float(x[at]) * pixels, float(y[at]) * pixels) for at in order]
    words = [str(labels[at]) for at in differ]
    for row, name, (right, up) in zip(rows, words, _places(words, spots), strict=False):
        row |= {"name": name, "right": right / pixels, "up": up / pixels}

    def channel(key: str, name: str) -> Spec:
        axis = {"title": f"effect, {name}", "grid": True, "ticks": False, "tickCount": 6}
        scale = {"domain": list(ends), "nice": False, "zero": False}
        return {"field": key, "type": "quantitative", "scale": scale, "axis": axis}

    place = {"x": channel("x", names[0]), "y": channel("y", names[1])}
    says = {"description": {"field": "says"}, "tooltip": {"field": "says"}}
    aside = {"x": channel("right", names[0]), "y": channel("up", names[1])}
    point = {"type": "point", "filled": True, "opacity": 0.9, "stroke": PAPER, "strokeWidth": 0.8}
    quiet = {"aria": False, "color": FAINT}
    far = [{"filter": "isValid(datum.name)"}]
    return {
        "width": _SIDE,
        "height": _SIDE,
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "line", "strokeDash": [5, 4], "strokeWidth": 1} | quiet,
                "data": {"values": [{"x": end, "y": end} for end in ends]},
                "encoding": place,
            },
            {
                "mark": point | {"size": 60, "fill": QUIET},
                "transform": [{"filter": "!isValid(datum.name)"}],
                "encoding": place | says,
            },
            {
                "mark": {"type": "rule", "strokeWidth": 0.6} | quiet,
                "transform": far,
                "encoding": place | {"x2": {"field": "right"}, "y2": {"field": "up"}},
            },
            {
                "mark": point | {"size": 90, "fill": ACCENT, "shape": "diamond"},
                "transform": far,
                "encoding": place | says,
            },
            {
                "mark": {"type": "text", "aria": False},
                "transform": far,
                "encoding": aside | {"text": {"field": "name"}},
            },
        ],
    }


def _places(
    words: Sequence[str], spots: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Return where the names of the first points stand, off points and off each other, in pixels.

    Vega has a transform for this, `label`, but it needs the canvas of a browser.
    """
    taken: list[tuple[float, float, float, float]] = []
    found = []
    for name, (x, y) in zip(words, spots, strict=False):
        half = text_width(name, 11) / 2 + 4
        outward = -45.0 if x >= y else 135.0  # off the diagonal, so that one sees how far it is
        choices = []
        for far in (16.0, 30.0, 46.0):
            for turn in (0.0, 40.0, -40.0, 80.0, -80.0, 180.0):
                angle = np.deg2rad(outward + turn)
                right = x + float(np.cos(angle)) * (far + half)
                up = y + float(np.sin(angle)) * far
                hidden = sum(abs(a - right) < half and abs(b - up) < 9 for a, b in spots)
                covered = sum(abs(a - right) < half + w and abs(b - up) < h for a, b, w, h in taken)
                choices.append((hidden + 3 * covered, far, abs(turn), right, up))
        *_, right, up = min(choices)
        taken.append((right, up, half, 14.0))
        found.append((right, up))
    return found


def _agreement(comparison: Comparison, a: str, b: str) -> str:
    """Return how far the two agree, as the comparison itself counts it."""
    parts = ["diamonds: those that differ most"]
    table = comparison.agreement()
    row = table[((table["a"] == a) & (table["b"] == b)) | ((table["a"] == b) & (table["b"] == a))]
    for _, found in row.iterrows():
        parts.append(f"{found['n_cells']} cells")
        parts += [
            f"{name.capitalize()} {found[name]:.2f}"
            for name in ("pearson", "spearman")
            if np.isfinite(found[name])
        ]
    return "   ".join(parts)


def _ends(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return where both axes begin and end: at all points and at zero, with some room around."""
    both = np.concatenate([x, y])
    low, high = float(both.min(initial=0.0)), float(both.max(initial=0.0))
    room = 0.1 * (high - low) or 1.0
    return low - room, high + room
