"""Nothing is left behind: no hook, no replaced forward, no changed tensor, also after a crash."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import Setup
from circuitgraph.errors import HookError
from circuitgraph.metrics import AnyMetric, Readout
from tests.engines.cases import METRICS, MODELS, N_POS, case, make_setup, run

ENGINES = {"reference": ReferenceEngine, "fast": FastEngine}
REQUESTS = (
    ("{embed, 0.1@S2} -> {1.0.k, mlp1, 1.1.v@end} => logits", "mlps", "set"),
    ("0.1 -> 1.0.q -> 1.1.v -> logits", "single-pass", "set"),
    ("[embed, mlp0, 0.1@S2] => logits", "single-pass", "set"),
    ("{embed, 0.1} -> {1.0.k, mlp1, 1.1.v@end} => logits", "single-pass", "replace"),
)
both_engines = pytest.mark.parametrize("engine", ENGINES)
models = pytest.mark.parametrize("model", ["gpt2", "llama", "neox", "gemma2"])

pytestmark = pytest.mark.filterwarnings("ignore::circuitgraph.engines.fast.engine.ReplayWarning")


def fitting(model: str, request: str) -> str:
    """The request on a model of any size: two-layer models have no third hop within a layer."""
    return request.replace("1.0.q -> 1.1.v", "1.0.q -> 2.1.v") if model != "qwen2" else request


def state_of(bridge: Any) -> dict[str, Any]:
    """Every hook of TransformerLens and of torch, and every forward put in place of another."""
    found: dict[str, Any] = {
        name: (len(point.fwd_hooks), len(point.bwd_hooks))
        for name, point in bridge.hook_dict.items()
    }
    modules: dict[str, nn.Module] = dict(bridge.named_modules())
    modules |= {f"inner {name}": m for name, m in bridge.original_model.named_modules()}
    for name, module in modules.items():
        held = vars(module)
        found[f"module {name}"] = (
            *(len(held[kind]) for kind in ("_forward_hooks", "_forward_pre_hooks")),
            id(held["forward"]) if "forward" in held else None,
            module.training,
        )
    return found


@contextmanager
def nothing_left_on(bridge: Any) -> Iterator[None]:
    """Prove that a model is after the block as it was before."""
    with torch.no_grad():
        bridge(torch.tensor([[1, 2]]))  # TransformerLens installs some hooks of its own just once
    before, weights = state_of(bridge), {n: p.clone() for n, p in bridge.state_dict().items()}
    yield
    assert state_of(bridge) == before
    for name, value in bridge.state_dict().items():
        assert torch.equal(value, weights[name]), name


def setup_of(model: str, metric: Any) -> Setup:
    setup = case(model).setup
    return replace(setup, metric=Readout((metric,), setup.metric.prompts))


# -- after a run, and after one that failed --------------------------------------------------------


@models
@both_engines
def test_nothing_is_left_after_a_run(model: str, engine: str) -> None:
    setup = setup_of(model, case(model, "KL").setup.metric)
    with nothing_left_on(setup.model):
        made = ENGINES[engine](setup)
        for request, variant, mode in REQUESTS:
            plan = compile_request(setup.graph, fitting(model, request), variant, mode=mode)
            run(made, plan)


@models
@both_engines
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_after_the_metric_raises(model: str, engine: str, error: Any) -> None:
    def bad(logits: Tensor) -> Tensor:
        raise error("the metric fails")

    setup = setup_of(model, AnyMetric(bad))
    with nothing_left_on(setup.model):
        made = ENGINES[engine](setup)
        for request, variant, mode in REQUESTS:
            plan = compile_request(setup.graph, fitting(model, request), variant, mode=mode)
            with pytest.raises(error, match="the metric fails"):
                run(made, plan)


@models
@both_engines
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [1, 9, 40, 90, 170, 400])
def test_nothing_is_left_after_a_module_raises(
    model: str, engine: str, error: Any, after: int
) -> None:
    """Stop in the middle of anything: while recording, replaying, or running with hooks."""
    bridge = case(model).setup.model
    setup = setup_of(model, case(model).setup.metric)
    with nothing_left_on(bridge):
        with pytest.raises(error, match="stopped"), stopping(after, error):
            made = ENGINES[engine](setup)
            for request, variant, mode in REQUESTS * 3:
                plan = compile_request(setup.graph, fitting(model, request), variant, mode=mode)
                run(made, plan)
    # And the model works as before.
    assert (
        run(ENGINES[engine](setup), compile_request(setup.graph, "0.0 -> logits")).isfinite().all()
    )


@contextmanager
def stopping(after: int, error: type[BaseException]) -> Iterator[None]:
    """Raise when any module of any model is called for the ``after``-th time."""
    calls = 0

    def count(module: nn.Module, args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise error("stopped")

    handle = register_module_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


def test_a_users_own_hook_is_left_alone() -> None:
    bridge = case("gpt2").tiny.new_bridge()
    calls: list[int] = []
    handle = bridge.original_model.register_forward_hook(lambda *_: calls.append(1))
    setup = replace(case("gpt2").setup, model=bridge)
    with nothing_left_on(bridge):
        run(ReferenceEngine(setup), compile_request(setup.graph, "0.0 -> logits"))
    assert calls
    handle.remove()


# -- nothing recorded is changed -------------------------------------------------------------------


def tensors_in(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor that an object holds, however deep."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in list(thing.values()):
            yield from tensors_in(value, seen)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from tensors_in(value, seen)
    elif type(thing).__module__.startswith("circuitgraph"):
        slots = {name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())}
        names = slots | set(getattr(thing, "__dict__", {}))
        for name in sorted(names):
            yield from tensors_in(getattr(thing, name, None), seen)


@models
def test_the_fast_engine_changes_no_recording(model: str) -> None:
    setup = setup_of(model, case(model).setup.metric)
    made = FastEngine(setup)
    recordings = (made.state.clean, made.state.corrupt, setup.clean, setup.corrupt)
    before = [(tensor, tensor.clone()) for tensor in tensors_in(recordings, set())]
    assert len(before) > 30
    for request, variant, mode in REQUESTS:
        run(made, compile_request(setup.graph, fitting(model, request), variant, mode=mode))
    for tensor, copy in before:
        assert torch.equal(tensor, copy)


@models
def test_the_reference_engine_changes_no_recording(model: str) -> None:
    setup = setup_of(model, case(model).setup.metric)
    made = ReferenceEngine(setup)
    corrupt = made.sources.corrupt
    kept = (made.clean.ports, made.clean.writes, dict(corrupt), setup.clean, setup.corrupt)
    before = [(tensor, tensor.clone()) for tensor in tensors_in(kept, set())]
    for request, variant, mode in REQUESTS:
        run(made, compile_request(setup.graph, fitting(model, request), variant, mode=mode))
    for tensor, copy in before:
        assert torch.equal(tensor, copy)


# -- every hook fires ------------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "module"), [(0, "mlp"), (0, "ln2")])
def test_a_hook_that_does_not_fire_is_an_error(times: int, module: str) -> None:
    """A block that goes round the bridge's own module leaves its hooks silent."""
    setup = replace(case("gpt2").setup, model=case("gpt2").tiny.new_bridge())
    engine = ReferenceEngine(setup)
    plan = compile_request(setup.graph, "0.1 -> mlp1 => logits")
    run(engine, plan)
    part = getattr(setup.model.blocks[1], module)
    vars(part)["forward"] = part.original_component.forward
    with pytest.raises(
        HookError, match=rf"blocks\.1\.{module}\.\S+ fired 0 times .* instead of once"
    ):
        run(engine, plan)


