"""Where replay is not exact, the fast engine says so and the reference engine runs."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.fast import engine as fast_engine
from circuitgraph.engines.fast.engine import ReplayWarning
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.lens.traits import Traits
from circuitgraph.nodes import MLP
from circuitgraph.request import Through
from tests.engines.cases import METRICS, MODELS, N_POS, case, close, make_setup, run
from tests.engines.known_models import compiled_program, only_at
from tests.engines.requests import asked, examples, sweeps
from tests.engines.test_known_answers import setup_of
from tests.oracles import tracr

REQUEST = "{embed, 0.1} -> {1.0.k, 1.1.v@end} => logits"


@pytest.fixture
def failing_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose replay does not give what the model gives."""

    def found(*_: Any) -> Traits:
        problem = "replaying the clean run block by block does not give its logits"
        return Traits(True, True, True, True, problems=(problem,))

    monkeypatch.setattr(fast_engine, "find_traits", found)
    monkeypatch.setattr(fast_engine, "_KNOWN_TRAITS", {})


@pytest.mark.usefixtures("failing_check")
@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_a_failed_self_check_runs_the_reference_engine(model: str) -> None:
    one = case(model, "logit diff")
    engine = FastEngine(one.setup)
    for request in (REQUEST, "head -> logits"):
        plan = compile_request(one.graph, request)
        with pytest.warns(ReplayWarning) as caught:
            values = run(engine, plan)
        assert str(caught[0].message) == (
            f"the reference engine runs {request!r}: replaying the clean run block by block does "
            "not give its logits"
        )
        assert torch.equal(values, run(one.reference, plan))


@pytest.mark.usefixtures("failing_check")
def test_without_a_self_check_there_is_no_fallback() -> None:
    one = case("gpt2", "logit diff")
    plan = compile_request(one.graph, REQUEST)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = run(FastEngine(one.setup, self_check=False), plan)
    assert close(values, run(one.reference, plan))


@pytest.mark.parametrize("model", ["gpt2", "gemma2"])
def test_without_a_self_check_nothing_is_taken_for_granted(model: str) -> None:
    one = case(model, "logit diff")
    engine = FastEngine(one.setup, self_check=False)
    for request in ("head -> logits", "0.1 -> head.k => logits", "[embed, mlp0] => logits"):
        plan = compile_request(one.graph, request)
        assert close(run(engine, plan), run(one.reference, plan))


@pytest.mark.parametrize(
    ("model", "variant", "reason"),
    [
        ("gpt2", Through([]), None),
        (
            "gpt2",
            Through([MLP(0)]),
            "mode 'replace' recomputes nodes between sender and receiver",
        ),
        (
            "gemma2",
            "single-pass",
            "mode 'replace' on blocks that do not add what their parts write",
        ),
    ],
)
def test_mode_replace_where_it_cannot_be_replayed(model: str, variant: Any, reason: Any) -> None:
    one = case(model)
    plan = compile_request(one.graph, REQUEST, variant, mode="replace")
    assert (one.fast.cannot(plan) or None) == reason
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = run(one.fast, plan)
    assert [str(w.message).partition(": ")[2] for w in caught] == ([reason] if reason else [])
    assert close(values, run(one.reference, plan))


# -- traits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "additive", "plain_readout"),
    [
        ("gpt2", True, True),
        ("llama", True, True),
        ("neox", True, True),
        ("attn_only", True, True),
        ("gemma2", False, False),
        ("qwen2", True, True),
        ("mistral", True, True),
    ],
)
def test_the_self_check_finds_what_is_special(
    model: str, additive: bool, plain_readout: bool
) -> None:
    traits = case(model).fast.traits
    assert not traits.problems
    assert (traits.additive, traits.plain_readout) == (additive, plain_readout)
    assert traits.causal


@pytest.mark.filterwarnings("ignore::circuitgraph.engines.fast.engine.ReplayWarning")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "without",
    ["plain_readout", "heads_apart", "sliceable", "direct_mlp", "additive", "causal", "all"],
)
def test_a_model_with_fewer_traits_gives_the_same_numbers(model: str, without: str) -> None:
    """Each trait only saves work."""
    graph = case(model).graph
    names = [without] if without != "all" else list(Traits.__dataclass_fields__)[:-1]

    @given(st.one_of(asked(graph, N_POS), sweeps(graph, N_POS)), st.sampled_from(list(METRICS)))
    @examples(2)
    def check(request: Any, metric: str) -> None:
        one = case(model, metric)
        engine = one.new_fast()
        traits = replace(one.fast.state.traits, **dict.fromkeys(names, False))
        engine.__dict__["traits"] = traits
        engine.__dict__["state"] = replace(one.fast.state, traits=traits)
        plan = request.plan(graph, N_POS)
        assert close(run(engine, plan), run(one.fast, plan))

    check()


def test_a_model_that_looks_ahead_is_run_from_its_first_position() -> None:
    """Prompts that differ in one late token: only in a causal model is all before it the same."""
    program = tracr.load("hist")
    clean = program.clean[:5]
    corrupt = clean.clone()
    corrupt[:, 4] = 1 + clean[:, 4] % 3
    assert (clean != corrupt).any()
    setup = setup_of(compiled_program("hist"), clean, corrupt, only_at(1, 2))
    engine = FastEngine(setup)
    assert not engine.traits.causal
    for request in ("node => logits", "embed -> port => logits", "node -> logits"):
        plan = compile_request(setup.graph, request)
        assert close(run(engine, plan), run(ReferenceEngine(setup), plan))


def test_what_was_found_on_short_prompts_is_not_held_against_longer_ones() -> None:
    """A window of 3 positions hides nothing of 2 tokens, and some of 6."""
    tiny = MODELS["mistral"]()
    bridge = tiny.new_bridge()
    for n_pos in (2, 6, 8, 3):
        tokens = tiny.tokens(3, n_pos, seed=1), tiny.tokens(3, n_pos, seed=2)
        end = torch.full((3,), n_pos - 1)
        setup = make_setup(bridge, *tokens, METRICS["logit diff"](), positions={"end": end})
        for request in (
            "head -> 1.0.v => logits",
            "head@1 -> 1.0.k@1 => logits",
            "embed@1 => logits",
        ):
            plan = compile_request(setup.graph, request)
            assert close(run(FastEngine(setup), plan), run(ReferenceEngine(setup), plan))
