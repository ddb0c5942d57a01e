"""Heatmaps, bars, comparisons and scatters: read back from the SVG that is shown."""

import json
import re
import time

import numpy as np
import pytest

from circuitgraph.draw import picture
from circuitgraph.draw.effects import heatmap, heatmaps, scatter
from circuitgraph.effects import Comparison, Effects
from circuitgraph.errors import EffectsError
from tests.browser import chromium_path, open_browser
from tests.draw.marks import marks, written

N_PROMPTS = 12
WHITE, GREY = "rgb(255, 255, 255)", "#ECECEC"
LEFT = np.array([[0.0, -0.5, 0.1], [0.25, np.nan, 0.0]])
RIGHT = np.array([[0.0, -0.3, 0.1], [0.25, np.nan, 0.05]])
SWEEP = {"layer": [8, 9], "head": [0, 1, 2]}


def effects_of(values, sweep, request="head -> logits", noise=0.0, **attrs):
    """Effects with these normalised values; the metric is 4 clean and 0 corrupt on average."""
    draw = np.random.default_rng(0)
    values = np.asarray(values, dtype=float)
    clean, corrupt = 4 + draw.normal(0, 1, N_PROMPTS), draw.normal(0, 1, N_PROMPTS)
    span = clean.mean() - corrupt.mean()
    jitter = noise * draw.normal(0, 1, (*values.shape, N_PROMPTS))
    jitter -= jitter.mean(axis=-1, keepdims=True)
    said = {"variant": "mlps", "metric": "logit difference"} | attrs
    patched = clean + span * (values[..., None] + jitter)
    return Effects.from_arrays(patched, clean, corrupt, sweep, request=request, **said)


def compared(*values, sweep=SWEEP, noise=0.02, **attrs):
    names = ("mlps", "single-pass", "third")
    return Comparison(
        {
            name: effects_of(one, sweep, noise=noise, **{**attrs, "variant": name})
            for name, one in zip(names, values, strict=False)
        }
    )


HEADS = effects_of(LEFT, SWEEP, noise=0.05)
BOTH = compared(LEFT, RIGHT)


def named(chart, name):
    """What the cell of this name says, and its colour."""
    ((words, color),) = [
        item for item in marks(chart).items() if re.match(rf"{re.escape(name)}[:,]", item[0])
    ]
    return words, color


def reds(color):
    red, _, blue = map(int, re.findall(r"\d+", color))
    return red - blue


