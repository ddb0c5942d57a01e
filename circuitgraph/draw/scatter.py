"""One variant against another: a point per cell, and names where they differ most."""

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.palette import ACCENT, FAINT, INK, PAPER, QUIET
from circuitgraph.draw.plot import describe_comparison, layout, note
from circuitgraph.effects import Comparison
from circuitgraph.errors import EffectsError
from circuitgraph.request.brief import brief

__all__ = ["pair_of", "scatter"]

_SIDE = 520.0
"""Length of both axes, in pixels."""


def scatter(
    comparison: Comparison,
    a: str | None = None,
    b: str | None = None,
    *,
    title: str | None = None,
    named: int = 8,
) -> go.Figure:
    """Return a plotly figure of one against the other: a point per cell, equal ones on the line.

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
    first, second = pair_of(comparison, a, b)
    every = comparison.values()
    x, y = every[first], every[second]
    there = np.isfinite(x) & np.isfinite(y)
    x, y, labels = x[there], y[there], comparison.labels[there]
    apart = np.abs(x - y)
    differ = np.argsort(-apart, kind="stable")[: max(0, named)]
    differ = differ[apart[differ] > 0.1 * apart.max(initial=0.0)]
    low, high = _ends(x, y)
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[low, high],
            y=[low, high],
            mode="lines",
            line={"color": FAINT, "width": 1, "dash": "dash"},
            hoverinfo="skip",
            name="equal",
        )
    )
    marked = np.isin(np.arange(len(x)), differ)
    texts = _hover(labels, x, y, (first, second))
    for chosen, color, name in ((~marked, QUIET, "cells"), (marked, ACCENT, "differ most")):
        figure.add_trace(
            go.Scatter(
                x=x[chosen],
                y=y[chosen],
                mode="markers",
                marker={
                    "size": 8,
                    "color": color,
                    "symbol": "diamond" if name == "differ most" else "circle",
                    "opacity": 0.85,
                    "line": {"color": PAPER, "width": 0.8},
                },
                hovertext=texts[chosen],
                hoverinfo="text",
                name=name,
            )
        )
    pixels = _SIDE / (high - low)
    places = _apart((x - low) * pixels, (y - low) * pixels, differ, labels)
    for cell, (right, up) in zip(differ, places, strict=True):
        figure.add_annotation(
            x=x[cell],
            y=y[cell],
            text=escape(str(labels[cell])),
            ax=right,
            ay=-up,
            showarrow=True,
            arrowhead=0,
            arrowwidth=0.7,
            arrowcolor=FAINT,
            standoff=5,
            font={"size": 11, "color": INK},
        )
    axis = {"range": [low, high], "zeroline": True, "zerolinecolor": "#BBBBBB", "zerolinewidth": 1}
    axis |= {"gridcolor": "#EEEEEE", "title_standoff": 10}
    figure.update_xaxes(title_text=f"effect, {escape(first)}", **axis)
    figure.update_yaxes(title_text=f"effect, {escape(second)}", **axis)
    heading = brief(comparison.effects[first].attrs.get("request", "comparison"))
    figure.update_layout(
        **layout(
            str(heading if title is None else title),
            describe_comparison(comparison),
            (_SIDE, _SIDE),
            scales=0,
        )
    )
    note(figure, _agreement(comparison, first, second, int(marked.sum())))
    return figure


def pair_of(comparison: Comparison, a: str | None, b: str | None) -> tuple[str, str]:
    """Return the two names that are meant: those given, else the first two."""
    first = comparison.names[0] if a is None else a
    second = next(name for name in comparison.names if name != first) if b is None else b
    for name in (first, second):
        if name not in comparison.effects:
            raise EffectsError(f"no {name!r} in this comparison of {', '.join(comparison.names)}")
    return first, second


def _hover(
    labels: NDArray[np.str_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    names: tuple[str, str],
) -> NDArray[np.str_]:
    said = [
        f"<b>{escape(str(label))}</b><br>{escape(names[0])} {signed(float(one))}"
        f"<br>{escape(names[1])} {signed(float(other))}"
        f"<br>difference {signed(float(one - other))}"
        for label, one, other in zip(labels, x, y, strict=True)
    ]
    return np.array(said, dtype=np.str_)


def _agreement(comparison: Comparison, a: str, b: str, named: int) -> list[str]:
    """Return how far the two agree, as the comparison itself counts it."""
    parts = [f"◆ the {named} that differ most"] if named > 1 else []
    table = comparison.agreement()
    row = table[((table["a"] == a) & (table["b"] == b)) | ((table["a"] == b) & (table["b"] == a))]
    for _, found in row.iterrows():
        parts.append(f"{found['n_cells']} cells")
        parts += [
            f"{name.capitalize()} {found[name]:.2f}"
            for name in ("pearson", "spearman")
            if np.isfinite(found[name])
        ]
    return parts


def _ends(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return where both axes begin and end: at all points and at zero, with some room around."""
    both = np.concatenate([x, y])
    low, high = float(both.min(initial=0.0)), float(both.max(initial=0.0))
    room = 0.1 * (high - low) or 1.0
    return low - room, high + room


def _apart(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    cells: NDArray[np.intp],
    labels: NDArray[np.str_],
) -> list[tuple[float, float]]:
    """Return where each name stands beside its point, in pixels: off points, names and edges.

    Names stand away from the diagonal, so that they do not hide how far a point is from it.
    """
    taken: list[_Rectangle] = []
    found = []
    for cell in cells:
        half = 3.6 * len(str(labels[cell])) + 3
        away = -45.0 if x[cell] >= y[cell] else 135.0
        choices: list[tuple[float, float, float, _Rectangle]] = []
        for far in (26.0, 40.0, 58.0):
            for turn in (0.0, 35.0, -35.0, 70.0, -70.0, 110.0, -110.0, 180.0):
                angle = np.deg2rad(away + turn)
                right = float(np.cos(angle)) * (far + 0.6 * half)
                up = float(np.sin(angle)) * far
                middle = x[cell] + right, y[cell] + up
                name = (middle[0] - half, middle[1] - 8, middle[0] + half, middle[1] + 8)
                choices.append((_cost(name, taken, x, y) + len(choices), right, up, name))
        _, right, up, name = min(choices)
        taken.append(name)
        found.append((right, up))
    return found


_Rectangle = tuple[float, float, float, float]


def _cost(
    name: _Rectangle,
    taken: Sequence[_Rectangle],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> float:
    """Return how much a name hides or leaves the figure."""
    left, bottom, right, top = name
    covered = sum(_overlap(name, other) for other in taken)
    hidden = int(((x > left) & (x < right) & (y > bottom) & (y < top)).sum())
    outside = max(0.0, -left, -bottom, right - _SIDE, top - _SIDE)
    return covered + 60.0 * hidden + 20.0 * outside


def _overlap(one: _Rectangle, other: _Rectangle) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0
