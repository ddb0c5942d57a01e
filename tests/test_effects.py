"""Effects: what they hold, what they are called, what they show. Numbers are worked by hand."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from circuitgraph.effects import Effects
from circuitgraph.errors import CircuitGraphError, EffectsError

NAN = float("nan")


def heads(**attrs: object) -> Effects:
    """Two layers of two heads on two prompts; clean mean 3, corrupt mean -1, so a span of 4."""
    attrs = {"request": "head -> logits", "variant": "mlps", "mode": "set"} | attrs
    return Effects.from_arrays(
        [[[3.0, 1.0], [4.0, 2.0]], [[0.0, -2.0], [NAN, NAN]]],
        [4.0, 2.0],
        [0.0, -2.0],
        {"layer": [9, 10], "head": [6, 7]},
        **attrs,
    )


# -- numbers -----------------------------------------------------------------------------------


def test_normalized_is_zero_unharmed_and_minus_one_destroyed() -> None:
    found = heads().normalized()
    assert found.dims == ("layer", "head")
    np.testing.assert_array_equal(found.values, [[-0.25, 0.0], [-1.0, NAN]])


def test_normalized_per_prompt_keeps_the_mean_denominator() -> None:
    effects = Effects.from_arrays([1.0, 5.0], [4.0, 8.0], [0.0, 2.0])
    # mean clean 6, mean corrupt 1; changes -3 and -3
    np.testing.assert_allclose(effects.normalized(per_prompt=True).values, [-0.6, -0.6])
    assert effects.normalized().item() == pytest.approx(-0.6)


def test_difference_is_raw_and_per_prompt() -> None:
    found = heads().difference()
    assert found.dims == ("layer", "head", "prompt")
    np.testing.assert_array_equal(found.sel(layer=9, head=6).values, [-1.0, -1.0])
    np.testing.assert_array_equal(found.sel(layer=10, head=7).values, [NAN, NAN])


def test_each_metric_is_normalized_by_its_own_clean_and_corrupt() -> None:
    effects = Effects.from_arrays(
        [[[2.0]], [[0.9]]],
        [[4.0], [1.0]],
        [[0.0], [0.8]],
        {"metric": ["logit difference", "probability"], "sender": ["9.6"]},
    )
    np.testing.assert_allclose(effects.normalized().values, [[-0.5], [-0.5]])
    assert effects.cells() == ("9.6 (logit difference)", "9.6 (probability)")
    assert effects.names.dims == ("sender",)
    assert list(effects.top(2)["metric"]) == ["logit difference", "probability"]
    one = effects.sel(metric="probability")
    assert one.dims == ("sender",)
    assert one.normalized().item() == pytest.approx(-0.5)
    assert "probability 1 clean, 0.8 corrupt" in repr(one)


def test_float32_stays_and_is_computed_in_double() -> None:
    arrays = [np.array(values, dtype=np.float32) for values in ([[1.1, 2.2]], [3.3, 4.4], [0.1, 0])]
    effects = Effects.from_arrays(*arrays, {"layer": [3]})
    assert effects.data["patched"].dtype == np.float32
    wide = [array.astype(np.float64) for array in arrays]
    expected = (wide[0].mean() - wide[1].mean()) / (wide[1].mean() - wide[2].mean())
    assert effects.normalized().item() == pytest.approx(expected, rel=1e-12)


def test_whole_numbers_are_welcome() -> None:
    assert Effects.from_arrays([1], [2], [0]).normalized().item() == -0.5


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_equal_clean_and_corrupt_are_an_error_not_infinity(kind: type) -> None:
    clean = np.array([0.1, 0.2, 0.3], dtype=kind)
    effects = Effects.from_arrays(clean * 2, clean, clean[::-1].copy())
    for ask in (effects.normalized, effects.statistics, effects.top, effects.to_dataframe):
        with pytest.raises(EffectsError, match="cannot be normalized") as caught:
            ask()
        assert str(caught.value) == (
            "effects cannot be normalized: the mean over clean prompts (0.2) equals the mean over "
            "corrupt prompts (0.2); difference() gives the raw changes"
        )
    np.testing.assert_allclose(effects.difference().values, clean, rtol=1e-6)
    assert "(raw change)" in repr(effects)
    assert "cannot be normalized" in effects._repr_html_()


def test_rounding_of_widened_float32_is_not_a_difference() -> None:
    clean = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    corrupt = np.nextafter(clean, np.float32(9)).astype(np.float64)
    with pytest.raises(EffectsError, match="equals the mean"):
        Effects.from_arrays(
            clean.astype(np.float64), clean.astype(np.float64), corrupt
        ).normalized()


def test_an_overflow_is_an_error_not_infinity() -> None:
    effects = Effects.from_arrays([1e308], [1e-300], [0.0])
    with pytest.raises(EffectsError, match="is too close to the mean over corrupt"):
        effects.normalized()


def test_the_metric_that_cannot_tell_is_named() -> None:
    effects = Effects.from_arrays(
        [[1.0], [1.0]], [[4.0], [1.0]], [[0.0], [1.0]], {"metric": ["a", "b"]}
    )
    with pytest.raises(EffectsError, match=r"the mean of b over clean prompts \(1\) equals"):
        effects.normalized()


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, (3, 6), elements=st.floats(-100, 100)),
    st.permutations(range(6)),
)
def test_the_order_of_prompts_changes_no_mean(values: np.ndarray, order: list[int]) -> None:
    clean, corrupt = values[1] + 300, values[2] - 300
    straight = Effects.from_arrays(values, clean, corrupt, {"layer": range(3)})
    mixed = Effects.from_arrays(values[:, order], clean[order], corrupt[order], {"layer": range(3)})
    xr.testing.assert_allclose(straight.normalized(), mixed.normalized(), rtol=1e-12)


@settings(deadline=None)
@given(hnp.arrays(np.float64, (4, 5), elements=st.floats(-1e6, 1e6)))
def test_normalized_is_the_mean_of_its_prompts_and_never_infinite(values: np.ndarray) -> None:
    effects = Effects.from_arrays(values[:2], values[2], values[3], {"layer": [0, 1]})
    try:
        found = effects.normalized()
    except EffectsError:
        return
    assert np.isfinite(found).all()
    per_prompt = effects.normalized(per_prompt=True)
    np.testing.assert_allclose(
        per_prompt.mean("prompt").values,
        found.values,
        rtol=1e-6,
        atol=1e-6 * np.abs(per_prompt).max(),
    )


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_text", "sweep", "names"),
    [
        ("head -> logits", {"layer": [9], "head": [6, 7]}, ["9.6", "9.7"]),
        ("", {"layer": [9], "head": [6]}, ["9.6"]),
        ("mlp -> logits", {"layer": [0, 3]}, ["mlp0", "mlp3"]),
        ("node -> logits", {"sender": ["embed", "0.0", "mlp0"]}, ["embed", "0.0", "mlp0"]),
        ("[9.9, {9.6, 9.7}] -> logits", {"sender": ["9.9", "{9.6, 9.7}"]}, ["9.9", "{9.6, 9.7}"]),
        ("5.5 -> head.v => logits", {"receiver_layer": [8], "receiver_head": [6]}, ["8.6.v"]),
        ("5.5 -> mlp => logits", {"receiver_layer": [8]}, ["mlp8"]),
        ("5.5 -> [8.6.v, mlp9] => logits", {"receiver": ["8.6.v", "mlp9"]}, ["8.6.v", "mlp9"]),
        ("5.5 -> kv.k => logits", {"receiver_layer": [8], "receiver_kv_head": [2]}, ["8.kv2.k"]),
        (
            "head -> head.q => logits",
            {"layer": [9], "head": [6], "receiver_layer": [10], "receiver_head": [0, 1]},
            ["9.6 -> 10.0.q", "9.6 -> 10.1.q"],
        ),
        ("", {"layer": [9], "receiver": ["8.6.v"]}, ["mlp9 -> 8.6.v"]),
        (
            "head -> mlp -> head.q => logits",
            {"layer": [1], "head": [2], "receiver1_layer": [3], "receiver2_layer": [4],
             "receiver2_head": [5]},
            ["1.2 -> mlp3 -> 4.5.q"],
        ),
        ("head@each -> logits", {"layer": [9], "head": [6], "position": [4]}, ["9.6@4"]),
        ("9.9@each => logits", {"position": [0, 1]}, ["9.9@0", "9.9@1"]),
        (
            "[9.9@each, 9.6@each] => logits",
            {"sender": ["9.9@each", "9.6@each"], "position": [3]},
            ["9.9@3", "9.6@3"],
        ),
        (
            "head -> 8.6.v@each => logits",
            {"layer": [9], "head": [6], "position": [2]},
            ["9.6 -> 8.6.v@2"],
        ),
        ("", {"position": ["S2", "end"]}, ["@S2", "@end"]),
        ("", {"layer": [9], "head": [6], "position": ["S2"]}, ["9.6@S2"]),
        ("", {"sender": ["9.6"], "dose": [1, 2]}, ["9.6 [dose 1]", "9.6 [dose 2]"]),
    ],
)  # fmt: skip
def test_cells_are_named_by_what_was_swept(
    request_text: str, sweep: dict[str, list[object]], names: list[str]
) -> None:
    shape = tuple(len(values) for values in sweep.values())
    effects = Effects.from_arrays(np.ones((*shape, 1)), [2.0], [0.0], sweep, request=request_text)
    assert list(effects.cells()) == names
    assert effects.names.dims == tuple(sweep)
    assert list(effects.names.to_numpy().ravel()) == names
    assert list(effects.to_dataframe()["name"]) == names


def test_a_selected_cell_keeps_its_name() -> None:
    one = heads().sel(layer=9, head=6)
    assert one.dims == ()
    assert one.cells() == ("9.6",)
    assert one.normalized().item() == -0.25
    assert heads().sel(head=6).cells() == ("9.6", "10.6")


def test_an_unswept_request_is_named_by_its_text() -> None:
    assert Effects.from_arrays([1.0], [2.0], [0.0], request="9.9 -> logits").cells() == (
        "9.9 -> logits",
    )
    assert Effects.from_arrays([1.0], [2.0], [0.0]).cells() == ("all",)


def test_empty_cells_have_a_name_but_are_not_listed() -> None:
    effects = heads()
    assert effects.names.sel(layer=10, head=7).item() == "10.7"
    assert effects.cells() == ("9.6", "9.7", "10.6")


# -- tables ------------------------------------------------------------------------------------


def test_top_sorts_by_size_or_by_side() -> None:
    effects = Effects.from_arrays(
        [[1.0], [5.0], [3.0], [2.5], [NAN]], [3.0], [1.0], {"sender": list("abcde")}
    )
    assert list(effects.top()["name"]) == ["a", "b", "d", "c"]
    assert list(effects.top(2, by="negative")["name"]) == ["a", "d"]
    assert list(effects.top(by="positive")["name"]) == ["b"]
    with pytest.raises(
        EffectsError, match="by must be 'absolute', 'negative' or 'positive', got 'x'"
    ):
        effects.top(by="x")  # type: ignore[arg-type]
    with pytest.raises(EffectsError, match="n must be a whole number of at least 1, got 0"):
        effects.top(0)


def test_top_has_the_columns_that_others_rely_on() -> None:
    table = heads().top(1)
    assert list(table.columns) == [
        *("name", "layer", "head", "effect", "difference", "stderr", "ci_low", "ci_high"),
        *("p", "p_corrected", "significant"),
    ]
    assert table.loc[0, "name"] == "10.6"
    assert (table.loc[0, "effect"], table.loc[0, "difference"]) == (-1.0, -4.0)


def test_top_agrees_with_the_whole_table() -> None:
    rng = np.random.default_rng(0)
    clean, corrupt = rng.normal(5, 1, 9), rng.normal(0, 1, 9)
    effects = Effects.from_arrays(
        clean + rng.normal(-2, 1, (40, 9)) * rng.integers(0, 2, (40, 1)),
        clean,
        corrupt,
        {"sender": [f"0.{i}" for i in range(40)]},
    )
    whole = effects.to_dataframe().set_index("name")
    for table in (effects.top(7), effects.significant()):
        assert len(table)
        pd.testing.assert_frame_equal(
            table.set_index("name"), whole.loc[list(table["name"])], rtol=1e-12
        )
    assert set(effects.significant()["name"]) == set(whole.index[whole["significant"]])


def test_the_tidy_table_has_a_row_per_filled_cell(tmp_path) -> None:
    effects = heads()
    assert list(effects.to_dataframe()["name"]) == ["9.6", "9.7", "10.6"]
    assert len(effects.to_dataframe(empty=True)) == 4
    path = effects.to_csv(tmp_path / "effects.csv")
    read = pd.read_csv(path, dtype={"name": str})
    pd.testing.assert_frame_equal(read, effects.to_dataframe(), check_dtype=False, rtol=1e-12)


# -- immutability and equality -----------------------------------------------------------------


def test_effects_cannot_be_changed() -> None:
    source = np.array([[1.0, 2.0]])
    effects = Effects.from_arrays(source, [3.0, 4.0], [0.0, 0.0], {"layer": [1]})
    source[:] = 77
    assert effects.data["patched"].to_numpy().tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="read-only"):
        effects.data["patched"][0, 0] = 5.0
    effects.data.attrs["variant"] = "other"
    data = effects.data
    data["patched"] = data["patched"] * 0
    table = effects.statistics()
    table["effect"][0] = 9.0
    assert effects.attrs == {}
    assert effects.normalized().item() == pytest.approx(-2 / 3.5)
    assert effects.statistics()["effect"].item() == pytest.approx(-2 / 3.5)
    with pytest.raises(AttributeError):
        effects.data = data  # type: ignore[misc]


def test_equality_is_by_value_and_nan_equals_nan() -> None:
    assert heads() == heads()
    assert heads() != heads(variant="single-pass")
    assert heads() != heads().sel(layer=[9])
    assert heads() != "effects"
    assert pickle.loads(pickle.dumps(heads())) == heads()
    with pytest.raises(TypeError):
        hash(heads())


def test_dimensions_are_put_in_one_order() -> None:
    data = heads().data
    turned = data.transpose("prompt", "head", "layer")
    assert Effects(turned).data["patched"].dims == ("head", "layer", "prompt")
    assert Effects(turned).normalized().sel(layer=9, head=6).item() == -0.25


def test_unknown_attributes_and_further_variables_are_kept() -> None:
    data = heads(seconds=1.5, tokens=(1, 2), model=None).data.assign(
        length=("prompt", np.array([21, 22])), text=("prompt", ["a", "b"])
    )
    effects = Effects(data)
    assert effects.attrs["seconds"] == 1.5
    assert effects.attrs["tokens"] == [1, 2]
    assert effects.data["length"].to_numpy().tolist() == [21, 22]
    assert effects.sel(prompt=[1]).data["text"].item() == "b"


# -- what is refused ---------------------------------------------------------------------------


def dataset(**changed: object) -> xr.Dataset:
    variables = {
        "patched": (("layer", "prompt"), np.ones((2, 3))),
        "clean": (("prompt",), np.ones(3)),
        "corrupt": (("prompt",), np.zeros(3)),
    } | changed
    return xr.Dataset(
        {name: value for name, value in variables.items() if value is not None},
        coords={"layer": [0, 1]},
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1.0], "they are an xarray.Dataset, got list"),
        (
            dataset(clean=None, corrupt=None),
            "the variables clean, corrupt are missing; the data set has patched",
        ),
        (
            dataset(clean=(("layer",), np.ones(2))),
            "clean must have the dimensions (prompt), got (layer)",
        ),
        (
            dataset(patched=(("layer",), np.ones(2))),
            "patched must have a dimension prompt, got (layer)",
        ),
        (
            dataset(patched=(("dose", "prompt"), np.ones((2, 3)))),
            "the swept dimension dose has no coordinate that names its cells",
        ),
        (dataset().isel(layer=[]), "the dimension layer is empty"),
        (dataset().isel(prompt=[]), "the dimension prompt is empty"),
        (
            dataset().assign_coords(layer=[3, 3]),
            "the coordinate layer holds 3 more than once",
        ),
        (
            dataset().assign_coords(layer=["a", "b"]),
            "the coordinate layer must hold integers, got <U1",
        ),
        (
            dataset(clean=(("prompt",), np.array([1.0, NAN, 1.0]))),
            "clean is not a number on prompt 1",
        ),
        (
            dataset(patched=(("layer", "prompt"), np.full((2, 3), np.inf))),
            "patched holds infinite values",
        ),
        (
            dataset(patched=(("layer", "prompt"), np.array([[1.0] * 3, [1, NAN, NAN]]))),
            "a cell is filled for every prompt or for none, but patched is not a number on 2 of 3",
        ),
        (
            dataset(clean=(("prompt",), np.array(["a", "b", "c"]))),
            "clean must hold real numbers, got <U1",
        ),
        (
            dataset(clean=(("prompt",), np.ones(3) * 1j)),
            "clean must hold real numbers, got complex128",
        ),
        (
            dataset(dates=(("prompt",), np.array(["2024-01-01"] * 3, dtype="datetime64[ns]"))),
            "dates must hold numbers or texts, got datetime64[ns]",
        ),
        (
            dataset(notes=(("prompt",), np.array([1, "a", None], dtype=object))),
            "notes must hold numbers or texts, not a mixture",
        ),
        (
            dataset().assign_attrs(model=object),
            "the attribute 'model' must be a text, a finite number, true, false, None or a list of",
        ),
        (dataset().assign_attrs(seconds=NAN), "the attribute 'seconds' must be a text, a finite"),
        (dataset().assign_attrs({3: 4}), "the attribute 3 must be named by a text"),
    ],
)
def test_what_is_no_effects_is_refused_by_name(data: xr.Dataset, message: str) -> None:
    with pytest.raises(EffectsError) as caught:
        Effects(data)
    assert str(caught.value).startswith(f"these are not effects: {message}")
    assert isinstance(caught.value, CircuitGraphError)


def test_several_problems_are_raised_together() -> None:
    data = dataset(clean=(("layer",), np.ones(2)), corrupt=(("layer",), np.ones(2)))
    with pytest.raises(EffectsError, match=r"these are not effects: 2 problems\n  1\. clean must"):
        Effects(data)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(EffectsError) as caught:
        Effects.from_arrays(np.ones((2, 3)), np.ones(3), np.ones(4), {"layer": [0, 1]})
    assert str(caught.value) == (
        "these shapes do not fit together: patched (2, 3), clean (3,), corrupt (4,) "
        "for a sweep over layer 2"
    )


def test_numbers_that_cannot_be_effects_are_refused_from_arrays_too() -> None:
    with pytest.raises(EffectsError, match="these are not effects: clean is not a number"):
        Effects.from_arrays([1.0], [NAN], [0.0])


def test_selecting_what_is_not_there_says_what_is() -> None:
    with pytest.raises(EffectsError, match="nothing at layer=3: layer has 9, 10"):
        heads().sel(layer=3)
    with pytest.raises(EffectsError, match="no dimension 'sender' to select from; there are layer"):
        heads().sel(sender="9.6")
    many = Effects.from_arrays(np.ones((20, 1)), [2.0], [0.0], {"layer": range(20)})
    with pytest.raises(EffectsError, match=r"layer has 0, 1, 2, \.\.\., 19"):
        many.sel(layer=99)


def test_selecting_prompts_keeps_their_dimension_and_counts_them() -> None:
    effects = heads(n_prompts=2)
    assert effects.sel(prompt=1).n_prompts == 1
    assert effects.sel(prompt=1).attrs["n_prompts"] == 1
    assert effects.sel(prompt=1).normalized().sel(layer=9, head=6).item() == -0.25
    assert effects.sel(prompt=[1, 0]).data["clean"].to_numpy().tolist() == [2.0, 4.0]


# -- manners -----------------------------------------------------------------------------------


def test_repr_says_what_was_asked_and_found() -> None:
    assert repr(heads(metric="logit difference", engine="fast")) == (
        "Effects of 'head -> logits' (variant mlps, mode set, engine fast): "
        "layer 2 x head 2, 2 prompts\n"
        "  logit difference 3 clean, -1 corrupt\n"
        "  strongest: 10.6 -1.00, 9.6 -0.25, 9.7 0"
    )
    assert repr(Effects.from_arrays([1.0], [2.0], [0.0])) == (
        "Effects of a request: one cell, 1 prompt\n  metric 2 clean, 0 corrupt\n  effect: -0.50"
    )
    assert "no cell is filled" in repr(Effects.from_arrays([[NAN]], [2.0], [0.0], {"layer": [0]}))


def test_html_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    html = Effects.from_arrays(
        [[1.0], [2.0]],
        [3.0],
        [0.0],
        {"sender": [evil, "9.6"]},
        request=evil,
        metric=evil,
        variant=evil,
    )._repr_html_()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 4
    assert "<td>9.6</td><td>-0.33</td>" in html


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for effects in (heads(), heads().sel(prompt=0), heads().sel(layer=10)):
            repr(effects)
            effects._repr_html_()
            effects.to_dataframe(empty=True)
            effects.statistics(test="wilcoxon")


def test_importing_brings_in_nothing_heavy() -> None:
    heavy = "torch transformer_lens vl_convert statsmodels scipy.stats matplotlib"
    code = (
        f"import sys, circuitgraph.effects; print([m for m in {heavy.split()} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
