"""Places for the numbers of lines: on them or close beside, off boxes, apart from each other."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from circuitgraph.draw.layout import Frame
from circuitgraph.draw.routing import Point, Route

__all__ = ["label_size", "place_labels"]

_HEIGHT = 10.0
_SHARES = (0.5, 0.42, 0.58, 0.34, 0.66, 0.28, 0.72, 0.22, 0.78, 0.16, 0.84, 0.1, 0.9)
_GRID = 20.0
_BESIDE = 15.0
"""What standing beside a line costs, in square points: on it nobody wonders whose label it is."""


def label_size(words: str) -> tuple[float, float]:
    """Return width and height of a label, in points."""
    return 4.6 * len(words) + 3, _HEIGHT


def place_labels(
    words: Sequence[str], routes: Sequence[Route], obstacles: Iterable[Frame]
) -> list[Point]:
    """Return the middle of every label.

    Each stands on its own line, or close beside it where lines are crowded, at the place that
    covers least: boxes, heads of lines and other labels above all, then other lines. Long lines
    choose last, since they have more room.

    Args:
        words: The text of every label; an empty one takes no room.
        routes: The way of every line.
        obstacles: Boxes that no label should cover.
    """
    taken = [*obstacles, *map(_head, routes)]
    crowd = _crowd(routes)
    found: list[Point] = [route.at(0.5) for route in routes]
    for number in sorted(range(len(words)), key=lambda number: _length(routes[number])):
        if not words[number]:
            continue
        size = label_size(words[number])
        frames = [_frame(at, size) for at in _places(routes[number], size)]
        costs = [
            (
                _covered(frame, taken)
                + 0.4 * _crossed(frame, crowd, number)
                + _BESIDE * (order >= len(_SHARES)),
                order,
            )
            for order, frame in enumerate(frames)
        ]
        best = frames[min(costs)[1]]
        taken.append(best)
        found[number] = best.center
    return found


def _places(way: Route, size: tuple[float, float]) -> list[Point]:
    """Return where a label may stand: on the line at every share of it, then on both its sides."""
    on = [way.at(share) for share in _SHARES]
    beside = []
    for share, (x, y) in zip(_SHARES, on, strict=True):
        before, after = way.at(share - 0.05), way.at(share + 0.05)
        steep = abs(after[1] - before[1]) >= abs(after[0] - before[0])
        far = (size[0] / 2 + 3, 0.0) if steep else (0.0, size[1] / 2 + 3)
        beside += [(x - far[0], y - far[1]), (x + far[0], y + far[1])]
    return on + beside


def _head(way: Route) -> Frame:
    """Return the rectangle around the head of a line."""
    (x, y), (tip_x, tip_y) = way.curve[-1], way.tip
    return Frame(min(x, tip_x) - 2, min(y, tip_y) - 2, max(x, tip_x) + 2, max(y, tip_y) + 2)


def _frame(at: Point, size: tuple[float, float]) -> Frame:
    (x, y), (width, height) = at, size
    return Frame(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _length(way: Route) -> float:
    points = way.curve
    return sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(points))


def _covered(frame: Frame, taken: Iterable[Frame]) -> float:
    """Return how much of a frame lies on others, in square points; touching costs a little."""
    total = 0.0
    for other in taken:
        wide = min(frame.right, other.right) - max(frame.left, other.left) + 1
        high = min(frame.top, other.top) - max(frame.bottom, other.bottom) + 1
        if wide > 0 and high > 0:
            total += wide * high
    return total


def _crowd(routes: Sequence[Route]) -> dict[tuple[int, int], set[tuple[int, Point]]]:
    """Return points along all lines, by square of a grid."""
    squares: dict[tuple[int, int], set[tuple[int, Point]]] = defaultdict(set)
    for number, way in enumerate(routes):
        steps = max(8, int(_length(way) / 6))
        for step in range(1, steps):
            point = way.at(step / steps)
            squares[int(point[0] // _GRID), int(point[1] // _GRID)].add((number, point))
    return squares


def _crossed(frame: Frame, crowd: dict[tuple[int, int], set[tuple[int, Point]]], own: int) -> float:
    """Return how many points of other lines a frame covers, times 10."""
    count = 0
    for column in range(int(frame.left // _GRID), int(frame.right // _GRID) + 1):
        for row in range(int(frame.bottom // _GRID), int(frame.top // _GRID) + 1):
            count += sum(
                number != own and frame.left <= x <= frame.right and frame.bottom <= y <= frame.top
                for number, (x, y) in crowd.get((column, row), ())
            )
    return 10.0 * count
