"""Statistics of effects against scipy and statsmodels called one cell at a time, and by hand."""

import time
import warnings

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from circuitgraph.effects import Effects
from circuitgraph.errors import EffectsError

NAN = float("nan")


def sample(n_cells: int = 12, n_prompts: int = 15, seed: int = 0) -> Effects:
    rng = np.random.default_rng(seed)
    clean, corrupt = rng.normal(5, 1, n_prompts), rng.normal(-1, 1, n_prompts)
    change = rng.normal(0, 1, (n_cells, 1)) ** 3 * 0.3 + rng.normal(0, 0.5, (n_cells, n_prompts))
    return Effects.from_arrays(clean + change, clean, corrupt, {"sender": names(n_cells)})


def names(n_cells: int) -> list[str]:
    return [f"{cell // 9}.{cell % 9}" for cell in range(n_cells)]


@pytest.mark.parametrize("interval", ["BCa", "percentile", "basic"])
def test_intervals_are_scipys_bootstrap_of_the_ratio(interval: str) -> None:
    effects = sample()
    found = effects.statistics(confidence=0.9, seed=3, interval=interval, resamples=500)
    data = effects.data

    def ratio(patched, clean, corrupt, axis=-1):
        top = patched.mean(axis=axis) - clean.mean(axis=axis)
        return top / (clean.mean(axis=axis) - corrupt.mean(axis=axis))

    for cell in range(effects.shape[0]):
        direct = stats.bootstrap(
            (data["patched"].values[cell], data["clean"].values, data["corrupt"].values),
            ratio,
            paired=True,
            vectorized=True,
            n_resamples=500,
            confidence_level=0.9,
            method=interval,
            rng=np.random.default_rng(3),
        )
        at = found.isel(sender=cell)
        assert at["stderr"].item() == pytest.approx(direct.standard_error, rel=1e-9)
        assert at["ci_low"].item() == pytest.approx(direct.confidence_interval.low, rel=1e-9)
        assert at["ci_high"].item() == pytest.approx(direct.confidence_interval.high, rel=1e-9)


def test_the_standard_error_is_near_the_delta_methods() -> None:
    effects = sample(n_prompts=400)
    data = effects.data
    span = (data["clean"] - data["corrupt"]).values
    change = (data["patched"] - data["clean"]).values
    effect = change.mean(-1) / span.mean()
    linear = (change - effect[:, None] * span).std(axis=-1, ddof=1) / span.mean() / np.sqrt(400)
    np.testing.assert_allclose(effects.statistics()["stderr"].values, linear, rtol=0.1)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    n_cells, n_prompts = 2000, 25
    clean, corrupt = rng.normal(5, 1, n_prompts), rng.normal(-1, 1, n_prompts)
    truth = -0.4
    change = truth * (clean - corrupt) + rng.normal(0, 1, (n_cells, n_prompts))
    effects = Effects.from_arrays(clean + change, clean, corrupt, {"sender": names(n_cells)})
    found = effects.statistics(confidence=0.9, resamples=1000)
    covered = ((found["ci_low"] <= truth) & (truth <= found["ci_high"])).mean().item()
    assert 0.84 < covered < 0.94


@pytest.mark.parametrize("test", ["t", "wilcoxon"])
@pytest.mark.parametrize("correction", ["fdr_bh", "fdr_by", "holm", "bonferroni"])
def test_p_values_are_scipys_and_their_correction_statsmodels(test: str, correction: str) -> None:
    effects = sample(n_cells=40, n_prompts=18)
    found = effects.statistics(test=test, correction=correction, confidence=0.9)
    data = effects.data
    p = []
    for cell in range(40):
        if test == "t":
            p.append(stats.ttest_rel(data["patched"].values[cell], data["clean"].values).pvalue)
        else:
            p.append(stats.wilcoxon(data["patched"].values[cell], data["clean"].values).pvalue)
    np.testing.assert_allclose(found["p"].values, p, rtol=1e-9)
    reject, corrected, _, _ = multipletests(p, alpha=0.1, method=correction)
    np.testing.assert_allclose(found["p_corrected"].values, corrected, rtol=1e-9)
    np.testing.assert_array_equal(found["significant"].values, reject)
    assert 0 < reject.sum() < 40


