"""Graphviz, from DOT text to a picture's bytes, through the Graphviz that pygraphviz brings along.

No ``dot`` program is needed, and one that is installed is not used: pygraphviz 2 carries Graphviz
in its wheels, so a picture looks the same wherever ``pip install`` has run.
"""

import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from circuitgraph.errors import CircuitError

__all__ = ["Engine", "render"]

Engine = Literal["dot", "nop", "nop2"]
"""``dot`` places boxes; ``nop`` keeps them and finds ways for lines; ``nop2`` keeps both."""

_WORKER = Path(__file__).with_name("worker.py")
_PATIENCE = 120


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
