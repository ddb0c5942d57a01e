"""Screening, against exact effects of every cell."""

import numpy as np
import pytest
from scipy import stats

import circuitgraph as cg
from circuitgraph.discover import screen
from circuitgraph.errors import CircuitError, RequestError
from tests.models import tiny_attn_only

REQUEST = "node -> port => logits"


@pytest.fixture(scope="module")
def exp():
    tiny = tiny_attn_only()
    clean, corrupt = tiny.tokens(4, 5, seed=1), tiny.tokens(4, 5, seed=2)
    return cg.Experiment(tiny.bridge, clean, corrupt, cg.LogitDiff([3] * 4, [7] * 4))


def test_what_is_measured_is_exact_and_the_rest_is_estimated(exp):
    found = screen(exp, REQUEST, 15, by=cg.EAP(), sample=20)
    every = exp.patch(REQUEST, "single-pass").normalized().to_numpy().ravel()
    estimates = exp.patch(REQUEST, "single-pass", engine=cg.EAP()).normalized().to_numpy().ravel()
    there = np.isfinite(every)
    strongest = sorted(np.flatnonzero(there), key=lambda cell: -abs(estimates[cell]))[:15]
    assert set(np.flatnonzero(found.kept)) == set(strongest)
    assert found.sampled.sum() == 20
    assert not (found.sampled & found.kept).any()
    measured = found.kept | found.sampled
    mixed = found.effects.normalized().to_numpy().ravel()
    assert mixed[measured] == pytest.approx(every[measured], abs=1e-9)
    rest = there & ~measured
    assert mixed[rest] == pytest.approx(estimates[rest], abs=1e-9)
    assert found.effects.attrs["estimate"]
    table = found.agreement().set_index("cells")
    x, y = every[found.kept], estimates[found.kept]
    assert table.loc["kept", "pearson"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert table.loc["kept", "spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert table.loc["kept", "largest_error"] == pytest.approx(abs(x - y).max())
    worst = found.table(3)
    error = abs(every - estimates)[measured]
    assert abs(worst["exact"] - worst["estimate"]).to_numpy() == pytest.approx(
        np.sort(error)[::-1][:3]
    )


def test_the_whole_rest_sampled_counts_every_missed_cell(exp):
    n_edges = exp.graph.n_edges
    found = screen(exp, REQUEST, 10, by=cg.EAP(), sample=n_edges)
    every = exp.patch(REQUEST, "single-pass").normalized().to_numpy().ravel()
    estimates = found.estimates.normalized().to_numpy().ravel()
    cutoff = np.sort(abs(estimates[np.isfinite(estimates)]))[-10]
    missed = (abs(every) >= cutoff) & ~found.kept
    assert found.n_missed == missed.sum()
    guess, low, high = found.missed()
    assert guess == pytest.approx(missed.sum())
    assert low <= guess <= high


def test_only_some_cells_are_run(exp):
    whole = exp.patch(REQUEST, "single-pass").normalized().to_numpy()
    only = np.zeros(whole.shape, dtype=bool)
    cells = np.argwhere(np.isfinite(whole))[::7]
    only[tuple(cells.T)] = True
    some = exp.patch(REQUEST, "single-pass", only=only).normalized().to_numpy()
    assert np.isfinite(some).sum() == len(cells)
    assert some[only] == pytest.approx(whole[only], abs=1e-9)
    with pytest.raises(RequestError, match="truth values of shape"):
        exp.patch(REQUEST, "single-pass", only=[1, 2])
    with pytest.raises(RequestError, match="only leaves no cell"):
        exp.patch(REQUEST, "single-pass", only=np.zeros_like(only))


def test_what_is_not_allowed(exp):
    with pytest.raises(CircuitError, match="keep must be a whole number of 1 or more, got 0"):
        screen(exp, REQUEST, 0)
    with pytest.raises(CircuitError, match="by is an engine that estimates"):
        screen(exp, REQUEST, 3, by="fast")
