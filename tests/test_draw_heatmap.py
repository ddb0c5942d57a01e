"""Heatmaps: numbers in their cells, an honest colour scale, marks, small multiples."""

import json

import numpy as np
import pytest

from circuitgraph.draw.heatmap import heatmap
from circuitgraph.draw.palette import NO_VALUE
from circuitgraph.effects import Effects
from circuitgraph.errors import EffectsError
from tests.strategies_circuit import run_python

N_PROMPTS = 12


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


HEADS = effects_of(
    [[0.0, -0.5, 0.1], [0.25, np.nan, 0.0]],
    {"layer": [8, 9], "head": [0, 1, 2]},
    noise=0.05,
)


def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


class TestImage:
    def test_values_stand_in_their_cells(self):
        (image,) = traces(heatmap(HEADS), "effect")
        np.testing.assert_allclose(image.z, HEADS.normalized().to_numpy(), atol=1e-9)

    def test_layers_run_downwards_and_are_named(self):
        figure = heatmap(HEADS)
        assert figure.layout.yaxis.ticktext == ("8", "9")
        assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
        assert figure.layout.xaxis.ticktext == ("0", "1", "2")
        assert figure.layout.yaxis.title.text == "layer"
        assert figure.layout.xaxis.title.text == "head"

    def test_the_colour_scale_is_white_at_zero_and_symmetric(self):
        axis = heatmap(HEADS).layout.coloraxis
        assert axis.cmin == -axis.cmax
        assert axis.cmax == pytest.approx(0.5)
        middle = [color for place, color in axis.colorscale if place == 0.5]
        assert middle == ["#FFFFFF"]
        assert heatmap(HEADS, limit=1.0).layout.coloraxis.cmax == 1.0

    def test_a_flat_image_has_a_scale_that_can_be_read(self):
        sweep = {"sender": ["0.1@each", "0.2@each"], "position": [0, 1, 2]}
        values = [[0.1, -0.2, 0.3], [0.0, 0.1, -0.1]]
        figure = heatmap(effects_of(values, sweep, request="[0.1, 0.2]@each -> logits"))
        scale = figure.layout.coloraxis.colorbar
        assert (scale.lenmode, scale.len) == ("pixels", 110)
        assert figure.layout.yaxis.ticktext == ("0.1", "0.2")

    def test_all_zero_effects_have_a_scale(self):
        axis = heatmap(effects_of([[0.0]], {"layer": [0], "head": [0]})).layout.coloraxis
        assert (axis.cmin, axis.cmax) == (-1.0, 1.0)

    def test_rounding_is_not_drawn_as_an_effect(self):
        noise = np.full((3, 4), -2.7e-8)
        figure = heatmap(effects_of(noise, {"layer": [0, 1, 2], "head": [0, 1, 2, 3]}))
        assert figure.layout.coloraxis.cmax == pytest.approx(1e-4)
        said = " ".join(note.text for note in figure.layout.annotations)
        assert "no effect is larger than 3e-08" in said
        bars = heatmap(
            effects_of(noise[0], {"sender": ["0.1", "0.2", "0.3", "0.4"]}, "[..] -> logits")
        )
        assert bars.layout.yaxis.range == (-1e-4, 1e-4)

    def test_empty_cells_are_grey_and_not_zero(self):
        figure = heatmap(HEADS)
        (image,), (empty,) = traces(figure, "effect"), traces(figure, "empty")
        assert np.isnan(image.z[1][1])
        assert np.argwhere(np.isfinite(empty.z)).tolist() == [[1, 1]]
        assert {color for _, color in empty.colorscale} == {NO_VALUE}
        assert "9.1</b>: no such request" in empty.hovertext[1][1]
        assert "grey: no such request" in figure.layout.annotations[-1].text

    def test_hover_says_name_number_and_interval(self):
        (image,) = traces(heatmap(HEADS), "effect")
        found = HEADS.statistics().sel(layer=8, head=1)
        low, high = (f"{float(found[end]):.2g}".replace("-", "−") for end in ("ci_low", "ci_high"))
        assert image.hovertext[0][1] == (
            f"<b>8.1</b>: −0.5 of the logit difference [{low}, {high}]<br>stands out from zero"
        )
        assert image.hoverinfo == "text"

    def test_significant_cells_are_marked(self):
        figure = heatmap(HEADS)
        (dots,) = traces(figure, "significant")
        marked = {(int(y), int(x)) for x, y in zip(dots.x, dots.y, strict=True)}
        expected = np.argwhere(HEADS.statistics()["significant"].to_numpy())
        assert marked == {(int(row), int(column)) for row, column in expected}
        assert (0, 1) in marked
        assert "• stands out from zero (95 %, corrected for 5 cells)" in (
            figure.layout.annotations[-1].text
        )

    def test_statistics_can_be_given_or_left_out(self):
        strict = HEADS.statistics(confidence=0.999999, correction="bonferroni")
        assert "99.9999 %" in heatmap(HEADS, statistics=strict).layout.annotations[-1].text
        without = heatmap(HEADS, statistics=False)
        assert not traces(without, "significant")
        assert traces(without, "effect")[0].hovertext[0][1] == (
            "<b>8.1</b>: −0.5 of the logit difference"
        )

    def test_numbers_in_cells(self):
        figure = heatmap(HEADS, values=True)
        (image,) = traces(figure, "effect")
        assert [list(row) for row in image.text] == [["", "−0.50", "0.10"], ["0.25", "", ""]]
        assert not traces(figure, "significant")

    def test_title_and_subtitle(self):
        text = heatmap(HEADS).layout.title.text
        assert "<b>head -&gt; logits</b>" in text
        assert "variant mlps" in text
        assert "12 prompts" in text
        assert "logit difference" in text
        assert "<b>Mine</b>" in heatmap(HEADS, title="Mine").layout.title.text

    def test_text_stays_text(self):
        evil = "<script>alert(1)</script>"
        effects = effects_of([0.5], {"sender": [evil]}, request=evil, metric=evil)
        text = heatmap(effects).to_json()
        assert "<script>" not in text.replace("\\u003c", "<")

    def test_dimensions_and_metrics_are_text_on_the_axes_too(self):
        swept = {"<a href=x>": [1, 2], "<b>b</b>": [1, 2]}
        axes = heatmap(effects_of([[0.5, 0.1], [0.2, 0.3]], swept)).to_dict()["layout"]
        for axis in ("xaxis", "yaxis"):
            assert "&lt;" in axes[axis]["title"]["text"]
        bars = heatmap(effects_of([0.5, 0.1], {"sender": ["9.6", "9.9"]}, metric="<b>m</b>"))
        assert "<b>" not in bars.layout.yaxis.title.text


