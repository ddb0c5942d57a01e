"""Faithfulness against size: a line and a band for each way of choosing edges."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from circuitgraph.draw.palette import FAINT, INK
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.curve import Curve

if TYPE_CHECKING:
    import altair as alt

__all__ = ["curve_svg", "plot_curves"]

_WIDTH, _HEIGHT = 560, 340

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#4D4D4D", "#E69F00", "#000000")
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 3], [4, 4], [1, 3], [10, 2])
_MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "stroke", "arrow")
"""Okabe and Ito's colours, dashes and marks: no curve is told by its colour alone."""


def plot_curves(
    curves: Mapping[str, Curve],
    *,
    title: str = "Faithfulness against size",
    bands: bool = True,
    points: pd.DataFrame | None = None,
) -> "alt.LayerChart":
    """Return a chart of f over the share of edges kept, on a logarithmic axis.

    ``chart.save("curves.svg")`` writes SVG, PNG, PDF or a page, by its ending; no browser is
    needed.

    Args:
        curves: Curves by the name each is to have; eight at most. Sizes of no edges are left out.
        title: The title.
        bands: Whether to draw the intervals.
        points: Single circuits to draw beside the curves: columns ``name``, ``edges``,
            ``faithfulness``, ``low`` and ``high``.

    Raises:
        CircuitError: No curve, or more than can be told apart.
    """
    import altair as alt

    if not 0 < len(curves) <= len(_COLORS):
        raise CircuitError(f"a figure holds 1 to {len(_COLORS)} curves, got {len(curves)}")
    names = [f"{name}: CPR {curve.cpr:.2f}, CMD {curve.cmd:.2f}" for name, curve in curves.items()]
    tables = [
        curve.table[curve.table["share"] > 0].assign(curve=name)
        for name, curve in zip(names, curves.values(), strict=True)
    ]
    table = pd.concat(tables).assign(kept=lambda rows: 100 * rows["share"])
    n_used = len(names)
    x = alt.X("kept:Q", scale=alt.Scale(type="log"), title="edges kept, % of all")
    color = alt.Color(
        "curve:N", sort=names, title=None, scale=alt.Scale(domain=names, range=_COLORS[:n_used])
    )
    dash = alt.StrokeDash(
        "curve:N", title=None, scale=alt.Scale(domain=names, range=_DASHES[:n_used])
    )
    mark = alt.Shape("curve:N", title=None, scale=alt.Scale(domain=names, range=_MARKS[:n_used]))
    base = alt.Chart(table)
    y = alt.Y("faithfulness:Q", title="faithfulness f")
    tips = ["curve", "size", "pruned", "faithfulness", "low", "high"]
    layers: list[alt.Chart] = [
        alt.Chart(pd.DataFrame({"level": [0.0, 1.0]}))
        .mark_rule(color=FAINT, strokeDash=[4, 4])
        .encode(y="level:Q")
    ]
    if bands and table["low"].notna().all():
        layers.append(
            base.mark_area(opacity=0.15).encode(
                x=x, y=alt.Y("low:Q", title="faithfulness f"), y2="high", color=color
            )
        )
    layers.append(base.mark_line().encode(x=x, y=y, color=color, strokeDash=dash))
    layers.append(
        base.mark_point(filled=True, size=50).encode(
            x=x, y=y, color=color, shape=mark, tooltip=tips
        )
    )
    about = next(iter(curves.values())).about
    if points is not None:
        layers += _points(points, int(about["n_edges"]))
    said = (
        f"{about['metric']}, {about['n_prompts']} prompts, {about['n_edges']:,} edges; "
        "1: the model, 0: nothing in the circuit; bands: intervals over prompts"
    )
    chart: alt.LayerChart = (
        alt.layer(*layers)
        .properties(
            width=_WIDTH,
            height=_HEIGHT,
            title=alt.TitleParams(title, subtitle=said, anchor="start", color=INK),
        )
        .configure_legend(orient="bottom", columns=1, labelLimit=480, symbolOpacity=1)
        .configure_view(stroke=None)
    )
    return chart


def _points(points: pd.DataFrame, n_edges: int) -> "list[alt.Chart]":
    """Return single circuits: a mark, its interval and its name."""
    import altair as alt

    base = alt.Chart(points.assign(kept=100 * points["edges"] / n_edges))
    x, y = alt.X("kept:Q"), alt.Y("faithfulness:Q")
    return [
        base.mark_rule(color=INK).encode(x=x, y="low:Q", y2="high:Q"),
        base.mark_point(shape="diamond", size=90, filled=True, color=INK).encode(x=x, y=y),
        base.mark_text(align="left", dx=8, dy=-8, color=INK).encode(x=x, y=y, text="name:N"),
    ]


def curve_svg(curves: Mapping[str, Curve], **options: object) -> str:
    """Return the chart of `plot_curves` as an SVG text."""
    import vl_convert

    chart = plot_curves(curves, **options)  # type: ignore[arg-type]
    return str(vl_convert.vegalite_to_svg(chart.to_json()))
