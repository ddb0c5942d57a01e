"""`Chart`: effects and curves as pictures, each one specification in Vega-Lite.

Vega draws it (through vl-convert, which needs no browser and no network), so a chart can be shown
and saved anywhere; `Chart.spec` is all there is to it, and `altair.Chart.from_dict(chart.spec)` is
the same chart for whoever wants to change it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from circuitgraph.draw.lettering import FONT, wrap_text
from circuitgraph.draw.palette import DIVERGING, FAINT, INK, LINES, PAPER
from circuitgraph.draw.picture import Picture
from circuitgraph.draw.svg import finished_svg

__all__ = ["VEGA_LITE", "Chart", "Spec", "diverging", "heading", "with_notes"]

Spec = dict[str, Any]
"""A Vega-Lite specification, or a part of one."""

VEGA_LITE = "https://vega.github.io/schema/vega-lite/v6.json"

_CONFIG: Mapping[str, Any] = MappingProxyType(
    {
        "font": FONT,
        "aria": True,
        "view": {"stroke": None},
        "axis": {
            "domain": False,
            "gridColor": LINES,
            "labelColor": INK,
            "labelFontSize": 11,
            "labelLimit": 400,
            "tickColor": FAINT,
            "tickSize": 4,
            "titleColor": INK,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
        },
        "legend": {
            "labelColor": INK,
            "labelFontSize": 11,
            "labelLimit": 480,
            "titleColor": INK,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
        },
        "title": {"color": INK, "fontSize": 12, "subtitleColor": FAINT},
        "text": {"fontSize": 11, "fill": INK, "aria": False},
    }
)


@dataclass(frozen=True, slots=True)
class Chart(Picture):
    """A chart: shown as it is in notebooks, saved as a picture of any kind.

    Args:
        spec: The chart in Vega-Lite, its data inside.
        caption: What it shows, in words; read aloud where it cannot be seen.
    """

    spec: Spec
    caption: str = "chart"

    @property
    def svg(self) -> str:
        """The chart as SVG text; marks say what they are when pointed at."""
        return _drawn(self.source[1], self.caption)

    @property
    def source(self) -> tuple[str, str]:
        """The suffix ``.json`` and the specification as text."""
        whole = {
            "$schema": VEGA_LITE,
            "background": PAPER,
            "padding": 12,
            "config": dict(_CONFIG),
            **self.spec,
        }
        return ".json", json.dumps(whole, ensure_ascii=False, allow_nan=False)

    __repr__ = Picture.__repr__


@lru_cache(maxsize=8)
def _drawn(source: str, caption: str) -> str:
    import vl_convert

    return finished_svg(str(vl_convert.vegalite_to_svg(source)), caption)


def heading(title: str, lines: Sequence[str], width: float) -> Spec:
    """Return title and smaller lines below it, broken where a chart of this width ends.

    Args:
        title: What the chart shows.
        lines: What else is to be said, a paragraph each.
        width: Of the chart, in pixels.
    """
    room = max(width, 360.0)
    said = [row for line in lines if line for row in wrap_text(line, room, 12)]
    spec: Spec = {
        "text": wrap_text(title, room, 16, bold=True),
        "fontSize": 16,
        "anchor": "start",
        "frame": "group",
        "offset": 14,
    }
    return spec | ({"subtitle": said, "subtitleFontSize": 12} if said else {})


def with_notes(spec: Spec, title: Spec, said: Sequence[str]) -> Spec:
    """Return a chart under its heading, with a small line of notes below."""
    if said:
        below = {"text": "   ".join(said), "orient": "bottom", "anchor": "start", "offset": 10}
        spec = spec | {"title": below | {"fontWeight": "normal", "fontSize": 11, "color": FAINT}}
    return {"vconcat": [spec], "title": title}


def diverging(limit: float) -> Spec:
    """Return a colour scale that is white at zero and as long above it as below.

    Args:
        limit: The value at both ends; 0, where all values are, stands for 1.
    """
    end = limit or 1.0
    return {
        "type": "linear",
        "domain": [(2 * share - 1) * end for share, _ in DIVERGING],
        "range": [color for _, color in DIVERGING],
        "interpolate": "rgb",
        "clamp": True,
    }
