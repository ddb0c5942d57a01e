"""What stands in the panels of a chart: images or bars, their axes, and what each cell says."""

import json

import numpy as np
from numpy.typing import NDArray

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.chart import Spec, diverging
from circuitgraph.draw.effects.panels import Grid, Panel
from circuitgraph.draw.lettering import text_width
from circuitgraph.draw.palette import FAINT, INK, LEAST, NO_VALUE, PAPER

__all__ = ["cell_words", "panel_size", "panel_spec"]


_CROSS = "M-1,-1L1,1M1,-1L-1,1"


def cell_words(panel: Panel, unit: str, apart: str = "") -> NDArray[np.object_]:
    """Return what each cell says when pointed at.

    Args:
        panel: The cells.
        unit: What an effect is a share of.
        apart: Of a difference, what it is between: ``mlps − single-pass``.
    """
    of = f", {apart}" if apart else ""
    stands = "; differ by more than chance explains" if apart else "; stands out from zero"
    words = np.empty(panel.values.shape, dtype=object)
    for at, value in np.ndenumerate(panel.values):
        if not np.isfinite(value):
            words[at] = f"{panel.names[at]}: no such request"
            continue
        said = f"{panel.names[at]}{of}: {signed(float(value))} of {unit}"
        if np.isfinite(panel.low[at]):
            low, high = signed(float(panel.low[at])), signed(float(panel.high[at]))
            said += f" [{low}, {high}]"
        words[at] = said + (stands if panel.significant[at] else "")
    return words


def panel_size(grid: Grid, panels: int) -> tuple[float, float]:
    """Return width and height of a panel: cells are smaller where there are many, or panels."""
    few, count, longest = panels <= 2, len(grid.columns), max(map(len, grid.columns))
    if grid.bars:
        room = 720.0 if panels == 1 else max(220.0, 1160.0 / panels)
        wide = max(14.0, min(room / count, max(40.0, 7.5 * longest)))
        return wide * count, 280.0 if few else 190.0
    named = 7.5 * longest if count <= 12 else 0.0
    wide = max(3.0, named, min(40.0 if few else 24.0, (820.0 if few else 340.0) / count))
    high = max(3.0, min(30.0 if few else 18.0, (640.0 if few else 330.0) / len(grid.rows)))
    return wide * count, high * len(grid.rows)


def panel_spec(
    grid: Grid,
    panel: Panel,
    unit: str,
    panels: int,
    limit: float,
    *,
    title: str | None = None,
    values: bool = False,
    apart: str = "",
    ends: tuple[float, float] | None = None,
) -> Spec:
    """Return one panel: an image, or bars.

    Args:
        grid: What stands along its axes.
        panel: Its cells.
        unit: What an effect is a share of.
        panels: How many there are, which decides how large this one is.
        limit: The effect at both ends of the colour scale.
        title: What stands above it; its own title by default.
        values: Write the number into every cell instead of a dot into those that stand out.
        apart: Of a difference, what it is between.
        ends: The lowest and highest value of bars; None where only this panel decides.
    """
    width, height = panel_size(grid, panels)
    spec: Spec = {
        "width": width,
        "height": height,
        "data": {"values": _rows(panel, cell_words(panel, unit, apart))},
        "layer": _bars(grid, unit, limit, ends, width)
        if grid.bars
        else _image(grid, limit, values, apart, (width, height)),
    }
    said = panel.title if title is None else title
    return spec | ({"title": said} if said else {})


def _rows(panel: Panel, words: NDArray[np.object_]) -> list[Spec]:
    """Return a row for every cell, with only what it has."""
    rows = []
    bounded = bool(np.isfinite(panel.low).any())
    for (row, column), value in np.ndenumerate(panel.values):
        data: Spec = {"x": column, "y": row, "says": words[row, column]}
        if np.isfinite(value):
            data["v"] = float(f"{value:.5g}")
            if panel.significant[row, column]:
                data["stands"] = 1
            if bounded and np.isfinite(panel.low[row, column]):
                data["low"] = float(f"{panel.low[row, column]:.5g}")
                data["high"] = float(f"{panel.high[row, column]:.5g}")
        rows.append(data)
    return rows