def test_a_hook_that_fires_twice_is_an_error() -> None:
    """As in a model that uses one module for two layers."""
    setup = replace(case("gpt2").setup, model=case("gpt2").tiny.new_bridge())
    engine = ReferenceEngine(setup)
    plan = compile_request(setup.graph, "0.1 -> mlp1 => logits")
    run(engine, plan)
    mlp = setup.model.blocks[1].mlp
    forward = mlp.forward

    def twice(*args: Any, **kwargs: Any) -> Any:
        forward(*args, **kwargs)
        return forward(*args, **kwargs)

    vars(mlp)["forward"] = twice
    with pytest.raises(HookError, match=r"blocks\.1\.mlp\.\S+ fired 2 times in one pass"):
        run(engine, plan)


# -- how much is run -------------------------------------------------------------------------------


@contextmanager
def counting(setup: Setup) -> Iterator[list[int]]:
    """Count whole forward passes: calls of the wrapped model's embedding."""
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    embedding = setup.model.embed.original_component
    handle = embedding.register_forward_hook(count)
    try:
        yield calls
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("request_text", "variant"),
    [
        ("0.1 -> 1.0.v => logits", "mlps"),
        ("head -> 2.1.q => logits", "mlps"),
        ("0.1 -> 1.0.k -> 2.1.v => logits", "mlps"),
        ("[embed, mlp0, 0.1] => logits", "single-pass"),
        ("0.0 -> 1.0.q, 0.1 -> 1.0.k => logits", "mlps"),
    ],
)
def test_the_plan_counts_the_reference_engines_passes(request_text: str, variant: Any) -> None:
    setup = case("gpt2").setup
    engine = ReferenceEngine(setup)
    assert engine.clean is not None
    assert engine.sources.corrupt
    plan = compile_request(setup.graph, request_text, variant)
    assert plan.cost.closed_form == 0
    before = engine.forward_passes
    with counting(setup) as calls:
        run(engine, plan)
    assert engine.forward_passes - before == plan.cost.forward_passes == calls[0]


