"""Faithfulness against size: a line and a band for each way of choosing edges."""

from collections.abc import Mapping
from html import escape

import numpy as np
import plotly.graph_objects as go

from circuitgraph.draw.palette import FAINT, INK
from circuitgraph.draw.plot import layout, note
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.curve import Curve

__all__ = ["plot_curves"]

_SIZE = (620.0, 380.0)

_LINES = (
    ("#0072B2", "solid", "circle"),
    ("#D55E00", "dash", "square"),
    ("#009E73", "dot", "diamond"),
    ("#CC79A7", "dashdot", "triangle-up"),
    ("#56B4E9", "longdash", "cross"),
    ("#4D4D4D", "solid", "x"),
)
"""Colours (Okabe and Ito's), dashes and marks: no curve is told by its colour alone."""


def plot_curves(
    curves: Mapping[str, Curve], *, title: str | None = None, bands: bool = True
) -> go.Figure:
    """Return a plotly figure of f over the share of edges, on a logarithmic axis.

    Args:
        curves: Curves by the name each is to have; six at most.
        title: The title.
        bands: Whether to draw the intervals.

    Raises:
        CircuitError: No curve, or more than can be told apart.
    """
    if not 0 < len(curves) <= len(_LINES):
        raise CircuitError(f"a figure holds 1 to {len(_LINES)} curves, got {len(curves)}")
    figure = go.Figure()
    for level in (0.0, 1.0):
        figure.add_hline(y=level, line={"color": FAINT, "width": 1, "dash": "dash"})
    for (name, curve), (color, dash, mark) in zip(curves.items(), _LINES, strict=False):
        table = curve.table[curve.table["share"] > 0]
        x = table["share"].to_numpy() * 100
        low, high = table["low"].to_numpy(), table["high"].to_numpy()
        if bands and np.isfinite(low).all():
            figure.add_trace(
                go.Scatter(
                    x=np.concatenate([x, x[::-1]]),
                    y=np.concatenate([low, high[::-1]]),
                    fill="toself",
                    fillcolor=color,
                    opacity=0.15,
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                )
            )
        texts = [
            f"<b>{escape(name)}</b><br>{row.size:,} edges ({row.share:.1%}), {row.pruned:,} after "
            f"pruning<br>f {row.faithfulness:.3f} [{row.low:.3f}, {row.high:.3f}]"
            for row in table.itertuples()
        ]
        figure.add_trace(
            go.Scatter(
                x=x,
                y=table["faithfulness"],
                mode="lines+markers",
                line={"color": color, "dash": dash, "width": 2},
                marker={"symbol": mark, "size": 7},
                hovertext=texts,
                hoverinfo="text",
                name=escape(f"{name}: CPR {curve.cpr:.2f}, CMD {curve.cmd:.2f}"),
            )
        )
    figure.update_xaxes(title_text="edges kept, % of all", type="log", gridcolor="#EEEEEE")
    figure.update_yaxes(title_text="faithfulness f", gridcolor="#EEEEEE", zeroline=False)
    first = next(iter(curves.values()))
    about = first.about
    said = f"{about['metric']} · {about['n_prompts']} prompts · {about['n_edges']:,} edges"
    figure.update_layout(**layout(title or "Faithfulness against size", said, _SIZE, scales=0))
    figure.update_layout(
        showlegend=True,
        legend={"x": 0.01, "y": 0.99, "bgcolor": "rgba(255,255,255,.8)", "font": {"color": INK}},
    )
    note(figure, ["1: the model; 0: nothing in the circuit", "bands: intervals over prompts"])
    return figure