@pytest.mark.parametrize("n_prompts", [6, 13, 18, 60])
def test_wilcoxon_is_scipys_of_each_cell_by_itself(n_prompts: int) -> None:
    rng = np.random.default_rng(n_prompts)
    change = rng.normal(0.4, 1, (8, n_prompts))
    change[1, 0] = 0.0  # a zero
    change[2, 1] = -change[2, 0]  # a tie
    change[3, :3] = 0.0
    change[4] = np.round(change[4])
    change[5] = 0.0
    corrupt = np.full(n_prompts, -5.0)
    zeros = np.zeros(n_prompts)
    effects = Effects.from_arrays(change, zeros, corrupt, {"sender": names(8)})
    found = effects.statistics(test="wilcoxon", correction="none")["p"].values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = [1.0 if not one.any() else stats.wilcoxon(one).pvalue for one in change]
    np.testing.assert_allclose(found, alone, rtol=1e-12)
    for cell in (0, 6, 7):
        by_itself = effects.sel(sender=[names(8)[cell]]).statistics(test="wilcoxon")
        assert by_itself["p"].values[0] == found[cell]


def test_the_t_test_by_hand() -> None:
    # changes -1, -2, -3: mean -2, standard deviation 1, t = -2 sqrt 3 with 2 degrees of freedom
    effects = Effects.from_arrays([3.0, 2.0, 1.0], [4.0, 4.0, 4.0], [0.0, 0.0, 0.0])
    found = effects.statistics(correction="none")
    assert found["effect"].item() == -0.5
    assert found["difference"].item() == -2.0
    t = 2 * 3**0.5
    by_hand = 1 - t / (2 + t * t) ** 0.5  # two-sided, two degrees of freedom
    assert found["p"].item() == pytest.approx(by_hand, rel=1e-12)
    assert found["p_corrected"].item() == found["p"].item()


def test_benjamini_hochberg_by_hand() -> None:
    effects = sample(n_cells=5)
    found = effects.statistics()
    p = np.sort(found["p"].values)
    by_hand = np.minimum.accumulate((p * 5 / np.arange(1, 6))[::-1])[::-1]
    np.testing.assert_allclose(np.sort(found["p_corrected"].values), by_hand)


def test_few_are_called_significant_where_nothing_is_there() -> None:
    rng = np.random.default_rng(5)
    clean = rng.normal(5, 1, 25)
    false = 0
    for _ in range(20):
        patched = clean + rng.normal(0, 1, (100, 25))
        effects = Effects.from_arrays(patched, clean, clean - 5, {"sender": names(100)})
        false += bool(effects.statistics(resamples=100)["significant"].any())
    assert false <= 4  # 5 % of 20 expected


def test_empty_cells_are_not_tested_and_stay_empty() -> None:
    effects = sample(n_cells=6)
    data = effects.data
    patched = data["patched"].values.copy()
    patched[2] = NAN
    holed = Effects(data.assign(patched=(("sender", "prompt"), patched)))
    found = holed.statistics()
    assert found.attrs["n_tested"] == 5
    for name in ("effect", "difference", "stderr", "ci_low", "ci_high", "p", "p_corrected"):
        assert np.isnan(found[name].values[2])
        assert not np.isnan(np.delete(found[name].values, 2)).any()
    assert not found["significant"].values[2]
    rest = holed.sel(sender=[name for name in names(6) if name != names(6)[2]]).statistics()
    np.testing.assert_allclose(
        rest["p_corrected"].values, np.delete(found["p_corrected"].values, 2)
    )
    np.testing.assert_allclose(rest["ci_low"].values, np.delete(found["ci_low"].values, 2))


