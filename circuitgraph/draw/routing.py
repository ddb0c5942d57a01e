"""The way of every line: around the boxes, from its place on one to its place on the other."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from circuitgraph.draw.dot import attributes
from circuitgraph.draw.rendering import render

__all__ = ["Point", "Route", "route"]

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Route:
    """One line's way, as DOT writes it: a chain of Bézier curves and the tip of the arrow.

    Example:
        >>> way = Route("e,0,-10 0,30 0,20 0,10 0,0")
        >>> way.curve
        ((0.0, 30.0), (0.0, 20.0), (0.0, 10.0), (0.0, 0.0))
        >>> way.at(0.5)
        (0.0, 15.0)
    """

    pos: str

    @property
    def curve(self) -> tuple[Point, ...]:
        """Control points: one, then three for every piece of the curve."""
        return tuple(
            (float(x), float(y))
            for x, y in (
                part.split(",") for part in self.pos.split() if not part.startswith(("e", "s"))
            )
        )

    @property
    def tip(self) -> Point:
        """The point of the arrow; the end of the curve where there is none."""
        ends = [part for part in self.pos.split() if part.startswith("e")]
        if not ends:
            return self.curve[-1]
        x, y = ends[0].split(",")[1:]
        return float(x), float(y)

    def at(self, share: float) -> Point:
        """Return the point at some share of the way, from 0 to 1."""
        points = self.curve
        pieces = (len(points) - 1) // 3
        piece = min(pieces - 1, int(share * pieces))
        t = share * pieces - piece
        a, b, c, d = points[3 * piece : 3 * piece + 4]
        w = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        return (
            w[0] * a[0] + w[1] * b[0] + w[2] * c[0] + w[3] * d[0],
            w[0] * a[1] + w[1] * b[1] + w[2] * c[1] + w[3] * d[1],
        )


def route(boxes: Sequence[str], lines: Sequence[tuple[str, dict[str, object]]]) -> list[Route]:
    """Return the way of every line.

    Args:
        boxes: DOT statements of the boxes, with their places.
        lines: For each line its two ends as DOT writes them, and its attributes.
    """
    graph = {"layout": "nop", "splines": "true", "notranslate": "true"}
    node = {"shape": "plain", "fontsize": 10}
    statements = [
        f"{ends} {attributes({**style, 'comment': str(number)})};"
        for number, (ends, style) in enumerate(lines)
    ]
    parts = [
        "digraph {",
        f"graph {attributes(graph)}",
        f"node {attributes(node)}",
        *boxes,
        *statements,
        "}",
    ]
    drawn = json.loads(render("\n".join(parts), "nop", "json"))
    ways = {int(edge["comment"]): Route(edge["pos"]) for edge in drawn.get("edges", ())}
    return [ways[number] for number in range(len(lines))]