class TestHeatmap:
    def test_cells_say_their_numbers_and_have_their_colours(self):
        chart = heatmap(HEADS, statistics=False)
        assert len(marks(chart)) == 6
        assert marks(chart).keys() > {
            "8.1: −0.5 of the logit difference",
            "8.2: 0.1 of the logit difference",
            "9.0: 0.25 of the logit difference",
            "9.1: no such request",
        }
        assert reds(named(chart, "8.1")[1]) > 100
        assert reds(named(chart, "9.0")[1]) < -50
        assert named(chart, "9.1")[1] == GREY
        assert "grey: no such request" in written(chart)

    def test_white_is_zero_and_both_sides_are_equally_long(self):
        chart = heatmap(effects_of([[0.0, -0.5]], {"layer": [0], "head": [0, 1]}), limit=1.0)
        whole = heatmap(effects_of([[0.0, -1.0]], {"layer": [0], "head": [0, 1]}))
        zeros = [color for words, color in marks(whole).items() if words.startswith("0.0")]
        assert zeros[0] == WHITE
        assert named(whole, "0.1")[1] == "rgb(142, 15, 36)"
        assert reds(named(chart, "0.1")[1]) != reds(named(whole, "0.1")[1])
        scale = [text for text in written(whole) if re.fullmatch(r"−?[01]\.[05]", text)]
        assert {"1.0", "−1.0", "0.0"} <= set(scale)

    def test_rounding_is_not_drawn_as_an_effect(self):
        noise = np.full((3, 4), -2.7e-8)
        chart = heatmap(effects_of(noise, {"layer": [0, 1, 2], "head": [0, 1, 2, 3]}))
        assert any("no effect is larger than 3e-08" in text for text in written(chart))
        assert all(abs(reds(color)) < 5 for color in marks(chart).values())

    def test_axes_and_heading(self):
        texts = written(heatmap(HEADS))
        assert {"8", "9", "0", "1", "2", "layer", "head", "head -> logits"} <= set(texts)
        assert any("variant mlps · 12 prompts · logit difference" in text for text in texts)
        assert "Mine" in written(heatmap(HEADS, title="Mine"))

    def test_intervals_and_dots_are_those_of_the_statistics(self):
        found = HEADS.statistics().sel(layer=8, head=1)
        low, high = (f"{float(found[end]):.2g}".replace("-", "−") for end in ("ci_low", "ci_high"))
        said, _ = named(heatmap(HEADS), "8.1")
        assert said == f"8.1: −0.5 of the logit difference [{low}, {high}]; stands out from zero"
        expected = HEADS.statistics()["significant"].to_numpy().sum()
        assert sum("stands out" in words for words in marks(heatmap(HEADS))) == expected
        assert "• stands out from zero (95 %, corrected for 5 cells)   grey: no such request" in (
            written(heatmap(HEADS))
        )
        strict = HEADS.statistics(confidence=0.999999, correction="bonferroni")
        assert any("99.9999 %" in text for text in written(heatmap(HEADS, statistics=strict)))

    def test_numbers_in_cells(self):
        assert {"−0.50", "0.10", "0.25"} <= set(written(heatmap(HEADS, values=True)))

    def test_markup_stays_text(self):
        evil = '<script>alert(1)</script>"\'\\ id="a" role="img" d="0.12345"'
        chart = heatmap(effects_of([0.5, 0.1], {"sender": [evil, "9.9"]}, evil, metric=evil))
        assert "<script" not in chart.svg
        assert "<script" not in chart.html
        assert evil in written(chart)
        assert any(words.startswith(evil) for words in marks(chart))

    def test_one_dimension_makes_bars(self):
        effects = effects_of([0.5, -0.25, np.nan], {"sender": ["9.9", "{7.3, 7.9}", "mlp0"]})
        chart = heatmap(effects, statistics=False)
        assert {"9.9", "{7.3, 7.9}", "mlp0", "share of the logit difference"} <= set(written(chart))
        assert named(chart, "9.9")[0] == "9.9: 0.5 of the logit difference"
        assert "mlp0: no such request" in marks(chart)
        single = heatmap(effects_of(-0.5, {}, "9.9 -> logits"))
        assert named(single, "9.9 -> logits")[0].startswith("9.9 -> logits: −0.5 of")

    def test_further_dimensions_make_panels_on_one_scale(self):
        values = np.zeros((2, 2, 3))
        values[0, 1, 2], values[1, 0, 0] = -0.5, 0.25
        sweep = {"layer": [0, 1], "head": [0, 1], "receiver": ["8.6.v", "8.10.v", "9.9.q"]}
        chart = heatmap(effects_of(values, sweep, "head -> [8.6.v, 8.10.v, 9.9.q] => logits"))
        assert {"→ 8.6.v", "→ 8.10.v", "→ 9.9.q"} <= set(written(chart))
        assert written(chart).count("effect") == 1
        few = heatmap(effects_of(values, sweep, "head -> [..] => logits"), max_panels=2)
        assert "→ 8.10.v" not in written(few)
        assert any("1 panel with smaller effects not shown" in text for text in written(few))

    def test_what_is_refused(self):
        for bad in (0, -1.0, float("nan"), float("inf")):
            with pytest.raises(EffectsError, match="limit must be a positive number"):
                heatmap(HEADS, limit=bad)
        with pytest.raises(EffectsError, match="max_panels must be 1 or more"):
            heatmap(HEADS, max_panels=0)

    def test_effects_and_comparisons_call_it(self):
        settings = {"title": "x", "values": True, "limit": 2.0, "statistics": False}
        assert HEADS.heatmap(**settings, max_panels=3) == heatmap(HEADS, **settings, max_panels=3)
        assert BOTH.heatmap("single-pass", "mlps") == heatmaps(BOTH, "single-pass", "mlps")
        assert BOTH.scatter(named=1) == scatter(BOTH, named=1)

    def test_time_grows_as_the_cells_do(self, monkeypatch):
        monkeypatch.setattr(Effects, "statistics", lambda *_, **__: pytest.fail("asked for"))

        def seconds(layers):
            values = np.zeros((layers, 100))
            effects = effects_of(values, {"layer": range(layers), "head": range(100)})
            start = time.perf_counter()
            spec = heatmap(effects).source
            return time.perf_counter() - start, len(spec[1])

        seconds(41)
        (small, short), (large, long) = seconds(50), seconds(400)
        assert long < 10 * short
        assert large < 40 * small


