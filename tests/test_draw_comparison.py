"""Variants side by side: one scale, an honest difference, names where they differ most."""

import numpy as np
import pytest

from circuitgraph.draw.comparison import heatmaps, scatter
from circuitgraph.effects import Comparison
from circuitgraph.errors import EffectsError
from tests.test_draw_heatmap import effects_of, traces

SWEEP = {"layer": [8, 9], "head": [0, 1, 2]}
LEFT = np.array([[0.0, -0.5, 0.1], [0.25, np.nan, 0.0]])
RIGHT = np.array([[0.0, -0.3, 0.1], [0.25, np.nan, 0.05]])


def compared(*values, names=("mlps", "single-pass", "third"), sweep=None, noise=0.02, **attrs):
    return Comparison(
        {
            name: effects_of(one, sweep or SWEEP, noise=noise, **{**attrs, "variant": name})
            for name, one in zip(names, values, strict=False)
        }
    )


BOTH = compared(LEFT, RIGHT)


class TestHeatmaps:
    def test_both_and_their_difference(self):
        images = traces(heatmaps(BOTH), "effect")
        assert len(images) == 3
        for image, expected in zip(images, (LEFT, RIGHT, LEFT - RIGHT), strict=True):
            np.testing.assert_allclose(image.z, expected, atol=1e-9)

    def test_effects_share_a_scale_and_the_difference_has_its_own(self):
        figure = heatmaps(BOTH)
        assert [image.coloraxis for image in traces(figure, "effect")] == [
            "coloraxis",
            "coloraxis",
            "coloraxis2",
        ]
        assert figure.layout.coloraxis.cmax == pytest.approx(0.5)
        assert figure.layout.coloraxis2.cmax == pytest.approx(0.2)
        assert figure.layout.coloraxis2.cmin == -figure.layout.coloraxis2.cmax

    def test_panels_are_named(self):
        titles = {note.text for note in heatmaps(BOTH).layout.annotations}
        assert {"<b>mlps</b>", "<b>single-pass</b>", "<b>mlps − single-pass</b>"} <= titles

    def test_dots_in_the_difference_are_where_they_differ(self):
        figure = heatmaps(BOTH)
        dots = traces(figure, "significant")[-1]
        assert dots.xaxis == "x3"
        expected = np.argwhere(BOTH.difference()["significant"].to_numpy())
        assert {(int(y), int(x)) for x, y in zip(dots.x, dots.y, strict=True)} == {
            (int(row), int(column)) for row, column in expected
        }
        assert not traces(heatmaps(BOTH, statistics=False), "significant")

    def test_without_statistics_the_difference_is_the_same(self):
        with_, without = (
            traces(heatmaps(BOTH, statistics=s), "effect")[2].z for s in (True, False)
        )
        np.testing.assert_allclose(with_, without, atol=1e-9)

    def test_three_or_more(self):
        images = traces(heatmaps(compared(LEFT, RIGHT, 2 * LEFT)), "effect")
        assert len(images) == 4
        np.testing.assert_allclose(images[2].z, 2 * LEFT, atol=1e-9)

    def test_the_difference_of_any_two(self):
        three = compared(LEFT, RIGHT, 2 * LEFT)
        for statistics in (True, False):
            figure = heatmaps(three, "third", "mlps", statistics=statistics)
            image = traces(figure, "effect")[-1]
            np.testing.assert_allclose(image.z, LEFT, atol=1e-9)
            assert "<b>third − mlps</b>" in {note.text for note in figure.layout.annotations}
        assert heatmaps(three, b="third").layout.annotations[3].text == "<b>mlps − third</b>"
        with pytest.raises(EffectsError, match="no 'fourth' in this comparison"):
            heatmaps(three, "fourth")

    def test_all_that_is_compared_is_named(self):
        said = heatmaps(compared(LEFT, RIGHT, 2 * LEFT)).layout.title.text
        assert "mlps, single-pass and third" in said

    def test_the_difference_says_what_it_is_when_pointed_at(self):
        images = traces(heatmaps(BOTH), "effect")
        assert images[0].hovertext[0][1].startswith("<b>8.1</b>: −0.5 of the logit difference")
        said = images[2].hovertext[0][1]
        assert said.startswith("<b>8.1</b>, mlps − single-pass: −0.2 of the logit difference")
        assert said.endswith("<br>differ by more than chance explains")

    def test_dots_are_explained_wherever_they_are(self):
        assert "in the difference" in heatmaps(BOTH).layout.annotations[-1].text
        alike = heatmaps(compared(LEFT, LEFT)).layout.annotations[-1].text
        assert "stands out from zero" in alike
        assert "in the difference" not in alike

    def test_several_receivers_are_rows(self):
        sweep = {"layer": [0, 1], "head": [0], "receiver": ["8.6.v", "9.9.q"]}
        one = np.array([[[0.1, -0.5]], [[0.2, 0.0]]])
        figure = heatmaps(
            compared(one, one / 2, sweep=sweep, request="head -> [8.6.v, 9.9.q] => logits")
        )
        assert len(traces(figure, "effect")) == 6
        titles = {note.text for note in figure.layout.annotations}
        assert "<b>single-pass, → 9.9.q</b>" in titles
        few = heatmaps(
            compared(one, one / 2, sweep=sweep, request="head -> [8.6.v, 9.9.q] => logits"),
            max_panels=1,
        )
        titles = {note.text for note in few.layout.annotations}
        assert "<b>mlps, → 9.9.q</b>" in titles
        assert "<b>mlps, → 8.6.v</b>" not in titles
        assert any("1 panel with smaller effects not shown" in title for title in titles)

    def test_bars_share_their_vertical_scale(self):
        figure = heatmaps(
            compared([0.5, -0.1], [0.2, -0.1], sweep={"layer": [0, 1]}, request="mlp -> logits")
        )
        assert [bars.type for bars in traces(figure, "effect")] == ["bar"] * 3
        ranges = {tuple(figure.layout[axis].range) for axis in ("yaxis", "yaxis2", "yaxis3")}
        assert len(ranges) == 1
        assert max(ranges.pop()) > 0.5

    def test_the_subtitle_says_what_all_share(self):
        text = heatmaps(BOTH).layout.title.text
        assert "mlps and single-pass" in text
        assert "variant" not in text
        assert "12 prompts" in text

    def test_comparisons_call_it(self):
        assert BOTH.heatmap().to_json() == heatmaps(BOTH).to_json()
        assert BOTH.scatter(named=1).to_json() == scatter(BOTH, named=1).to_json()


