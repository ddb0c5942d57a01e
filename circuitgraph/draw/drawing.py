"""`Drawing`: a picture that can be saved, shown in a notebook and read as DOT."""

from dataclasses import dataclass
from pathlib import Path

from circuitgraph.draw.rendering import render
from circuitgraph.draw.svg import finished_svg
from circuitgraph.errors import CircuitError
from circuitgraph.files import write_file

__all__ = ["Drawing"]

_SUFFIXES = ("svg", "png", "pdf", "dot")


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture of a circuit, laid out and ready to be saved.

    Shown as it is in notebooks. Any Graphviz draws the same from ``dot``.

    Args:
        dot: The picture in the DOT language, every box in its place.
        caption: What it shows, in words; read aloud where it cannot be seen.
    """

    dot: str
    caption: str = "circuit"

    @property
    def svg(self) -> str:
        """The picture as SVG text; edges and nodes say what they are when pointed at."""
        return finished_svg(render(self.dot, "nop2", "svg").decode(), self.caption)

    def save(self, path: str | Path, dpi: int = 200) -> Path:
        """Write the picture to a file, in the format that the file's suffix names.

        Args:
            path: Ends in ``.svg``, ``.png``, ``.pdf`` or ``.dot``.
            dpi: Dots per inch of a PNG.

        Returns:
            The path, for chaining.

        Raises:
            CircuitError: Another suffix; no such folder, or something else under that name.
        """
        target = Path(path)
        suffix = target.suffix.lower().removeprefix(".")
        content: str | bytes
        match suffix:
            case "dot":
                content = self.dot
            case "svg":
                content = self.svg
            case "png":
                source = self.dot.replace("{", f'{{\ngraph [dpi="{dpi}"]', 1)
                content = render(source, "nop2", "png")
            case "pdf":
                content = render(self.dot, "nop2", "pdf")
            case _:
                allowed = ", ".join(f".{suffix}" for suffix in _SUFFIXES)
                raise CircuitError(
                    f"cannot save a drawing as {target.name!r}: the name must end in {allowed}"
                )
        return write_file(target, content, CircuitError)

    def __repr__(self) -> str:
        return f"Drawing: {self.caption}"

    def _repr_svg_(self) -> str:
        return self.svg
