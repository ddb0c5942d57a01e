"""What every plotly figure of this package has in common: colours, type, titles, hover texts.

Nothing of plotly's own defaults is changed: every figure carries its own layout.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.palette import DIVERGING, FAINT, INK, NO_VALUE, PAPER
from circuitgraph.draw.panels import Grid, Panel
from circuitgraph.effects import Effects

__all__ = [
    "add_bars",
    "add_image",
    "color_axis",
    "describe",
    "hover_texts",
    "layout",
    "note",
    "tidy_axes",
]

_FAMILY = "Helvetica, Arial, sans-serif"


def layout(title: str, subtitle: str, width: float, height: float) -> dict[str, Any]:
    """Return the layout of a figure, its title and subtitle as plain text."""
    head = f"<b>{escape(title)}</b>"
    if subtitle:
        head += f'<br><span style="font-size:12px;color:{FAINT}">{escape(subtitle)}</span>'
    return {
        "template": None,
        "title": {
            "text": head,
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "pad": {"l": 16},
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "font": {"size": 16},
        },
        "font": {"family": _FAMILY, "size": 12, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "hoverlabel": {"bgcolor": PAPER, "font": {"color": INK, "family": _FAMILY}},
        "width": round(width),
        "height": round(height),
        "showlegend": False,
    }


def color_axis(limit: float, x: float, title: str) -> dict[str, Any]:
    """Return a colour scale that is white at zero and as long above it as below."""
    limit = limit or 1.0
    return {
        "colorscale": [list(stop) for stop in DIVERGING],
        "cmin": -limit,
        "cmax": limit,
        "colorbar": {
            "title": {"text": title, "side": "right", "font": {"size": 11}},
            "thickness": 12,
            "outlinewidth": 0,
            "ticks": "outside",
            "ticklen": 3,
            "x": x,
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


def hover_texts(panel: Panel, unit: str) -> NDArray[np.str_]:
    """Return what each cell says when pointed at."""
    texts = np.empty(panel.values.shape, dtype=object)
    for at in np.ndindex(*panel.values.shape):
        name = f"<b>{escape(str(panel.names[at]))}</b>"
        if not panel.filled[at]:
            texts[at] = f"{name}: no such request (the sender does not come before the receiver)"
            continue
        said = f"{name}: {signed(float(panel.values[at]))} of {escape(unit)}"
        if np.isfinite(panel.low[at]):
            low, high = signed(float(panel.low[at])), signed(float(panel.high[at]))
            said += f" [{low}, {high}]"
        if panel.significant[at]:
            said += "<br>stands out from zero"
        texts[at] = said
    return texts.astype(np.str_)


def add_image(
    figure: go.Figure,
    panel: Panel,
    unit: str,
    place: tuple[int, int],
    coloraxis: str,
    values: bool,
) -> None:
    """Add one panel as an image: colours, empty cells in grey, dots where it is significant."""
    row, col = place
    texts = hover_texts(panel, unit)
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
            [signed(float(value)) if np.isfinite(value) else "" for value in line]
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
    figure: go.Figure, panel: Panel, unit: str, place: tuple[int, int], coloraxis: str
) -> None:
    """Add one panel as bars with their intervals; a cell without value has no bar but a cross."""
    row, col = place
    values, texts = panel.values[0], hover_texts(panel, unit)[0]
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


def tidy_axes(figure: go.Figure, grid: Grid, place: tuple[int, int], titles: bool = True) -> None:
    """Name the rows and columns of one panel; layer 0 stands at the top."""
    row, col = place
    figure.update_xaxes(
        tickmode="array",
        tickvals=_ticks(len(grid.columns)),
        ticktext=[escape(grid.columns[at]) for at in _ticks(len(grid.columns))],
        tickangle=-90 if _long(grid.columns) else 0,
        title={"text": grid.column_title if titles else "", "standoff": 8},
        showgrid=False,
        zeroline=False,
        range=[-0.5, len(grid.columns) - 0.5],
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
        title={"text": grid.row_title if titles else "", "standoff": 8},
        showgrid=False,
        zeroline=False,
        range=[len(grid.rows) - 0.5, -0.5],
        row=row,
        col=col,
    )


def note(figure: go.Figure, parts: Sequence[str]) -> None:
    """Write small lines below the figure."""
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
            yshift=-46,
            showarrow=False,
            align="left",
            font={"size": 11, "color": FAINT},
        )


def _ticks(count: int) -> list[int]:
    step = 1 if count <= 40 else 2 if count <= 80 else 5 if count <= 200 else 20
    return list(range(0, count, step))


def _long(texts: Sequence[str]) -> bool:
    return max(map(len, texts), default=0) > 3 and (
        len(texts) > 12 or max(map(len, texts)) * len(texts) > 90
    )
