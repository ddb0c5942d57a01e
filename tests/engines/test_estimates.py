"""Estimates: right to first order, and exactly what they say they are."""

import functools
import subprocess
import sys
import warnings
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.choice import choose_engine
from circuitgraph.engines.engine import EngineOptions
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.fast.send import Sender as SenderStage
from circuitgraph.engines.gradient import engine as gradient_engine
from circuitgraph.engines.gradient.contraction import Contraction
from circuitgraph.engines.gradient.edges import product_of
from circuitgraph.engines.gradient.engine import GradientEngine
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import PositionTable, Setup
from circuitgraph.errors import UnsupportedError
from circuitgraph.metrics import Prompts, Readout
from circuitgraph.nodes import Writer
from tests import models
from tests.engines.asking import oracle_node, oracle_port
from tests.families.registry import FAMILIES, Family
from tests.families.wide import float64_throughout
from tests.oracles.attribution import attribute
from tests.oracles.backward_rules import by_rule

ENGINES = (cg.EAP(), cg.CleanCorrupt(), cg.EAPIG(steps=3))
POINTS = {"EAP": [1.0], "clean-corrupt": [1.0, 0.0], "EAP-IG (3 steps)": [0.0, 1 / 3, 2 / 3]}
ALL = "node -> port => logits"


@functools.cache
def experiment(model: str, n_prompts: int = 3, **options: Any) -> cg.Experiment:
    tiny = getattr(models, f"tiny_{model}")()
    clean, corrupt = tiny.tokens(n_prompts, 6, seed=1), tiny.tokens(n_prompts, 6, seed=2)
    metric = cg.LogitDiff(list(range(1, n_prompts + 1)), list(range(8, 8 + n_prompts)))
    return cg.Experiment(tiny.bridge, clean, corrupt, metric, progress=False, **options)


def changes(effects: cg.Effects) -> np.ndarray:
    return (effects.data["patched"] - effects.data["clean"]).values


def difference(n_prompts: int) -> Any:
    rows = torch.arange(n_prompts)
    return lambda logits: logits[rows, -1, rows + 1] - logits[rows, -1, rows + 8]


def against_oracle(
    exp: cg.Experiment, effects: cg.Effects, expected: dict, within: float = 1e-7
) -> None:
    found = changes(effects)
    graph = exp.graph
    for at, sender in enumerate(graph.writers):
        for column, port in enumerate(graph.ports):
            edge = (oracle_node(sender), oracle_port(port))
            if edge in expected:
                want = expected[edge].numpy()
                scale = max(np.abs(want).max(), 1e-2)
                assert np.abs(found[at, column] - want).max() / scale < within, edge
            else:
                assert np.isnan(found[at, column]).all()


# -- the published formulas, every edge, each prompt -------------------------------------------


@pytest.mark.parametrize("model", ["gpt2", "llama", "gemma2", "neox"])
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_every_edge_equals_plain_attribution(model: str, engine: Any) -> None:
    """Grouped keys per query head, norms after the block, parallel blocks among them."""
    tiny, exp = getattr(models, f"tiny_{model}")(), experiment(model)
    clean, corrupt = tiny.tokens(3, 6, seed=1), tiny.tokens(3, 6, seed=2)
    expected = attribute(tiny.exact, clean, corrupt, difference(3), POINTS[engine.name])
    with float64_throughout() if model != "gpt2" else nullcontext():
        effects = exp.patch(ALL, "single-pass", engine=engine)
    # Rotations and norms of Llama and its relatives are made in float32, whatever is asked.
    against_oracle(exp, effects, expected, within=1e-7 if model == "gpt2" else 2e-4)


@pytest.mark.parametrize("rules", ["relp", "gim"])
@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_rules_equal_plain_attribution_by_the_papers_formulas(model: str, rules: Any) -> None:
    """Norms, activations, gates, the softmax and shares of gradients, each written out."""
    tiny, exp = getattr(models, f"tiny_{model}")(), experiment(model)
    clean, corrupt = tiny.tokens(3, 6, seed=1), tiny.tokens(3, 6, seed=2)
    other = by_rule(tiny.exact, tiny.hf, rules)
    expected = attribute(tiny.exact, clean, corrupt, difference(3), [1.0], by=other)
    # A softmax in float64 would be one that the rule does not know.
    with float64_throughout() if model != "gpt2" and rules == "relp" else nullcontext():
        effects = exp.patch(ALL, "single-pass", engine=cg.EAP(rules=rules))
    against_oracle(exp, effects, expected, within=1e-7 if model == "gpt2" else 2e-4)
    plain = changes(exp.patch(ALL, "single-pass", engine=cg.EAP()))
    assert np.nanmax(np.abs(changes(effects) - plain)) > 1e-2  # the rule did something