def test_one_prompt_gives_no_interval_and_no_significance() -> None:
    effects = Effects.from_arrays([[1.0], [4.0]], [4.0], [0.0], {"sender": ["a", "b"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = effects.statistics()
    assert found["effect"].values.tolist() == [-0.75, 0.0]
    for name in ("stderr", "ci_low", "ci_high", "p", "p_corrected"):
        assert np.isnan(found[name].values).all()
    assert not found["significant"].any()
    assert len(effects.significant()) == 0
    assert list(effects.significant().columns) == list(effects.top().columns)


def test_cells_without_variation_have_an_answer() -> None:
    clean, corrupt = np.array([4.0, 5.0, 6.0, 7.0]), np.zeros(4)
    patched = np.array([clean, clean / 2, clean - 1])  # untouched; exactly half lost; always 1 less
    effects = Effects.from_arrays(patched, clean, corrupt, {"sender": ["a", "b", "c"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = effects.statistics()
    np.testing.assert_allclose(found["ci_low"].values[:2], [0, -0.5], atol=1e-12)
    np.testing.assert_allclose(found["ci_high"].values[:2], [0, -0.5], atol=1e-12)
    np.testing.assert_allclose(found["stderr"].values[:2], [0, 0], atol=1e-12)
    assert found["p"].values[0] == 1.0
    assert found["p"].values[2] < 1e-12
    assert found["significant"].values.tolist() == [False, True, True]


def test_rounding_is_not_an_effect() -> None:
    rng = np.random.default_rng(0)
    clean = rng.normal(5, 1, 25).astype(np.float32)
    patched = np.nextafter(clean, np.float32(99))[None]  # one step up on every prompt
    for kind in (np.float32, np.float64):
        effects = Effects.from_arrays(
            patched.astype(kind), clean.astype(kind), (clean * 0).astype(kind), {"sender": ["a"]}
        )
        assert effects.statistics()["p"].item() == 1.0


def test_an_interval_without_end_is_nan() -> None:
    # One resample in four has clean equal to corrupt: the ratio has no value there.
    effects = Effects.from_arrays([1.0, 2.0], [4.0, 3.0], [0.0, 3.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = effects.statistics()
    assert found["effect"].item() == -1.0
    assert np.isnan(found["ci_low"].item())
    assert np.isnan(found["stderr"].item())


def test_the_same_seed_gives_the_same_and_cells_do_not_mind_their_neighbours() -> None:
    effects = sample()
    first, again = effects.statistics(seed=1), sample().statistics(seed=1)
    assert first.identical(again)
    assert not first["ci_low"].equals(effects.statistics(seed=2)["ci_low"])
    assert first["p"].equals(effects.statistics(seed=2)["p"])
    backwards = effects.sel(sender=names(12)[::-1]).statistics(seed=1)
    np.testing.assert_allclose(backwards["ci_low"].values[::-1], first["ci_low"].values, rtol=1e-9)


def test_metrics_share_one_family_but_not_their_spans() -> None:
    one = sample(n_cells=5)
    data = one.data
    both = Effects.from_arrays(
        np.stack([data["patched"], data["patched"] * 10]),
        np.stack([data["clean"], data["clean"] * 10]),
        np.stack([data["corrupt"], data["corrupt"] * 10]),
        {"metric": ["a", "b"], "sender": names(5)},
    )
    alone, found = one.statistics(), both.statistics()
    for metric in ("a", "b"):
        for name in ("effect", "stderr", "ci_low", "ci_high", "p"):
            np.testing.assert_allclose(
                found[name].sel(metric=metric).values, alone[name].values, rtol=1e-9
            )
    assert found.attrs["n_tested"] == 10


def test_settings_are_said_and_checked() -> None:
    effects = sample()
    assert effects.statistics().attrs == {
        "confidence": 0.95,
        "correction": "fdr_bh",
        "test": "t",
        "interval": "BCa",
        "resamples": 2000,
        "seed": 0,
        "n_tested": 12,
        "n_prompts": 15,
    }
    with pytest.raises(
        EffectsError, match=r"confidence must lie between 0 and 1, such as 0.95, got 95"
    ):
        effects.statistics(confidence=95)
    with pytest.raises(EffectsError, match=r"correction must be one of 'fdr_bh', .*, got 'fdr'"):
        effects.statistics(correction="fdr")  # type: ignore[arg-type]
    with pytest.raises(EffectsError, match="test must be one of 't', 'wilcoxon', got 'z'"):
        effects.top(test="z")
    with pytest.raises(EffectsError, match="interval must be one of 'BCa', 'percentile', 'basic'"):
        effects.significant(interval="bca")
    with pytest.raises(EffectsError, match="resamples must be at least 100"):
        effects.to_dataframe(resamples=10)


def test_statistics_of_a_model_take_no_time_to_speak_of() -> None:
    effects = sample(n_cells=270, n_prompts=25)
    sample().statistics()  # scipy and statsmodels are imported by now
    start = time.perf_counter()
    effects.statistics()
    assert time.perf_counter() - start < 2  # 0.03 s measured; a bound against quadratic mistakes
