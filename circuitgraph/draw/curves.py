"""Faithfulness against size: a line and a band for each way of choosing edges."""

import json
from collections.abc import Mapping

import pandas as pd

from circuitgraph.draw.chart import Chart, Spec, heading
from circuitgraph.draw.palette import FAINT, INK
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.curve import Curve

__all__ = ["plot_curves"]

_WIDTH, _HEIGHT = 560, 340

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#4D4D4D", "#E69F00", "#000000")
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 3], [4, 4], [1, 3], [10, 2])
_MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "stroke", "arrow")
"""Okabe and Ito's colours, dashes and marks: no curve is told by its colour alone."""

_X: Spec = {
    "field": "kept",
    "type": "quantitative",
    "scale": {"type": "log"},
    "title": "edges kept, % of all",
}
_Y: Spec = {"field": "faithfulness", "type": "quantitative", "title": "faithfulness f"}
_LOW: Spec = {"field": "low", "type": "quantitative", "title": "faithfulness f"}


def plot_curves(
    curves: Mapping[str, Curve],
    *,
    title: str = "Faithfulness against size",
    bands: bool = True,
    points: pd.DataFrame | None = None,
) -> Chart:
    """Return a chart of f over the share of edges kept, on a logarithmic axis.

    Args:
        curves: Curves by the name each is to have; eight at most. Sizes of no edges are left out.
        title: The title.
        bands: Whether to draw the intervals.
        points: Single circuits to draw beside the curves: columns ``name``, ``edges``,
            ``faithfulness``, ``low`` and ``high``.

    Raises:
        CircuitError: No curve, or more than can be told apart.
    """
    if not 0 < len(curves) <= len(_COLORS):
        raise CircuitError(f"a figure holds 1 to {len(_COLORS)} curves, got {len(curves)}")
    names = [f"{name}: CPR {curve.cpr:.2f}, CMD {curve.cmd:.2f}" for name, curve in curves.items()]
    tables = [
        curve.table[curve.table["share"] > 0].assign(curve=name)
        for name, curve in zip(names, curves.values(), strict=True)
    ]
    table = pd.concat(tables).assign(kept=lambda rows: 100 * rows["share"])

    def told(options: tuple[object, ...]) -> Spec:
        scale = {"domain": names, "range": options[: len(names)]}
        legend = {"orient": "bottom", "columns": 1, "symbolOpacity": 1, "symbolStrokeWidth": 0}
        plain = {"field": "curve", "type": "nominal", "title": None}
        return plain | {"scale": scale, "legend": legend}

    color, dash, shape = {"color": told(_COLORS)}, told(_DASHES), told(_MARKS)
    layers: list[Spec] = [
        {
            "data": {"values": [{"level": 0}, {"level": 1}]},
            "mark": {"type": "rule", "color": FAINT, "strokeDash": [4, 4], "aria": False},
            "encoding": {"y": {"field": "level", "type": "quantitative"}},
        }
    ]
    if bands and table["low"].notna().all():
        band = {"x": _X, "y": _LOW, "y2": {"field": "high"}}
        mark = {"type": "area", "opacity": 0.15, "aria": False}
        layers.append({"mark": mark, "encoding": band | color})
    line = {"x": _X, "y": _Y} | color
    layers += [
        {"mark": {"type": "line", "aria": False}, "encoding": line | {"strokeDash": dash}},
        {
            "mark": {"type": "point", "filled": True, "size": 50},
            "encoding": line | {"shape": shape, "description": {"field": "says"}},
        },
    ]
    about = next(iter(curves.values())).about
    if points is not None:
        layers += _points(points.assign(kept=100 * points["edges"] / int(about["n_edges"])))
    said = (
        f"{about['metric']}, {about['n_prompts']} prompts, {about['n_edges']:,} edges; "
        "1: the model, 0: nothing in the circuit; bands: intervals over prompts"
    )
    spec: Spec = {
        "width": _WIDTH,
        "height": _HEIGHT,
        "title": heading(title, [said], _WIDTH),
        "data": {"values": _rows(table.assign(says=[_says(row) for row in _rows(table)]))},
        "layer": layers,
    }
    return Chart(spec, f"{title}: {said}")


def _rows(table: pd.DataFrame) -> list[Spec]:
    """Return the rows as plain values; what is no number is left out."""
    rows: list[Spec] = json.loads(table.to_json(orient="records"))
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def _says(row: Spec) -> str:
    ends = f" [{row['low']:.3g}, {row['high']:.3g}]" if {"low", "high"} <= row.keys() else ""
    return f"{row['curve']}; {row['size']:,} edges: f {row['faithfulness']:.3g}{ends}"


def _points(points: pd.DataFrame) -> list[Spec]:
    """Return single circuits: a mark, its interval and its name."""
    data = {"data": {"values": _rows(points)}}
    return [
        data
        | {
            "mark": {"type": "rule", "color": INK, "aria": False},
            "encoding": {"x": _X, "y": _LOW, "y2": {"field": "high"}},
        },
        data
        | {
            "mark": {"type": "point", "shape": "diamond", "size": 90, "filled": True, "color": INK},
            "encoding": {"x": _X, "y": _Y, "description": {"field": "name"}},
        },
        *(_names(side, rows) for side, rows in zip(("left", "right"), _sides(points), strict=True)),
    ]


def _sides(points: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return every other circuit by size: names of neighbours stand on different sides."""
    ordered = points.sort_values("edges")
    return ordered.iloc[::2], ordered.iloc[1::2]


def _names(side: str, points: pd.DataFrame) -> Spec:
    dx = 8 if side == "left" else -8
    return {
        "data": {"values": _rows(points)},
        "mark": {"type": "text", "align": side, "dx": dx, "dy": 2, "aria": False},
        "encoding": {"x": _X, "y": _Y, "text": {"field": "name"}},
    }
