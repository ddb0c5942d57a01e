"""Sweeps over sets of edges: requests, plans and effects."""

import time
from typing import Any

import numpy as np
import pytest

import circuitgraph as cg
from circuitgraph.circuit.masks import EdgeMasks
from circuitgraph.compiler import compile as compile_request
from circuitgraph.errors import CircuitGraphError, RequestError, UnsupportedError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import Edge, Embed, Head, Logits
from circuitgraph.plan import ReplaceSenders
from tests.engines.cases import N_POS, N_PROMPTS
from tests.models import tiny_gemma2, tiny_gpt2
from tests.plans import ATTN_ONLY, GROUPED, PARALLEL, SMALL

GPT2 = ModelGraph(ModelShape(n_layers=12, n_heads=12))
A, B = Edge(Head(0, 1), Logits()), Edge(Embed(), Head(1, 0).k)


def test_the_three_ways_to_say_it_are_one() -> None:
    index = GPT2.edge_index
    rows = np.ones((2, len(index)), dtype=np.int64)
    rows[0, index.numbers([A, B])] = 0
    rows[1, index.number(A)] = 0
    others = [edge for edge in GPT2.edges() if edge not in (A, B)]
    for sets in (
        cg.EdgeSets({"both": [A, B], "a": [A]}),
        cg.EdgeSets({"both": others, "a": [*others, B]}, kept=True),
        cg.EdgeSets.of_rows(rows, ["both", "a"]),
    ):
        plan = compile_request(GPT2, sets, "single-pass", mode="replace").lint()
        assert plan.axes[0].values == ("both", "a")
        assert plan.cells[0].runs[0].ports == (
            ReplaceSenders(B.receiver, (_write(plan, B),)),
            ReplaceSenders(A.receiver, (_write(plan, A),)),
        )
        assert [cell.name for cell in plan.cells] == ["both", "a"]
        assert plan.place(1) == plan.cells[1].index == (1,)
    assert sets == cg.EdgeSets.of_rows(rows.astype(bool), ["both", "a"])
    assert hash(sets) == hash(cg.EdgeSets.of_rows(rows, ["both", "a"]))
    assert sets != cg.EdgeSets.of_rows(1 - rows, ["both", "a"])


def _write(plan: Any, edge: Edge) -> Any:
    single = compile_request(plan.graph, [edge], "single-pass", mode="replace")
    (op,) = single.cells[0].runs[-1].ports if edge.receiver != A.receiver else [None]
    from circuitgraph.plan import PatchWrite

    return op.senders[0] if op is not None else PatchWrite(edge.sender)


def test_all_edges_compile_at_once() -> None:
    edges = list(GPT2.edges())
    started = time.perf_counter()
    plan = compile_request(GPT2, cg.EdgeSets({"all": edges}), "single-pass", mode="replace")
    assert time.perf_counter() - started < 3  # seconds; a tenth of one on a quiet core
    text = str(plan)
    assert len(text.splitlines()) < 20
    assert "32491 edges into" in " ".join(text.split())
    assert plan.cost.forward_passes == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cg.EdgeSets({}), "no sets of edges to patch"),
        (lambda: cg.EdgeSets([A]), "given by name"),  # type: ignore[arg-type]
        (lambda: cg.EdgeSets({"a": ["9.9 -> logits"]}), "holds '9.9 -> logits'"),  # type: ignore[list-item]
        (lambda: cg.EdgeSets.of_rows(np.array([[0, 2]])), "of 0 and 1"),
        (lambda: cg.EdgeSets.of_rows(np.array([0, 1])), "rows [set, edge]"),
        (lambda: cg.EdgeSets.of_rows(np.array([[0, 1]]), ["a", "b"]), "1 rows of edges, but 2"),
        (lambda: cg.EdgeSets.of_rows(np.array([[0], [1]]), ["a", "a"]), "named 'a'"),
        (lambda: cg.EdgeSets({1: [A]}), "is text, got 1"),  # type: ignore[dict-item]
    ],
)
def test_what_is_no_set_is_refused(make: Any, says: str) -> None:
    with pytest.raises(RequestError) as error:
        make()
    assert says in str(error.value)


def test_what_cannot_be_answered_is_refused() -> None:
    for sets, options, kind, says in (
        (cg.EdgeSets({"a": [A]}), {}, UnsupportedError, "variant='single-pass', mode='replace'"),
        (cg.EdgeSets({"a": [A]}), {"mode": "replace"}, UnsupportedError, "got variant mlps"),
        (
            cg.EdgeSets({"a": [Edge(Head(50, 1), Logits())]}),
            {"mode": "replace", "variant": "single-pass"},
            CircuitGraphError,
            "no node '50.1'",
        ),
        (
            cg.EdgeSets.of_rows(np.zeros((1, 5))),
            {"mode": "replace", "variant": "single-pass"},
            RequestError,
            "rows of 5 edges, the model has 32491",
        ),
    ):
        with pytest.raises(kind) as error:
            compile_request(GPT2, sets, **options)  # type: ignore[arg-type]
        assert says in str(error.value)


@pytest.mark.parametrize("tiny", [tiny_gpt2, tiny_gemma2])
def test_sets_are_their_lists_of_edges_one_by_one(tiny: Any) -> None:
    """By the engine that knows nothing of rows, on one list of edges at a time."""
    model = tiny()
    clean, corrupt = (model.tokens(N_PROMPTS, N_POS, seed=seed) for seed in (1, 2))
    metric = cg.LogitDiff([1, 2, 3], [4, 5, 6])
    exp = cg.Experiment(model.bridge, clean, corrupt, metric, progress=False)
    index = exp.graph.edge_index
    head = [edge for edge in exp.graph.edges() if edge.sender == Head(0, 1)]
    sets = {"head": head, "two": [index.edge(5), index.edge(len(index) - 1)]}
    found = exp.patch(cg.EdgeSets({**sets, "none": []}), "single-pass", "replace")
    assert found.data["patched"].dims == ("set", "prompt")
    slow = exp.patch(cg.EdgeSets(sets), "single-pass", "replace", "reference")
    for name, edges in sets.items():
        alone = exp.patch(edges, "single-pass", "replace", "reference").data["patched"]
        for effects in (found, slow):
            values = effects.data["patched"].sel(set=name)
            np.testing.assert_allclose(values, alone, rtol=1e-9, atol=1e-9)
    assert (found.data["patched"].sel(set="none") == found.data["clean"]).all()
    assert "head" in str(found)
    assert "head" in found.names.to_numpy()[0]


@pytest.mark.parametrize("graph", [SMALL, PARALLEL, GROUPED, ATTN_ONLY], ids=str)
def test_ends_of_edges_by_number_are_those_of_the_edges(graph: ModelGraph) -> None:
    masks = EdgeMasks(graph)
    assert [graph.nodes[at] for at in masks.senders] == [edge.sender for edge in graph.edges()]
    ends = [edge.receiver.node for edge in graph.edges()]
    assert [graph.nodes[at] for at in masks.receivers] == ends
