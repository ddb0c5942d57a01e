"""The main job on a real language model, end to end, on a few prompts.

Every step that the README and the demo take: load, ask, compare, keep, draw. The engines must agree
on real weights in float32, and what is known of this model must come out again.
"""

import numpy as np
import pytest

import circuitgraph as cg

VARIANTS = ("mlps", "single-pass")
REQUESTS = (
    "[23.3, 29.1, 24.4, 20.0, 5.5] -> logits",
    "[20.0, 19.2] -> {23.3, 29.1, 23.0}.q@end => logits",
    "[20.0, 5.5] -> 23.3.q@end -> logits",
    "[23.3, 20.0] => logits",
)


@pytest.fixture(scope="module")
def task(smollm2):
    return cg.tasks.ioi(smollm2.tokenizer, n=4, seed=1)


@pytest.fixture(scope="module")
def experiment(smollm2, task):
    return cg.Experiment(
        smollm2,
        clean=task.clean,
        corrupt=task.corrupt,
        metric=task.metric,
        positions=task.positions,
        lengths=task.lengths,
    )


@pytest.fixture(scope="module")
def comparison(experiment):
    return experiment.compare("head -> logits")


def test_the_model_answers_clean_prompts_only(experiment):
    assert experiment.clean_metric.mean() > 3
    assert abs(experiment.corrupt_metric.mean()) < 3


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("request_", REQUESTS)
def test_both_engines_give_the_same_numbers(experiment, request_, variant):
    fast = experiment.patch(request_, variant).data["patched"].to_numpy()
    slow = experiment.patch(request_, variant, engine="reference").data["patched"].to_numpy()
    scale = np.abs(experiment.clean_metric - experiment.corrupt_metric).max()
    assert np.abs(fast - slow).max() <= 1e-4 * scale
    assert not np.isnan(fast).any()


def test_every_head_has_an_effect_and_23_3_the_largest(comparison):
    for effects in comparison.effects.values():
        assert effects.dims == ("layer", "head")
        assert effects.shape == (30, 9)
        assert len(effects.cells()) == 270
        assert effects.top(1)["name"].item() == "23.3"
        assert effects.top(1)["effect"].item() < -0.2


def test_the_mlps_make_a_difference(comparison):
    mlps, single_pass = (comparison.effects[name].normalized() for name in VARIANTS)
    assert float(abs(mlps - single_pass).max()) > 0.02
    assert comparison.sentences()


def test_what_is_saved_loads_again(comparison, tmp_path):
    effects = comparison.effects["mlps"]
    assert cg.Effects.load(effects.save(tmp_path / "effects.json")) == effects
    assert cg.Comparison.load(comparison.save(tmp_path / "both.json")) == comparison
    assert len(effects.to_csv(tmp_path / "table.csv").read_text().splitlines()) == 271


def test_the_circuit_is_drawn_and_loads_again(comparison, experiment, tmp_path):
    queries = experiment.patch("[20.0, 19.2] -> [23.3, 29.1].q@end => logits")
    circuit = cg.Circuit.from_effects(comparison.effects["mlps"], top=5)
    circuit |= cg.Circuit.from_effects(queries)
    circuit = circuit.with_groups({"write the answer": ["23.3", "29.1"]})
    assert len(circuit) == 9
    circuit.save(tmp_path / "circuit.json")
    assert cg.Circuit.load(tmp_path / "circuit.json") == circuit
    picture = circuit.draw().save(tmp_path / "circuit.svg").read_text()
    for name in (">23.3<", ">20.0<", ">write the answer<"):
        assert name in picture


def test_the_plan_is_drawn(experiment, tmp_path):
    plan = experiment.plan("20.0 -> 23.3.q@end => logits").lint()
    assert plan.cost.forward_passes == 2
    assert plan.draw().save(tmp_path / "plan.svg").read_text().startswith("<svg")


def test_nothing_is_left_on_the_model(experiment, smollm2):
    experiment.patch("23.3 -> logits", engine="reference")
    assert not any(point.fwd_hooks for point in smollm2.hook_dict.values())
