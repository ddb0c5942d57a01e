"""Names of groups, moved along the top of their boxes to where the fewest lines run.

A line that ends in a group has to pass the name where there is no room beside it. Lines to
elsewhere need not: `runs_behind` finds those that are to be led around.
"""

from collections.abc import Mapping, Sequence

from circuitgraph.draw.layout import Frame, Placed
from circuitgraph.draw.routing import Point, Route
from circuitgraph.draw.sketch import Sketch

__all__ = ["clear_titles", "runs_behind"]

_EDGE = 6.0
"""How near to the side of its box a name may stand, in points."""

_STEP = 4.0
_POINTS = 60
"""At how many points of its way a line is looked at."""


def clear_titles(placed: Placed, routes: Sequence[Route]) -> dict[str, Frame]:
    """Return where the name of each group stands: as near to the middle as lines allow.

    Args:
        placed: Where the boxes of groups stand, and their names for now.
        routes: The ways of all lines.
    """
    points = [_points(way) for way in routes]
    return {
        group: _clearest(title, placed.groups[group], points)
        for group, title in placed.titles.items()
    }


def runs_behind(
    sketch: Sketch, titles: Mapping[str, Frame], routes: Sequence[Route]
) -> frozenset[int]:
    """Return the numbers of the lines that run behind the name of a group they do not enter."""
    group = {box.name: box.group for box in sketch.boxes}
    return frozenset(
        number
        for number, (line, way) in enumerate(zip(sketch.lines, routes, strict=True))
        for name, title in titles.items()
        if group.get(line.receiver) != name
        and any(title.left <= x <= title.right for x in _within(_points(way), title))
    )


def _points(way: Route) -> list[Point]:
    return [way.at(number / _POINTS) for number in range(_POINTS + 1)]


def _clearest(title: Frame, box: Frame, ways: Sequence[Sequence[Point]]) -> Frame:
    """Return the place along the top of a box that the fewest lines cross."""
    beside = [way for way in (_within(way, title) for way in ways) if way]
    least, most = box.left + _EDGE - title.left, box.right - _EDGE - title.right
    steps = range(int(least / _STEP), int(most / _STEP) + 1)
    moves = sorted({0.0, *(_STEP * step for step in steps)}, key=lambda move: (abs(move), move))

    def crossed(move: float) -> int:
        left, right = title.left + move, title.right + move
        return sum(min(way) < right and max(way) > left for way in beside)

    best = min(moves, key=crossed)
    return Frame(title.left + best, title.bottom, title.right + best, title.top)


def _within(way: Sequence[Point], title: Frame) -> list[float]:
    """Return where a line is, from side to side, while it is as high as a name."""
    return [x for x, y in way if title.bottom <= y <= title.top]
