"""`Picture`: what every drawing and every chart can do: be shown, and be saved in any format.

A picture is an SVG; PNG and PDF are made from it by vl-convert, which carries its own font, and a
page is the SVG with nothing around it. So nothing needs a browser, a network or a font.
"""

from abc import ABC, abstractmethod
from base64 import b64encode
from pathlib import Path

from circuitgraph.draw.svg import xml_text
from circuitgraph.errors import CircuitGraphError, EffectsError
from circuitgraph.files import path_of, write_file

__all__ = ["Picture"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
img-src data:; base-uri 'none'; form-action 'none'">
<title>{title}</title><style>body{{margin:16px;background:#fff;overflow-x:auto}}</style></head>
<body>{body}</body></html>
"""
_MANY = 4_000_000
"""An SVG of more letters than this makes a page slow: it holds an image instead."""


class Picture(ABC):
    """A picture: an SVG in notebooks, a file of any kind by its name's ending."""

    __slots__ = ()
    error: type[CircuitGraphError] = EffectsError
    caption: str
    """What it shows, in words; read aloud where it cannot be seen."""

    @property
    @abstractmethod
    def svg(self) -> str:
        """The picture as SVG text; what it shows says what it is when pointed at."""

    @property
    @abstractmethod
    def source(self) -> tuple[str, str]:
        """What the picture is made from: the suffix of its file, and its text."""

    @property
    def inline(self) -> str:
        """The picture as an element of a page: an image where an SVG would make the page slow."""
        body = self.svg
        if len(body) <= _MANY:
            return body
        png = b64encode(self.png()).decode()
        said = xml_text(self.caption)
        return f'<img alt="{said}" style="width:100%" src="data:image/png;base64,{png}">'

    @property
    def html(self) -> str:
        """The picture as a page that runs no script, loads nothing and sends nothing."""
        return _PAGE.format(title=xml_text(self.caption), body=self.inline)

    def png(self, dpi: int = 200) -> bytes:
        """Return the picture as PNG, with so many dots per inch (a picture has 96 units in one)."""
        import vl_convert

        return bytes(vl_convert.svg_to_png(self.svg, scale=dpi / 96))

    def pdf(self) -> bytes:
        """Return the picture as PDF: vectors, its font inside."""
        import vl_convert

        return bytes(vl_convert.svg_to_pdf(self.svg))

    def save(self, path: str | Path, dpi: int = 200) -> Path:
        """Write the picture to a file, in the format that the file's suffix names.

        Args:
            path: Ends in ``.svg``, ``.png``, ``.pdf`` or ``.html``, or in the suffix of what the
                picture was made from: ``.dot`` (circuits), ``.json`` (charts: Vega-Lite).
            dpi: Dots per inch of a PNG.

        Returns:
            The path, for chaining.

        Raises:
            EffectsError: Another suffix; no such folder, or something else under that name.
        """
        target = path_of(path, EffectsError)
        own, text = self.source
        content: str | bytes
        match target.suffix.lower():
            case ".svg":
                content = self.svg
            case ".html":
                content = self.html
            case ".png":
                content = self.png(dpi)
            case ".pdf":
                content = self.pdf()
            case suffix if suffix and suffix == own:
                content = text
            case _:
                allowed = ", ".join(filter(None, (".svg", ".png", ".pdf", ".html", own)))
                raise self.error(
                    f"cannot save {target.name!r} as a picture: the name must end in {allowed}"
                )
        return write_file(target, content, self.error)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.caption}"

    def _repr_html_(self) -> str:
        return f'<div style="background:#fff;overflow:auto">{self.inline}</div>'
