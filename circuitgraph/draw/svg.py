"""What Graphviz's SVG needs before it is shown: dashes that fit the line, and words for its title.

Graphviz writes the same dashes for every width, so a wide dotted line becomes a row of ticks and a
wide dashed one looks solid. Here dashes grow with the line, and dots are round.
"""

import re

from circuitgraph.draw.dot import escaped

__all__ = ["finished_svg"]

_DASHES = re.compile(r'( stroke-width="([\d.]+)")? stroke-dasharray="(5,2|1,5)"')

_FITTING = 'style="max-width:100%;height:auto"'


def finished_svg(text: str, words: str) -> str:
    """Return an SVG element ready to stand in a page.

    Args:
        text: What Graphviz wrote, with its XML head.
        words: What the picture shows; read aloud where it cannot be seen.

    Example:
        >>> finished_svg('<?xml?><svg width="9pt"><path stroke-dasharray="5,2"/></svg>', "a & b")
        '<svg role="img" aria-label="a &amp; b" style="max-width:100%;height:auto" width="9pt"><path
        stroke-dasharray="5,3"/></svg>'
    """
    element = text[text.index("<svg") :]
    labelled = f'<svg role="img" aria-label="{escaped(words)}" {_FITTING}'
    return labelled + _DASHES.sub(_dashes, element.removeprefix("<svg"))


def _dashes(found: re.Match[str]) -> str:
    """Return the dashes of a line: long as its width asks, round and wide apart where dotted."""
    said, width = found.group(1) or "", float(found.group(2) or 1)
    if found.group(3) == "1,5":
        return f'{said} stroke-linecap="round" stroke-dasharray="0.1,{max(4.0, 2.4 * width):g}"'
    return f'{said} stroke-dasharray="{max(5.0, 2.6 * width):g},{max(3.0, 1.7 * width):g}"'
