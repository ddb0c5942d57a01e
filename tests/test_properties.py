"""The fifteen properties that any path patching must have, on the package itself.

Each test carries the number of its property. Both engines are held to them where that means
something. Models that take norms and softmaxes in float32, whatever their own precision, hold
identities between different sums to float32 rounding only; the others to 1e-9.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.fast import memory as fast_memory
from circuitgraph.engines.fast import readout as fast_readout
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import Setup
from circuitgraph.errors import NodeError, RequestError
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits, Port
from circuitgraph.request import Through
from circuitgraph.schedule import PASSES
from tests.engines.asking import oracle_node, oracle_port
from tests.engines.cases import (
    METRICS,
    MODELS,
    N_POS,
    POSITIONS,
    Case,
    case,
    close,
    make_setup,
    rows_of,
    run,
)
from tests.engines.requests import asked, examples, sweeps
from tests.oracles.path_patching import unrolled

pytestmark = pytest.mark.filterwarnings("ignore::circuitgraph.engines.fast.engine.ReplayWarning")

FLOAT32_INSIDE = {"llama", "gemma2", "qwen2", "mistral"}
ENGINES = {"reference": ReferenceEngine, "fast": FastEngine}

one_of_each_kind = pytest.mark.parametrize("model", ["gpt2", "llama", "neox", "gemma2"])
both_engines = pytest.mark.parametrize("engine", ENGINES)


def tolerance(model: str) -> float:
    return 1e-4 if model in FLOAT32_INSIDE else 1e-9


def engine_of(one: Case, engine: str) -> Any:
    return one.fast if engine == "fast" else one.reference


def patched(
    one: Case, engine: str, request: Any, variant: Any = "single-pass", mode: Any = "set"
) -> Tensor:
    """The metric of every cell of a request."""
    plan = compile_request(one.graph, request, variant, mode=mode, n_positions=N_POS).lint()
    return run(engine_of(one, engine), plan)


def clean_of(one: Case) -> Tensor:
    with torch.no_grad():
        return one.reference.measure(one.setup.model(one.setup.clean))


def corrupt_of(one: Case) -> Tensor:
    with torch.no_grad():
        return one.reference.measure(one.setup.model(one.setup.corrupt))


# -- 1 ---------------------------------------------------------------------------------------------


@one_of_each_kind
@both_engines
def test_1_equal_prompts_change_nothing(model: str, engine: str) -> None:
    one = case(model)
    same = replace(one.setup, corrupt=one.setup.clean)
    # S2 stands elsewhere in the corrupt prompts, and these are the clean ones here.
    same = replace(same, positions=replace(same.positions, corrupt={}))
    made = ENGINES[engine](same)

    @given(asked(one.graph, N_POS))
    @examples(8)
    def check(request: Any) -> None:
        values = run(made, request.plan(one.graph, N_POS))
        assert close(values, clean_of(one).expand_as(values), tolerance(model))

    check()


@one_of_each_kind
@both_engines
@pytest.mark.parametrize("variant", ["mlps", "single-pass"])
def test_1_a_sender_equal_in_both_changes_nothing(model: str, engine: str, variant: Any) -> None:
    setup = case(model).setup
    corrupt = torch.cat([setup.clean[:, :2], setup.corrupt[:, 2:]], dim=1)
    made = ENGINES[engine](replace(setup, corrupt=corrupt))
    for request in ("node@{0, 1} => logits", "node@1 -> {2.0.k, 2.1.v, logits} => logits"):
        if model == "gemma2" and "->" in request:
            request = request.replace("2.0.k", "2.2.k")
        values = run(made, compile_request(setup.graph, request, variant))
        assert close(values, clean_of(case(model)).expand_as(values), tolerance(model))


# -- 2 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "sender", "receiver"),
    [
        ("gpt2", Head(1, 0), Head(1, 1).q),
        ("gpt2", Head(1, 0), Head(1, 0).v),
        ("gpt2", Head(2, 0), Head(1, 0).k),
        ("gpt2", MLP(1), MLP(1).port),
        ("gpt2", MLP(2), Head(1, 1).v),
        ("neox", Head(1, 0), MLP(1).port),
        ("neox", MLP(1), Head(1, 0).q),
    ],
)
def test_2_a_sender_after_its_receiver_is_an_error(model: str, sender: Any, receiver: Port) -> None:
    graph = case(model).graph
    text = f"{sender} -> {receiver} => logits"
    for request in (text, Edge(sender, receiver), [Edge(sender, receiver), Edge(Embed(), MLP(0))]):
        for variant in ("mlps", "single-pass"):
            with pytest.raises(NodeError, match=f"{sender} does not come before {receiver}"):
                compile_request(graph, request, variant)
    with pytest.raises(NodeError, match="does not come before"):
        compile_request(graph, f"embed -> {receiver} -> 0.0.q => logits")


def test_2_in_a_sweep_such_a_cell_is_left_out() -> None:
    plan = compile_request(case("gpt2").graph, "node -> 1.0.q => logits")
    assert [cell.name.split(" ")[0] for cell in plan.cells] == [
        "embed",
        "0.0",
        "0.1",
        "0.2",
        "mlp0",
    ]


# -- 3 ---------------------------------------------------------------------------------------------


@one_of_each_kind
@pytest.mark.parametrize("variant", ["mlps", "single-pass"])
def test_3_a_direct_path_keeps_its_position(model: str, variant: Any) -> None:
    """What the sender run records at the receivers differs from clean at the position alone."""
    one = case(model)
    plan = compile_request(one.graph, "0.1@2 -> {2.0.k, mlp2, logits} => logits", variant)
    recorded = one.reference.run_once(plan.cells[0].runs[0], [])
    assert len(recorded.ports) == 3
    for port, resid in recorded.ports.items():
        change = (resid - one.reference.clean.ports[port]).norm(dim=-1)
        assert (change[:, 2] > 1e-3).all(), port
        change[:, 2] = 0
        assert change.max() < tolerance(model), port


@one_of_each_kind
@both_engines
@pytest.mark.parametrize("variant", ["mlps", "single-pass"])
def test_3_for_the_logits_only_the_position_read_matters(
    model: str, engine: str, variant: Any
) -> None:
    one = case(model, "logit diff")
    read = POSITIONS["end"]
    by_position = patched(one, engine, "0.1@each -> logits", variant)
    everywhere = patched(one, engine, "0.1 -> logits", variant)[0]
    for position, values in enumerate(by_position):
        expected = torch.where(read == position, everywhere, clean_of(one))
        assert close(values, expected, tolerance(model))
    assert not close(everywhere, clean_of(one), 1e-3)


# -- 4 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt2", "llama", "neox"])
@both_engines
def test_4_single_pass_adds_writes_before_the_norm(model: str, engine: str) -> None:
    one = case(model)
    clean, corrupt = (one.tiny.exact.values(t) for t in (one.setup.clean, one.setup.corrupt))
    total = corrupt["mlp", 1] - clean["mlp", 1]
    for layer, head in ((0, 1), (1, 0)):
        change = corrupt["head", layer, head] - clean["head", layer, head]
        total = total + one.tiny.exact.head_write(layer, head, change)

    plan = compile_request(one.graph, "{0.1, mlp1, 1.0} -> logits", "single-pass")
    sent = one.reference.run_once(plan.cells[0].runs[0], [])
    resid = one.reference.clean.ports[Logits().port]
    assert close(sent.ports[Logits().port] - resid, total, tolerance(model))

    bridge = one.setup.model
    with torch.no_grad():
        logits = bridge.unembed(bridge.ln_final(resid + total))
        after_the_norm = bridge.unembed(bridge.ln_final(resid) + bridge.ln_final(total))
    (values,) = run(engine_of(one, engine), plan)
    assert close(values, one.reference.measure(logits), tolerance(model))
    assert not close(values, one.reference.measure(after_the_norm), 1e-2)


# -- 5 ---------------------------------------------------------------------------------------------


@one_of_each_kind
@both_engines
def test_5_what_is_enough_to_make_the_corrupt_run(model: str, engine: str) -> None:
    one = case(model)
    heads = ", ".join(map(str, one.graph.heads))
    everything = ", ".join(map(str, one.graph.writers))

    def makes_corrupt(senders: str, variant: Any) -> bool:
        (values,) = patched(one, engine, f"{{{senders}}} -> logits", variant)
        return close(values, corrupt_of(one), max(1e-9, tolerance(model)))

    assert makes_corrupt(everything, "single-pass")
    assert makes_corrupt(everything, "mlps")
    assert makes_corrupt(f"embed, {heads}", "mlps")
    assert not makes_corrupt(f"embed, {heads}", "single-pass")
    assert not makes_corrupt(heads, "mlps")


# -- 6 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt2", "neox", "qwen2"])
@both_engines
@pytest.mark.parametrize("variant", ["mlps", "single-pass"])
def test_6_set_with_every_edge_is_the_corrupt_run(model: str, engine: str, variant: Any) -> None:
    one = case(model)
    (values,) = patched(one, engine, list(one.graph.edges()), variant)
    assert close(values, corrupt_of(one), tolerance(model))


@one_of_each_kind
@both_engines
def test_6_with_the_logits_the_other_receivers_are_irrelevant(model: str, engine: str) -> None:
    one = case(model)
    to_logits = [Edge(Head(0, 0), Logits()), Edge(MLP(1), Logits())]
    others = [edge for edge in one.graph.edges() if edge.receiver.node in (Head(1, 1), MLP(2))]
    for variant in ("mlps", "single-pass"):
        alone = patched(one, engine, to_logits, variant)
        assert close(patched(one, engine, to_logits + others, variant), alone, tolerance(model))


# -- 7 ---------------------------------------------------------------------------------------------


@both_engines
@pytest.mark.parametrize(
    ("model", "request_text"),
    [
        ("attn_only", "{embed, 0.1, 1.2} -> {2.0.q, 2.1.v, logits} => logits"),
        ("attn_only", "node -> logits"),
        ("attn_only", "embed -> 1.0.k -> 2.1.v -> logits"),
        ("gpt2", "[mlp0, 0.2, 1.2] -> mlp0 => logits"),
        ("gpt2", "{1.0, 1.2} -> mlp1 => logits"),
        ("gpt2", "mlp0 -> {1.0.k, mlp1} => logits"),
        ("neox", "{1.0, mlp1} -> {2.1.q, mlp2} => logits"),
        ("neox", "2.0 -> logits"),
    ],
)
def test_7_variants_agree_without_an_mlp_between(
    model: str, engine: str, request_text: str
) -> None:
    one = case(model)
    single, mlps = (patched(one, engine, request_text, v) for v in ("single-pass", "mlps"))
    assert close(single, mlps)
    assert not close(single, clean_of(one).expand_as(single), 1e-4)


@both_engines
@pytest.mark.parametrize(
    ("model", "request_text"),
    [("gpt2", "0.1 -> 1.0.q => logits"), ("neox", "0.1 -> 2.0.q => logits")],
)
def test_7_variants_differ_with_an_mlp_between(model: str, engine: str, request_text: str) -> None:
    one = case(model)
    single, mlps = (patched(one, engine, request_text, v) for v in ("single-pass", "mlps"))
    assert not close(single, mlps, 1e-3)


# -- 8 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt2", "neox", "qwen2"])
@both_engines
def test_8_replace_goes_from_clean_to_corrupt(model: str, engine: str) -> None:
    one = case(model)
    edges = list(one.graph.edges())
    (every,) = patched(one, engine, edges, mode="replace")
    assert close(every, corrupt_of(one), tolerance(model))
    (added,) = patched(one, engine, edges, mode="add")
    assert not close(added, corrupt_of(one), 1e-2)
    with pytest.raises(RequestError, match="no edges to patch"):
        patched(one, engine, [], mode="replace")


# -- 9 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt2", "llama", "neox"])
@both_engines
@pytest.mark.parametrize("node", [Embed(), Head(0, 1), Head(1, 0), MLP(0), MLP(2)], ids=str)
def test_9_a_node_is_all_its_outgoing_edges(model: str, engine: str, node: Any) -> None:
    one = case(model)
    expected = patched(one, engine, f"{node} => logits")
    edges = one.graph.edges_from(node)
    for mode in ("add", "replace"):
        values = patched(one, engine, edges, mode=mode)
        assert close(values, expected, tolerance(model))
    assert not close(expected[0], clean_of(one), 1e-3)


# -- 10 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["qwen2", "mistral"])  # two layers: the tree of paths is small
@both_engines
def test_10_replace_is_the_unrolled_graph(model: str, engine: str) -> None:
    one = case(model)
    edges = list(one.graph.edges())

    @given(st.lists(st.sampled_from(edges), min_size=1, max_size=25, unique=True))
    @examples(4)
    def check(chosen: list[Edge]) -> None:
        logits = unrolled(
            one.tiny.plain,
            one.setup.clean,
            one.setup.corrupt,
            [(oracle_node(edge.sender), oracle_port(edge.receiver)) for edge in chosen],
        )
        (values,) = patched(one, engine, chosen, mode="replace")
        assert close(values, one.reference.measure(logits), tolerance(model))

    check()


# -- 11 --------------------------------------------------------------------------------------------


@one_of_each_kind
@both_engines
@pytest.mark.parametrize("middle", ["1.0.q", "1.0.k", "1.0.v", "mlp1"])
@pytest.mark.parametrize("variant", ["mlps", "single-pass"])
def test_11_two_hops_are_one_with_the_middle_recomputed(
    model: str, engine: str, middle: str, variant: Any
) -> None:
    one = case(model)
    ends = ("2.0.v => logits", "{2.1.q, mlp2} -> logits")
    if variant == "mlps" or model == "gemma2":
        ends = ends[:1]
    for end in ends:
        plan = compile_request(one.graph, f"0.1 -> {middle} -> {end}", variant)
        runs = plan.cells[0].runs
        sent = one.reference.run_once(runs[0], [])
        recomputed = one.reference.run_once(runs[1], [sent])
        (node,) = recomputed.writes

        given_values = replace(one.setup, given=recomputed.writes)
        second = compile_request(one.graph, f"{node} -> {end}", variant, source="given")
        expected = run(ENGINES[engine](given_values), second)
        found = run(engine_of(one, engine), plan)
        assert close(found, expected, tolerance(model))
        assert not close(found[0], clean_of(one), 1e-6)


@pytest.mark.parametrize("model", ["gpt2", "llama", "neox"])
@both_engines
def test_11_a_path_is_not_its_edges(model: str, engine: str) -> None:
    one = case(model)
    path = patched(one, engine, "0.1 -> 1.0.k -> 2.1.q => logits")
    for mode in ("set", "add", "replace"):
        edges = patched(one, engine, "0.1 -> 1.0.k, 1.0 -> 2.1.q => logits", mode=mode)
        assert not close(path, edges, 1e-4)


# -- 12 --------------------------------------------------------------------------------------------


@both_engines
def test_12_ports_and_heads_of_a_group_do_not_add_up(engine: str) -> None:
    one = case("llama")

    def effect(request: str) -> Tensor:
        return patched(one, engine, f"embed -> {request} => logits")[0] - clean_of(one)

    ports = [effect(f"1.2.{port}") for port in "qkv"]
    assert not close(effect("{1.2.q, 1.2.k, 1.2.v}"), sum(ports), 1e-3)
    for port in "kv":
        heads = [effect(f"1.{head}.{port}") for head in (2, 3)]
        assert not close(effect(f"1.kv1.{port}"), sum(heads), 1e-3)
        # A key-value head is its query heads' copies together.
        assert close(effect(f"1.kv1.{port}"), effect(f"{{1.2, 1.3}}.{port}"))


# -- 13 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "processing"),
    [
        (model, processing)
        for model in ("gpt2", "neox", "attn_only", "llama", "gemma2")
        for processing in (
            "fold_ln",
            "fold_value_biases",
            "center_unembed",
            "center_writing_weights",
        )
        # Under a cap on the logits, or under RMSNorm, these two change the function.
        if (model, processing) != ("gemma2", "center_unembed")
        and (processing != "center_writing_weights" or model not in FLOAT32_INSIDE)
    ],
)
def test_13_processing_weights_leaves_effects_unchanged(model: str, processing: str) -> None:
    one = case(model, "logit diff")
    bridge = one.tiny.new_bridge()
    options = dict.fromkeys(
        ("fold_ln", "fold_value_biases", "center_unembed", "center_writing_weights"), False
    )
    bridge.enable_compatibility_mode(disable_warnings=True, **{**options, processing: True})
    processed = make_setup(bridge, one.setup.clean, one.setup.corrupt, METRICS["logit diff"]())
    for request, variant in (
        ("node -> logits", "mlps"),
        ("node -> logits", "single-pass"),
        ("{0.1, embed} -> {1.1.k, 1.0.v, 2.1.q} => logits", "mlps"),
        ("0.0 -> 1.1.v -> 2.0.q -> logits", "single-pass"),
    ):
        plan = compile_request(one.graph, request, variant)
        before = run(one.fast, plan) - one.fast.clean_metric
        for engine in ENGINES.values():
            made = engine(processed)
            clean = FastEngine(processed).clean_metric
            # A processed bridge takes its norms in float32.
            assert close(run(made, plan) - clean, before, 1e-4)
            if engine is ReferenceEngine:
                assert not bridge.training


# -- 14 --------------------------------------------------------------------------------------------


def padded(setup: Setup, more: int) -> Setup:
    """The same prompts with more padding behind them, of some other token."""

    def longer(tokens: Tensor, token: int) -> Tensor:
        return torch.cat([tokens, torch.full((len(tokens), more), token)], dim=1)

    clean, corrupt = longer(setup.clean, 7), longer(setup.corrupt, 11)
    positions = replace(setup.positions, n_pos=clean.shape[1])
    return replace(setup, clean=clean, corrupt=corrupt, positions=positions)


@one_of_each_kind
@both_engines
def test_14_right_padding_changes_nothing(model: str, engine: str) -> None:
    one = case(model, "logit diff")
    made = ENGINES[engine](padded(one.setup, 3))

    @given(asked(one.graph, N_POS))
    @examples(6)
    def check(request: Any) -> None:
        expected = run(engine_of(one, engine), request.plan(one.graph, N_POS))
        assert close(run(made, request.plan(one.graph, N_POS + 3)), expected, tolerance(model))

    check()


@one_of_each_kind
@both_engines
def test_14_a_batch_is_its_prompts_one_by_one(model: str, engine: str) -> None:
    one = case(model)
    alone = [ENGINES[engine](rows_of(one.setup, slice(n, n + 1))) for n in range(3)]

    @given(asked(one.graph, N_POS))
    @examples(6)
    def check(request: Any) -> None:
        plan = request.plan(one.graph, N_POS)
        together = run(engine_of(one, engine), plan)
        apart = torch.cat([run(made, plan) for made in alone], dim=1)
        assert close(together, apart, tolerance(model))

    check()


@pytest.mark.parametrize("model", MODELS)
def test_14_a_sweep_is_its_requests_one_by_one(model: str) -> None:
    graph = case(model).graph

    @given(sweeps(graph, N_POS), st.sampled_from(list(METRICS)))
    @examples(3)
    def check(request: Any, metric: str) -> None:
        one = case(model, metric)
        plan = request.plan(graph, N_POS)
        together = run(one.fast, plan)
        for cell, values in list(zip(plan.cells, together, strict=True))[:: 1 + len(together) // 8]:
            alone = compile_request(graph, cell.name, plan.variant, mode=plan.mode)
            assert close(run(one.fast, alone), values[None]), cell.name

    check()


@one_of_each_kind
def test_14_the_order_of_a_sweep_changes_nothing(model: str) -> None:
    one = case(model)

    @given(st.permutations([str(writer) for writer in one.graph.writers if writer != Head(2, 0)]))
    @examples(3)
    def check(names: list[str]) -> None:
        for request in ("{} -> logits", "{} => logits"):
            in_order = patched(one, "fast", request.format("node"), "mlps")
            permuted = patched(one, "fast", request.format(f"[{', '.join(names)}]"), "mlps")
            places = [list(map(str, one.graph.writers)).index(name) for name in names]
            assert close(permuted, in_order[places])

    check()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("budget", [1, "20kB", "150KiB"])
def test_14_memory_budgets_change_nothing(model: str, budget: Any) -> None:
    graph = case(model).graph

    @given(sweeps(graph, N_POS), st.sampled_from(["everything", "logit diff"]))
    @examples(2)
    def check(request: Any, metric: str) -> None:
        one = case(model, metric)
        plan = request.plan(graph, N_POS)
        assert close(run(one.new_fast(memory_budget=budget), plan), run(one.fast, plan))

    check()


@pytest.mark.parametrize("model", ["gpt2", "llama", "neox"])
def test_14_chunk_sizes_change_nothing(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = case(model)
    request = "node -> {2.0.k, 2.1.v, mlp2} => logits"
    expected = patched(one, "fast", request, "mlps"), patched(one, "fast", "node -> logits", "mlps")
    for size in (1, 7, 40):
        monkeypatch.setattr(fast_memory, "CPU_TOKENS", size)
        monkeypatch.setattr(fast_readout, "LOGITS_AT_ONCE", size)
        assert close(patched(one, "fast", request, "mlps"), expected[0])
        assert close(patched(one, "fast", "node -> logits", "mlps"), expected[1])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("left_out", [*PASSES, None], ids=lambda p: p.__name__ if p else "all")
def test_14_leaving_out_a_pass_changes_nothing(model: str, left_out: Any) -> None:
    graph = case(model).graph
    passes = tuple(p for p in PASSES if p is not left_out) if left_out else ()

    @given(st.one_of(sweeps(graph, N_POS), asked(graph, N_POS)), st.sampled_from(list(METRICS)))
    @examples(3)
    def check(request: Any, metric: str) -> None:
        one = case(model, metric)
        plan = request.plan(graph, N_POS)
        assert close(run(one.new_fast(passes=passes), plan), run(one.fast, plan))

    check()


# -- 15 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("variant", ["mlps", "single-pass", Through([Head(1, 0), MLP(0)])], ids=str)
def test_15_the_fast_engine_equals_the_reference(model: str, variant: Any) -> None:
    """Plain sweeps; random requests are in tests/engines/test_same_numbers.py."""
    one = case(model, "logit diff")
    if model == "attn_only" and isinstance(variant, Through):
        variant = Through([Head(1, 0)])
    for request in ("head -> logits", "0.1 -> head.k@end => logits", "head -> 1.1.v -> logits"):
        fast, reference = (
            patched(one, engine, request, variant) for engine in ("fast", "reference")
        )
        assert close(fast, reference)
