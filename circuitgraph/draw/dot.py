"""Writing the DOT language: attribute lists and labels like HTML; graphviz quotes and escapes.

Whatever text comes in, it stays text: nothing in a node's name or a title can end a string, start
an attribute or become markup.
"""

import re
from collections.abc import Mapping

import graphviz

from circuitgraph.draw.svg import xml_text

__all__ = ["Html", "attributes", "quoted", "text"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")


class Html(str):
    """A label like HTML, which is written between angle brackets instead of quotes."""

    __slots__ = ()


def quoted(value: object) -> str:
    r"""Return a DOT string whose meaning is exactly the given text.

    Backslashes are doubled, since DOT reads ``\N`` in a label as the node's name.

    Example:
        >>> print(quoted('say "9.9" \\N'))
        "say \"9.9\" \\N"
    """
    clean = _CONTROL.sub(" ", str(value))
    literal: str = graphviz.quoting.quote(graphviz.escape(clean))
    return literal.replace("\n", "\\n")


def text(value: object) -> str:
    r"""Return text for a label like HTML, where DOT would read ``\N`` as the node's name.

    Example:
        >>> text("a < b & c")
        'a &lt; b &amp; c'
    """
    return xml_text(value).replace("\\", "\\\\")


def attributes(given: Mapping[str, object]) -> str:
    """Return an attribute list, in the order given; None leaves an attribute out.

    Example:
        >>> attributes({"label": "9.9", "penwidth": 1.5, "color": None})
        '[label=9.9 penwidth=1.5]'
    """
    parts = [
        f"{name}=<{value}>" if isinstance(value, Html) else f"{name}={quoted(_plain(name, value))}"
        for name, value in given.items()
        if value is not None
    ]
    return f"[{' '.join(parts)}]"


def _plain(name: str, value: object) -> object:
    """Return numbers short, and tooltips without backslashes, which Graphviz would read twice."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value).replace("\\", "\N{SET MINUS}") if name == "tooltip" else value
