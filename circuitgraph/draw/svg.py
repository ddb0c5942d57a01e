"""What every SVG gets before it is shown: text that is equally wide in any font, and spoken words.

`finished_svg` takes what Graphviz, Vega or `circuitgraph.draw.plans` wrote. Each line of text says
how wide it is, so a browser without the font sets its letters closer or wider instead of running
over what stands beside; what a mark says in Vega becomes a title, which any browser shows when it
is pointed at; and names inside the picture become its own, so that many fit into one page.
"""

import re
from hashlib import sha256
from html import escape, unescape

from circuitgraph.draw.lettering import FONT, text_width

__all__ = ["finished_svg", "plain_text", "xml_text"]

_TEXT = re.compile(r"<text\b([^>]*)>(.*?)</text>", re.DOTALL)
_SPAN = re.compile(r"<tspan\b([^>]*)>([^<]*)</tspan>")
_SIZE = re.compile(r'font-size="([\d.]+)')
_MARK = re.compile(
    r'<path aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="[^"]*"([^>]*)/>'
)
_SPOKEN = re.compile(r' (?:aria-[a-z]+|role|pointer-events)="[^"]*"')
_NAME = re.compile(r'(\bid="|url\(#|href="#)')
_PLACE = re.compile(r' (?:d|transform)="[^"]*\.\d{3}[^"]*"')
_QUOTED = re.compile(r'>[^<"]+"[^<]*<|>"[^<]*<')
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")


def xml_text(value: object) -> str:
    """Return text for XML, without the characters that XML cannot hold.

    Example:
        >>> xml_text("a < b")
        'a &lt; b'
    """
    return escape(plain_text(value), quote=True)


def plain_text(value: object) -> str:
    """Return text with spaces for what XML cannot hold."""
    return _CONTROL.sub(" ", str(value))


def finished_svg(text: str, words: str) -> str:
    """Return an SVG element ready to stand in a page.

    Args:
        text: What was written, perhaps with an XML head.
        words: What the picture shows; read aloud where it cannot be seen.

    Example:
        >>> finished_svg('<?xml?><svg width="9"><text font-size="10px">10</text></svg>', "a & b")
        '<svg role="group" aria-label="a &amp; b" font-family="Helvetica, ... width="9"><text
        font-size="10px" textLength="11.12" lengthAdjust="spacingAndGlyphs">10</text></svg>'
    """
    element = plain_text(text[text.index("<svg") :]).removeprefix("<svg").rstrip()
    # In what is written no quote stays bare, so that it cannot look like an attribute below.
    element = _QUOTED.sub(lambda found: found[0].replace('"', "&quot;"), element)
    if 'class="marks"' in element[:200]:  # Vega's: marks keep their words, all else is silent
        parts = re.split(f"({_MARK.pattern})", element)
        element = "".join(
            _SPOKEN.sub(_silent, part) if at % 4 == 0 else _titled(parts[at + 1], parts[at + 2])
            for at, part in enumerate(parts)
            if at % 4 < 2
        )
        element = _PLACE.sub(lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), element)
    element = element.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    element = re.sub(r' font-family="[^"]*"| opacity="1"', "", element)
    own = f"p{sha256(element.encode()).hexdigest()[:8]}-"
    element = _TEXT.sub(_fitted, _NAME.sub(rf"\g<1>{own}", element))
    label = f'role="group" aria-label="{xml_text(words)}" font-family="{FONT}"'
    return f'<svg {label} style="max-width:100%;height:auto"{element}'


def _silent(found: re.Match[str]) -> str:
    """Return what stays of an attribute for readers: what is hidden from them lets the mouse by."""
    return ' pointer-events="none"' if found[0].startswith(" aria-hidden") else ""


def _titled(words: str, rest: str) -> str:
    return f"<path{rest}><title>{words}</title></path>"


def _fitted(found: re.Match[str]) -> str:
    """Return a line of text, or lines, with how wide each is."""
    style, inside = found.groups()
    size, bold = _SIZE.search(style), 'font-weight="bold"' in style
    points = float(size.group(1)) if size else 16.0

    def length(words: str) -> str:
        width = text_width(unescape(words), points, bold)
        return (
            f' textLength="{width:.2f}" lengthAdjust="spacingAndGlyphs"' if len(words) > 1 else ""
        )

    if "<" not in inside:
        return f"<text{style}{length(inside)}>{inside}</text>"
    spans = _SPAN.sub(lambda span: f"<tspan{span[1]}{length(span[2])}>{span[2]}</tspan>", inside)
    return f"<text{style}>{spans}</text>"
