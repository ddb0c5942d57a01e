"""Comparisons of effects: agreement, paired differences, tables, sentences, files."""

import pickle
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from circuitgraph.effects import Comparison, Effects
from circuitgraph.effects.sentences import share_in_words
from circuitgraph.errors import EffectsError

NAN = float("nan")
N = 20
CLEAN = np.random.default_rng(0).normal(5, 0.5, N)
CORRUPT = np.random.default_rng(1).normal(-1, 0.5, N)


def effects(
    values: Mapping[str, float], seed: int = 0, noise: float = 0.01, **attrs: str
) -> Effects:
    """Effects near the given normalized values, with noise of its own on every prompt."""
    rng = np.random.default_rng(seed)
    span = CLEAN - CORRUPT
    patched = [
        CLEAN + value * span + noise * span.mean() * (wobble - wobble.mean())
        for value in values.values()
        for wobble in [rng.normal(size=N)]
    ]
    attrs = {"request": "node -> logits", "mode": "set", "metric": "logit difference"} | attrs
    return Effects.from_arrays(patched, CLEAN, CORRUPT, {"sender": list(values)}, **attrs)


def variants(mlps: Mapping[str, float], single: Mapping[str, float], **attrs: str) -> Comparison:
    return Comparison(
        {
            "mlps": effects(mlps, 1, variant="mlps", **attrs),
            "single-pass": effects(single, 2, variant="single-pass", **attrs),
        }
    )


def both() -> Comparison:
    return variants(
        {"23.3": -0.18, "22.1": 0.09, "9.6": -0.02, "0.0": 0.0},
        {"23.3": -0.12, "22.1": 0.09, "9.6": -0.03, "0.0": 0.0},
    )


# -- numbers -----------------------------------------------------------------------------------


def test_the_difference_is_paired_by_prompt() -> None:
    comparison = both()
    found = comparison.difference("mlps", "single-pass")
    a, b = (comparison.effects[name] for name in comparison.names)
    np.testing.assert_allclose(
        found["effect"].to_numpy(), (a.normalized() - b.normalized()).to_numpy(), atol=1e-12
    )
    p = stats.ttest_rel(a.data["patched"].to_numpy(), b.data["patched"].to_numpy(), axis=-1).pvalue
    np.testing.assert_allclose(found["p"].to_numpy(), p, rtol=1e-6)
    np.testing.assert_allclose(
        found["p_corrected"].to_numpy(), multipletests(p, method="fdr_bh")[1], rtol=1e-6
    )
    assert (found["ci_low"] <= found["effect"]).all()
    assert (found["effect"] <= found["ci_high"]).all()
    assert found.sel(sender="23.3")["significant"]
    assert (found.attrs["a"], found.attrs["b"]) == ("mlps", "single-pass")


def test_the_difference_of_what_differs_alike_on_each_prompt_is_sharp() -> None:
    rng = np.random.default_rng(4)
    change = rng.normal(-1, 3, N)
    a = Effects.from_arrays([CLEAN + change], CLEAN, CORRUPT, {"sender": ["a"]})
    b = Effects.from_arrays([CLEAN + change - 0.1], CLEAN, CORRUPT, {"sender": ["a"]})
    assert not a.statistics(confidence=0.999)["significant"].item()
    assert Comparison({"a": a, "b": b}).difference()["p"].item() < 1e-9