# -- finite differences: any family, variant, mode and request ---------------------------------

REQUESTS = (
    ("0.1 -> 2.2.q => logits", "mlps", "set"),
    ("0.0 -> 1.3.k => logits", "single-pass", "set"),
    ("embed -> {1.0.v, 1.1.k, 2.1.q, 2.3.k} => logits", "mlps", "set"),
    ("embed -> {1.0.v, 1.1.k, 2.1.q, 2.3.k}@2 => logits", "single-pass", "add"),
    ("{0.2, 0.3, 1.3} => logits", "mlps", "set"),
    ("0.1 -> mlp1 => logits", "mlps", "set"),
    ("0.1 -> 1.2.v -> 2.0.q => logits", "mlps", "set"),
    ("mlp0 -> logits", "mlps", "set"),
)
HELD_TO = (
    "GPT-2",
    "GPT-NeoX",
    "Llama",
    "Qwen3",
    "Gemma 2",
    "Gemma 3",
    "Mixtral",
    "OLMo 2",
    "Granite",
)
STEP = 1e-4


def family_named(name: str) -> Family:
    family = next(one for one in FAMILIES if one.name == name)
    eager = {"experts_implementation": "eager"} if name == "Mixtral" else {}
    return replace(family, dtype=torch.float64, options={**family.options, **eager})


def setup_of(bridge: Any) -> Setup:
    generator = torch.Generator().manual_seed(0)
    clean, corrupt = (torch.randint(0, 37, (2, 5), generator=generator) for _ in "ab")
    ends = torch.tensor([4, 3])
    prompts = Prompts(2, 5, 37, {"end": ends}, ends + 1, dtype=torch.float64)
    readout = Readout((cg.LogitDiff([1, 2], [3, 4]).bind(prompts),), prompts)
    graph = cg.ModelGraph.from_model(bridge)
    return Setup(bridge, graph, clean, corrupt, readout, PositionTable(2, 5, {"end": ends}))


@pytest.mark.parametrize("name", HELD_TO)
def test_finite_differences(name: str) -> None:
    """What a small step toward corrupt changes, run hook by hook, is what the estimate says."""
    with float64_throughout():
        setup = setup_of(family_named(name).new_bridge())
        fast = FastEngine(setup)
        clean = ReferenceEngine(setup).clean_metric
        # One family is held to all of them, others to those that pass their own modules.
        for request, variant, mode in REQUESTS if name == "GPT-2" else REQUESTS[:6:2]:
            plan = compile_request(setup.graph, request, variant, mode=mode, source="given")
            senders: set[Writer] = {op.node for cell in plan.cells for op in cell.runs[0].patched}
            measured, estimated = [], []
            for step in (STEP, -STEP):
                given = {
                    node: fast.state.clean_value(node)
                    + step * (fast.state.sources.corrupt[node] - fast.state.clean_value(node))
                    for node in senders
                }
                moved = replace(setup, given=given)
                engine = GradientEngine(moved, cg.EAP(), EngineOptions(), fast.with_setup(moved))
                (part,) = engine.run(plan)
                estimated.append(part.values - engine.clean_metric)
                (exact,) = ReferenceEngine(moved).run(plan)
                measured.append(exact.values - clean)
            slope, expected = ((one - two) / (2 * STEP) for one, two in (estimated, measured))
            scale = expected.abs().max().clamp_min(1e-4)
            assert (slope - expected).abs().max() / scale < 2e-5, (name, request)


# -- what holds exactly -------------------------------------------------------------------------


