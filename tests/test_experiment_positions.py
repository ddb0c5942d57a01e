"""Padding, positions that differ between clean and corrupt, and values of one's own: by hand."""

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.engines.choice import Reference
from circuitgraph.engines.engine import EngineOptions
from tests.models import tiny_gpt2

TINY = tiny_gpt2()
CLEAN, CORRUPT = TINY.tokens(seed=1), TINY.tokens(seed=2)
ANSWERS = ([1, 2, 3], [4, 5, 6])
HEAD = cg.Head(0, 1)

engines = pytest.mark.parametrize("engine", ["fast", "reference"])


def padded(tokens, fill, n=3):
    return torch.cat([tokens, torch.full((len(tokens), n), fill)], dim=1)


def experiment(clean=CLEAN, corrupt=CORRUPT, metric=None, positions=None, **options):
    metric = metric or cg.LogitDiff(*ANSWERS)
    return cg.Experiment(TINY.bridge, clean, corrupt, metric, positions, progress=False, **options)


def patched(exp, request, engine, **options):
    return exp.patch(request, engine=engine, **options).data["patched"].to_numpy()


def written(tokens, head):
    """A head's z, by a hook of TransformerLens."""
    name = f"blocks.{head.layer}.attn.hook_z"
    _, cache = TINY.bridge.run_with_cache(tokens, names_filter=lambda found: found == name)
    z = cache[name]
    return z.reshape(*tokens.shape, 3, -1)[:, :, head.head]


@engines
@pytest.mark.parametrize("budget", [None, 40_000])
@pytest.mark.parametrize("source", ["mean", "mean-position"])
def test_means_leave_out_padding(source, engine, budget):
    bare = patched(experiment(), "0.1 -> logits", engine, source=source)
    for fill in (0, 7):
        longer = experiment(
            padded(CLEAN, fill), padded(CORRUPT, fill), lengths=[6, 6, 6], memory_budget=budget
        )
        found = patched(longer, "0.1 -> logits", engine, source=source)
        np.testing.assert_allclose(found, bare, rtol=0, atol=1e-9)


@engines
@pytest.mark.parametrize("source", ["mean", "mean-position"])
def test_means_over_prompts_of_several_lengths_are_those_of_their_tokens(source, engine):
    lengths = torch.tensor([4, 6, 5])
    exp = experiment(lengths=lengths)
    z, real = written(CORRUPT, HEAD), (torch.arange(6) < lengths[:, None])[..., None]
    if source == "mean":
        mean = torch.stack([z[row, place] for row in range(3) for place in range(lengths[row])])
        mean = mean.mean(dim=0).expand_as(z)
    else:
        mean = ((z * real).sum(dim=0) / real.sum(dim=0)).expand_as(z)
    by_hand = patched(exp, "0.1 => logits", engine, source="given", values={HEAD: mean})
    found = patched(exp, "0.1 => logits", engine, source=source)
    np.testing.assert_allclose(found, by_hand, rtol=0, atol=1e-9)


@engines
@pytest.mark.parametrize("budget", [None, 40_000])
def test_the_corrupt_prompts_are_measured_at_their_own_positions(engine, budget):
    here, there = [3, 4, 5], [4, 5, 3]
    names = {"positions": {"X": here}, "corrupt_positions": {"X": there}, "memory_budget": budget}
    exp = experiment(metric=cg.LogitDiff(*ANSWERS, position="X"), **names)
    rows = torch.arange(3)
    for values, tokens, at in (
        (exp.clean_metric, CLEAN, here),
        (exp.corrupt_metric, CORRUPT, there),
    ):
        logits = TINY.hf_logits(tokens)[rows, at]
        expected = logits[rows, ANSWERS[0]] - logits[rows, ANSWERS[1]]
        np.testing.assert_allclose(values, expected.numpy(), rtol=0, atol=1e-9)
    name = "blocks.1.attn.hook_pattern"
    _, cache = TINY.bridge.run_with_cache(CORRUPT, names_filter=lambda found: found == name)
    looks = cache[name][rows, 1, 5, there]
    measured = exp.patch(
        "head => logits", metrics={"looks": cg.AttentionTo("1.1", "X", query=5)}, engine=engine
    )["looks"]
    np.testing.assert_allclose(measured.data["corrupt"], looks.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["KL", "any"])
def test_other_metrics_at_their_own_positions(name):
    """Both engines say the same of the corrupt run."""
    metric = cg.KLDivergence(position="X") if name == "KL" else (lambda logits: logits[:, -1, 0])
    exp = experiment(metric=metric, positions={"X": [3, 4, 5]}, corrupt_positions={"X": [4, 5, 3]})
    reference = Reference().prepare(exp._setup, EngineOptions())
    np.testing.assert_allclose(
        exp.corrupt_metric, reference.corrupt_metric.double().numpy(), rtol=0, atol=1e-9
    )


@engines
def test_values_of_ones_own_stand_where_they_are_patched(engine):
    exp = experiment(positions={"A": [3, 3, 3]}, corrupt_positions={"A": [1, 1, 1]})
    own = torch.zeros(3, 6, 4, dtype=torch.float64)
    own[:, 3] = 5.0
    everywhere = torch.full((4,), 5.0, dtype=torch.float64)
    one, other = (
        patched(exp, "0.1@A => logits", engine, source="given", values={HEAD: values})
        for values in (own, everywhere)
    )
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    assert not np.allclose(one, exp.clean_metric)


