"""Cutting by scores, against plain rules: a sort, a loop over all edges, every subset there is."""

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import circuitgraph as cg
from circuitgraph.circuit import Circuit
from circuitgraph.circuit.cutting import CutWarning
from circuitgraph.discover import cut
from circuitgraph.effects import Effects
from circuitgraph.errors import CircuitError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import Embed, Logits
from tests.models import tiny_gpt2

SHAPE = ModelShape(n_layers=2, n_heads=2, attn_only=True)
ALL_EDGES = tuple(ModelGraph(SHAPE).edges())


def scored(weights):
    return Circuit.from_edges(SHAPE, dict(zip(ALL_EDGES, weights, strict=True)))


def distinct_weights():
    """Weights without ties in size, of both signs, one for each edge."""
    sizes = st.permutations(range(1, len(ALL_EDGES) + 1))
    signs = st.lists(st.sampled_from([-1, 1]), min_size=len(ALL_EDGES), max_size=len(ALL_EDGES))
    return st.tuples(sizes, signs).map(
        lambda drawn: [size * sign / 10 for size, sign in zip(*drawn, strict=True)]
    )


def importance(circuit, sign):
    """An effect below zero helps."""
    values = {edge: -circuit.weight(edge) for edge in circuit.known}
    return values if sign == "signed" else {edge: abs(value) for edge, value in values.items()}


@given(distinct_weights(), st.integers(0, len(ALL_EDGES)), st.sampled_from(["absolute", "signed"]))
def test_top_is_a_sort(weights, n_edges, sign):
    circuit = scored(weights)
    rank = importance(circuit, sign)
    wanted = sorted(circuit.known, key=rank.__getitem__, reverse=True)[:n_edges]
    assert cut(circuit, n_edges, "top", sign).members == frozenset(wanted)


@given(distinct_weights(), st.integers(0, len(ALL_EDGES)), st.sampled_from(["absolute", "signed"]))
def test_greedy_is_the_plain_loop(weights, n_edges, sign):
    circuit = scored(weights)
    rank = importance(circuit, sign)
    inside, members = {Logits()}, set()
    for _ in range(n_edges):
        candidates = [
            edge for edge in circuit.known if edge.receiver.node in inside and edge not in members
        ]
        best = max(candidates, key=rank.__getitem__)
        members.add(best)
        inside.add(best.sender)
    assert cut(circuit, n_edges, "greedy", sign).members == members


def on_ways(edges):
    """Whether each edge lies on a way from the embedding to the logits."""
    graph = nx.DiGraph()
    graph.add_nodes_from([Embed(), Logits()])
    graph.add_edges_from((edge.sender, edge.receiver.node) for edge in edges)
    reached = nx.descendants(graph, Embed()) | {Embed()}
    leads = nx.ancestors(graph, Logits()) | {Logits()}
    return all(edge.sender in reached and edge.receiver.node in leads for edge in edges)


@pytest.mark.parametrize("sign", ["absolute", "signed"])
@pytest.mark.parametrize("n_edges", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(4))
def test_ilp_is_the_best_of_every_connected_subset(seed, n_edges, sign):
    generator = np.random.default_rng(seed)
    edges = [ALL_EDGES[at] for at in generator.permutation(len(ALL_EDGES))[:11]]
    if not any(isinstance(edge.sender, Embed) and edge.receiver.node == Logits() for edge in edges):
        edges[0] = cg.Edge(Embed(), Logits())
    weights = dict(zip(edges, generator.normal(size=len(edges)), strict=True))
    circuit = Circuit.from_edges(SHAPE, weights)
    rank = importance(circuit, sign)
    connected = [
        subset for subset in itertools.combinations(circuit.known, n_edges) if on_ways(subset)
    ]
    reachable = {edge for edge in edges if edge in circuit.prune()}
    if len(reachable) <= n_edges:
        with pytest.warns(CutWarning, match="all of them") if len(reachable) < n_edges else _no():
            assert cut(circuit, n_edges, "ilp", sign).members == reachable
    elif not connected:
        with pytest.raises(CircuitError, match="no circuit of exactly"):
            cut(circuit, n_edges, "ilp", sign)
    else:
        best = max(connected, key=lambda subset: sum(map(rank.__getitem__, subset)))
        assert cut(circuit, n_edges, "ilp", sign).members == frozenset(best)


