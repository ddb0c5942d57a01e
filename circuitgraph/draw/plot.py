"""What every plotly figure of this package has in common: colours, type, titles, hover texts.

Nothing of plotly's own defaults is changed: every figure carries its own layout.
"""

import textwrap
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.palette import DIVERGING, FAINT, INK, NO_VALUE, PAPER
from circuitgraph.draw.panels import Grid, Panel
from circuitgraph.draw.sheet import Sheet
from circuitgraph.effects import Comparison, Effects

__all__ = [
    "BOTTOM",
    "LEFT",
    "RIGHT",
    "add_bars",
    "add_image",
    "color_axis",
    "describe",
    "describe_comparison",
    "hover_texts",
    "layout",
    "note",
    "tidy_axes",
]

LEFT, RIGHT, BOTTOM = 64, 100, 78
"""Room around the panels for ticks, notes and the colour scale, in pixels."""

_FAMILY = "Helvetica, Arial, sans-serif"
_NARROWEST = 420.0
_SHORTEST = 110.0
"""A colour scale is no shorter, in pixels, so that its numbers and its title stand apart."""

_NO_BUTTONS = ["zoom", "pan", "select", "lasso", "zoomin", "zoomout", "autoscale", "logo"]


def layout(
    title: str,
    subtitle: str,
    size: tuple[float, float],
    *,
    scales: int = 1,
    below: float = 0.0,
    beside: float = 0.0,
) -> dict[str, Any]:
    """Return the layout of a figure: its title and subtitle as plain text, room around the panels.

    Args:
        title: What the figure shows.
        subtitle: Smaller, below; broken into lines where it is long.
        size: Width and height of everything inside the margins.
        scales: How many colour scales stand at the right.
        below: More room than usual below the panels.
        beside: More room than usual at their left.
    """
    right = (28, RIGHT, RIGHT + 76)[scales]
    left = LEFT + beside
    width = max(_NARROWEST, size[0] + left + right)
    lines = textwrap.wrap(subtitle, max(20, int((width - 32) / 6.1)))
    heads = textwrap.wrap(title, max(16, int((width - 110) / 8.9))) or [""]
    said = "<br>".join(f"<b>{escape(line)}</b>" for line in heads)
    said += "".join(
        f'<br><span style="font-size:12px;color:{FAINT}">{escape(line)}</span>' for line in lines
    )
    top = 44 + 21 * len(heads) + 17 * len(lines)
    height = round(size[1] + top + BOTTOM + below)
    return {
        "template": None,
        "title": {
            "text": said,
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1 - 24 / height,  # where the first line stands, not where it begins
            "yref": "container",
            "yanchor": "top",
            "pad": {"l": 16},
            "font": {"size": 16},
        },
        "font": {"family": _FAMILY, "size": 12, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "hoverlabel": {"bgcolor": PAPER, "font": {"color": INK, "family": _FAMILY}},
        "modebar": {"remove": _NO_BUTTONS, "bgcolor": "rgba(0,0,0,0)"},
        "width": round(width),
        "height": height,
        "margin": {
            "l": left,
            "r": round(width - left - size[0]),
            "t": top,
            "b": BOTTOM + below,
        },
        "showlegend": False,
    }


def color_axis(
    limit: float, title: str, size: tuple[float, float], order: int = 0, shown: bool = True
) -> dict[str, Any]:
    """Return a colour scale that is white at zero and as long above it as below.

    Args:
        limit: The value at both ends; 0, where all values are, stands for 1.
        title: What it measures.
        size: Width and height of all panels, in pixels.
        order: How many scales stand before it, at the right of the panels.
        shown: Whether it is drawn; bars have an axis already.
    """
    limit = limit or 1.0
    ticks: dict[str, Any] = {"nticks": min(9, int(size[1] / 32))}
    if size[1] < 150:
        ticks = {"tickvals": [-limit, 0, limit], "ticktext": [signed(-limit), "0", signed(limit)]}
        ticks |= {"lenmode": "pixels", "len": max(_SHORTEST, size[1])}
    return {
        "showscale": shown,
        "colorscale": [list(stop) for stop in DIVERGING],
        "cmin": -limit,
        "cmax": limit,
        "colorbar": {
            "title": {"text": f"{title}<br>\u00a0", "side": "top", "font": {"size": 11}},
            "thickness": 12,
            "outlinewidth": 0,
            "ticks": "outside",
            "ticklen": 3,
            **ticks,
            "x": 1 + (14 + 76 * order) / size[0],
            "xanchor": "left",
            "xpad": 0,
        },
    }


def describe(effects: Effects) -> str:
    """Return one line: variant, mode, prompts, and what the metric was clean and corrupt."""
    attrs, data = effects.attrs, effects.data
    parts = [f"{key} {attrs[key]}" for key in ("variant", "mode") if attrs.get(key)]
    if attrs.get("model"):
        parts.insert(0, str(attrs["model"]))
    parts.append(f"{effects.n_prompts} prompt{'s' * (effects.n_prompts != 1)}")
    if "metric" not in data.dims:
        clean, corrupt = (float(data[name].mean()) for name in ("clean", "corrupt"))
        metric = attrs.get("metric", "metric")
        parts.append(f"{metric} {signed(clean, 3)} clean, {signed(corrupt, 3)} corrupt")
    return " · ".join(parts)


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


def hover_texts(panel: Panel, unit: str, apart: str = "") -> NDArray[np.str_]:
    """Return what each cell says when pointed at.

    Args:
        panel: The cells.
        unit: What an effect is a share of.
        apart: Of a difference, what it is between: ``mlps − single-pass``.
    """
    of = f", {escape(apart)}" if apart else ""
    found = "differ by more than chance explains" if apart else "stands out from zero"
    texts = np.empty(panel.values.shape, dtype=object)
    for at in np.ndindex(*panel.values.shape):
        name = f"<b>{escape(str(panel.names[at]))}</b>"
        if not panel.filled[at]:
            texts[at] = f"{name}: no such request (the sender does not come before the receiver)"
            continue
        said = f"{name}{of}: {signed(float(panel.values[at]))} of {escape(unit)}"
        if np.isfinite(panel.low[at]):
            low, high = signed(float(panel.low[at])), signed(float(panel.high[at]))
            said += f" [{low}, {high}]"
        if panel.significant[at]:
            said += f"<br>{found}"
        texts[at] = said
    return texts.astype(np.str_)


def add_image(
    figure: go.Figure,
    panel: Panel,
    unit: str,
    place: tuple[int, int],
    coloraxis: str,
    values: bool,
    apart: str = "",
) -> None:
    """Add one panel as an image: colours, empty cells in grey, dots where it is significant."""
    row, col = place
    texts = hover_texts(panel, unit, apart)
    hover = {"hoverinfo": "text", "xgap": 1, "ygap": 1}
    empty = np.where(panel.filled, np.nan, 0.0)
    if not panel.filled.all():
        figure.add_trace(
            go.Heatmap(
                z=empty,
                colorscale=[[0, NO_VALUE], [1, NO_VALUE]],
                showscale=False,
                hovertext=texts,
                name="empty",
                **hover,
            ),
            row=row,
            col=col,
        )
    written: dict[str, Any] = {}
    if values:
        shown = [
            [f"{value:.2f}".replace("-", "−") if abs(value) >= 0.005 else "" for value in line]
            for line in panel.values
        ]
        written = {"text": shown, "texttemplate": "%{text}", "textfont": {"size": 9}}
    figure.add_trace(
        go.Heatmap(
            z=panel.values,
            coloraxis=coloraxis,
            hovertext=texts,
            hoverongaps=False,
            name="effect",
            **written,
            **hover,
        ),
        row=row,
        col=col,
    )
    rows, columns = np.nonzero(panel.significant & panel.filled)
    if len(rows) and not values:
        figure.add_trace(
            go.Scatter(
                x=columns,
                y=rows,
                mode="markers",
                marker={
                    "size": 4,
                    "color": INK,
                    "line": {"width": 0.8, "color": PAPER},
                },
                hoverinfo="skip",
                name="significant",
            ),
            row=row,
            col=col,
        )


def add_bars(
    figure: go.Figure,
    panel: Panel,
    unit: str,
    place: tuple[int, int],
    coloraxis: str,
    apart: str = "",
) -> None:
    """Add one panel as bars with their intervals; a cell without value has no bar but a cross."""
    row, col = place
    values, texts = panel.values[0], hover_texts(panel, unit, apart)[0]
    errors: dict[str, Any] = {}
    if np.isfinite(panel.low).any():
        errors["error_y"] = {
            "type": "data",
            "array": panel.high[0] - values,
            "arrayminus": values - panel.low[0],
            "color": INK,
            "thickness": 1,
            "width": 3,
        }
    figure.add_trace(
        go.Bar(
            x=np.arange(len(values)),
            y=values,
            marker={
                "color": values,
                "coloraxis": coloraxis,
                "line": {"color": INK, "width": 0.6},
            },
            hovertext=texts,
            hoverinfo="text",
            width=0.72,
            name="effect",
            **errors,
        ),
        row=row,
        col=col,
    )
    gaps = np.nonzero(~panel.filled[0])[0]
    if len(gaps):
        figure.add_trace(
            go.Scatter(
                x=gaps,
                y=np.zeros(len(gaps)),
                mode="markers",
                marker={"symbol": "x-thin", "size": 7, "line": {"width": 1.2, "color": FAINT}},
                hovertext=texts[gaps],
                hoverinfo="text",
                name="empty",
            ),
            row=row,
            col=col,
        )


def tidy_axes(figure: go.Figure, grid: Grid, place: tuple[int, int], sheet: Sheet) -> None:
    """Say what stands along the axes of one panel; layer 0 is at the top.

    Args:
        figure: The figure.
        grid: What stands along the axes.
        place: Row and column of the panel in the figure.
        sheet: How large the panel is; few bars do not fill it.
    """
    row, col = place
    spare = max(0.0, sheet.across - len(grid.columns)) / 2
    figure.update_xaxes(
        tickmode="array",
        tickvals=_ticks(len(grid.columns)),
        ticktext=[escape(grid.columns[at]) for at in _ticks(len(grid.columns))],
        tickangle=-90 if sheet.upright else 0,
        title_standoff=8,
        showgrid=False,
        zeroline=False,
        range=[-0.5 - spare, len(grid.columns) - 0.5 + spare],
        row=row,
        col=col,
    )
    if grid.bars:
        figure.update_yaxes(
            showgrid=True,
            gridcolor="#E6E6E6",
            zeroline=True,
            zerolinecolor=INK,
            zerolinewidth=1,
            row=row,
            col=col,
        )
        return
    figure.update_yaxes(
        tickmode="array",
        tickvals=_ticks(len(grid.rows)),
        ticktext=[escape(grid.rows[at]) for at in _ticks(len(grid.rows))],
        title_standoff=8,
        showgrid=False,
        zeroline=False,
        range=[len(grid.rows) - 0.5, -0.5],
        row=row,
        col=col,
    )


def note(figure: go.Figure, parts: Sequence[str], below: float = 0.0) -> None:
    """Write a small line below the panels, and below what stands there."""
    said = "   ".join(escape(part) for part in parts if part)
    if said:
        figure.add_annotation(
            text=said,
            x=0,
            y=0,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="top",
            yshift=-46 - below,
            showarrow=False,
            align="left",
            font={"size": 11, "color": FAINT},
        )


def _ticks(count: int) -> list[int]:
    step = 1 if count <= 40 else 2 if count <= 80 else 5 if count <= 200 else 20
    return list(range(0, count, step))
