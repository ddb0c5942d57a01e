"""The backward search, against its levels asked by hand on the reference engine."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

import circuitgraph as cg
from circuitgraph.discover import backward
from circuitgraph.errors import CircuitError
from tests.models import tiny_gpt2, tiny_qwen2


@pytest.fixture(scope="module")
def exp():
    tiny = tiny_gpt2()
    clean, corrupt = tiny.tokens(8, 5, seed=1), tiny.tokens(8, 5, seed=2)
    metric = cg.LogitDiff([3] * 8, [7] * 8)
    return cg.Experiment(tiny.bridge, clean, corrupt, metric, {"S": [1] * 8})


def asked(exp, request, variant="mlps"):
    """Effect and p value of every writer, by the reference engine and plain scipy."""
    from scipy import stats

    effects = exp.patch(request, variant, engine="reference")
    data = effects.data
    span = float((data["clean"] - data["corrupt"]).mean())
    found = {}
    for cell in data["sender"].to_numpy():
        change = (data["patched"].sel(sender=cell) - data["clean"]).to_numpy()
        if np.isfinite(change).all():
            found[str(cell)] = change.mean() / span, stats.ttest_1samp(change, 0).pvalue
    return found


def test_size_alone_level_by_level(exp):
    found = backward(exp, 0.3, significant=False, depth=2)
    edges, level = {}, []
    for name, (effect, _) in asked(exp, "node -> logits").items():
        edges[f"{name} -> logits"] = effect
        if abs(effect) >= 0.3 and name != "embed":
            level.append(name)
    kept = {name for name, effect in edges.items() if abs(effect) >= 0.3}
    assert level
    for node in level:
        ports = [f"{node}.{port}" for port in "qkv"] if "." in node else [node]
        for port in ports:
            for name, (effect, _) in asked(exp, f"node -> {port} => logits").items():
                edges[f"{name} -> {port}"] = effect
                if abs(effect) >= 0.3:
                    kept.add(f"{name} -> {port}")
    assert {str(edge) for edge in found.circuit} == kept
    assert {str(edge) for edge in found.circuit.known} == set(edges)
    for edge in found.circuit.known:
        assert found.circuit.weight(edge) == pytest.approx(edges[str(edge)], abs=1e-9)
    assert found.steps["edge"].tolist() == list(edges)


def test_the_test_is_corrected_over_everything_asked(exp):
    found = backward(exp, 0.0, depth=2)
    p = found.steps["p"].to_numpy()
    sure = multipletests(p, alpha=0.05, method="fdr_bh")[0]
    names = found.steps["edge"].to_numpy()
    # What is kept stands out among all; what stands out and is not kept hangs on nothing kept.
    assert set(names[found.steps["kept"]]) <= set(names[sure])
    reached = {name.split(" -> ")[0] for name in names[found.steps["kept"]]}
    for name in set(names[sure]) - set(names[found.steps["kept"]]):
        receiver = name.split(" -> ")[1].rsplit(".", 1)[0]
        assert receiver not in reached
    first = asked(exp, "node -> logits")
    for name, (_, value) in first.items():
        row = found.steps[found.steps["edge"] == f"{name} -> logits"]
        assert row["p"].iloc[0] == pytest.approx(value, rel=1e-6)


def test_paths_carry_only_the_way_found(exp):
    found = backward(exp, 0.2, significant=False, depth=2, form="path")
    second = found.steps[~found.steps["edge"].str.endswith("-> logits")]
    assert len(second)
    for row in second.iloc[:: max(1, len(second) // 6)].itertuples():
        by_hand = exp.patch(f"{row.edge} -> logits", engine="reference")
        assert row.effect == pytest.approx(by_hand.normalized().item(), abs=1e-9)


def test_positions_are_asked_one_by_one(exp):
    found = backward(exp, 0.2, significant=False, depth=2, positions=["S", "end"])
    second = found.steps[~found.steps["edge"].str.endswith("-> logits")]
    keys = second[second["edge"].str.contains(r"\.[kv]$")]
    assert set(keys["position"]) == {"S", "end"}
    assert set(second[second["edge"].str.contains(r"\.q$")]["position"]) == {"end"}
    for row in keys.iloc[:: max(1, len(keys) // 6)].itertuples():
        sender, receiver = row.edge.split(" -> ")
        request = f"{sender}@{row.position} -> {receiver}@{row.position} => logits"
        by_hand = exp.patch(request, engine="reference")
        assert row.effect == pytest.approx(by_hand.normalized().item(), abs=1e-9)


def test_a_search_that_finds_nothing_is_empty():
    tiny = tiny_qwen2()
    clean, corrupt = tiny.tokens(10, 4, seed=5), tiny.tokens(10, 4, seed=6)
    exp = cg.Experiment(tiny.bridge, clean, corrupt, cg.LogitDiff([3] * 10, [7] * 10))
    found = backward(exp, 1e9)
    assert len(found.circuit) == 0
    assert found.steps["kept"].sum() == 0
    assert set(found.steps["edge"]) == {f"{node} -> logits" for node in exp.graph.writers}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1}, "threshold must be a number of 0 or more, got -1"),
        ({"threshold": "big"}, "got 'big'"),
        ({"depth": 0}, "depth must be a whole number of 1 or more, got 0"),
        ({"form": "all"}, "form must be 'downstream' or 'path', got 'all'"),
        ({"positions": ["IO"]}, "no position named 'IO': known are"),
        ({"positions": "S"}, "positions is a list of names"),
        ({"alpha": 2.0}, "alpha lies between 0 and 1"),
    ],
)
def test_what_is_not_allowed(exp, options, message):
    with pytest.raises(CircuitError, match=message):
        backward(exp, **options)
