"""Judgements of circuits, against a plain transformer run node by node and sums by hand."""

import numpy as np
import pytest

import circuitgraph as cg
from circuitgraph.circuit import Circuit
from circuitgraph.circuit.masks import EdgeMasks
from circuitgraph.errors import CircuitError, MetricError
from circuitgraph.evaluation.random_circuits import random_circuit, random_way
from tests.models import tiny_attn_only, tiny_gpt2, tiny_qwen2
from tests.oracles.circuits import plain_edge, run_circuit

ANSWER, WRONG = 3, 7


def experiment(tiny, n_prompts=4, **options):
    clean, corrupt = tiny.tokens(n_prompts, seed=1), tiny.tokens(n_prompts, seed=2)
    return cg.Experiment(tiny.bridge, clean, corrupt, last_difference, **options)


def last_difference(logits):
    return logits[:, -1, ANSWER] - logits[:, -1, WRONG]


def judged(tiny, exp, edges):
    """The metric of a circuit by the oracle, per prompt."""
    setup = exp._setup
    kept = [plain_edge(edge) for edge in edges]
    return last_difference(run_circuit(tiny.plain, setup.clean, setup.corrupt, kept)).numpy()


def some_edges(exp, n_edges, seed=0):
    masks = EdgeMasks(exp.graph)
    picked = np.random.default_rng(seed).permutation(len(masks.edges))[:n_edges]
    return [masks.edges[at] for at in picked]


@pytest.fixture(scope="module", params=[tiny_gpt2, tiny_qwen2, tiny_attn_only])
def pair(request):
    tiny = request.param()
    return tiny, experiment(tiny)


def test_a_circuit_alone_and_its_complement(pair):
    tiny, exp = pair
    edges = some_edges(exp, exp.graph.n_edges // 2)
    found = exp.evaluate(Circuit.from_edges(exp.graph, edges), baselines=3)
    rest = [edge for edge in exp.graph.edges() if edge not in set(edges)]
    alone, without = judged(tiny, exp, edges), judged(tiny, exp, rest)
    clean, corrupt = judged(tiny, exp, exp.graph.edges()), judged(tiny, exp, [])
    assert found.values == pytest.approx(alone, abs=1e-9)
    span = clean.mean() - corrupt.mean()
    assert found.faithfulness == pytest.approx((alone.mean() - corrupt.mean()) / span, abs=1e-9)
    assert found.complement == pytest.approx((without.mean() - corrupt.mean()) / span, abs=1e-9)
    assert found.per_prompt.mean() == pytest.approx(found.faithfulness)
    assert len(found.baselines) == 3
    low, high = found.interval
    assert low < found.faithfulness < high


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_qwen2])
def test_prompts_that_begin_alike_are_run_from_where_they_differ(build):
    tiny = build()
    clean, corrupt = tiny.tokens(3, 6, seed=1), tiny.tokens(3, 6, seed=2)
    corrupt[:, :2] = clean[:, :2]
    exp = cg.Experiment(tiny.bridge, clean, corrupt, last_difference)
    for n_edges in (12, exp.graph.n_edges - 7):
        edges = some_edges(exp, n_edges)
        found = exp.evaluate(Circuit.from_edges(exp.graph, edges), baselines=0)
        assert found.values == pytest.approx(judged(tiny, exp, edges), abs=1e-9)


def test_everything_is_clean_and_one_edge_too_few_is_not(pair):
    _, exp = pair
    whole = Circuit.from_edges(exp.graph, list(exp.graph.edges()))
    found = exp.evaluate(whole, baselines=0)
    assert found.faithfulness == pytest.approx(1, abs=1e-9)
    assert found.complement == pytest.approx(0, abs=1e-9)
    assert found.heads == (len(exp.graph.heads),) * 2
    assert np.isnan(found.rank)


def test_the_interval_is_that_of_a_plain_loop(pair):
    _, exp = pair
    found = exp.evaluate(Circuit.from_edges(exp.graph, some_edges(exp, 9)), baselines=0, seed=4)
    generator = np.random.default_rng(4)
    counts = generator.multinomial(4, np.full(4, 0.25), size=2000)
    drawn = []
    for times in counts:
        rows = np.repeat(np.arange(4), times)
        top = found.values[rows].mean() - found.empty[rows].mean()
        drawn.append(top / (found.clean[rows].mean() - found.empty[rows].mean()))
    assert found.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_other_sources_have_their_own_empty_circuit():
    tiny = tiny_gpt2()
    exp = experiment(tiny)
    circuit = Circuit.from_edges(exp.graph, some_edges(exp, 40))
    found = exp.evaluate(circuit, source="zero", baselines=0)
    everything = list(exp.graph.edges())
    empty = exp.patch(everything, "single-pass", "replace", "reference", source="zero")
    assert found.empty == pytest.approx(empty.data["patched"].to_numpy(), abs=1e-9)
    outside = [edge for edge in everything if edge not in circuit.members]
    alone = exp.patch(outside, "single-pass", "replace", "reference", source="zero")
    assert found.values == pytest.approx(alone.data["patched"].to_numpy(), abs=1e-9)
    with pytest.raises(CircuitError, match="source must be one of 'corrupt', 'zero'"):
        exp.evaluate(circuit, source="given")


