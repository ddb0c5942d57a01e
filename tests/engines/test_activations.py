"""Metrics that read activations, and several metrics in one run."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

import circuitgraph as cg
from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import Setup
from circuitgraph.errors import HookError
from circuitgraph.metrics import Activation, Readout
from tests.engines.cases import METRICS, MODELS, case, close, run

HOOKS = {
    "pattern": "blocks.1.attn.hook_pattern",
    "scores": "blocks.1.attn.hook_attn_scores",
    "queries": "blocks.1.attn.hook_q",
    "values of heads": "blocks.1.attn.hook_z",
    "attention out": "blocks.1.hook_attn_out",
    "stream before": "blocks.1.hook_resid_pre",
    "stream after": "blocks.1.hook_resid_post",
    "final norm": "ln_final.hook_out",
    "first layer": "blocks.0.hook_resid_post",
}
MLP_HOOKS = {
    "stream between": "blocks.1.hook_resid_mid",
    "MLP out": "blocks.1.hook_mlp_out",
    "MLP inside": "blocks.1.mlp.hook_post",
}
LATE_PATTERNS = {"scores"}
REQUESTS = [
    "head => logits",
    "[embed, 0.1] -> 1.0.q => logits",
    "0.0 -> {1.0.k, 1.1.v@end} => logits",
    "0.1@S2 -> [1.1.q, 1.0.v] => logits",
]


def everything(value: Tensor) -> Float[Tensor, " prompt"]:
    """Every number, each with a weight of its own; masked scores do not count."""
    generator = torch.Generator().manual_seed(1)
    value = torch.where(value < -1e30, 0.0, value.double())
    weight = torch.randn(value.shape[1:], generator=generator, dtype=torch.float64)
    return (value * weight).flatten(1).sum(dim=1)


def reading(model: str, *metrics: Any) -> Setup:
    setup = case(model).setup
    prompts = replace(
        setup.metric.prompts,
        hooks=setup.backend.hook_names,
        n_heads=setup.graph.shape.n_heads,
        dtype=torch.float64,
    )
    return replace(setup, metric=Readout(tuple(one.bind(prompts) for one in metrics), prompts))


def hooks_of(model: str) -> dict[str, str]:
    known = case(model).setup.model.hook_dict
    return {name: hook for name, hook in (HOOKS | MLP_HOOKS).items() if hook in known}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("request_", REQUESTS)
def test_both_engines_read_the_same(model: str, request_: str) -> None:
    names = hooks_of(model)
    into_layer_1 = request_ not in REQUESTS[:1]
    if into_layer_1:
        # Of projections inside an attention with patched ports there is more than one.
        names.pop("queries")
        if model == "attn_only":
            names = {name: hook for name, hook in names.items() if name not in LATE_PATTERNS}
    setup = reading(model, *(Activation(hook, everything) for hook in names.values()))
    plan = compile_request(setup.graph, request_, n_positions=setup.n_pos)
    engine, reference = FastEngine(setup), ReferenceEngine(setup)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run(engine, plan)
    assert engine.unreadable == ""
    expected = run(reference, plan)
    assert found.shape == (len(plan.cells), len(names) * setup.n_prompts)
    assert close(found, expected)
    assert close(engine.clean_metric, reference.clean_metric)
    assert close(engine.corrupt_metric, reference.corrupt_metric)
    changed = (expected - reference.clean_metric).abs().amax(dim=0) > 1e-9
    by_hook = dict(zip(names, changed.unflatten(0, (len(names), -1)).any(dim=1), strict=True))
    before = {"stream before", "first layer"} if into_layer_1 else set()
    if into_layer_1 and setup.graph.shape.parallel:
        before |= {"MLP out", "MLP inside"}
    assert {name for name, moved in by_hook.items() if not moved} == before


@pytest.mark.parametrize("make", [FastEngine, ReferenceEngine])
def test_a_pattern_that_does_not_show_is_not_the_clean_one(make: Any) -> None:
    setup = reading("attn_only", Activation(HOOKS["scores"], everything))
    plan = compile_request(setup.graph, "0.1 -> 1.0.q => logits")
    with pytest.raises(HookError, match="hands its patterns out only when it is done"):
        run(make(setup), plan)


@pytest.mark.parametrize("model", ["gpt2", "llama", "neox"])
def test_activation_patching_is_what_a_plain_hook_gives(model: str) -> None:
    """`0.1 => logits` against TransformerLens' own hooks, at every kind of place."""
    names = hooks_of(model)
    setup = reading(model, *(Activation(hook, everything) for hook in names.values()))
    bridge, head_width = setup.model, setup.model.cfg.d_head
    _, corrupt = bridge.run_with_cache(setup.corrupt)
    theirs = corrupt["blocks.0.attn.hook_z"].flatten(2)[..., head_width : 2 * head_width].clone()

    def patch(z: Tensor, hook: Any) -> Tensor:
        patched = z.clone().flatten(2)
        patched[..., head_width : 2 * head_width] = theirs
        return patched.reshape(z.shape)

    with bridge.hooks(fwd_hooks=[("blocks.0.attn.hook_z", patch)]):
        _, cache = bridge.run_with_cache(setup.clean)
    expected = torch.cat([everything(cache[hook]) for hook in names.values()])
    plan = compile_request(setup.graph, "0.1 => logits")
    for engine in (FastEngine(setup), ReferenceEngine(setup)):
        assert close(run(engine, plan)[0], expected)


