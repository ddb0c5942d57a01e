"""The graph: its size, its edges and its order, against graphs built by hand."""

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitgraph.errors import NodeError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits, Port
from tests.strategies import examples

GPT2 = ModelGraph(ModelShape(n_layers=12, n_heads=12))
SMOLLM2 = ModelGraph(ModelShape(n_layers=30, n_heads=9, n_kv_heads=3))


@st.composite
def shapes(draw):
    n_layers = draw(st.integers(1, 4))
    n_kv_heads = draw(st.integers(1, 3))
    n_heads = n_kv_heads * draw(st.integers(1, 2))
    attn_only = draw(st.booleans())
    layers = st.lists(st.integers(0, n_layers - 1), unique=True)
    mlp_layers = None if attn_only else draw(st.one_of(st.none(), layers))
    return ModelShape(
        n_layers,
        n_heads,
        n_kv_heads,
        parallel=draw(st.booleans()),
        attn_only=attn_only,
        mlp_layers=None if mlp_layers is None else tuple(mlp_layers),
    )


def computation(shape: ModelShape) -> nx.DiGraph:
    """What is computed from what, written down as the model's forward pass is: block by block.

    The residual stream is a chain of places; a port reads a place, a node is computed from its
    ports, and what it writes is added on the way to the next place.
    """
    graph = nx.DiGraph()
    stream = "after the embedding"
    graph.add_edge(Embed(), stream)
    for layer in range(shape.n_layers):
        heads = [Head(layer, head) for head in range(shape.n_heads)]
        for head in heads:
            for port in (head.q, head.k, head.v):
                graph.add_edge(stream, port)
                graph.add_edge(port, head)
        after_heads, after_block = f"middle of block {layer}", f"after block {layer}"
        graph.add_edge(stream, after_heads)
        for head in heads:
            graph.add_edge(head, after_heads)
        graph.add_edge(after_heads, after_block)
        if shape.has_mlp(layer):
            mlp = MLP(layer)
            graph.add_edge(stream if shape.parallel else after_heads, mlp.port)
            graph.add_edge(mlp.port, mlp)
            graph.add_edge(mlp, after_block)
        stream = after_block
    graph.add_edge(stream, Logits().port)
    graph.add_edge(Logits().port, Logits())
    return graph


def brute_force_edges(shape: ModelShape) -> int:
    """Count edges by asking, of every pair, which comes first in the order of the blocks."""
    layers, heads = range(shape.n_layers), range(shape.n_heads)
    senders = [(-1, "embed")]
    senders += [(layer, "head") for layer in layers for _ in heads]
    senders += [(layer, "mlp") for layer in layers if shape.has_mlp(layer)]
    receivers = [(layer, "head") for layer in layers for _ in heads for _ in "qkv"]
    receivers += [(layer, "mlp") for layer in layers if shape.has_mlp(layer)]
    receivers += [(shape.n_layers, "logits")]
    count = 0
    for (at, sender), (to, receiver) in itertools.product(senders, receivers):
        same_block = at == to and (sender, receiver) == ("head", "mlp") and not shape.parallel
        count += at < to or same_block
    return count


class TestSize:
    def test_gpt2_small(self):
        assert len(GPT2.nodes) == 158
        assert GPT2.n_edges == 32_491
        assert len(GPT2.ports) == 12 * 12 * 3 + 12 + 1
        assert str(GPT2) == (
            "ModelGraph: 12 layers of 12 heads, 12 MLPs, sequential blocks; 158 nodes, 32491 edges"
        )

    def test_smollm2_135m(self):
        assert SMOLLM2.n_edges == 123_211
        assert len(SMOLLM2.nodes) == 1 + 30 * 9 + 30 + 1
        assert "9 heads (3 key-value heads)" in str(SMOLLM2)

    @pytest.mark.parametrize(
        ("shape", "n_edges"),
        [
            (ModelShape(1, 1), 1 * 3 + 2 + 3),
            (ModelShape(1, 1, parallel=True), 1 * 3 + 1 + 3),
            (ModelShape(1, 1, attn_only=True), 1 * 3 + 2),
            (ModelShape(2, 1, mlp_layers=(1,)), 3 + 6 + 3 + 4),
            (ModelShape(12, 12, parallel=True), 32_491 - 144),
        ],
    )
    def test_small_ones_counted_by_hand(self, shape, n_edges):
        assert ModelGraph(shape).n_edges == n_edges == brute_force_edges(shape)

    @given(shapes())
    @examples(100)
    def test_counted_by_brute_force(self, shape):
        assert ModelGraph(shape).n_edges == brute_force_edges(shape)

    def test_parallel_and_attention_only_shapes_of_a_real_size(self):
        for shape in (
            ModelShape(24, 16, parallel=True),
            ModelShape(24, 16, attn_only=True),
            ModelShape(26, 8, 4),
        ):
            assert ModelGraph(shape).n_edges == brute_force_edges(shape)