def _axis(texts: tuple[str, ...], title: str, channel: str, room: float) -> Spec:
    """Return one axis: places with their names, upright where they have no room side by side."""
    axis: Spec = {"title": title or None, "labelOverlap": "parity", "ticks": False, "grid": False}
    if texts != tuple(map(str, range(len(texts)))):
        axis["labelExpr"] = f"{json.dumps(texts)}[datum.value]"
    if channel == "x":
        long = max(text_width(text, 11) for text in texts) > room
        axis["labelAngle"] = -90 if long and not all(text.isdigit() for text in texts) else 0
    scale = {"domain": list(range(len(texts))), "padding": 0}
    return {"field": channel, "type": "ordinal", "scale": scale, "axis": axis}


def _image(
    grid: Grid, limit: float, values: bool, apart: str, size: tuple[float, float]
) -> list[Spec]:
    room = size[0] / len(grid.columns)
    gap = {"stroke": PAPER, "strokeWidth": 1 if len(grid.rows) * len(grid.columns) < 10_000 else 0}
    place = {
        "x": _axis(grid.columns, grid.column_title, "x", room),
        "y": _axis(grid.rows, grid.row_title, "y", room),
    }
    color = {
        "field": "v",
        "type": "quantitative",
        "scale": diverging(limit),
        "legend": {
            "title": "difference" if apart else "effect",
            "gradientLength": max(80, min(260, round(size[1]))),
            "gradientThickness": 12,
            "tickCount": 5,
        },
    }
    says = {"description": {"field": "says"}, "tooltip": {"field": "says"}}
    layers: list[Spec] = [
        {
            "mark": {"type": "rect", "fill": NO_VALUE, **gap},
            "transform": [{"filter": "!isValid(datum.v)"}],
            "encoding": place | says,
        },
        {
            "mark": {"type": "rect", **gap},
            "transform": [{"filter": "isValid(datum.v)"}],
            "encoding": place | {"fill": color} | says,
        },
    ]
    strong = {"condition": {"test": f"abs(datum.v) > {0.5 * limit}", "value": PAPER}}
    if values:
        seen = {"filter": "isValid(datum.v) && abs(datum.v) >= 0.005"}
        text = {"field": "v", "type": "quantitative", "format": ".2f"}
        mark = {"type": "text", "fontSize": 9}
        look = {"fill": strong | {"value": INK}}
        layers.append(
            {"mark": mark, "transform": [seen], "encoding": place | {"text": text} | look}
        )
    else:
        mark = {"type": "point", "filled": True, "size": 13, "aria": False, "opacity": 1}
        mark |= {"stroke": PAPER, "strokeWidth": 0.8, "fill": INK}
        seen = {"filter": "isValid(datum.stands)"}
        layers.append({"mark": mark, "transform": [seen], "encoding": place})
    return layers


def _bars(
    grid: Grid, unit: str, limit: float, ends: tuple[float, float] | None, width: float
) -> list[Spec]:
    room = width / len(grid.columns)
    across = _axis(grid.columns, grid.column_title, "x", room)
    low, high = ends or (0.0, 0.0)
    if ends is None and limit <= LEAST:
        low, high = -LEAST, LEAST
    scale = {"domain": [low, high], "nice": True} if high > low else {"nice": True, "zero": True}
    axis = {"title": f"share of {unit}", "grid": True, "tickCount": 6}
    up = {"field": "v", "type": "quantitative", "scale": scale, "axis": axis}
    says = {"description": {"field": "says"}, "tooltip": {"field": "says"}}
    fill = {
        "field": "v", "type": "quantitative", "scale": diverging(limit), "legend": None,
    }  # fmt: skip
    filled = [{"filter": "isValid(datum.v)"}]
    bounded = [{"filter": "isValid(datum.low)"}]
    span = {"field": "low", "type": "quantitative"}
    return [
        {
            "mark": {"type": "bar", "width": {"band": 0.72}, "stroke": INK, "strokeWidth": 0.6},
            "transform": filled,
            "encoding": {"x": across, "y": up, "fill": fill} | says,
        },
        {
            "mark": {"type": "rule", "stroke": INK, "aria": False},
            "transform": bounded,
            "encoding": {"x": across, "y": span, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "shape": _CROSS, "stroke": FAINT, "size": 40, "opacity": 1},
            "transform": [{"filter": "!isValid(datum.v)"}],
            "encoding": {"x": across, "y": {"datum": 0, "type": "quantitative"}} | says,
        },
        {"mark": {"type": "rule", "stroke": INK, "aria": False}, "encoding": {"y": {"datum": 0}}},
    ]