class TestComparison:
    def test_both_and_their_difference(self):
        said = marks(heatmaps(BOTH, statistics=False))
        assert sum(words.startswith("8.1: −0.5 of") for words in said) == 1
        assert sum(words.startswith("8.1: −0.3 of") for words in said) == 1
        assert "8.1, mlps − single-pass: −0.2 of the logit difference" in said
        assert {"mlps", "single-pass", "mlps − single-pass", "effect", "difference"} <= set(
            written(heatmaps(BOTH))
        )

    def test_the_difference_has_a_scale_of_its_own(self):
        end = "rgb(142, 15, 36)"
        assert (
            sum(color == end for color in marks(heatmaps(BOTH)).values()) == 2
        )  # −0.5, and −0.2 apart

    def test_dots_in_the_difference_are_where_they_differ(self):
        expected = BOTH.difference()["significant"].to_numpy().sum()
        said = [words for words in marks(heatmaps(BOTH)) if "more than chance explains" in words]
        assert len(said) == expected > 0
        assert any("in the difference" in text for text in written(heatmaps(BOTH)))
        alike = written(heatmaps(compared(LEFT, LEFT)))
        assert not any("in the difference" in text for text in alike)

    def test_any_two_of_several(self):
        three = compared(LEFT, RIGHT, 2 * LEFT)
        for statistics in (True, False):
            chart = heatmaps(three, "third", "mlps", statistics=statistics)
            assert named(chart, "8.1, third − mlps")[0].startswith("8.1, third − mlps: −0.5 of")
        assert any("mlps, single-pass and third" in text for text in written(chart))
        assert "effect, third" in written(scatter(three, "third", "mlps"))
        for draw in (heatmaps, scatter):
            with pytest.raises(EffectsError, match="no 'fourth' in this comparison of mlps"):
                draw(three, "fourth")

    def test_rows_of_panels_and_bars(self):
        sweep = {"layer": [0, 1], "head": [0], "receiver": ["8.6.v", "9.9.q"]}
        one = np.array([[[0.1, -0.5]], [[0.2, 0.0]]])
        several = compared(one, one / 2, sweep=sweep, request="head -> [8.6.v, 9.9.q] => logits")
        assert "single-pass, → 9.9.q" in written(heatmaps(several))
        few = written(heatmaps(several, max_panels=1))
        assert "mlps, → 9.9.q" in few
        assert "mlps, → 8.6.v" not in few
        bars = compared([0.5, -0.1], [0.2, -0.1], sweep={"layer": [0, 1]}, request="mlp -> logits")
        ticks = [text for text in written(heatmaps(bars)) if text == "0.4"]
        assert len(ticks) == 3, "all bars share their vertical scale"


class TestScatter:
    def test_a_point_per_filled_cell_and_names_where_they_differ(self):
        said = marks(scatter(BOTH))
        assert len(said) == 5
        assert "8.1: mlps −0.5, single-pass −0.3, difference −0.2" in said
        assert {"8.1", "9.2"} <= set(written(scatter(BOTH)))
        assert "9.2" not in written(scatter(BOTH, named=1))
        assert "8.1" not in written(scatter(compared(LEFT, LEFT)))

    def test_it_says_how_far_they_agree(self):
        (note,) = [text for text in written(scatter(BOTH)) if "5 cells" in text]
        assert f"Pearson {BOTH.agreement()['pearson'][0]:.2f}" in note

    def test_both_axes_are_alike_and_names_stand_apart(self):
        draw = np.random.default_rng(1)
        values = draw.normal(0, 0.02, (12, 12))
        sweep = {"layer": range(12), "head": range(12)}
        svg = scatter(compared(values, values + draw.normal(0, 0.02, (12, 12)), sweep=sweep)).svg
        found = re.findall(
            r'<text [^>]*text-anchor="middle" transform="translate\(([\d.]+),([\d.]+)\)"[^>]*'
            r'textLength="([\d.]+)"[^>]*>\d+\.\d+</text>',
            svg,
        )
        boxes = [tuple(map(float, place)) for place in found if float(place[2]) < 30]
        names = boxes[-8:]
        assert len(names) == 8
        for number, (x, y, width) in enumerate(names):
            for a, b, wide in names[:number]:
                assert abs(x - a) > (width + wide) / 2 or abs(y - b) > 9


class TestFiles:
    @pytest.mark.parametrize(
        ("suffix", "start"),
        [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("html", b"<!doctype html>")],
    )
    def test_every_format_without_a_browser(self, tmp_path, suffix, start):
        path = HEADS.heatmap().save(tmp_path / f"heads.{suffix}")
        assert path.read_bytes().startswith(start)

    def test_the_specification_itself(self, tmp_path):
        path = HEADS.heatmap().save(tmp_path / "heads.json")
        spec = json.loads(path.read_text(encoding="utf-8"))
        assert spec["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
        with pytest.raises(EffectsError, match=r"must end in \.svg, \.png, \.pdf, \.html, \.json"):
            HEADS.heatmap().save(tmp_path / "heads.jpeg")

    @pytest.mark.slow
    @pytest.mark.skipif(chromium_path() is None, reason="needs Chromium")
    def test_a_page_shows_it_under_its_policy_and_loads_nothing(self, tmp_path):
        path = HEADS.heatmap().save(tmp_path / "heads.html")
        with open_browser() as browser:
            tab = browser.tab()
            tab.load(path)
            assert tab.run("document.querySelectorAll('svg title').length") == 6
            assert tab.problems() == []
            assert tab.requests() == [path.resolve().as_uri()]

    def test_many_cells_make_a_page_with_an_image(self, monkeypatch):
        assert "<svg" in HEADS.heatmap().html
        monkeypatch.setattr(picture, "_MANY", 1000)
        assert "data:image/png;base64," in HEADS.heatmap().html
        assert "<svg" not in HEADS.heatmap().html
