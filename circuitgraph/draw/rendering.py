"""Graphviz, from DOT text to a picture's bytes, through the Graphviz that pygraphviz brings along.

No ``dot`` program is needed, and one that is installed is not used: pygraphviz 2 carries Graphviz
in its wheels, so a picture looks the same wherever ``pip install`` has run.
"""

import re
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from circuitgraph.draw.drawing import Drawing
from circuitgraph.draw.svg import finished_svg
from circuitgraph.errors import CircuitError

__all__ = ["Engine", "draw_dot", "render"]

Engine = Literal["dot", "nop", "nop2"]
"""``dot`` places boxes; ``nop`` keeps them and finds ways for lines; ``nop2`` keeps both."""

_WORKER = Path(__file__).with_name("worker.py")
_PATIENCE = 120


_DASHES = re.compile(r'( stroke-width="([\d.]+)")? stroke-dasharray="(5,2|1,5)"')


def draw_dot(dot: str, caption: str) -> Drawing:
    """Return the drawing of a DOT text in which everything has its place.

    Graphviz writes the same dashes for every width, so that a wide dotted line becomes a row of
    ticks and a wide dashed one looks solid. Here dashes grow with the line, and dots are round.
    """
    svg = _DASHES.sub(_dashes, render(dot, "nop2", "svg").decode())
    return Drawing(finished_svg(svg, caption), caption, dot)


def _dashes(found: re.Match[str]) -> str:
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