def test_it_says_what_a_reader_needs():
    exp = experiment(tiny_gpt2())
    effects = exp.patch("node -> port => logits", "single-pass")
    circuit = cg.discover.cut(effects, 60)
    found = exp.evaluate(circuit, baselines=5)
    text = repr(found)
    assert found.found_here is True
    assert "found on these prompts" in text
    assert "60 edges" in text
    assert "random circuits" in text
    assert "source corrupt, mode replace" in text
    against = [edge for edge, weight in circuit.known.items() if weight.value > 0]
    inside = sum(edge in circuit.members for edge in against)
    assert found.helps_against == (inside, len(against) - inside)
    fresh = cg.Experiment(
        tiny_gpt2().bridge,
        tiny_gpt2().tokens(4, seed=11),
        tiny_gpt2().tokens(4, seed=12),
        last_difference,
    )
    again = fresh.evaluate(circuit, baselines=0)
    assert again.found_here is False
    assert "fresh prompts" in repr(again)
    assert "<td>faithfulness f</td>" in found._repr_html_()
    assert set(found.to_dataframe()["quantity"]) >= {"faithfulness", "complement"}


def test_what_cannot_be_judged():
    exp = experiment(tiny_gpt2())
    other = Circuit.from_edges(cg.ModelShape(2, 2), ["0.0 -> logits"])
    with pytest.raises(CircuitError, match="this circuit is of another model: it has"):
        exp.evaluate(other)
    with pytest.raises(CircuitError, match="the circuit has no edges"):
        exp.evaluate(Circuit.from_edges(exp.graph, []))
    circuit = Circuit.from_edges(exp.graph, ["0.0 -> logits"])
    with pytest.raises(CircuitError, match="baselines must be a whole number of 0 or more"):
        exp.evaluate(circuit, baselines=-1)
    with pytest.raises(CircuitError, match="a Circuit is judged, got list"):
        exp.evaluate(["0.0 -> logits"])
    same = tiny_gpt2().tokens(2, seed=1)
    undefined = cg.Experiment(
        tiny_gpt2().bridge, same, same, last_difference, allow_no_difference=True
    )
    with pytest.raises(MetricError, match="faithfulness is undefined"):
        undefined.evaluate(circuit)


class TestRandomCircuits:
    @pytest.mark.parametrize("n_edges", [1, 2, 7, 50, 150])
    def test_they_are_connected_and_of_the_size(self, n_edges):
        masks = EdgeMasks(tiny_graph())
        generator = np.random.default_rng(0)
        drawn = [random_circuit(masks, n_edges, generator) for _ in range(20)]
        for mask in drawn:
            circuit = Circuit.from_edges(
                masks.graph, [masks.edges[at] for at in np.flatnonzero(mask)]
            )
            assert len(circuit) == n_edges
            assert circuit.prune() == circuit
        if n_edges > 1:
            assert len({mask.tobytes() for mask in drawn}) > 10

    def test_only_allowed_edges(self):
        masks = EdgeMasks(tiny_graph())
        generator = np.random.default_rng(0)
        allowed = generator.random(len(masks.edges)) < 0.6
        assert not (random_circuit(masks, 20, generator, allowed) & ~allowed).any()
        with pytest.raises(CircuitError, match="cannot be drawn from"):
            random_circuit(masks, len(masks.edges), generator, allowed)

    def test_a_way_more(self):
        masks = EdgeMasks(tiny_graph())
        generator = np.random.default_rng(0)
        mask = random_circuit(masks, 10, generator)
        for _ in range(20):
            more = random_way(masks, mask, generator)
            assert (more & mask == mask).all()
            assert more.sum() > mask.sum()
            assert (masks.on_a_way(more) == more).all()


def tiny_graph():
    return cg.ModelGraph(cg.ModelShape(n_layers=3, n_heads=3))


class TestCurve:
    def test_each_size_is_the_oracles(self):
        tiny = tiny_gpt2()
        exp = experiment(tiny)
        effects = exp.patch("node -> port => logits", "single-pass")
        found = exp.curve(effects, sizes=[0, 5, 40, 0.5, 1.0])
        n_all = exp.graph.n_edges
        assert found.size.tolist() == [0, 5, 40, n_all // 2, n_all]
        clean, corrupt = judged(tiny, exp, exp.graph.edges()), judged(tiny, exp, [])
        for row in found.table.itertuples():
            circuit = cg.discover.cut(effects, row.size, sign="signed")
            assert row.pruned == len(circuit.prune())
            alone = judged(tiny, exp, circuit.members).mean()
            f = (alone - corrupt.mean()) / (clean.mean() - corrupt.mean())
            assert row.faithfulness == pytest.approx(f, abs=1e-9)
        share, f = found.table["share"].to_numpy(), found.table["faithfulness"].to_numpy()
        by_hand = sum(
            (share[at + 1] - share[at]) * (f[at] + f[at + 1]) / 2 for at in range(len(f) - 1)
        )
        assert found.cpr == pytest.approx(by_hand)
        gone = abs(1 - f)
        by_hand = sum(
            (share[at + 1] - share[at]) * (gone[at] + gone[at + 1]) / 2 for at in range(len(f) - 1)
        )
        assert found.cmd == pytest.approx(by_hand)
        assert "CPR" in repr(found)

    def test_areas_of_mibs_sizes(self):
        """f = 1 everywhere gives .999: the first size is a thousandth of the edges."""
        from circuitgraph.evaluation.curve import MIB_SHARES, area

        shares = np.array(MIB_SHARES)
        assert area(shares, np.ones(10)) == pytest.approx(0.999)

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ([], "sizes is empty"),
            ([1.5], r"sizes are whole numbers of edges \(0 to 172\) or shares"),
            ([10**6], "sizes are whole numbers"),
            ([5, 5], "sizes must grow and differ"),
            (["all"], "got 'all'"),
        ],
    )
    def test_sizes_that_mean_nothing(self, sizes, message):
        exp = experiment(tiny_gpt2())
        scored = Circuit.from_edges(exp.graph, dict.fromkeys(exp.graph.edges(), 0.1))
        with pytest.raises(CircuitError, match=message):
            exp.curve(scored, sizes=sizes)