@pytest.mark.parametrize("variant", ["mlps", "single-pass"])
def test_what_the_plan_calls_closed_form_the_reference_engine_runs_all_the_same(
    variant: Any,
) -> None:
    """It goes op by op. The plan counts what is needed: no pass to add writes or to read out."""
    setup = case("gpt2").setup
    engine = ReferenceEngine(setup)
    assert engine.clean is not None
    assert engine.sources.corrupt
    plan = compile_request(setup.graph, "head -> logits", variant)
    before = engine.forward_passes
    run(engine, plan)
    cost = plan.cost
    assert (cost.forward_passes, cost.closed_form) == ((9, 9) if variant == "mlps" else (0, 18))
    assert engine.forward_passes - before == cost.forward_passes + cost.closed_form


def test_the_fast_engine_records_in_two_passes_worth() -> None:
    """Both prompts side by side in one pass where they fit into the budget, else one by one."""
    one = case("gpt2", "logit diff")
    plan = compile_request(one.graph, "node -> {2.0.q, mlp1} => logits")
    for budget, passes in ((None, 1), (2000, 2)):
        engine = FastEngine(one.setup, memory_budget=budget)
        assert not engine.traits.problems
        with counting(one.setup) as calls:
            assert engine.state is not None
            assert calls[0] == passes
            run(engine, plan)
        # The requests themselves run blocks, never the whole model.
        assert calls[0] == passes


def test_the_self_check_is_made_once_for_a_model() -> None:
    tiny = MODELS["gpt2"]()
    tokens = tiny.tokens(2, N_POS, seed=5), tiny.tokens(2, N_POS, seed=6)
    setup = make_setup(
        tiny.new_bridge(), *tokens, METRICS["KL"](), positions={"end": torch.tensor([5, 5])}
    )
    with counting(setup) as calls:
        first = FastEngine(setup).traits
        assert 0 < calls[0] <= 8  # one of them to see whether logits are capped
        before = calls[0]
        assert FastEngine(setup).traits == first
        assert calls[0] == before
        # Other weights are another model.
        with torch.no_grad():
            next(setup.model.parameters()).mul_(1.01)
        assert FastEngine(setup).traits == first
        # But the axes of its blocks' arguments, found in two passes, follow from its code.
        assert calls[0] == 2 * before - 2


def test_the_engines_plan_and_schedule_cost_no_pass() -> None:
    one = case("llama", "logit diff")
    with counting(one.setup) as calls:
        engine = FastEngine(one.setup)
        plan = compile_request(one.graph, "node -> port => logits")
        assert engine.schedule(plan).plan is plan
    assert calls[0] == 0