@pytest.mark.parametrize(("model", "port"), [("gpt2", "q"), ("gpt2", "k"), ("llama", "q")])
def test_the_pattern_of_a_patched_head_is_the_one_its_port_makes(model: str, port: str) -> None:
    """Queries or keys made from the patched stream by the model's own modules, set by its hooks."""
    setup = reading(model, Activation("blocks.1.attn.hook_pattern", lambda p: p[:, 1, -1, 2]))
    bridge, tiny = setup.model, MODELS[model]()
    d_head = bridge.cfg.d_head
    _, clean = bridge.run_with_cache(setup.clean)
    _, corrupt = bridge.run_with_cache(setup.corrupt)
    of_head = slice(d_head, 2 * d_head)
    delta = (corrupt["blocks.0.attn.hook_z"] - clean["blocks.0.attn.hook_z"]).flatten(2)
    only = torch.zeros_like(delta)
    only[..., of_head] = delta[..., of_head]
    block = bridge.blocks[0]
    write = block.attn.o.original_component(only)
    write = write - block.attn.o.original_component(torch.zeros_like(only))
    stream = clean["blocks.1.hook_resid_pre"] + write
    normed = bridge.blocks[1].ln1.original_component(stream)
    project = getattr(bridge.blocks[1].attn, port).original_component
    projected = project(normed)
    projected = projected[0] if isinstance(projected, tuple) else projected

    def patch(value: Tensor, hook: Any) -> Tensor:
        patched = value.clone().flatten(2)
        patched[..., of_head] = projected[..., of_head]
        return patched.reshape(value.shape)

    with torch.no_grad(), bridge.hooks(fwd_hooks=[(f"blocks.1.attn.hook_{port}", patch)]):
        _, cache = bridge.run_with_cache(setup.clean)
    expected = cache["blocks.1.attn.hook_pattern"][:, 1, -1, 2]
    assert not close(expected, clean["blocks.1.attn.hook_pattern"][:, 1, -1, 2], 1e-6)
    plan = compile_request(setup.graph, f"0.1 -> 1.1.{port} => logits", "single-pass")
    for engine in (FastEngine(setup), ReferenceEngine(setup)):
        assert close(run(engine, plan)[0], expected)
    assert tiny is not None


@pytest.mark.parametrize("model", ["gpt2", "gemma2", "mistral"])
def test_several_metrics_give_what_each_gives_alone(model: str) -> None:
    """Whatever positions and tokens they read, and in whatever order they are named."""
    pattern = Activation("blocks.1.attn.hook_pattern", lambda p: p[:, 0, -1, 1])
    groups = [
        ["logit diff", "KL"],
        ["log prob", "everything", "logit diff early"],
        [pattern, "logit diff"],
        ["logit diff", "logit diff"],
    ]
    for group in groups:
        metrics = [METRICS[one]() if isinstance(one, str) else one for one in group]
        setup = reading(model, *metrics)
        requests = ["0.1 -> 1.0.q => logits"]
        if pattern not in group:
            requests += ["{embed, 1.1} -> logits", "head@S2 -> logits"]
        for request in requests:
            plan = compile_request(setup.graph, request)
            alone = [reading(model, metric) for metric in metrics]
            for make in (FastEngine, ReferenceEngine):
                found = setup.metric.split(run(make(setup), plan))
                for one, values in zip(alone, found, strict=True):
                    assert close(values, run(make(one), plan))


def test_only_what_is_read_is_paid_for() -> None:
    """Two metrics of one position and a few tokens still read one position and those tokens."""
    setup = reading("gpt2", METRICS["logit diff"](), cg.LogitDiff([1, 2, 3], [9, 8, 7]))
    assert setup.metric.read is not None
    assert setup.metric.tokens is not None
    assert setup.metric.tokens.shape == (3, 4)
    mixed = reading("gpt2", METRICS["logit diff"](), METRICS["log prob"]())
    assert mixed.metric.read is None


@pytest.mark.parametrize("name", ["pattern", "MLP inside", "final norm"])
def test_no_hook_remains(name: str) -> None:
    def fails(_: Tensor) -> Tensor:
        raise KeyboardInterrupt

    hook = (HOOKS | MLP_HOOKS)[name]
    setup = reading("gpt2", Activation(hook, fails))
    plan = compile_request(setup.graph, "0.1 => logits")
    for engine in (FastEngine(setup), ReferenceEngine(setup)):
        with pytest.raises(KeyboardInterrupt):
            run(engine, plan)
    points = setup.model.hook_dict.values()
    assert not any(point.fwd_hooks or point.bwd_hooks for point in points)
