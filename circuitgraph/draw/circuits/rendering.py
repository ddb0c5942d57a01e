"""Graphviz, from DOT text to a picture's bytes, through the Graphviz that pygraphviz brings along.

No ``dot`` program is needed, and one that is installed is not used: pygraphviz 2 carries Graphviz
in its wheels, so a picture looks the same wherever ``pip install`` has run.
"""

import json
import re
import subprocess
import sys
from functools import lru_cache
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from circuitgraph.draw.drawing import Drawing
from circuitgraph.draw.svg import finished_svg
from circuitgraph.errors import CircuitError

__all__ = ["Engine", "draw_dot", "render"]

Engine = Literal["dot", "nop"]
"""``dot`` places boxes; ``nop`` keeps them and finds ways for lines."""

_WORKER = Path(__file__).with_name("worker.py")
_PATIENCE = 120


_DASHES = re.compile(r'( stroke-width="([\d.]+)")? stroke-dasharray="(5,2|1,5)"')
_START = re.compile(r'text-anchor="start" x="(-?[\d.]+)"([^>]*)>([^<]*)</text>')
_LINE = re.compile(r'id="line (\d+) (\d+) (\d+) (\S*)"')
_LABEL = re.compile(r'<text text-anchor="middle"[^>]*font-size="8.00"[^>]*>[^<]*</text>\n')
_HALO = '<text paint-order="stroke" stroke="#fff" stroke-width="3" '
_TIP = re.compile(r'<title>[^<]*</title>\s*<g id="a_[^"]*"><a xlink:title="([^"]*)">')


def draw_dot(dot: str, caption: str) -> Drawing:
    """Return the drawing of a DOT text in which every box has its place.

    What a thing says when pointed at becomes its title, which a browser shows and reads aloud, and
    boxes and lines say which they are: ``data-box``, and ``data-line`` with its two boxes.
    """
    svg = _centered(_DASHES.sub(_dashes, render(dot, "nop", "svg").decode()), dot)
    svg = _TIP.sub(r"<title>\1</title><g>", svg).replace("</a>\n</g>", "</g>")
    svg = _LINE.sub(r'data-line="\1" data-from="\2" data-to="\3" data-size="\4"', svg)
    svg = svg.replace(' xml:space="preserve"', "")
    labels = "".join(_LABEL.findall(svg)).replace("<text ", _HALO)
    svg = re.sub(r"</g>\s*</svg>", lambda end: labels + end[0], _LABEL.sub("", svg))
    svg = re.sub(r' id="box (\d+)"', r' data-box="\1"', svg)
    svg = re.sub(r' id="(?:graph|node|edge|clust|a_)[^"]*"', "", svg)
    svg = re.sub(r"<!--.*?-->\n|<title>[^<]*</title>\n(?!<g)", "", svg, flags=re.DOTALL)
    return Drawing(finished_svg(svg, caption), caption, dot)


def _centered(svg: str, dot: str) -> str:
    """Return the picture with what stands in boxes around its middle, instead of from its left.

    Graphviz measures with the fonts that this machine has; only their middle is the same in all.
    """
    still = dot.replace("splines=true", "splines=none", 1)  # lines need no second way
    places = {
        (op["text"], round(op["pt"][0], 1)): op["pt"][0] + op["width"] / 2
        for thing in json.loads(render(still, "nop", "json"), strict=False).get("objects", ())
        for op in thing.get("_ldraw_", ())
        if op["op"] == "T" and op["align"] == "l"
    }

    def middle(found: re.Match[str]) -> str:
        x = float(found[1])
        near = [places.get((unescape(found[3]), round(x + d, 1))) for d in (0, 0.05, -0.05)]
        at = next((place for place in near if place is not None), None)
        if at is None:
            return found[0]
        return f'text-anchor="middle" x="{at:.2f}"{found[2]}>{found[3]}</text>'

    return _START.sub(middle, svg)


def _dashes(found: re.Match[str]) -> str:
    """Return dashes that grow with the line; dots are round.

    Graphviz writes the same dashes for every width, so that a wide dotted line becomes a row of
    ticks and a wide dashed one looks solid.
    """
    said, width = found.group(1) or "", float(found.group(2) or 1)
    if found.group(3) == "1,5":
        return f'{said} stroke-linecap="round" stroke-dasharray="0.1,{max(4.0, 2.4 * width):g}"'
    return f'{said} stroke-dasharray="{max(5.0, 2.6 * width):g},{max(3.0, 1.7 * width):g}"'


@lru_cache(maxsize=64)
def render(source: str, engine: Engine, output: str) -> bytes:
    """Return the picture of a DOT graph.

    Args:
        source: The graph in the DOT language.
        engine: Who places nodes and edges.
        output: A format of Graphviz: ``svg``, ``png``, ``pdf``, ``json``, ...

    Raises:
        CircuitError: pygraphviz is missing, or Graphviz failed or took more than two minutes.
    """
    if find_spec("pygraphviz") is None:
        raise CircuitError("drawing needs pygraphviz 2 or later: pip install 'pygraphviz>=2'")
    command = [sys.executable, "-P", str(_WORKER), engine, output]
    try:
        done = subprocess.run(
            command, input=source.encode(), capture_output=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise CircuitError(
            f"Graphviz took more than {_PATIENCE} seconds: draw fewer edges (max_edges=...)"
        ) from None
    if done.returncode != 0 or not done.stdout:
        complaint = done.stderr.decode(errors="replace").strip().splitlines()
        raise CircuitError(
            f"Graphviz could not draw {output} (exit status {done.returncode}): "
            + "; ".join(complaint[-3:])
        )
    return done.stdout