class TestOrder:
    @given(shapes())
    @examples(30)
    def test_precedes_is_reachability_along_the_stream(self, shape):
        """A sender comes before a port if its write reaches it without passing another node."""
        graph, computed = ModelGraph(shape), computation(shape)
        stream = [place for place in computed if isinstance(place, str)]
        for sender in graph.writers:
            places = computed.subgraph([*stream, sender, *graph.ports])
            reached = nx.descendants(places, sender)
            for port in graph.ports:
                assert graph.precedes(sender, port) == (port in reached), (sender, port)

    @given(shapes())
    @examples(20)
    def test_paths_of_edges_are_paths_of_the_computation(self, shape):
        """Reachability over any number of hops agrees as well."""
        graph, computed = ModelGraph(shape), computation(shape)
        for node in graph.nodes:
            here = {n for n in nx.descendants(computed, node) if n in graph.nodes}
            assert nx.descendants(graph.dag, node) == here

    def test_same_layer(self):
        sequential, parallel = GPT2, ModelGraph(ModelShape(12, 12, parallel=True))
        assert sequential.precedes(Head(3, 0), MLP(3))
        assert not parallel.precedes(Head(3, 0), MLP(3))
        for graph in (sequential, parallel):
            assert not graph.precedes(Head(3, 0), Head(3, 1).q)
            assert not graph.precedes(MLP(3), MLP(3))
            assert graph.precedes(MLP(3), Head(4, 0).v)
            assert graph.precedes(Embed(), Head(0, 0).k)
            assert graph.precedes(MLP(11), Logits())

    def test_nodes_are_in_the_order_of_the_stream(self):
        graph = ModelGraph(ModelShape(2, 2, mlp_layers=(1,)))
        assert graph.nodes == (
            Embed(), Head(0, 0), Head(0, 1), Head(1, 0), Head(1, 1), MLP(1), Logits(),
        )  # fmt: skip
        assert graph.writers == graph.nodes[:-1]
        assert graph.ports[:3] == (Head(0, 0).q, Head(0, 0).k, Head(0, 0).v)
        assert graph.ports[-2:] == (MLP(1).port, Logits().port)


class TestEdges:
    @given(shapes())
    @examples(30)
    def test_three_ways_to_the_edges_agree(self, shape):
        graph = ModelGraph(shape)
        every = set(graph.edges())
        assert len(every) == graph.n_edges == graph.dag.number_of_edges()
        assert {edge for port in graph.ports for edge in graph.edges_into(port)} == every
        assert {edge for writer in graph.writers for edge in graph.edges_from(writer)} == every
        assert {data["edge"] for _, _, data in graph.dag.edges(data=True)} == every

    def test_the_dag_of_gpt2(self):
        dag = GPT2.dag
        assert dag.number_of_nodes() == 158
        assert dag.number_of_edges() == 32_491
        assert nx.is_directed_acyclic_graph(dag)
        assert dag.edges[Head(5, 5), Head(8, 6), "v"]["edge"] == Edge(Head(5, 5), Head(8, 6).v)
        assert list(dag.nodes) == list(GPT2.nodes)
        assert GPT2.dag is dag

    def test_an_mlp_and_the_logits_stand_for_their_port(self):
        graph = ModelGraph(ModelShape(1, 2))
        assert graph.edges_into(MLP(0)) == (
            Edge(Embed(), MLP(0)), Edge(Head(0, 0), MLP(0)), Edge(Head(0, 1), MLP(0)),
        )  # fmt: skip
        assert graph.edges_from(MLP(0)) == (Edge(MLP(0), Logits()),)
        assert len(graph.edges_into(Logits())) == 4

    def test_the_embedding_has_no_port(self):
        assert GPT2.ports_of(Embed()) == ()
        assert GPT2.ports_of(Head(1, 2)) == (Head(1, 2).q, Head(1, 2).k, Head(1, 2).v)
        assert GPT2.ports_of(Logits()) == (Logits().port,)