def test_exact_where_the_rest_is_linear() -> None:
    """Nothing but an unembedding after the receiver: the estimate is the answer."""
    family = next(one for one in FAMILIES if one.name == "TransformerLens' own, no norm")
    clean, corrupt = (
        torch.randint(0, 37, (3, 6), generator=torch.Generator().manual_seed(s)) for s in (1, 2)
    )
    metric = cg.LogitDiff([1, 2, 3], [4, 5, 6])
    exp = cg.Experiment(family.bridge(), clean, corrupt, metric, progress=False)
    for variant in ("mlps", "single-pass"):
        for request in ("node -> logits", "[0.0, {0.1, mlp0}] -> logits", "0.1 -> 1.2.v -> logits"):
            exact = exp.patch(request, variant)
            for engine in ENGINES:
                estimate = exp.patch(request, variant, engine=engine)
                np.testing.assert_allclose(changes(estimate), changes(exact), atol=1e-9)


@pytest.mark.parametrize("model", ["gpt2", "llama", "neox"])
def test_senders_add_up_to_the_change_of_the_whole_input(model: str) -> None:
    exp = experiment(model)
    for receiver in (cg.Head(2, 1).q, cg.Head(2, 0).k, cg.Head(1, 1).v, cg.Logits().port):
        before = [str(node) for node in exp.graph.writers if exp.graph.precedes(node, receiver)]
        end = f" -> {receiver}" + ("" if receiver.node == cg.Logits() else " => logits")
        together = exp.patch("{" + ", ".join(before) + "}" + end, "single-pass", engine=cg.EAP())
        apart = exp.patch("[" + ", ".join(before) + "]" + end, "single-pass", engine=cg.EAP())
        np.testing.assert_allclose(changes(apart).sum(0), changes(together), atol=1e-9)


def test_integrated_gradients_of_the_input_add_up_to_the_whole_change() -> None:
    """The embedding set: what everything after makes of it is corrupt less clean, more steps, closer."""
    exp = experiment("gpt2")
    whole = exp.corrupt_metric - exp.clean_metric
    errors = []
    for steps in (4, 64):
        found = changes(exp.patch("embed => logits", engine=cg.EAPIG(steps=steps)))
        errors.append(np.abs(found - whole).max())
    assert errors[1] < errors[0] / 4
    # A sum from one end: off by half a step times the change of the slope, so halved when doubled.
    assert errors[1] < 0.1 * np.abs(whole).max()


def test_set_holds_what_is_given_and_add_does_not() -> None:
    exp = experiment("gpt2")
    request = "embed -> {1.0.v, 2.1.q} => logits"
    both = {
        mode: changes(exp.patch(request, mode=mode, engine=cg.EAP())) for mode in ("set", "add")
    }
    apart = sum(
        changes(exp.patch(f"embed -> {one} => logits", engine=cg.EAP()))
        for one in ("1.0.v", "2.1.q")
    )
    np.testing.assert_allclose(both["add"], apart, atol=1e-9)
    assert np.abs(both["set"] - apart).max() > 1e-4


# -- what must not matter -----------------------------------------------------------------------