def test_the_difference_of_the_same_is_nothing() -> None:
    one = effects({"a": -0.5, "b": 0.1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Comparison({"x": one, "y": one}).difference()
    assert found["effect"].to_numpy().tolist() == [0, 0]
    assert found["p"].to_numpy().tolist() == [1, 1]
    assert not found["significant"].any()


def test_difference_turns_its_sign_with_its_order() -> None:
    comparison = both()
    there, back = comparison.difference(), comparison.difference("single-pass", "mlps")
    np.testing.assert_allclose(there["effect"].to_numpy(), -back["effect"].to_numpy(), atol=1e-12)
    np.testing.assert_allclose(there["p"].to_numpy(), back["p"].to_numpy(), rtol=1e-6)
    assert comparison.difference(b="mlps", a="single-pass").identical(back)
    with pytest.raises(EffectsError, match="no 'slow' in this comparison of mlps, single-pass"):
        comparison.difference("slow")


def test_agreement_is_scipys() -> None:
    rng = np.random.default_rng(3)
    values = {f"0.{i}": v for i, v in enumerate(rng.normal(0, 0.3, 30))}
    other = {name: v + rng.normal(0, 0.1) for name, v in values.items()}
    comparison = Comparison({"a": effects(values), "b": effects(other)})
    row = comparison.agreement(k=5).iloc[0]
    a, b = (one.normalized().to_numpy() for one in comparison.effects.values())
    assert row["pearson"] == pytest.approx(stats.pearsonr(a, b).statistic)
    assert row["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic)
    first, second = (set(np.argsort(-np.abs(x))[:5].tolist()) for x in (a, b))
    assert row["shared"] == len(first & second)
    assert row["jaccard"] == pytest.approx(len(first & second) / len(first | second))
    assert row["max_difference"] == pytest.approx(np.abs(a - b).max())
    assert row["at"] == f"0.{np.abs(a - b).argmax()}"
    assert (row["k"], row["n_cells"]) == (5, 30)
    with pytest.raises(EffectsError, match="k must be a whole number of at least 1, got 0"):
        comparison.agreement(k=0)


def test_agreement_has_a_row_per_pair_and_no_correlation_without_variation() -> None:
    one = effects({"a": -0.5}, noise=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Comparison({"x": one, "y": one, "z": one}).agreement()
    assert list(zip(found["a"], found["b"], strict=True)) == [("x", "y"), ("x", "z"), ("y", "z")]
    assert found["pearson"].isna().all()
    assert found["jaccard"].tolist() == [1.0, 1.0, 1.0]
    assert found["k"].tolist() == [1, 1, 1]


def test_cells_that_one_leaves_empty_are_not_compared() -> None:
    one = effects({"a": -0.5, "b": 0.1, "c": 0.2})
    data = one.data
    holed = data["patched"].to_numpy().copy()
    holed[0] = NAN
    comparison = Comparison(
        {"x": one, "y": Effects(data.assign(patched=(("sender", "prompt"), holed)))}
    )
    assert comparison.agreement()["n_cells"].item() == 2
    assert np.isnan(comparison.difference()["effect"].to_numpy()[0])
    assert list(comparison.table()["name"]) == ["a", "c", "b"]
    assert "a -0.50 / empty" in repr(comparison)
    comparison.sentences()


# -- tables ------------------------------------------------------------------------------------


def test_the_table_puts_effects_side_by_side() -> None:
    table = both().table(2)
    assert list(table.columns) == [
        *("name", "sender", "mlps", "single-pass"),
        *("difference", "ci_low", "ci_high", "differs"),
    ]
    assert list(table["name"]) == ["23.3", "22.1"]
    np.testing.assert_allclose(table["mlps"], [-0.18, 0.09], atol=1e-9)
    np.testing.assert_allclose(table["difference"], [-0.06, 0.0], atol=1e-9)
    assert table["differs"].tolist() == [True, False]
    with pytest.raises(EffectsError, match="n must be a whole number of at least 1, got -1"):
        both().table(-1)


def test_the_table_agrees_with_the_difference() -> None:
    comparison = both()
    table = comparison.table().set_index("name")
    found = comparison.difference().to_dataframe().loc[list(table.index)]
    np.testing.assert_allclose(table["ci_low"], found["ci_low"])
    np.testing.assert_allclose(table["ci_high"], found["ci_high"])


def test_of_more_than_two_the_table_gives_the_range() -> None:
    values = {"a": -0.5, "b": 0.1}
    table = Comparison(
        {
            "x": effects(values),
            "y": effects({"a": -0.3, "b": 0.1}),
            "z": effects({"a": -0.4, "b": 0.9}),
        }
    ).table()
    assert list(table["name"]) == ["b", "a"]
    np.testing.assert_allclose(table["range"], [0.8, 0.2], atol=1e-9)


# -- sentences ---------------------------------------------------------------------------------


def test_sentences_say_what_mlps_carry() -> None:
    first, second, *cells = both().sentences()
    assert first == (
        "Effects that stand out from zero: 3 of 4 under mlps, 3 of 4 under single-pass "
        "(5% false discovery rate, 20 prompts)."
    )
    assert second == (
        "mlps and single-pass order the cells with a rank correlation of 1.00 and share 4 of "
        "their 4 strongest; the largest difference is 0.06 at 23.3."
    )
    assert cells[0].startswith(
        "MLPs carry a third of 23.3's effect: -0.12 single-pass against -0.18 with MLPs "
        "(95% interval of the difference -0.06"
    )
    assert cells[1].startswith(
        "MLPs cancel a third of 9.6's direct effect: -0.03 single-pass against -0.02 with MLPs"
    )
    assert len(cells) == 2
    assert len(both().sentences(n=1)) == 3


@pytest.mark.parametrize(
    ("mlps", "single", "start"),
    [
        (-0.2, -0.1, "MLPs carry half of 9.6's effect: -0.10 single-pass against -0.20 with MLPs"),
        (-0.1, -0.2, "MLPs cancel half of 9.6's direct effect: -0.20 single-pass against -0.10"),
        (0.3, -0.2, "MLPs turn 9.6's effect around: -0.20 single-pass against +0.30 with MLPs"),
        (0.3, -0.0, "Without MLPs 9.6 has no effect that stands out"),
        (0.0, 0.3, "With MLPs 9.6 has no effect that stands out"),
        (0.3, 0.01, "MLPs carry nearly all of 9.6's effect"),
        (0.300, 0.285, "MLPs carry a small part (5%) of 9.6's effect"),
        (0.2, 0.2, "No effect that stands out differs between mlps and single-pass by more than"),
    ],
)
def test_each_way_in_which_mlps_matter_has_its_words(
    mlps: float, single: float, start: str
) -> None:
    found = variants({"9.6": mlps, "0.0": 0.5}, {"9.6": single, "0.0": 0.5})
    assert found.sentences()[2].startswith(start)


def test_mlps_are_named_only_where_nothing_else_differs() -> None:
    a = effects({"9.6": -0.2}, 1, variant="mlps", mode="set")
    b = effects({"9.6": -0.1}, 2, variant="single-pass", mode="add")
    assert "MLPs" not in " ".join(Comparison({"mlps": a, "single-pass": b}).sentences())
    c = effects({"9.6": -0.1}, 2, variant="single-pass", mode="set")
    assert "MLPs carry half" in " ".join(Comparison({"one": a, "two": c}).sentences())
    assert "MLPs carry half" in " ".join(Comparison({"two": c, "one": a}).sentences())


def test_any_other_two_only_differ() -> None:
    values, other = {"9.6": -0.2, "1.1": 0.0}, {"9.6": -0.1, "1.1": 0.0}
    found = Comparison(
        {"zero": effects(values, source="zero"), "mean": effects(other, 1, source="mean")}
    ).sentences()
    assert found[2].startswith(
        "9.6 differs between zero and mean: -0.20 under zero against -0.10 under mean (95% interval"
    )
    assert "MLP" not in " ".join(found)


def test_what_does_not_stand_out_is_not_told_apart() -> None:
    values, other = {"9.6": -0.002, "1.1": 0.5}, {"9.6": 0.001, "1.1": 0.5}
    found = Comparison(
        {"a": effects(values, 1, noise=0.2), "b": effects(other, 2, noise=0.2)}
    ).sentences()
    assert found[2] == (
        "No effect that stands out differs between a and b by more than chance explains and by at "
        "least 0.005."
    )
    assert found[3] == "The strongest, 1.1, cannot be told apart: +0.50 under a, +0.50 under b."


def test_identical_effects_are_called_the_same_and_not_hard_to_tell_apart() -> None:
    a = effects({"9.6": -0.5, "1.1": 0.02}, noise=1e-3)
    b = effects({"9.6": -0.5, "1.1": 0.05}, noise=1e-3)
    found = Comparison({"a": a, "b": b}).sentences()
    assert found[-1] == "The strongest, 9.6, is the same in both: -0.50."
    assert "told apart" not in " ".join(found)


def test_differences_too_small_to_matter_are_not_told() -> None:
    a, b = {"9.6": -0.2}, {"9.6": -0.2001}
    found = Comparison({"a": effects(a, noise=1e-6), "b": effects(b, 1, noise=1e-6)})
    assert found.difference()["significant"].item()
    assert "No effect that stands out differs" in found.sentences()[2]
    assert found.sentences()[1] == "a and b: the largest difference is 0.0001 at 9.6."


def test_the_same_is_called_the_same() -> None:
    one = effects({"9.6": -0.2, "1.1": 0.1})
    assert Comparison({"fast": one, "reference": one}).sentences()[1] == (
        "fast and reference give the same effects."
    )


def test_one_prompt_says_so() -> None:
    one = effects({"9.6": -0.2, "1.1": 0.1}).sel(prompt=[0])
    found = Comparison({"a": one, "b": one}).sentences()
    assert found[-1] == "One prompt cannot tell an effect from chance: use more to compare cells."
    assert "0 of 2 under a" in found[0]
    assert "1 prompt)" in found[0]


def test_three_are_compared_pair_by_pair() -> None:
    parts = {name: effects({"9.6": value}, 1) for name, value in zip("abc", (1, 2, 3), strict=True)}
    found = Comparison(parts).sentences()
    assert [line.split(":")[0] for line in found[4:]] == [
        "9.6 differs between a and b",
        "9.6 differs between a and c",
        "9.6 differs between b and c",
    ]


@given(st.floats(0, 1))
def test_shares_in_words_are_near_the_truth(share: float) -> None:
    words = share_in_words(share)
    said = {
        "a tenth": 0.1,
        "a fifth": 0.2,
        "a quarter": 0.25,
        "a third": 1 / 3,
        "two fifths": 0.4,
        "half": 0.5,
        "three fifths": 0.6,
        "two thirds": 2 / 3,
        "three quarters": 0.75,
        "four fifths": 0.8,
        "nine tenths": 0.9,
        "nearly all": 0.975,
    }
    if words.startswith("a small part"):
        assert share < 0.07
        return
    assert abs(said[words.removeprefix("about ")] - share) <= 0.0501
    if words in said and words != "nearly all":
        assert abs(said[words] - share) < 0.0151


# -- what is refused ---------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused_by_name() -> None:
    one = effects({"a": -0.5, "b": 0.1})
    data = one.data

    def message(**parts: Effects) -> str:
        with pytest.raises(EffectsError) as caught:
            Comparison(parts)
        return str(caught.value)

    start = "cannot compare these effects: "
    assert message(x=one) == start + "it takes two effects or more, got 1"
    assert message(x=one, y=one.sel(sender="a")) == (
        start + "x and y differ: cells over (sender) against ()"
    )
    assert message(x=one, y=effects({"a": 0, "c": 0})) == (
        start + "x and y differ: sender has b against c at place 1"
    )
    assert message(x=one, y=effects({"a": 0})) == (
        start + "x and y differ: sender has 2 cells against 1"
    )
    assert message(x=one, y=one.sel(prompt=[0, 1])) == (
        start + "x and y differ: 20 prompts against 2"
    )
    shifted = CLEAN.copy()
    shifted[7] += 1
    clean = Effects(data.assign(clean=("prompt", shifted)))
    assert message(x=one, y=clean) == (
        f"{start}x and y differ: clean is {CLEAN[7]:.6g} against {CLEAN[7] + 1:.6g} on prompt 7"
    )
    corrupt = Effects(data.assign(corrupt=data["corrupt"] * 2))
    assert message(x=one, y=corrupt).startswith(start + "x and y differ: corrupt is")
    assert message(name=one, y=one) == start + "'name' cannot name effects in a comparison"
    assert message(x=one, y=clean, z=corrupt).startswith(start + "2 problems\n  1. x and y differ")


def test_rounding_of_engines_is_no_difference() -> None:
    one = effects({"a": -0.5})
    data = one.data
    near = Effects(data.assign(clean=data["clean"] * (1 + 1e-10)))
    comparison = Comparison({"fast": one, "reference": near})
    narrow = Effects(data.astype(np.float32))
    wider = Effects((data.astype(np.float32) * np.float32(1.00001)).assign_attrs(data.attrs))
    Comparison({"fast": narrow, "reference": wider})
    difference = comparison.difference()["effect"].item()
    expected = one.normalized().item() - near.normalized().item()
    assert difference == pytest.approx(expected, abs=1e-15)


# -- files and manners -------------------------------------------------------------------------


def test_a_comparison_is_saved_and_loaded_whole(tmp_path) -> None:
    comparison = both()
    again = Comparison.load(comparison.save(tmp_path / "both.json"))
    assert again == comparison
    assert again.names == comparison.names
    assert pickle.loads(pickle.dumps(comparison)) == comparison
    assert comparison != Comparison(dict(reversed(comparison.effects.items())))
    effects({"a": 1.0}).save(tmp_path / "one.json")
    with pytest.raises(EffectsError, match=r"written by Comparison\.save; .* by Effects\.save"):
        Comparison.load(tmp_path / "one.json")
    text = (tmp_path / "both.json").read_text()
    (tmp_path / "both.json").write_text(text.replace('"effects": {', '"parts": {'))
    with pytest.raises(EffectsError, match=r"both\.json' is damaged: it holds no effects by name"):
        Comparison.load(tmp_path / "both.json")
    (tmp_path / "both.json").write_text(text.replace('"patched"', '"patch"', 1))
    with pytest.raises(
        EffectsError, match="these are not effects: the variable patched is missing"
    ):
        Comparison.load(tmp_path / "both.json")


def test_a_comparison_cannot_be_changed() -> None:
    comparison = both()
    with pytest.raises(TypeError):
        comparison.effects["mlps"] = effects({"a": 1.0})  # type: ignore[index]


def test_repr_says_what_is_compared() -> None:
    assert repr(both()) == (
        "Comparison of mlps, single-pass: 'node -> logits' (mode set): sender 4, 20 prompts\n"
        f"  logit difference {CLEAN.mean():.3g} clean, {CORRUPT.mean():.3g} corrupt\n"
        "  mlps and single-pass: Spearman 1.00, Pearson 0.98, 4 of the 4 strongest shared\n"
        "  strongest: 23.3 -0.18 / -0.12, 22.1 +0.09 / +0.09, 9.6 -0.02 / -0.03"
    )


def test_html_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    one = effects({evil: 0.5, "9.6": 0.1}, variant=evil, request=evil)
    html = Comparison({evil: one, "b": one})._repr_html_()
    assert "<script" not in html
    assert "<td>9.6</td><td>+0.10</td>" in html


def test_html_says_how_far_they_agree_and_differ() -> None:
    comparison = both()
    html = comparison._repr_html_()
    for line in repr(comparison).splitlines()[2:-1]:
        assert line.strip() in html
    strongest = comparison.table(5).iloc[0]
    assert f"<td>{strongest['difference']:+.2f}</td>" in html
    assert "<th>95% interval</th><th>differs</th>" in html
    three = Comparison({name: effects({"9.6": 0.1}) for name in "abc"})._repr_html_()
    assert "<th>a</th><th>b</th><th>c</th></tr>" in three
    assert three.count("1 of the 1 strongest shared") == 3


def test_what_cannot_be_normalized_is_still_described() -> None:
    same = Effects.from_arrays([[3.0, 1.0]], [4.0, 2.0], [4.0, 2.0], {"sender": ["9.6"]})
    comparison = Comparison({"a": same, "b": same})
    for said in (repr(comparison), comparison._repr_html_()):
        assert "Comparison of a, b" in said
        assert "clean" in said
        assert "nan" not in said


def test_effects_without_a_cell_in_common_say_so() -> None:
    one = effects({"a": -0.5, "b": 0.1})
    data = one.data
    values = data["patched"].to_numpy()
    halves = [
        Effects(
            data.assign(patched=(("sender", "prompt"), np.where([[mask], [not mask]], values, NAN)))
        )
        for mask in (True, False)
    ]
    comparison = Comparison({"x": halves[0], "y": halves[1]})
    assert comparison.sentences()[1] == "x and y have no cell in common."
    assert "x and y: no cell in common" in repr(comparison)
    assert np.isnan(comparison.agreement()["jaccard"].item())


def test_several_metrics_are_told_apart() -> None:
    def two(factor: float) -> Effects:
        patched = np.stack([CLEAN * factor, CLEAN])[:, None, :]
        return Effects.from_arrays(
            patched,
            np.stack([CLEAN, CLEAN]),
            np.stack([CORRUPT, CORRUPT]),
            {"metric": ["x", "y"], "sender": ["9.6"]},
        )

    comparison = Comparison({"a": two(0.5), "b": two(0.9)})
    assert list(comparison.labels) == ["9.6 (x)", "9.6 (y)"]
    table = comparison.table()
    assert list(table["metric"]) == ["x", "y"]
    assert isinstance(table, pd.DataFrame)
    assert any(
        line.startswith("9.6 (x) differs between a and b") for line in comparison.sentences()
    )