class TestOtherShapes:
    def test_one_dimension_makes_bars_with_whiskers(self):
        effects = effects_of([0.5, -0.25], {"layer": [3, 7]}, "mlp -> logits", noise=0.1)
        figure = heatmap(effects)
        (bars,) = traces(figure, "effect")
        assert bars.type == "bar"
        np.testing.assert_allclose(bars.y, [0.5, -0.25], atol=1e-9)
        assert figure.layout.xaxis.ticktext == ("mlp3", "mlp7")
        found = effects.statistics()
        np.testing.assert_allclose(
            bars.error_y.array, (found["ci_high"] - found["effect"]).to_numpy()
        )
        assert figure.layout.yaxis.title.text == "share of the logit difference"
        assert not figure.layout.coloraxis.showscale

    def test_a_list_is_bars_with_names_and_gaps(self):
        sweep = {"sender": ["9.9", "{7.3, 7.9}", "mlp0"]}
        figure = heatmap(
            effects_of([0.5, -0.25, np.nan], sweep, "[9.9, {7.3, 7.9}, mlp0] -> logits")
        )
        assert figure.layout.xaxis.ticktext == ("9.9", "{7.3, 7.9}", "mlp0")
        (gap,) = traces(figure, "empty")
        assert list(gap.x) == [2]
        assert "no such request" in gap.hovertext[0]

    def test_a_single_request(self):
        figure = heatmap(effects_of(-0.5, {}, "9.9 -> logits"))
        (bars,) = traces(figure, "effect")
        np.testing.assert_allclose(bars.y, [-0.5], atol=1e-9)
        assert figure.layout.xaxis.ticktext == ("9.9 -&gt; logits",)

    def test_senders_by_receivers(self):
        sweep = {"sender": ["5.5", "6.9"], "receiver": ["8.6.v", "8.10.v", "9.9.q"]}
        figure = heatmap(effects_of(np.arange(6).reshape(2, 3) / 10, sweep, "[..] -> [..]"))
        (image,) = traces(figure, "effect")
        assert np.shape(image.z) == (2, 3)
        assert figure.layout.yaxis.ticktext == ("5.5", "6.9")

    def test_several_receivers_make_panels_on_one_scale(self):
        values = np.zeros((2, 2, 3))
        values[0, 1, 2] = -0.5
        values[1, 0, 0] = 0.25
        sweep = {"layer": [0, 1], "head": [0, 1], "receiver": ["8.6.v", "8.10.v", "9.9.q"]}
        figure = heatmap(effects_of(values, sweep, "head -> [8.6.v, 8.10.v, 9.9.q] => logits"))
        images = traces(figure, "effect")
        assert len(images) == 3
        assert images[2].z[0][1] == pytest.approx(-0.5)
        assert {image.coloraxis for image in images} == {"coloraxis"}
        titles = [note.text for note in figure.layout.annotations]
        assert {"<b>→ 8.6.v</b>", "<b>→ 8.10.v</b>", "<b>→ 9.9.q</b>"} <= set(titles)

    def test_receivers_at_several_positions_are_told_apart(self):
        sweep = {"layer": [0], "head": [0, 1], "receiver": ["9.9.q@end", "9.9.q@S2", "9.9.k@S2"]}
        figure = heatmap(effects_of(np.ones((1, 2, 3)), sweep, "head -> [..] => logits"))
        titles = {note.text for note in figure.layout.annotations}
        assert {"<b>→ 9.9.q@end</b>", "<b>→ 9.9.q@S2</b>", "<b>→ 9.9.k@S2</b>"} <= titles

    def test_positions_and_metrics_make_panels(self):
        sweep = {"layer": [0, 1], "head": [0, 1], "position": [3, 4]}
        figure = heatmap(effects_of(np.ones((2, 2, 2)), sweep, "head@each -> logits"))
        titles = {note.text for note in figure.layout.annotations}
        assert {"<b>position 3</b>", "<b>position 4</b>"} <= titles
        clean = np.array([[4.0, 4.0], [1.0, 1.0]])
        two = Effects.from_arrays(
            np.ones((2, 2, 2)), clean, 0 * clean, {"metric": ["a", "b"], "sender": ["9.9", "9.6"]}
        )
        titles = {note.text for note in heatmap(two).layout.annotations}
        assert {"<b>a</b>", "<b>b</b>"} <= titles

    def test_too_many_panels_show_the_strongest_and_say_so(self):
        values = np.zeros((2, 2, 5))
        values[0, 0] = [0.1, 0.5, 0.2, 0.4, 0.3]
        sweep = {"layer": [0, 1], "head": [0, 1], "position": list("abcde")}
        figure = heatmap(effects_of(values, sweep, "head@each -> logits"), max_panels=2)
        titles = {note.text for note in figure.layout.annotations}
        assert {"<b>position b</b>", "<b>position d</b>"} <= titles
        assert "<b>position a</b>" not in titles
        assert any("3 panels with smaller effects not shown" in title for title in titles)

    def test_panels_that_no_request_fills_are_left_out(self):
        values = np.full((2, 1, 2, 1), np.nan)
        values[0, 0, 1, 0] = 0.5
        sweep = {"layer": [0, 1], "head": [0], "receiver_layer": [0, 1], "receiver_head": [0]}
        figure = heatmap(effects_of(values, sweep, "head -> head.q => logits"))
        assert len(traces(figure, "effect")) == 1
        assert figure.layout.annotations[0].text == "<b>→ 1.0.q</b>"


