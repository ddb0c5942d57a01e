"""How wide words are: the real widths of Helvetica, which Arial and Liberation Sans share.

No library here measures text without a font file, and which files a machine has must not matter:
what is measured by this table is drawn exactly so wide in any font (`circuitgraph.draw.svg`).
"""

import unicodedata
from collections.abc import Mapping

__all__ = ["FONT", "text_width", "wrap_text"]

FONT = "Helvetica, Arial, Liberation Sans, sans-serif"

_WIDTHS: Mapping[int, str] = {
    191: "'", 222: "ijl", 260: "|", 278: " !,./:;I[\\]ft·", 333: "()-`r", 334: "{}", 350: "•",
    355: '"', 389: "*", 470: "^", 500: "Jcksvxyz", 584: "+<=>~−×", 610: "FTZ", 667: "&ABEKPSVXY",
    722: "CDHNRUw", 778: "GOQ", 832: "Mm", 889: "%", 944: "W", 1000: "→…⊣", 1015: "@",
}  # fmt: skip
_BOLD: Mapping[int, str] = {
    238: "'", 278: " ,./I\\ijl·", 280: "|", 333: "!()-:;[]`ft", 350: "•", 389: "*r{}", 474: '"',
    500: "z", 584: "+<=>^~−×", 610: "?FLTZbdghnopqu", 667: "EPSVXY", 722: "&ABCDHKNRU",
    778: "GOQw", 832: "M", 889: "%m", 944: "W", 975: "@", 1000: "→…⊣",
}  # fmt: skip
"""Thousandths of the size, by width; digits and whatever is not named are 556 wide."""

_TABLES = {
    bold: {letter: width for width, letters in widths.items() for letter in letters}
    for bold, widths in ((False, _WIDTHS), (True, _BOLD))
}


def text_width(words: str, size: float, bold: bool = False) -> float:
    """Return how wide a line of text is, in the unit of its size.

    Example:
        >>> text_width("10.7", 10), text_width("W", 10), text_width("W", 10, bold=True)
        (19.46, 9.44, 9.44)
    """
    table = _TABLES[bold]
    return sum(table.get(letter) or _other(letter) for letter in words) * size / 1000


def _other(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 1000 if unicodedata.east_asian_width(letter) in "WF" else 556


def wrap_text(words: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Return a text in lines of at most so wide; a longer word stands in a line of its own.

    ``textwrap`` counts letters, which differ fourfold in width.

    Example:
        >>> wrap_text("negative name movers", 62, 10)
        ['negative', 'name movers']
    """
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, bold) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