def test_sweeps_over_positions_keep_to_those_that_all_prompts_have():
    exp = experiment(lengths=[4, 6, 6])
    assert exp.patch("0.1@each => logits").data.sizes["position"] == 4
    with pytest.raises(
        cg.CircuitGraphError, match="position 5 is padding in prompt 0, which has 4"
    ):
        exp.plan("0.1@5 => logits")


def test_end_may_stand_elsewhere_in_corrupt_prompts():
    exp = experiment(corrupt_positions={"end": [4, 4, 4]})
    rows = torch.arange(3)
    logits = TINY.hf_logits(CORRUPT)[:, 4]
    expected = logits[rows, ANSWERS[0]] - logits[rows, ANSWERS[1]]
    np.testing.assert_allclose(exp.corrupt_metric, expected.numpy(), rtol=0, atol=1e-9)


def test_positions_that_meet_in_clean_but_not_in_corrupt_prompts():
    exp = experiment(
        positions={"A": [3, 3, 3], "B": [3, 2, 1]},
        corrupt_positions={"A": [2, 2, 2], "B": [4, 2, 1]},
    )
    with pytest.raises(
        cg.CircuitGraphError, match="positions A and B are the same in clean prompt 0"
    ):
        exp.plan("0.1@{A, B} => logits")
    with pytest.raises(cg.CircuitGraphError, match="Patch them one at a time"):
        exp.plan("0.1@{A, B} -> 1.1.q => logits", "single-pass", "replace")
    exp.plan("0.1@{A, end} => logits")


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_metric_that_is_no_number_on_a_patched_run(engine):
    calls = []

    def sometimes(logits):
        calls.append(1)
        return logits[:, -1, 0] * (float("nan") if len(calls) > 6 else 1.0)

    exp = experiment(metric=sometimes)
    with pytest.raises(
        cg.CircuitGraphError, match=r"sometimes is nan on prompt 0 where .* patched"
    ):
        exp.patch("head => logits", engine=engine)


NAN, BARE = torch.full((4,), float("nan")), torch.zeros(4)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: experiment(positions={"S 2": [1] * 3}), "no position can be named 'S 2'"),
        (lambda: experiment(positions={"-1": [1] * 3}), "no position can be named '-1'"),
        (lambda: experiment(positions={"": [1] * 3}), "no position can be named ''"),
        (lambda: experiment(positions={"A": [True, False, True]}), "type torch.bool"),
        (lambda: experiment(positions={"A": "abc"}), "position 'A' is 'abc'"),
        (lambda: experiment(positions=[1, 2, 3]), "clean positions are given by name"),
        (lambda: experiment(lengths="abc"), "lengths is 'abc'"),
        (lambda: experiment(metric=cg.LogitDiff(None, [1, 2, 3])), "correct answer is None"),
        (lambda: experiment(metric=cg.LogitDiff(*ANSWERS, position=[1.5] * 3)), "[1.5, 1.5, 1.5]"),
        (lambda: experiment(metric=cg.LogitDiff(*ANSWERS, position=True)), "LogitDiff is True"),
        (lambda: experiment(metric=lambda logits: logits[:, 99, 0]), "raised IndexError"),
        (lambda: experiment(metric=lambda logits: logits[:, 1, 0] * 1j), "complex"),
        (
            lambda: experiment(padded(CLEAN, 0, 20), padded(CORRUPT, 0, 20)),
            "prompts have 26 tokens, but the model reads 16",
        ),
        (
            lambda: experiment().patch("0.1 => logits", source="given", values={HEAD: [0] * 4}),
            "must be a tensor that broadcasts",
        ),
        (
            lambda: experiment().patch("0.1 => logits", source="given", values=BARE),
            "values are given by sender",
        ),
        (
            lambda: experiment().patch("0.1 => logits", source="given", values={HEAD: NAN}),
            "not finite",
        ),
        (
            lambda: experiment().patch(
                "0.1 => logits", source="given", values={HEAD: BARE, cg.Head(1, 1): BARE}
            ),
            "a value is given for 1.1, which this request does not patch",
        ),
        (
            lambda: experiment().patch(
                "0.1 => logits", source="mean", dataset=torch.zeros(2, 40, dtype=torch.long)
            ),
            "the data set has 40 positions, but the model reads 16",
        ),
        (
            lambda: experiment().patch("0.1 => logits", metrics=[cg.LogitDiff(*ANSWERS)]),
            "metrics are given by name",
        ),
        (
            lambda: experiment().patch("0.1 => logits").statistics(confidence="x"),
            "confidence must be a finite number",
        ),
        (
            lambda: experiment().patch("0.1 => logits").statistics(resamples="x"),
            "resamples must be a whole number",
        ),
    ],
)
def test_what_is_asked_wrongly(ask, said):
    with pytest.raises(cg.CircuitGraphError) as caught:
        ask()
    assert said in str(caught.value)
