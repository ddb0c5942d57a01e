"""Names of groups stand where the fewest lines run."""

from circuitgraph.draw.layout import Frame, Placed
from circuitgraph.draw.routing import Route
from circuitgraph.draw.titles import clear_titles

BOX = Frame(0, 0, 200, 100)
MIDDLE = Frame(75, 85, 125, 97)


def straight(x):
    return Route(f"e,{x},-10 {x},120 {x},80 {x},40 {x},0")


def title_beside(*ways):
    placed = Placed({}, {"movers": BOX}, {"movers": MIDDLE}, BOX, 4, "TB")
    return clear_titles(placed, [straight(x) for x in ways])["movers"]


def test_without_lines_it_stays_in_the_middle():
    assert title_beside() == MIDDLE


def test_it_moves_no_farther_than_it_must():
    moved = title_beside(120)
    assert 119 - 4 <= moved.right < 120
    assert (moved.bottom, moved.top) == (MIDDLE.bottom, MIDDLE.top)
    assert moved.right - moved.left == 50


def test_it_keeps_inside_its_box():
    moved = title_beside(70, 100, 130)
    assert moved.left >= BOX.left + 6
    assert moved.right < 70


def test_where_lines_are_everywhere_it_takes_the_fewest():
    moved = title_beside(20, 25, 50, 60, 90, 95, 120, 150, 180, 185)
    crossed = [
        x for x in (20, 25, 50, 60, 90, 95, 120, 150, 180, 185) if moved.left < x < moved.right
    ]
    assert len(crossed) == 1
