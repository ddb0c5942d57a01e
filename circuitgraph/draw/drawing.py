"""`Drawing`: a circuit, a plan or a schedule as a picture."""

from dataclasses import dataclass, field

from circuitgraph.draw.picture import Picture
from circuitgraph.errors import CircuitError

__all__ = ["Drawing"]


@dataclass(frozen=True, slots=True)
class Drawing(Picture):
    """A picture of a circuit, a plan or a schedule, shown as it is in notebooks.

    Args:
        svg: The picture.
        caption: What it shows, in words; read aloud where it cannot be seen.
        dot: Of a circuit, the picture in the DOT language, every box in its place: any Graphviz
            draws the same from it.
    """

    svg: str = field()  # without it, what is inherited would be its default
    caption: str = "circuit"
    dot: str = ""

    error = CircuitError

    @property
    def source(self) -> tuple[str, str]:
        """The suffix ``.dot`` and the DOT text, where there is one."""
        return (".dot", self.dot) if self.dot else ("", "")

    __repr__ = Picture.__repr__
