"""Heatmaps and scatter plots as files: pages by themselves, pictures through kaleido and Chrome.

plotly figures are drawn by a browser. A page brings the drawing along and needs nothing. For a
picture, kaleido has Chrome or Chromium draw the figure; both are optional.
"""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from circuitgraph.errors import EffectsError
from circuitgraph.files import write_file

__all__ = ["figure_page", "save_figure"]

_SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)

_PICTURES = (".svg", ".png", ".pdf")


def save_figure(figure: Any, path: str | Path, scale: float = 2.0) -> Path:
    """Write a plotly figure to a file, in the format that the file's suffix names.

    A page holds everything, opens without a network and is kept by its own policy from using one. A
    picture needs kaleido (``pip install 'circuitgraph-lens[images]'``) and Chrome or Chromium.

    Args:
        figure: What ``effects.heatmap()``, ``comparison.heatmap()`` or ``comparison.scatter()``
            gave.
        path: Ends in ``.html``, ``.svg``, ``.png`` or ``.pdf``.
        scale: Dots of a PNG per pixel of the figure.

    Returns:
        The path, for chaining.

    Raises:
        EffectsError: Another suffix; a picture without kaleido, or without a browser to draw it.

    Example:
        >>> from circuitgraph.draw import save_figure
        >>> save_figure(effects.heatmap(), "heads.svg")  # doctest: +SKIP
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix == ".html":
        return write_file(target, figure_page(figure), EffectsError)
    if suffix not in _PICTURES:
        allowed = ", ".join((".html", *_PICTURES))
        raise EffectsError(
            f"cannot save a figure as {target.name!r}: the name must end in {allowed}"
        )
    picture = _picture(figure, target.name, suffix.removeprefix("."), scale)
    return write_file(target, picture, EffectsError)


def figure_page(figure: Any, *, beside: bool = False) -> str:
    """Return a page that may run its own scripts, load nothing and send nothing.

    Args:
        figure: The plotly figure.
        beside: Whether plotly is in a file ``plotly.min.js`` beside the page instead of in it; that
            it may load, and nothing from a network.
    """
    page: str = figure.to_html(include_plotlyjs="directory" if beside else True)
    scripts = filter(None, _SCRIPT.findall(page))
    hashes = [
        f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts
    ]
    if beside:
        hashes.insert(0, "'self' file:")  # a page that is opened from a disk has no 'self'
    policy = (
        f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return page.replace("<head>", f"<head>{meta}", 1)


def _picture(figure: Any, name: str, kind: str, scale: float) -> bytes:
    page = f"{Path(name).stem}.html"
    if find_spec("kaleido") is None:
        raise EffectsError(
            f"saving {name!r} needs kaleido, and Chrome or Chromium for it to draw with: "
            f"pip install 'circuitgraph-lens[images]'; {page!r} needs neither"
        )
    import kaleido

    size = figure.layout
    options = {"format": kind, "width": size.width, "height": size.height, "scale": scale}
    try:
        # Formulas are not used here; without this, kaleido asks the network for MathJax.
        drawn = kaleido.calc_fig_sync(figure, opts=options, kopts={"mathjax": False})
    except (RuntimeError, OSError) as error:
        raise EffectsError(
            f"saving {name!r} needs a Chrome or Chromium that starts, and kaleido found none "
            f"({type(error).__name__}): install one, or name it in the environment variable "
            f"BROWSER_PATH; {page!r} needs none"
        ) from error
    return bytes(drawn)
