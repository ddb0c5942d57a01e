"""Metrics of sets of answers: both engines, against the sums written out on the model's own logits."""

import pytest
import torch

import circuitgraph as cg
from tests.models import tiny_gpt2

RIGHT, WRONG = [[3, 4], [5]], [[1], [2, 6, 7]]
CASES = {
    "log odds": (
        cg.LogOdds(RIGHT, WRONG),
        lambda p, right, wrong: (p[right].sum() / p[wrong].sum()).log(),
    ),
    "any answer": (cg.LogOdds(RIGHT), lambda p, right, wrong: p[right].sum().log()),
    "margin": (
        cg.LogitMargin(RIGHT, WRONG),
        lambda p, right, wrong: (p[right].max() / p[wrong].max()).log(),
    ),
    "probability": (
        cg.ProbabilityDiff(RIGHT, WRONG),
        lambda p, right, wrong: p[right].sum() - p[wrong].sum(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_both_engines_measure_what_the_logits_say(name):
    metric, by_hand = CASES[name]
    model = tiny_gpt2()
    clean, corrupt = model.tokens(2, 5, seed=1), model.tokens(2, 5, seed=2)
    exp = cg.Experiment(model.bridge, clean, corrupt, metric)
    with torch.no_grad():
        chances = model.hf_logits(clean)[:, -1].softmax(-1)
    expected = [float(by_hand(p, r, w)) for p, r, w in zip(chances, RIGHT, WRONG, strict=True)]
    assert exp.clean_metric.tolist() == pytest.approx(expected, abs=1e-9)
    fast, reference = (
        exp.patch("head -> logits", engine=engine).data["patched"].to_numpy()
        for engine in ("fast", "reference")
    )
    assert fast == pytest.approx(reference, abs=1e-9)
    assert abs(fast - exp.clean_metric).max() > 1e-6
