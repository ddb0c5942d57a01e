"""The face of the package: what `Experiment` takes, runs and labels."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import circuitgraph as cg
from circuitgraph.engines.fast import engine as fast_engine
from circuitgraph.engines.fast.engine import ReplayWarning
from circuitgraph.lens.blocks import Blocks
from circuitgraph.lens.traits import Traits
from tests import models
from tests.engines.cases import everything
from tests.engines.known_models import compiled_program, hand_worked
from tests.oracles import tracr
from tests.test_experiment_errors import Words

TINY = models.tiny_gpt2()
CLEAN, CORRUPT = TINY.tokens(seed=1), TINY.tokens(seed=2)
METRIC = cg.LogitDiff([1, 2, 3], [4, 5, 6])


@pytest.fixture(scope="module")
def experiment() -> cg.Experiment:
    return cg.Experiment(TINY.bridge, CLEAN, CORRUPT, METRIC, {"S2": [2, 1, 3]}, progress=False)


def logit_diff(logits: Tensor) -> Tensor:
    rows = torch.arange(3)
    return logits[rows, -1, [1, 2, 3]] - logits[rows, -1, [4, 5, 6]]


# -- what comes back -------------------------------------------------------------------------------


def test_clean_and_corrupt(experiment: cg.Experiment) -> None:
    with torch.no_grad():
        for tokens, measured in (
            (CLEAN, experiment.clean_metric),
            (CORRUPT, experiment.corrupt_metric),
        ):
            np.testing.assert_allclose(
                measured, logit_diff(TINY.bridge(tokens)).numpy(), rtol=1e-12
            )


@pytest.mark.parametrize(
    ("request_text", "dims"),
    [
        ("0.1 -> logits", {}),
        ("head -> logits", {"layer": 3, "head": 3}),
        ("mlp -> logits", {"layer": 3}),
        ("node -> logits", {"sender": 13}),
        ("[0.1, {0.2, mlp0}] -> logits", {"sender": 2}),
        ("0.1 -> head.q => logits", {"receiver_layer": 3, "receiver_head": 3}),
        (
            "head -> kv.v@S2 => logits",
            {"layer": 3, "head": 3, "receiver_layer": 3, "receiver_kv_head": 3},
        ),
        ("head@each -> logits", {"layer": 3, "head": 3, "position": 6}),
    ],
)
def test_dims(experiment: cg.Experiment, request_text: str, dims: dict[str, int]) -> None:
    engines: list[Any] = ["fast", "reference"] if len(dims) < 3 else ["fast"]
    for engine in engines:
        data = experiment.patch(request_text, engine=engine).data
        assert dict(data.patched.sizes) == {**dims, "prompt": 3}
        # Each engine measures them by itself.
        rounding = 0 if engine == "fast" else 1e-12
        np.testing.assert_allclose(data.clean, experiment.clean_metric, rtol=rounding)
        np.testing.assert_allclose(data.corrupt, experiment.corrupt_metric, rtol=rounding)
        assert data.attrs["request"] == request_text
        assert data.attrs["engine"] == engine
        assert data.attrs["metric"] == "logit difference"


def test_cells_that_cannot_be_are_nan_and_not_zero(experiment: cg.Experiment) -> None:
    patched = experiment.patch("1.0 -> head.q => logits").data.patched
    assert np.isnan(patched.sel(receiver_layer=[0, 1])).all()
    assert np.isfinite(patched.sel(receiver_layer=2)).all()


def test_every_cell_stands_where_its_name_says(experiment: cg.Experiment) -> None:
    heads = experiment.patch("head -> 2.0.k => logits").data.patched
    for layer, head in ((0, 0), (0, 2), (1, 1)):
        alone = experiment.patch(cg.Edge(cg.Head(layer, head), cg.Head(2, 0).k)).data.patched
        np.testing.assert_allclose(heads.sel(layer=layer, head=head), alone, rtol=1e-9)
    listed = experiment.patch("[1.1, {0.0, mlp0}, embed] -> logits").data.patched
    assert listed.sender.values.tolist() == ["1.1", "{0.0, mlp0}", "embed"]
    np.testing.assert_allclose(
        listed.sel(sender="embed"), experiment.patch("embed -> logits").data.patched, rtol=1e-9
    )


@pytest.mark.parametrize("mode", ["set", "add", "replace"])
def test_engines_agree(experiment: cg.Experiment, mode: Any) -> None:
    for request in ("head -> {2.0.k, 2.1.v@S2} => logits", "[embed, mlp0]@end -> logits"):
        fast, reference = (
            experiment.patch(request, "single-pass", mode, engine).data.patched
            for engine in ("fast", "reference")
        )
        np.testing.assert_allclose(fast, reference, rtol=1e-9, atol=1e-9)


def test_attributes_say_what_was_asked(experiment: cg.Experiment) -> None:
    through = cg.Through([cg.MLP(1), cg.Head(1, 0)])
    attrs = experiment.patch("0.1 -> logits", through, "add", source="zero").data.attrs
    assert attrs["variant"] == "through {1.0, mlp1}"
    assert attrs["mode"] == "add"
    assert attrs["source"] == "zero"
    assert attrs["n_prompts"] == 3


def test_normalized(experiment: cg.Experiment) -> None:
    writers = ", ".join(map(str, experiment.graph.writers))
    all_lost = experiment.patch(f"{{{writers}}} -> logits", "single-pass")
    assert all_lost.normalized().item() == pytest.approx(-1)


# -- what goes in ----------------------------------------------------------------------------------


def test_text_prompts_are_tokenized_and_padded_on_the_right() -> None:
    bridge = TINY.new_bridge()
    bridge.tokenizer = Words()
    experiment = cg.Experiment(
        bridge,
        ["a bb ccc", "dddd ee"],
        ["aa bb ccc", "d ee"],
        cg.LogitDiff("a", "bb"),
        {"S": [1, 1]},
    )
    assert experiment.prompts.lengths.tolist() == [4, 3]
    assert experiment.positions["end"].tolist() == [3, 2]
    clean = torch.tensor([[1, 3, 4, 5], [1, 6, 4, 0]])
    corrupt = torch.tensor([[1, 4, 4, 5], [1, 3, 4, 0]])
    same = cg.Experiment(
        TINY.bridge,
        clean,
        corrupt,
        cg.LogitDiff([3, 3], [4, 4]),
        {"S": [1, 1]},
        lengths=[4, 3],
    )
    for request in ("head -> logits", "head@S -> 1.0.k@S => logits"):
        one, other = experiment.patch(request).data.patched, same.patch(request).data.patched
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_padding_is_never_read() -> None:
    """The same prompts with other padding, and with more of it."""
    found = []
    for padding in ([7, 7], [9, 3], [5, 5, 5, 5]):
        rows = [[*row, *padding] for row in ([1, 2, 3, 4], [4, 5, 6, 7])]
        clean = torch.tensor(rows)
        corrupt = clean.clone()
        corrupt[:, 1] += 9
        experiment = cg.Experiment(
            TINY.bridge, clean, corrupt, cg.LogitDiff([1, 2], [4, 5]), lengths=[4, 4]
        )
        found.append(experiment.patch("node -> {1.0.k, 1.2.v} => logits").data.patched)
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, rtol=1e-9)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_positions_that_differ_between_the_prompts(engine: Any) -> None:
    experiment = cg.Experiment(
        TINY.bridge, CLEAN, CORRUPT, METRIC, {"S2": [2, 1, 3]}, corrupt_positions={"S2": 0}
    )
    patched = experiment.patch("embed@S2 => logits", engine=engine).data.patched
    # By hand: the embedding at S2 is the corrupt one of position 0.
    with torch.no_grad():
        embedding = TINY.exact.embed(CLEAN)
        embedding[torch.arange(3), [2, 1, 3]] = TINY.exact.embed(CORRUPT)[:, 0]

        def put_in(resid: Tensor, hook: Any) -> Tensor:
            return embedding

        logits = TINY.bridge.run_with_hooks(CLEAN, fwd_hooks=[("blocks.0.hook_in", put_in)])
    np.testing.assert_allclose(patched, logit_diff(logits).numpy(), rtol=1e-9)


def test_any_function_as_metric() -> None:
    experiment = cg.Experiment(TINY.bridge, CLEAN, CORRUPT, logit_diff)
    declared = cg.Experiment(TINY.bridge, CLEAN, CORRUPT, METRIC)
    np.testing.assert_allclose(
        experiment.patch("head -> logits").data.patched,
        declared.patch("head -> logits").data.patched,
        rtol=1e-9,
    )


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_given_values_and_data_sets(experiment: cg.Experiment, engine: Any) -> None:
    zeros = {cg.Head(0, 1): torch.zeros(4), cg.MLP(0): torch.zeros(12)}
    given = experiment.patch("{0.1, mlp0} => logits", engine=engine, source="given", values=zeros)
    zero = experiment.patch("{0.1, mlp0} => logits", engine=engine, source="zero")
    np.testing.assert_allclose(given.data.patched, zero.data.patched, rtol=1e-12)
    corrupt = experiment.patch("0.1 => logits", engine=engine, source="mean", dataset=CORRUPT)
    by_default = experiment.patch("0.1 => logits", engine=engine, source="mean")
    other = experiment.patch("0.1 => logits", engine=engine, source="mean", dataset=CLEAN[:1])
    np.testing.assert_allclose(corrupt.data.patched, by_default.data.patched, rtol=1e-12)
    assert not np.allclose(other.data.patched, by_default.data.patched)
    # They leave the experiment as it was.
    again = experiment.patch("0.1 => logits", engine=engine, source="mean")
    np.testing.assert_array_equal(again.data.patched, by_default.data.patched)


@pytest.mark.parametrize("name", ["hist", "reverse"])
def test_a_model_with_fewer_logits_than_tokens(name: str) -> None:
    program = tracr.load(name)
    weight = torch.arange(1.0, 1 + program.clean_out.shape[-1], dtype=torch.float64)
    experiment = cg.Experiment(
        compiled_program(name),
        program.clean[:9],
        program.corrupt[:9],
        lambda logits: (logits * weight).sum(dim=(1, 2)),
        allow_no_difference=True,
    )
    expected = (program.clean_out[:9] * weight).sum(dim=(1, 2)).numpy()
    np.testing.assert_allclose(experiment.clean_metric, expected, rtol=1e-9)
    assert np.isfinite(experiment.patch("node -> logits").data.patched).all()


def test_one_prompt_of_one_token() -> None:
    experiment = cg.Experiment(
        hand_worked(), torch.tensor([[1]]), torch.tensor([[0]]), lambda logits: logits[:, 0, 1]
    )
    for engine in ("fast", "reference"):
        effects = experiment.patch(cg.Edge(cg.Head(0, 1), cg.Logits()), engine=engine)
        assert effects.data.patched.item() == -41


# -- plans, schedules, comparisons -----------------------------------------------------------------


def test_plans_are_the_compilers(experiment: cg.Experiment) -> None:
    plan = experiment.plan("head -> 2.1.q@S2 => logits", "single-pass", "add", source="mean")
    assert plan == cg.compile(
        experiment.graph, "head -> 2.1.q@S2 => logits", "single-pass", mode="add", source="mean"
    )
    assert experiment.plan("0.0@each -> logits").axes[-1].values == tuple(range(6))
    schedule = experiment.schedule("head -> logits")
    assert [stage.name for stage in schedule.stages] == ["send", "read out"]


def test_equal_requests_share_a_plan_and_others_do_not(experiment: cg.Experiment) -> None:
    plan = experiment.plan("0.1 -> logits")
    assert experiment.plan(cg.Edge(cg.Head(0, 1), cg.Logits())) is plan
    for variant, mode, source in (
        ("single-pass", "set", "corrupt"),
        (cg.Through([]), "set", "corrupt"),
        ("mlps", "add", "corrupt"),
        ("mlps", "set", "zero"),
    ):
        other = experiment.plan("0.1 -> logits", variant, mode, source=source)  # type: ignore[arg-type]
        assert (other.variant, other.mode, other.source) == (variant, mode, source)


def test_compare(experiment: cg.Experiment) -> None:
    both = experiment.compare("head -> logits")
    for variant in ("mlps", "single-pass"):
        np.testing.assert_array_equal(
            both.effects[variant].data.patched,
            experiment.patch("head -> logits", variant).data.patched,
        )
    assert list(experiment.compare("0.1 -> 1.0.q => logits", modes=("set", "add")).effects) == [
        "set",
        "add",
    ]
    assert list(experiment.compare("0.1 -> logits", sources=("zero", "corrupt")).effects) == [
        "zero",
        "corrupt",
    ]
    engines = experiment.compare("0.1 -> logits", engines=("fast", "reference")).effects
    np.testing.assert_allclose(
        engines["fast"].data.patched, engines["reference"].data.patched, rtol=1e-9
    )


def test_compare_combines_what_is_listed(experiment: cg.Experiment) -> None:
    request = "0.1 -> 1.0.q => logits"
    found = experiment.compare(request, ("mlps", "single-pass"), modes=("set", "add")).effects
    assert list(found) == ["mlps, set", "mlps, add", "single-pass, set", "single-pass, add"]
    assert found["single-pass, add"] == experiment.patch(request, "single-pass", "add")
    through = cg.Through([cg.MLP(0)])
    assert list(experiment.compare(request, ("mlps", through), "add").effects) == [
        "mlps",
        "through {mlp0}",
    ]
    three = experiment.compare(request, "single-pass", sources=("corrupt", "zero", "mean"))
    assert list(three.effects) == ["corrupt", "zero", "mean"]
    assert {one.attrs["variant"] for one in three.effects.values()} == {"single-pass"}
    assert list(experiment.compare(request, sources="zero").effects) == ["mlps", "single-pass"]


def test_compare_passes_on_values_and_data_sets(experiment: cg.Experiment) -> None:
    values = {cg.Head(0, 1): torch.zeros(1, dtype=torch.float64)}
    dataset = torch.tensor([[1, 2, 3, 4, 5, 0]])
    found = experiment.compare(
        "0.1 -> logits", sources=("given", "zero", "mean"), values=values, dataset=dataset
    ).effects
    np.testing.assert_allclose(found["given"].data.patched, found["zero"].data.patched, rtol=1e-9)
    assert found["mean"] == experiment.patch("0.1 -> logits", source="mean", dataset=dataset)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"variants": "mlps"}, "leaves nothing to compare: give two or more"),
        ({"variants": ("mlps", "mlps")}, "variants names mlps twice"),
        ({"sources": ()}, "sources is empty: leave it out"),
        ({"mode": "add", "modes": ("set", "add")}, "give mode='add' or modes, not both"),
        ({"engines": ("fast", "slow")}, "no engine 'slow': write one of fast, reference"),
        ({"dataset": torch.tensor([[1]])}, "no mean is among the sources"),
        ({"values": {}}, "'given' is not among the sources"),
        ({"variants": ("mlps", "all")}, "'all'"),
        ({"sources": ("zero", "given")}, "no value given for 0.1"),
    ],
)
def test_compare_says_what_is_wrong_before_it_runs(
    experiment: cg.Experiment, monkeypatch: pytest.MonkeyPatch, asked: Any, words: str
) -> None:
    monkeypatch.setattr(cg.Experiment, "_answered", lambda *_: pytest.fail("it ran"))
    with pytest.raises(cg.CircuitGraphError, match=re.escape(words)):
        experiment.compare("0.1 -> logits", **asked)


def test_repr(experiment: cg.Experiment) -> None:
    first, second = repr(experiment).splitlines()
    clean, corrupt = experiment.clean_metric.mean(), experiment.corrupt_metric.mean()
    assert first == (
        f"Experiment: 3 prompt pairs of 6 tokens, logit difference {clean:.3f} clean, "
        f"{corrupt:.3f} corrupt"
    )
    assert second.strip() == str(experiment.graph)


# -- when it cannot be replayed --------------------------------------------------------------------


def test_the_fallback_warns_where_the_user_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*_: Any) -> Traits:
        return Traits(True, True, True, True, problems=("it is a test",))

    monkeypatch.setattr(fast_engine, "find_traits", found)
    experiment = cg.Experiment(TINY.new_bridge(), CLEAN, CORRUPT, METRIC)
    with pytest.warns(ReplayWarning, match="'0.1 -> logits': it is a test") as caught:
        effects = experiment.patch("0.1 -> logits")
    assert Path(caught[0].filename).name == Path(__file__).name
    with pytest.warns(ReplayWarning) as caught:
        experiment.compare("0.1 -> logits")
    assert {Path(each.filename).name for each in caught} == {Path(__file__).name}
    expected = experiment.patch("0.1 -> logits", engine="reference").data.patched
    np.testing.assert_array_equal(effects.data.patched, expected)


def test_clean_and_corrupt_are_right_even_if_replay_is_not(
    monkeypatch: pytest.MonkeyPatch, experiment: cg.Experiment
) -> None:
    def garbage(self: Any, resid: Tensor, call: Any, **_: Any) -> Tensor:
        return torch.zeros(*resid.shape[:-1], 23, dtype=resid.dtype)

    monkeypatch.setattr(Blocks, "read_out", garbage)
    broken = cg.Experiment(TINY.new_bridge(), CLEAN, CORRUPT, logit_diff)
    np.testing.assert_allclose(broken.clean_metric, experiment.clean_metric, rtol=1e-9)
    np.testing.assert_allclose(broken.corrupt_metric, experiment.corrupt_metric, rtol=1e-9)
    with pytest.warns(ReplayWarning, match="block by block does not give its logits"):
        effects = broken.patch("head -> logits")
    expected = experiment.patch("head -> logits").data.patched
    np.testing.assert_allclose(effects.data.patched, expected, rtol=1e-9)


def test_no_warning_where_it_can(experiment: cg.Experiment) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        experiment.patch("head -> {2.0.k, 2.1.v} => logits", "single-pass", "replace")


# -- hooks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_no_hook_remains_after_a_metric_that_raises(engine: Any, error: Any) -> None:
    bridge = TINY.new_bridge()
    fail = False

    def metric(logits: Tensor) -> Tensor:
        if fail:
            raise error("stop")
        return everything(logits)

    experiment = cg.Experiment(bridge, CLEAN, CORRUPT, metric)
    experiment.patch("0.1 -> logits", engine=engine)
    fail = True
    with pytest.raises(error, match="stop"):
        experiment.patch("head -> logits", engine=engine)
    assert not any(point.fwd_hooks for point in bridge.hook_dict.values())
    fail = False
    # So another experiment may be made on it.
    cg.Experiment(bridge, CLEAN, CORRUPT, metric).patch("head -> logits", engine=engine)


def test_gradients_are_neither_kept_nor_needed() -> None:
    bridge = TINY.new_bridge()
    bridge.requires_grad_(True)
    assert any(parameter.requires_grad for parameter in bridge.parameters())
    seen: list[bool] = []

    def metric(logits: Tensor) -> Tensor:
        seen.append(logits.requires_grad)
        return everything(logits)

    experiment = cg.Experiment(bridge, CLEAN, CORRUPT, metric)
    for engine in ("fast", "reference"):
        experiment.patch("0.1 -> {1.0.k, mlp2} => logits", engine=engine)  # type: ignore[arg-type]
    assert not any(seen)
    assert all(parameter.requires_grad for parameter in bridge.parameters())