class _no:  # noqa: N801  # reads as a word where it is used
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def test_a_strong_edge_that_leads_nowhere():
    """By hand: 0.1 -> 1.0.q is strongest, but 1.0 writes into nothing that is scored."""
    circuit = Circuit.from_edges(
        SHAPE,
        {
            "embed -> 0.0.v": -0.2,
            "0.0 -> logits": -0.3,
            "embed -> 0.1.v": 0.5,
            "0.1 -> 1.0.q": -0.9,
            "embed -> logits": -0.1,
        },
    )
    names = {how: {str(edge) for edge in cut(circuit, 2, how)} for how in ("top", "greedy", "ilp")}
    assert names == {
        "top": {"0.1 -> 1.0.q", "embed -> 0.1.v"},
        "greedy": {"0.0 -> logits", "embed -> 0.0.v"},
        "ilp": {"0.0 -> logits", "embed -> 0.0.v"},
    }
    with pytest.warns(CutWarning, match="4 edges were asked for, but only 3"):
        assert len(cut(circuit, 4, "ilp")) == 3
    with pytest.warns(CutWarning, match="4 edges were asked for, but only 3 lead to the logits"):
        assert len(cut(circuit, 4, "greedy")) == 3
    # What is known stays known, and says how it was found.
    assert cut(circuit, 1).known == circuit.known
    assert cut(circuit, 1).attrs["how"] == "top"


def test_effects_help_where_they_are_negative_and_scores_of_files_where_positive():
    effects = Effects.from_arrays(
        [[1.0, 1.0], [5.0, 5.0]],
        [4.0, 4.0],
        [0.0, 0.0],
        sweep={"sender": ["0.0", "0.1"]},
        request="[0.0, 0.1] -> logits",
        shape='{"n_layers": 2, "n_heads": 2, "attn_only": true}',
    )
    assert [str(edge) for edge in cut(effects, 1, sign="signed")] == ["0.0 -> logits"]
    weights = {"0.0 -> logits": 0.7, "0.1 -> logits": -0.9}
    mib = Circuit.from_edges(SHAPE, weights, attrs={"mib": {}})
    assert [str(edge) for edge in cut(mib, 1, sign="signed")] == ["0.0 -> logits"]
    assert [str(edge) for edge in cut(mib, 1)] == ["0.1 -> logits"]
    ours = Circuit.from_edges(SHAPE, weights)
    assert [str(edge) for edge in cut(ours, 1, sign="signed")] == ["0.1 -> logits"]


def test_ties_go_to_the_earlier_edge():
    circuit = Circuit.from_edges(SHAPE, dict.fromkeys(reversed(ALL_EDGES), -0.5))
    assert cut(circuit, 3).edges == tuple(sorted(ALL_EDGES))[:3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "n_edges must be a whole number of 0 or more, got -1"),
        ((1.5,), "n_edges must be a whole number of 0 or more, got 1.5"),
        ((True,), "n_edges must be a whole number of 0 or more, got True"),
        ((1, "best"), "how must be one of 'top', 'greedy', 'ilp', got 'best'"),
        ((1, "top", "both"), "sign must be one of 'absolute', 'signed', got 'both'"),
    ],
)
def test_what_is_not_allowed(arguments, message):
    with pytest.raises(CircuitError, match=f"cannot cut: {message}"):
        cut(scored(range(len(ALL_EDGES))), *arguments)
    with pytest.raises(CircuitError, match="have none, the first '0.0 -> logits'"):
        cut(Circuit.from_edges(SHAPE, ["0.0 -> logits"]), 1)
    with pytest.raises(CircuitError, match="got str"):
        cut("0.0 -> logits", 1)


def test_the_published_cut_of_a_published_file(mib_file):
    """The file holds EAP-IG's scores, and the 800 strongest edges as its authors pruned them."""
    published = Circuit.from_mib(mib_file)
    assert cut(published, 800).prune().members == published.members


def test_a_circuit_cut_from_estimates_says_by_what_they_were_made():
    tiny = tiny_gpt2()
    clean, corrupt = tiny.tokens(2, 4, seed=1), tiny.tokens(2, 4, seed=2)
    exp = cg.Experiment(tiny.bridge, clean, corrupt, cg.LogitDiff([3, 3], [7, 7]))
    effects = exp.patch("node -> port => logits", "single-pass", engine=cg.EAP())
    circuit = cut(effects, 5)
    assert circuit.attrs["estimate"] == "EAP"
    assert "weights estimated by EAP" in repr(circuit)