class TestScatter:
    def test_a_point_per_filled_cell(self):
        figure = scatter(BOTH, named=1)
        points = {
            (round(float(x), 6), round(float(y), 6))
            for name in ("cells", "differ most")
            for trace in traces(figure, name)
            for x, y in zip(trace.x, trace.y, strict=True)
        }
        filled = np.isfinite(LEFT)
        expected = zip(LEFT[filled].tolist(), RIGHT[filled].tolist(), strict=True)
        assert points == {(round(x, 6) + 0.0, round(y, 6) + 0.0) for x, y in expected}

    def test_those_that_differ_most_are_named(self):
        figure = scatter(BOTH)
        (named,) = traces(figure, "differ most")
        assert len(named.x) == 2
        texts = [note.text for note in figure.layout.annotations]
        assert texts[:2] == ["8.1", "9.2"]
        only = scatter(BOTH, named=1)
        assert [note.text for note in only.layout.annotations][:1] == ["8.1"]
        assert not [note for note in scatter(BOTH, named=0).layout.annotations if note.showarrow]

    def test_the_line_is_the_diagonal_and_both_axes_are_alike(self):
        figure = scatter(BOTH)
        (line,) = traces(figure, "equal")
        assert list(line.x) == list(line.y)
        assert figure.layout.xaxis.range == figure.layout.yaxis.range
        low, high = figure.layout.xaxis.range
        assert low < -0.5
        assert high > 0.25

    def test_hover_says_both_numbers(self):
        (named,) = traces(scatter(BOTH, named=1), "differ most")
        assert named.hovertext[0] == (
            "<b>8.1</b><br>mlps −0.5<br>single-pass −0.3<br>difference −0.2"
        )

    def test_it_says_how_far_they_agree(self):
        note = scatter(BOTH).layout.annotations[-1].text
        assert "5 cells" in note
        assert f"Pearson {BOTH.agreement()['pearson'][0]:.2f}" in note

    def test_any_two_of_several(self):
        three = compared(LEFT, RIGHT, 2 * LEFT)
        figure = scatter(three, "third", "mlps")
        assert figure.layout.xaxis.title.text == "effect, third"
        assert figure.layout.yaxis.title.text == "effect, mlps"
        with pytest.raises(EffectsError, match="no 'fourth' in this comparison of mlps"):
            scatter(three, "fourth")

    def test_equal_effects_name_nothing(self):
        figure = scatter(compared(LEFT, LEFT))
        assert not [note for note in figure.layout.annotations if note.showarrow]

    def test_names_stand_apart(self):
        draw = np.random.default_rng(1)
        values = draw.normal(0, 0.02, (12, 12))
        sweep = {"layer": range(12), "head": range(12)}
        both = compared(values, values + draw.normal(0, 0.02, (12, 12)), sweep=sweep)
        figure = scatter(both)
        low, high = figure.layout.xaxis.range
        pixels = 520 / (high - low)
        boxes = []
        for note in figure.layout.annotations:
            if note.showarrow:
                x = (note.x - low) * pixels + note.ax
                y = (note.y - low) * pixels - note.ay
                half = 3 * len(note.text)
                boxes.append((x - half, y - 7, x + half, y + 7))
        assert len(boxes) == 8
        for number, one in enumerate(boxes):
            for other in boxes[:number]:
                wide = min(one[2], other[2]) - max(one[0], other[0])
                high_ = min(one[3], other[3]) - max(one[1], other[1])
                assert wide <= 0 or high_ <= 0
