"""Completeness, minimality and hypothesis tests, against oracles and truths known by hand."""

import numpy as np
import pytest
from scipy import stats

import circuitgraph as cg
from circuitgraph.circuit import Circuit
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.hypotheses import equivalence_p, hsic, independence_p
from tests.evaluation.test_evaluation import experiment, judged, some_edges
from tests.models import tiny_gpt2


@pytest.fixture(scope="module")
def pair():
    tiny = tiny_gpt2()
    return tiny, experiment(tiny)


def without(edges, nodes):
    return [e for e in edges if e.sender not in nodes and e.receiver.node not in nodes]


class TestCompleteness:
    def test_each_set_is_the_oracles(self, pair):
        tiny, exp = pair
        edges = some_edges(exp, 120)
        circuit = Circuit.from_edges(exp.graph, edges, {"early": ["0.0", "0.1"], "mlps": ["mlp1"]})
        found = exp.completeness(circuit, random_sets=2, greedy_steps=0).table.set_index("set")
        assert set(found.index) == {"nothing", "early", "mlps", "random 1", "random 2"}
        span = abs(judged(tiny, exp, exp.graph.edges()).mean() - judged(tiny, exp, []).mean())
        for name, row in found.iterrows():
            nodes = {cg.parse(f"{text} -> logits").steps[0].sites[0].what for text in names(row)}
            alone = judged(tiny, exp, without(edges, nodes)).mean()
            whole = judged(tiny, exp, without(exp.graph.edges(), nodes)).mean()
            assert row["circuit"] == pytest.approx(alone, abs=1e-9), name
            assert row["model"] == pytest.approx(whole, abs=1e-9), name
            assert row["share"] == pytest.approx(abs(alone - whole) / span, abs=1e-9)

    def test_the_whole_model_is_complete_and_greed_finds_no_less_than_one_node(self, pair):
        _, exp = pair
        whole = Circuit.from_edges(exp.graph, list(exp.graph.edges()))
        assert exp.completeness(whole, random_sets=3, greedy_steps=2).worst < 1e-9
        circuit = Circuit.from_edges(exp.graph, some_edges(exp, 120))
        each = {str(node): [node] for node in circuit.nodes if isinstance(node, cg.Head | cg.MLP)}
        alone = exp.completeness(circuit, each, random_sets=0, greedy_steps=0)
        table = alone.table[alone.table["set"] != "nothing"]
        greedy = exp.completeness(circuit, {}, random_sets=0, greedy_steps=1).table
        worst = greedy[greedy["set"] == "greedy worst"]["share"].iloc[0]
        assert worst == pytest.approx(table["share"].max())
        more = exp.completeness(circuit, {}, random_sets=0, greedy_steps=3).worst
        assert more >= worst - 1e-12


def names(row):
    return [name for name in row["nodes"].split(", ") if name]


class TestMinimality:
    def test_each_edge_is_the_oracles(self, pair):
        tiny, exp = pair
        edges = some_edges(exp, 60)
        found = exp.minimality(Circuit.from_edges(exp.graph, edges)).table.set_index("name")
        whole = judged(tiny, exp, edges)
        changes = []
        for edge in edges[:12]:
            change = judged(tiny, exp, [other for other in edges if other != edge]) - whole
            row = found.loc[str(edge)]
            assert row["change"] == pytest.approx(change.mean(), abs=1e-9)
            if np.abs(change).max() > 1e-9:
                p = stats.ttest_1samp(change, 0.0).pvalue
                assert row["p"] == pytest.approx(p, rel=1e-4)
            changes.append(abs(change.mean()))
        assert max(changes) > 0

    def test_nodes_beside_others_that_are_out_already(self, pair):
        tiny, exp = pair
        edges = some_edges(exp, 120)
        circuit = Circuit.from_edges(exp.graph, edges)
        found = exp.minimality(circuit, by="node", beside={"1.0": ["1.1", "1.2"]})
        row = found.table.set_index("name").loc["1.0"]
        others = {cg.Head(1, 1), cg.Head(1, 2)}
        before = judged(tiny, exp, without(edges, others)).mean()
        after = judged(tiny, exp, without(edges, others | {cg.Head(1, 0)})).mean()
        assert row["change"] == pytest.approx(after - before, abs=1e-9)

    def test_an_edge_that_leads_nowhere_is_idle(self, pair):
        _, exp = pair
        circuit = Circuit.from_edges(
            exp.graph, ["embed -> logits", "embed -> 0.0.v", "embed -> mlp1", "mlp1 -> logits"]
        )
        found = exp.minimality(circuit)
        assert "embed -> 0.0.v" in found.idle
        assert found.table.set_index("name").loc["embed -> 0.0.v", "p"] == 1

    def test_what_is_not_allowed(self, pair):
        _, exp = pair
        circuit = Circuit.from_edges(exp.graph, ["0.0 -> logits"])
        with pytest.raises(CircuitError, match="by must be 'edge' or 'node', got 'head'"):
            exp.minimality(circuit, by="head")
        with pytest.raises(CircuitError, match="it needs by='node'"):
            exp.minimality(circuit, beside={"1.0": ["1.1"]})


