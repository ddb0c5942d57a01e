"""What stands in the panels of a plotly figure: images, bars, dots, axes, hover texts."""

from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.palette import FAINT, INK, NO_VALUE, PAPER
from circuitgraph.draw.panels import Grid, Panel
from circuitgraph.draw.sheet import Sheet

__all__ = ["add_bars", "add_image", "hover_texts", "tidy_axes"]


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


def _ticks(count: int) -> list[int]:
    step = 1 if count <= 40 else 2 if count <= 80 else 5 if count <= 200 else 20
    return list(range(0, count, step))
