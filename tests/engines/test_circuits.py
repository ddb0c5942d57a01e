"""Circuits as rows of kept edges, against the reference engine, the oracle and what must hold."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.fast.kept import KeptEdges, kept_by_plan
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits
from tests.engines.asking import oracle_node, oracle_port
from tests.engines.cases import MODELS, case, close, run
from tests.engines.known_models import hand_worked, only_at
from tests.engines.requests import examples
from tests.engines.test_known_answers import setup_of
from tests.oracles.path_patching import patch_edges


def random_rows(n_edges: int, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.random(n_edges) < share for share in (0.02, 0.3, 0.7, 0.98)])
    rows[:, rng.integers(n_edges)] = False  # an ordinary request patches something
    return rows


def plan_without(graph: ModelGraph, row: np.ndarray[Any, Any], source: str = "corrupt") -> Any:
    """The ordinary request that patches every edge outside a row."""
    cut = graph.edge_index.edges(np.flatnonzero(~row).tolist())
    return compile_request(graph, cut, "single-pass", mode="replace", source=source)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", MODELS)
class TestEveryFamily:
    def test_rows_are_the_oracle(self, model: str) -> None:
        """Against plain torch, which shares nothing with the engines; edges by their own names."""
        one = case(model)
        index = one.graph.edge_index
        rows = random_rows(len(index), seed=1)
        found = one.fast.circuits().measure(rows)
        for row, values in zip(rows, found, strict=True):
            edges = [
                (oracle_node(edge.sender), oracle_port(edge.receiver))
                for edge in index.edges(np.flatnonzero(~row).tolist())
            ]
            logits = patch_edges(
                one.tiny.plain, one.setup.clean, one.setup.corrupt, edges, mode="replace"
            )
            assert close(values, one.measured([logits])[0])

    def test_nothing_is_corrupt_and_everything_is_clean(self, model: str) -> None:
        """Property 8."""
        for metric in ("everything", "KL", "log prob"):
            one = case(model, metric)
            rows = np.zeros((2, len(one.graph.edge_index)), dtype=np.bool_)
            rows[1] = True
            corrupt, clean = one.fast.circuits().measure(rows)
            assert close(clean, one.reference.clean_metric)
            assert close(corrupt, one.reference.corrupt_metric)

    def test_many_rows_are_their_rows_one_by_one(self, model: str) -> None:
        one = case(model)
        rows = random_rows(len(one.graph.edge_index), seed=3)
        circuits = one.fast.circuits()
        together = circuits.measure(rows)
        alone = torch.cat([circuits.measure(row[None]) for row in rows])
        assert close(together, alone)
        circuits._budget = 1  # rows by themselves
        assert close(circuits.measure(rows[::-1].copy()).flip(0), together)

    def test_an_ordinary_request_over_many_edges_is_judged_as_a_circuit(self, model: str) -> None:
        one = case(model)
        row = random_rows(len(one.graph.edge_index), seed=4)[1]
        plan = plan_without(one.graph, row)
        assert one.fast.judged(plan) is not None
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no family falls back to the reference engine
            found = run(one.fast, plan)
        assert close(found, one.measured(one.oracle(plan)))

    def test_fewer_traits_give_the_same_numbers(self, model: str) -> None:
        one = case(model)
        rows = random_rows(len(one.graph.edge_index), seed=5)
        unchecked = FastEngine(one.setup, self_check=False)
        assert close(unchecked.circuits().measure(rows), one.fast.circuits().measure(rows))


@pytest.mark.parametrize(
    ("model", "source"),
    [("gpt2", "zero"), ("gemma2", "mean"), ("qwen2", "mean-position"), ("neox", "given")],
)
def test_other_sources_are_the_reference(model: str, source: Any) -> None:
    """Nodes that read nothing live write something else there than their patched value."""
    one = case(model, "logit diff early")
    index = one.graph.edge_index
    row = np.ones(len(index), dtype=np.bool_)
    for port in (Head(0, 1).v, Head(1, 0).q, Head(1, 0).k, MLP(1), Logits()):
        row[index.block(port)] = random_rows(len(index), seed=2)[1][index.block(port)]
    row[index.block(MLP(0))] = False  # reads nothing live, and is heard
    if source == "given":
        row[one.graph.edge_index.numbers(one.graph.edges_from(Head(1, 1)))] = True  # has no value
        given = {
            node: torch.full((1,), 0.1 * place, dtype=torch.float64)
            for place, node in enumerate(one.graph.writers)
            if node != Head(1, 1)
        }
        one = replace(one, setup=replace(one.setup, given=given))
    plan = plan_without(one.graph, row, source)
    assert one.fast.judged(plan) is not None
    assert close(run(one.fast, plan), run(one.reference, plan))


@pytest.mark.parametrize("model", ["gpt2", "gemma2"])
def test_a_node_is_its_outgoing_edges(model: str) -> None:
    """Property 9: a head corrupt, everything downstream live."""
    one = case(model)
    for node in (Head(0, 1), Embed(), Head(1, 0)):
        row = np.ones((1, len(one.graph.edge_index)), dtype=np.bool_)
        row[0, one.graph.edge_index.numbers(one.graph.edges_from(node))] = False
        plan = compile_request(one.graph, f"{node} => logits")
        assert close(one.fast.circuits().measure(row), run(one.reference, plan))


@pytest.mark.parametrize("kept", [3, 2, 1])
def test_hand_worked_model(kept: int) -> None:
    """The numbers of the model that was worked out by hand, by rows instead of by edges."""
    edges = [
        Edge(Head(0, 1), Logits()),
        Edge(Head(0, 0), Head(1, 1).v),
        Edge(Embed(), Head(0, 0).v),
    ]
    answers = [(-19, -41), (-13, -25), (-9, -13)]
    clean, corrupt = torch.tensor([[1]]), torch.tensor([[0]])
    for token in (0, 1):
        setup = setup_of(hand_worked(), clean, corrupt, only_at(0, token))
        index = setup.graph.edge_index
        row = ~index.rows([edges[:kept]])
        found = FastEngine(setup).circuits().measure(row)
        assert found.tolist() == [[answers[kept - 1][token]]]


def test_positions_are_not_taken_for_rows() -> None:
    one = case("gpt2")
    for request in ("0.1@S2 -> 1.0.k => logits", "0.1 -> 1.0.k@end => logits"):
        assert (
            kept_by_plan(compile_request(one.graph, request, "single-pass", mode="replace")) is None
        )
    path = compile_request(one.graph, "0.1 -> 1.0.k => logits", "single-pass", mode="replace")
    (row,) = kept_by_plan(path)  # type: ignore[misc]
    cut = one.graph.edge_index.edges(np.flatnonzero(~row).tolist())
    assert cut == (Edge(Head(0, 1), Head(1, 0).k),)


# -- edges by number -------------------------------------------------------------------------------


shapes = st.builds(
    lambda layers, kv, per, parallel, mlps: ModelShape(
        layers,
        kv * per,
        kv,
        parallel=parallel,
        mlp_layers=None if mlps is None else tuple(sorted({m % layers for m in mlps})),
    ),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 3),
    st.booleans(),
    st.none() | st.lists(st.integers(0, 3), max_size=3),
)


@given(shapes)
@examples(30)
def test_numbers_are_the_order_of_the_graph(shape: ModelShape) -> None:
    graph = ModelGraph(shape)
    index, edges = graph.edge_index, tuple(graph.edges())
    assert len(index) == len(edges) == graph.n_edges
    assert index.edges(range(len(index))) == edges
    assert index.numbers(edges).tolist() == list(range(len(index)))
    for port in graph.ports:
        assert index.edges(range(len(index))[index.block(port)]) == graph.edges_into(port)


@given(shapes, st.integers(0, 2**16), st.sampled_from([0.05, 0.3, 0.8]))
@examples(30)
def test_edges_that_matter_lie_on_a_path(shape: ModelShape, seed: int, share: float) -> None:
    """By walking the graph: an edge matters if the embedding reaches it and it reaches the logits."""
    import networkx as nx

    graph = ModelGraph(shape)
    index = graph.edge_index
    row = np.random.default_rng(seed).random(len(index)) < share
    dag = nx.MultiDiGraph()
    dag.add_nodes_from(graph.nodes)
    for edge in index.edges(np.flatnonzero(row).tolist()):
        dag.add_edge(edge.sender, edge.receiver.node)
    on_a_path = nx.descendants(dag, Embed()) | {Embed()}
    to_the_end = nx.ancestors(dag, Logits()) | {Logits()}
    for unchanged in (True, False):
        kept = KeptEdges(index, row[None]).that_matter(unchanged=unchanged)
        expected = {
            edge
            for edge in index.edges(np.flatnonzero(row).tolist())
            if edge.receiver.node in to_the_end and (not unchanged or edge.sender in on_a_path)
        }
        assert set(index.edges(np.flatnonzero(kept.rows[0]).tolist())) == expected
        assert {w for w, used in zip(graph.writers, kept.used[0], strict=True) if used} == {
            edge.sender for edge in expected
        }