class TestShape:
    def test_groups(self):
        shape = SMOLLM2.shape
        assert [shape.heads_of_group(kv) for kv in range(3)] == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
        assert shape.grouped
        assert shape.kv_heads == 3
        assert not GPT2.shape.grouped
        assert GPT2.shape.kv_heads == 12
        assert not ModelShape(2, 4, n_kv_heads=4).grouped

    def test_plain_values(self):
        shape = ModelShape(np.int64(3), np.int64(4), np.int64(2), mlp_layers=[2, 0, 2])
        assert shape == ModelShape(3, 4, 2, mlp_layers=(0, 2))
        assert hash(shape) == hash(ModelShape(3, 4, 2, mlp_layers=(0, 2)))
        assert ModelGraph(shape).mlps == (MLP(0), MLP(2))
        assert ModelGraph(shape) == ModelGraph(ModelShape(3, 4, 2, mlp_layers=(0, 2)))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: ModelShape(0, 12),
                "a model has at least one layer and one head, got 0 layers of 12 heads",
            ),
            (
                lambda: ModelShape(2, 9, n_kv_heads=4),
                (
                    "9 query heads cannot share 4 key-value heads: "
                    "the first must be a multiple of the second"
                ),
            ),
            (lambda: ModelShape(2, 9, n_kv_heads=0), "9 query heads cannot share 0"),
            (lambda: ModelShape(2.0, 9), "ModelShape: n_layers must be a whole number, got 2.0"),
            (lambda: ModelShape(2, True), "ModelShape: n_heads must be a whole number, got True"),
            (
                lambda: ModelShape(2, 9, mlp_layers=("0",)),
                "ModelShape: mlp_layers must be a whole number, got '0'",
            ),
            (
                lambda: ModelShape(2, 9, mlp_layers=(2,)),
                "mlp_layers=(2,) does not fit 2 layers",
            ),
            (
                lambda: ModelShape(2, 9, attn_only=True, mlp_layers=(1,)),
                "mlp_layers=(1,) does not fit 2 layers without MLPs (attn_only)",
            ),
        ],
    )
    def test_numbers_that_no_model_has(self, make, message):
        with pytest.raises(NodeError) as caught:
            make()
        assert str(caught.value).startswith(message)


class TestErrors:
    @pytest.mark.parametrize(
        ("graph", "thing", "message"),
        [
            (
                GPT2,
                Head(9, 12),
                (
                    "no node '9.12' in this graph (12 layers of 12 heads): head must be 0..11; "
                    "did you mean 9.11?"
                ),
            ),
            (
                GPT2,
                Head(12, 3),
                (
                    "no node '12.3' in this graph (12 layers of 12 heads): layer must be 0..11; "
                    "did you mean 11.3?"
                ),
            ),
            (
                GPT2,
                Head(9, 12).q,
                (
                    "no node '9.12.q' in this graph (12 layers of 12 heads): head must be 0..11; "
                    "did you mean 9.11.q?"
                ),
            ),
            (
                GPT2,
                MLP(12),
                (
                    "no node 'mlp12' in this graph (12 layers of 12 heads): layer must be 0..11; "
                    "did you mean mlp11?"
                ),
            ),
            (
                ModelGraph(ModelShape(4, 2, mlp_layers=(0, 3))),
                MLP(2).port,
                (
                    "no node 'mlp2' in this graph (4 layers of 2 heads): layer 2 has no MLP; "
                    "did you mean mlp3?"
                ),
            ),
            (
                ModelGraph(ModelShape(4, 2, attn_only=True)),
                MLP(2),
                "no node 'mlp2' in this graph (4 layers of 2 heads): the model has no MLPs",
            ),
        ],
    )
    def test_a_node_that_is_not_there(self, graph, thing, message):
        with pytest.raises(NodeError) as caught:
            graph.check(thing)
        assert str(caught.value) == message

    def test_what_is_there_passes(self):
        for thing in (*GPT2.nodes, *GPT2.ports):
            GPT2.check(thing)

    def test_questions_about_missing_nodes_raise(self):
        with pytest.raises(NodeError, match=r"no node '12\.0'"):
            GPT2.edges_from(Head(12, 0))
        with pytest.raises(NodeError, match=r"no node '3\.12\.q'"):
            GPT2.edges_into(Head(3, 12).q)
        with pytest.raises(NodeError, match=r"the receiver 8\.6 needs a port"):
            GPT2.edges_into(Head(8, 6))
        with pytest.raises(NodeError, match="logits writes nothing"):
            GPT2.edges_from(Logits())
        with pytest.raises(NodeError, match=r"'8\.6\.v' is no node or port"):
            GPT2.check("8.6.v")

    def test_why_a_sender_does_not_come_before(self):
        problem = GPT2.order_problem(Head(9, 9), Head(8, 6).v)
        assert str(problem) == (
            "9.9 does not come before 8.6.v: "
            "it must write to the residual stream before the receiver reads it"
        )
        parallel = ModelGraph(ModelShape(12, 12, parallel=True))
        assert str(parallel.order_problem(Head(3, 0), MLP(3).port)) == (
            "3.0 does not come before mlp3: attention and MLP of a layer read the same point "
            "in this model's parallel blocks"
        )
        assert "must write" in str(parallel.order_problem(Head(4, 0), MLP(3).port))
        assert GPT2.order_problem(Head(5, 5), Port(Head(8, 6), "v")) is None