class TestManners:
    def test_limits_that_are_none(self):
        for bad in (0, -1.0, float("nan"), float("inf")):
            with pytest.raises(EffectsError, match="limit must be a positive number"):
                heatmap(HEADS, limit=bad)
        with pytest.raises(EffectsError, match="max_panels must be 1 or more"):
            heatmap(HEADS, max_panels=0)

    def test_one_prompt_and_large_sweeps_have_no_statistics(self, monkeypatch):
        one = Effects.from_arrays([[0.5]], [1.0], [0.0], {"sender": ["9.9"]})
        assert traces(heatmap(one), "effect")[0].error_y.array is None
        large = effects_of(np.zeros((70, 70)), {"layer": range(70), "head": range(70)})
        monkeypatch.setattr(Effects, "statistics", lambda *_, **__: pytest.fail("asked for"))
        assert len(traces(heatmap(large), "effect")) == 1

    def test_effects_call_it(self):
        assert HEADS.heatmap(title="x").to_json() == heatmap(HEADS, title="x").to_json()

    def test_figures_are_self_contained_and_change_no_defaults(self, tmp_path):
        code = (
            "import plotly.io as pio; before = pio.templates.default; "
            "import circuitgraph.draw.heatmap, circuitgraph.draw.comparison; "
            "print(pio.templates.default == before)"
        )
        done = run_python(code)
        assert done.stdout.strip() == "True", done.stderr
        figure = heatmap(HEADS)
        assert not json.loads(figure.to_json())["layout"].get("template", {}).get("data")
        heatmap(HEADS).write_html(tmp_path / "h.html", include_plotlyjs=False)
        assert "9.1" in (tmp_path / "h.html").read_text()
