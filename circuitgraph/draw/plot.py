"""What every plotly figure of this package has in common: colours, type, titles, notes.

Nothing of plotly's own defaults is changed: every figure carries its own layout.
"""

import textwrap
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.palette import DIVERGING, FAINT, INK, PAPER
from circuitgraph.effects import Comparison, Effects
from circuitgraph.effects.display import estimated

__all__ = [
    "BOTTOM",
    "LEFT",
    "RIGHT",
    "color_axis",
    "describe",
    "describe_comparison",
    "layout",
    "note",
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
    parts += filter(None, [estimated(attrs)])
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