def test_batches_and_their_order_do_not_matter() -> None:
    """A batch's mean is in no gradient: five prompts in parts of two, and one by one."""
    tiny = models.tiny_llama()
    clean, corrupt = tiny.tokens(5, 6, seed=1), tiny.tokens(5, 6, seed=2)

    def run(rows: list[int], **options: Any) -> np.ndarray:
        metric = cg.LogitDiff([1 + r for r in rows], [6 + r for r in rows])
        exp = cg.Experiment(
            tiny.bridge,
            clean[rows],
            corrupt[rows],
            metric,
            progress=False,
            allow_no_difference=True,
            **options,
        )
        return changes(exp.patch(ALL, "mlps", engine=cg.EAPIG(steps=2)))

    whole = run([0, 1, 2, 3, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = run([0, 1, 2, 3, 4], memory_budget=150_000)
    np.testing.assert_allclose(small, whole, rtol=1e-5, atol=1e-6)
    order = [3, 1, 4, 0, 2]
    np.testing.assert_allclose(run(order), whole[..., order], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run([4])[..., 0], whole[..., 4], rtol=1e-5, atol=1e-6)


def test_small_budgets_run_in_parts() -> None:
    exp = experiment("llama", 5)
    engine = GradientEngine(exp._setup, cg.EAP(), EngineOptions(memory_budget=150_000))
    assert 1 <= engine.size < 5


def test_padding_does_not_matter() -> None:
    tiny = models.tiny_gpt2()
    clean, corrupt = tiny.tokens(2, 5, seed=1), tiny.tokens(2, 5, seed=2)
    longer = [torch.cat([one, one[:, :2]], dim=1) for one in (clean, corrupt)]
    metric = cg.LogitDiff([1, 2], [3, 4])
    short = cg.Experiment(tiny.bridge, clean, corrupt, metric, progress=False)
    padded = cg.Experiment(tiny.bridge, *longer, metric, lengths=[5, 5], progress=False)
    for variant in ("mlps", "single-pass"):
        one, two = (
            changes(e.patch(ALL, variant, engine=cg.CleanCorrupt())) for e in (short, padded)
        )
        np.testing.assert_allclose(one, two, atol=1e-9)


def test_a_sweep_equals_its_requests_one_by_one() -> None:
    exp = experiment("llama")
    for variant in ("mlps", "single-pass"):
        sweep = changes(
            exp.patch(
                "[embed, 0.1, mlp0] -> [1.2.k, 2.0.q, mlp2] => logits", variant, engine=cg.EAP()
            )
        )
        for row, sender in enumerate(("embed", "0.1", "mlp0")):
            for column, port in enumerate(("1.2.k", "2.0.q", "mlp2")):
                one = exp.patch(f"{sender} -> {port} => logits", variant, engine=cg.EAP())
                np.testing.assert_allclose(changes(one), sweep[row, column], atol=1e-9)


def test_positions_add_up() -> None:
    """Receivers read at each position; a key-value head is all the copies of its group."""
    exp = experiment("llama")
    whole = changes(exp.patch("0.1 -> 2.0.k => logits", engine=cg.EAP()))
    each = changes(exp.patch("0.1 -> 2.0.k@each => logits", engine=cg.EAP()))
    np.testing.assert_allclose(each.sum(0), whole, atol=1e-9)
    copies = sum(changes(exp.patch(f"0.1 -> 2.{h}.k => logits", engine=cg.EAP())) for h in (0, 1))
    kv = exp.patch("0.1 -> kv.k => logits", engine=cg.EAP())
    np.testing.assert_allclose(changes(kv)[2, 0], copies, atol=1e-9)


# -- half precision, sign, sources, metrics ----------------------------------------------------


def test_bfloat16_models_have_sums_in_float32() -> None:
    tiny = models.tiny_llama()
    clean, corrupt = tiny.tokens(3, 6, seed=1), tiny.tokens(3, 6, seed=2)
    metric = cg.LogitDiff([1, 2, 3], [4, 5, 6])
    exact = cg.Experiment(tiny.bridge, clean, corrupt, metric, progress=False)
    half = cg.Experiment(
        tiny.new_bridge().to(torch.bfloat16), clean, corrupt, metric, progress=False
    )
    one, two = (changes(e.patch(ALL, "single-pass", engine=cg.EAP())) for e in (exact, half))
    there = ~np.isnan(one)
    assert np.corrcoef(one[there], two[there])[0, 1] > 0.97
    # In bfloat16 sums would be multiples of 2**-8 of their size.
    values = two[there].astype(np.float32).view(np.uint32) & 0xFFFF
    assert (values != 0).mean() > 0.5


@pytest.mark.parametrize("name", ["GPT-2", "GPT-NeoX", "Llama", "Qwen3", "Gemma 2", "Gemma 3"])
def test_bfloat16_families_estimate_what_their_weights_say(name: str) -> None:
    """The same weights in float64: what differs is rounding, and nobody depends on the batch."""
    family = family_named(name)
    half, wide = family.new_bridge().to(torch.bfloat16), family.new_bridge()
    with torch.no_grad():
        for one, other in zip(wide.parameters(), half.parameters(), strict=True):
            one.copy_(other.double())
    generator = torch.Generator().manual_seed(0)
    clean, corrupt = (torch.randint(0, 37, (4, 5), generator=generator) for _ in "ab")
    metric = cg.LogitDiff([1, 2, 3, 4], [5, 6, 7, 8])
    one, two = (
        cg.Experiment(model, clean, corrupt, metric, progress=False, allow_no_difference=True)
        for model in (half, wide)
    )
    rounded, exact = (changes(e.patch(ALL, "single-pass", engine=cg.EAP())) for e in (one, two))
    there = ~np.isnan(exact)
    assert np.corrcoef(rounded[there], exact[there])[0, 1] > 0.98
    alone = cg.Experiment(
        half,
        clean[1:2],
        corrupt[1:2],
        cg.LogitDiff([2], [6]),
        progress=False,
        allow_no_difference=True,
    ).patch(ALL, "single-pass", engine=cg.EAP())
    scale = np.nanmax(np.abs(rounded))
    # Kernels round otherwise for other batches; no sum of scores does.
    assert np.nanmax(np.abs(changes(alone)[..., 0] - rounded[..., 1])) < 0.05 * scale


@pytest.mark.parametrize("source", ["zero", "mean", "mean-position"])
def test_other_sources(source: Any) -> None:
    exp = experiment("gpt2")
    exact, estimate = (
        exp.patch("head -> logits", source=source, engine=e) for e in ("fast", cg.EAPIG(20))
    )
    one, two = changes(exact).ravel(), changes(estimate).ravel()
    assert np.corrcoef(one, two)[0, 1] > 0.7
    assert (np.sign(one) == np.sign(two)).mean() > 0.7  # an effect is the change of the metric


def test_several_metrics_and_the_paper_s_activations() -> None:
    exp = experiment("gpt2")
    metrics = {"answer": cg.LogitDiff([1, 2, 3], [8, 9, 10]), "prob": cg.LogProb([1, 2, 3])}
    found = exp.patch("head -> 2.1.v => logits", metrics=metrics, engine=cg.EAP())
    alone = exp.patch("head -> 2.1.v => logits", engine=cg.EAP())
    np.testing.assert_allclose(changes(found["answer"]), changes(alone), atol=1e-9)
    assert np.nanmax(np.abs(changes(found["prob"]) - changes(alone))) > 1e-3
    path = exp.patch("node -> logits", "single-pass", engine=cg.EAPIG(2, path="activations"))
    assert path.attrs["engine"] == "EAP-IG activations (2 steps)"


def test_moving_one_output_at_a_time_is_the_mean_over_all_of_them() -> None:
    """On one layer: embedding, heads and MLP, each between corrupt and clean by itself."""
    engine = cg.EAPIG(steps=2, path="activations")
    spots = list(engine.spots((0, 1), 2))
    assert [(spot.what, spot.layer) for spot in spots[::2]] == [
        ("embed", 0),
        ("z", 0),
        ("mlp", 0),
        ("z", 1),
        ("mlp", 1),
    ]
    assert {spot.clean for spot in spots} == {0.0, 0.5}
    assert sum(spot.share for spot in spots) == pytest.approx(1)


# -- what they say they are --------------------------------------------------------------------


def test_results_say_that_they_are_estimates() -> None:
    """In attrs, in print, above pictures, and in what is made of them."""
    exp = experiment("gpt2")
    effects = exp.patch("head -> logits", engine=cg.EAP())
    assert effects.attrs["estimate"] is True
    assert effects.attrs["engine"] == "EAP"
    circuit = cg.Circuit.from_effects(effects, threshold=0.0)
    for shown in (
        repr(effects),
        effects._repr_html_(),
        repr(effects.heatmap()),
        repr(circuit),
        circuit.draw().dot,
    ):
        assert "estimated by EAP" in shown
    assert "estimated" not in repr(exp.patch("head -> logits"))


def test_comparison_with_exact() -> None:
    exp = experiment("gpt2")
    both = exp.compare("head -> 2.1.v => logits", engines=["fast", cg.EAP(), cg.EAPIG(steps=5)])
    assert both.names == ("fast", "EAP", "EAP-IG (5 steps)")
    exact, estimate = (both.effects[name].normalized().values.ravel() for name in both.names[:2])
    there = ~np.isnan(exact)
    row = both.agreement().iloc[0]
    signs = np.sign(exact[there]) == np.sign(estimate[there])
    assert row["sign"] == pytest.approx(signs.mean())
    assert row["pearson"] == pytest.approx(np.corrcoef(exact[there], estimate[there])[0, 1])
    worst = both.worst(3)
    apart = np.sort(np.abs(exact - estimate)[there])[::-1][:3]
    np.testing.assert_allclose(worst["difference"].abs(), apart)
    assert worst["name"][0] == row["at"]
    assert "of signs alike" in repr(both)


def test_choices_are_values() -> None:
    assert cg.EAP() == cg.EAP()
    assert hash(cg.EAPIG(steps=5)) == hash(cg.EAPIG(5))
    assert choose_engine(cg.EAP()) == cg.EAP()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("cg.EAP(rules='lrp')", "no rules 'lrp': write one of relp, gim, or None"),
        ("cg.EAPIG(steps=0)", "EAPIG(steps=0): steps is a whole number from 1 to 10,000"),
        ("cg.EAPIG(steps=10**9)", "steps is a whole number from 1 to 10,000"),
        ("cg.EAPIG(path='weights')", "the path is one of inputs, activations"),
    ],
)
def test_wrong_choices(make: str, message: str) -> None:
    """In a process of its own: here types are checked first, and the words of errors are not."""
    program = (
        f"import circuitgraph as cg\ntry:\n {make}\nexcept cg.CircuitGraphError as e:\n print(e)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert message in found.stdout


@pytest.mark.parametrize(
    ("metric", "request_", "mode", "message"),
    [
        (cg.Accuracy([1, 2, 3]), "head -> logits", "set", "Accuracy has no gradient"),
        (cg.KLDivergence(), "head -> logits", "set", "is smallest on the clean run"),
        (cg.AttentionTo("2.1", 0), "head -> 1.0.q => logits", "set", "is no metric of logits"),
        (
            cg.LogitDiff([1, 2, 3], [4, 5, 6]),
            "embed -> {1.0.v, 2.1.q} => logits",
            "replace",
            "reaches 2.1.q, which is patched too",
        ),
    ],
)
def test_what_cannot_be_estimated_is_refused(
    metric: Any, request_: str, mode: Any, message: str
) -> None:
    tiny = models.tiny_gpt2()
    exp = cg.Experiment(
        tiny.bridge,
        tiny.tokens(3, 6, 1),
        tiny.tokens(3, 6, 2),
        metric,
        progress=False,
        allow_no_difference=True,
    )
    with pytest.raises(UnsupportedError, match=message):
        exp.patch(request_, mode=mode, engine=cg.EAP())


def test_divergence_from_clean_can_be_estimated_on_the_way() -> None:
    tiny = models.tiny_gpt2()
    exp = cg.Experiment(
        tiny.bridge, tiny.tokens(3, 6, 1), tiny.tokens(3, 6, 2), cg.KLDivergence(), progress=False
    )
    assert np.abs(changes(exp.patch("head -> logits", engine=cg.EAPIG()))).max() > 1e-3


# -- rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", ["relp", "gim"])
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Gemma 3", "OLMo 2", "GPT-J"])
def test_rules_change_gradients_and_no_values(name: str, rules: Any) -> None:
    """And find every norm: those of queries and keys, before and after blocks, and the last."""
    family = next(one for one in FAMILIES if one.name == name)
    setup = setup_of(family.bridge())
    backend = setup.backend
    rule = backend.rule(rules, setup.clean[:1])
    per_block = {"GPT-2": 2, "Llama": 2, "Gemma 3": 6, "OLMo 2": 4, "GPT-J": 1}[name]
    activations = len(setup.graph.mlps) if rules == "relp" else 0
    assert len(rule.forwards) == per_block * 3 + 1 + activations
    assert len(rule.halved) == (3 if name in ("Llama", "Gemma 3", "OLMo 2") else 0)
    with rule.applied():
        within = backend.logits(setup.clean)
    torch.testing.assert_close(within, backend.logits(setup.clean), rtol=1e-6, atol=1e-6)


def test_scales_that_are_constants_are_not_pulled_back_through() -> None:
    """Double the stream before a norm: with its scale frozen, the gradient knows nothing of it."""
    exp = experiment("llama")
    for rules in ("relp", "gim"):
        found = changes(exp.patch(ALL, "single-pass", engine=cg.EAP(rules=rules)))
        plain = changes(exp.patch(ALL, "single-pass", engine=cg.EAP()))
        assert np.nanmax(np.abs(found - plain)) > 1e-2


@pytest.mark.parametrize("rules", ["relp", "gim"])
def test_a_rule_that_finds_nothing_to_change_raises(rules: Any) -> None:
    family = next(one for one in FAMILIES if one.name == "TransformerLens' own, RMS, gated")
    setup = setup_of(family.bridge())
    with pytest.raises(UnsupportedError, match="MLP of layer 0 has no activation that can be seen"):
        setup.backend.rule(rules, setup.clean[:1])


SWEEPS = (
    (ALL, "set", {}),
    (ALL, "set", {"variant": "mlps"}),
    (ALL, "add", {"source": "zero"}),
    (ALL, "set", {"source": "mean"}),
    (ALL, "set", {"source": "mean-position"}),
    ("node@{1, end} -> port@{2, end} => logits", "set", {}),
    ("node@2 -> port => logits", "set", {"source": "mean"}),
    ("head -> logits", "set", {}),
    ("[{0.0, 0.1, mlp0}, embed, 0.1] -> [{1.0, 1.2}.q, 1.0.q, mlp1, 1.2.k] => logits", "set", {}),
    ("node@{1, 3} -> port@{2, 3} => logits", "set", {"variant": "mlps", "source": "mean"}),
    ("[{0.0, mlp1}, 0.1] -> port => logits", "set", {"variant": cg.Through([cg.Head(1, 0)])}),
    (ALL, "set", {"metrics": True}),
    (ALL, "set", {"only": True}),
)


@pytest.mark.parametrize(
    ("model", "request_", "mode", "options"),
    [
        *(("gpt2", *sweep) for sweep in SWEEPS),
        *((model, *sweep) for model in ("llama", "neox") for sweep in SWEEPS[:3]),
        ("llama", "head -> kv.v => logits", "set", {}),
    ],
    ids=str,
)
def test_senders_times_receivers_at_once_equal_cell_by_cell(
    model: str, request_: str, mode: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are one product: no change of theirs is found by itself, whatever is swept."""
    exp, engine, options = experiment(model), cg.EAP(), dict(options)
    if "metrics" in options:
        options["metrics"] = {"a": cg.LogitDiff([1, 2, 3], [8, 9, 10]), "b": cg.LogProb([1, 2, 3])}
    if "only" in options:
        options["only"] = np.random.default_rng(0).random(exp.plan(request_).shape) < 0.6
    met: list[object] = []
    run = Contraction.run
    monkeypatch.setattr(Contraction, "run", lambda self: met.append(self) or run(self))
    variant = options.pop("variant", "single-pass")
    at_once = changes(exp.patch(request_, variant, mode, engine, **options))
    assert not met
    monkeypatch.setattr(gradient_engine, "product_of", lambda _: None)
    alone = changes(exp.patch(request_, variant, mode, engine, **options))
    assert len(met) == 1
    np.testing.assert_allclose(at_once, alone, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("request_", [ALL, "head -> head.v -> head.q => logits"])
def test_a_stack_that_runs_out_of_memory_half_way_counts_once(
    request_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp, short = experiment("gpt2"), []
    expected = changes(exp.patch(request_, engine=cg.EAP()))
    walk = SenderStage.walk

    def walk_and_fail(self: Any, numbers: Any, visit: Any) -> None:
        walk(self, numbers, visit)
        if len(numbers) > 4 and visit.__qualname__.endswith("visit"):
            short.append(len(numbers))
            raise MemoryError

    monkeypatch.setattr(SenderStage, "walk", walk_and_fail)
    found = changes(exp.patch(request_, engine=cg.EAP()))
    assert short
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_slices_of_tokens_give_the_same_numbers() -> None:
    exp = experiment("llama")
    product = product_of(exp.plan(ALL, "single-pass"))
    assert product is not None
    fast = FastEngine(exp._setup)
    one, *others = (product.changes(fast, cg.EAP(), at)[0] for at in (2**27, 3000, 500))
    for other in others:  # whole prompts, and parts of one
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("request_", "variant"),
    [
        ("head@each -> logits", "single-pass"),
        ("head -> head.v -> head.q => logits", "single-pass"),
        ("head => logits", "single-pass"),
        ("0.0 -> [{1.0.q, 2.1.q}, 1.0.q] => logits", "single-pass"),  # one of them holds another
    ],
)
def test_what_is_no_product_is_none(request_: str, variant: Any) -> None:
    exp = experiment("gpt2")
    assert product_of(exp.plan(request_, variant)) is None


@pytest.mark.parametrize("rules", ["relp", "gim"])
def test_finding_norms_tells_users_nothing_of_modules_that_were_only_tried(rules: Any) -> None:
    exp = experiment("llama")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        exp.patch("0.0 -> logits", engine=cg.EAP(rules=rules))
    assert not [str(warning.message) for warning in said]