class TestHypotheses:
    def test_equivalence_by_hand(self):
        # Four prompts, all above: only 0 and 4 of 4 are as far from a half.
        assert equivalence_p(4, 4, 0.1) == pytest.approx(0.6**4 + 0.4**4)
        # Two of four is exactly a half: everything is at least as far.
        assert equivalence_p(2, 4, 0.1) == pytest.approx(1)
        assert equivalence_p(90, 100) < 1e-3
        assert equivalence_p(55, 100) > 0.5

    def test_hsic_is_the_trace_of_centred_kernels(self):
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(2, 9))

        def kernel(sample):
            apart = abs(sample[:, None] - sample[None])
            width = np.median([apart[i, j] for i in range(9) for j in range(i)])
            return np.exp(-(apart**2) / (2 * width**2))

        centre = np.eye(9) - np.ones((9, 9)) / 9
        by_hand = np.trace(centre @ kernel(x) @ centre @ centre @ kernel(y) @ centre) / 64
        assert hsic(x, y) == pytest.approx(by_hand)

    def test_independence_sees_dependence_and_only_that(self):
        generator = np.random.default_rng(1)
        x = generator.normal(size=40)
        assert independence_p(x, x**2, 200, generator) < 0.02
        p = [
            independence_p(generator.normal(size=20), generator.normal(size=20), 60, generator)
            for _ in range(60)
        ]
        assert 0.3 < np.mean(p) < 0.7
        assert independence_p(np.ones(9), x[:9], 50, generator) == 1

    def test_the_whole_model_and_a_circuit_of_nothing_much(self, pair):
        _, exp = pair
        whole = Circuit.from_edges(exp.graph, list(exp.graph.edges()))
        found = exp.test_circuit(whole, randoms=5, permutations=20)
        assert found.p("equivalence") == 1
        assert found.table.set_index("test").loc["equivalence", "good"]
        few = Circuit.from_edges(exp.graph, ["embed -> mlp0", "mlp0 -> logits"])
        found = exp.test_circuit(few, randoms=20, permutations=20)
        assert set(found.table["test"]) == {
            "equivalence",
            "independence",
            "minimality",
            "sufficiency",
            "partial necessity",
        }
        assert found.table["p"].between(0, 1).all()
        assert len(found.edges) == 2
        with pytest.raises(CircuitError, match="no test 'magic': there are equivalence"):
            found.p("magic")

    def test_sufficiency_counts_random_circuits(self, pair):
        _, exp = pair
        circuit = Circuit.from_edges(exp.graph, some_edges(exp, 150)).prune()
        found = exp.test_circuit(circuit, randoms=10, permutations=5, seed=3)
        beside = exp.evaluate(circuit, baselines=10, seed=3)
        share = found.table.set_index("test").loc["sufficiency", "statistic"]
        assert share == pytest.approx(beside.rank)

    def test_what_cannot_be_tested(self, pair):
        _, exp = pair
        loose = Circuit.from_edges(exp.graph, ["0.0 -> logits"])
        with pytest.raises(CircuitError, match="nothing is left of the circuit"):
            exp.test_circuit(loose)
        circuit = Circuit.from_edges(exp.graph, ["embed -> logits"])
        with pytest.raises(CircuitError, match="epsilon is a share"):
            exp.test_circuit(circuit, epsilon=0.7)
