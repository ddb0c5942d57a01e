"""Circuits as values: what they hold, how they combine, what they refuse."""

import pickle
from math import inf, nan

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitgraph.circuit import Circuit, Weight
from circuitgraph.errors import CircuitError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits
from tests.strategies_circuit import circuit_pairs, circuits, run_python

GPT2 = ModelShape(n_layers=12, n_heads=12)

IOI = Circuit.from_edges(
    GPT2,
    {
        "5.5 -> 8.6.v": -0.1,
        "8.6 -> 9.9.q": (-0.2, -0.25, -0.15),
        "9.9 -> logits": -0.5,
        "10.7 -> logits": 0.3,
        "2.2 -> 5.5.k": 0.05,
    },
    groups={"name movers": ["9.9"], "S-inhibition": [Head(8, 6)]},
)


class TestMaking:
    def test_edges_and_nodes_stand_in_the_order_of_the_stream(self):
        assert [str(edge) for edge in IOI.edges] == [
            "2.2 -> 5.5.k",
            "5.5 -> 8.6.v",
            "8.6 -> 9.9.q",
            "9.9 -> logits",
            "10.7 -> logits",
        ]
        assert [str(node) for node in IOI.nodes] == [
            "2.2", "5.5", "8.6", "9.9", "10.7", "logits",
        ]  # fmt: skip

    def test_objects_and_texts_mean_the_same(self):
        by_text = Circuit.from_edges(GPT2, ["L5H5 -> a8.h6.v", "m3 -> logits"])
        by_object = Circuit.from_edges(
            ModelGraph(GPT2), [Edge(MLP(3), Logits()), Edge(Head(5, 5), Head(8, 6).v)]
        )
        assert by_text == by_object
        assert hash(by_text) == hash(by_object)

    def test_weights_may_be_numbers_intervals_weights_or_none(self):
        circuit = Circuit.from_edges(
            GPT2,
            {
                "9.9 -> logits": 1,
                "9.6 -> logits": (-0.5, -0.6, -0.4),
                "10.0 -> logits": Weight(0.25),
                "10.1 -> logits": None,
            },
        )
        assert circuit.weight("9.9 -> logits") == 1.0
        assert circuit.interval("9.6 -> logits") == (-0.6, -0.4)
        assert circuit.weight(Edge(Head(10, 0), Logits())) == 0.25
        assert circuit.weight("10.1 -> logits") is None
        assert circuit.interval("10.1 -> logits") is None

    def test_membership_and_knowledge_are_two_things(self):
        wide = Circuit.from_edges(GPT2, {"9.9 -> logits": -0.5, "9.6 -> logits": -0.2})
        narrow = wide.top(1)
        assert len(narrow) == 1
        assert narrow.weight("9.6 -> logits") == -0.2
        assert "9.6 -> logits" not in narrow
        assert narrow.top(2, among="known") == wide

    def test_contains_edges_and_nodes(self):
        assert "9.9 -> logits" in IOI
        assert Edge(Head(9, 9), Logits()) in IOI
        assert "9.9" in IOI
        assert Head(0, 0) not in IOI
        assert list(IOI) == list(IOI.edges)

    def test_groups(self):
        assert IOI.group_of("9.9") == "name movers"
        assert IOI.group_of(Head(2, 2)) is None
        other = IOI.with_groups({"negative": ["10.7"]})
        assert dict(other.groups) == {"negative": {Head(10, 7)}}
        assert other.edges == IOI.edges


class TestRefusals:
    def test_every_edge_the_shape_does_not_have_is_listed(self):
        with pytest.raises(CircuitError) as caught:
            Circuit.from_edges(
                GPT2, ["9.12 -> logits", "8.6 -> 8.6.q", "9.9 -> logits", "mlp12 -> logits"]
            )
        assert str(caught.value) == (
            "cannot make a circuit: 3 problems\n"
            "  1. no edge '9.12 -> logits': no node '9.12' in this graph (12 layers of 12 heads): "
            "head must be 0..11; did you mean 9.11?\n"
            "  2. no edge '8.6 -> 8.6.q': 8.6 does not come before 8.6.q: it must write to the "
            "residual stream before the receiver reads it\n"
            "  3. no edge 'mlp12 -> logits': no node 'mlp12' in this graph (12 layers of 12 "
            "heads): layer must be 0..11; did you mean mlp11?"
        )

    @pytest.mark.parametrize("bad", [nan, inf, -inf, "0.5", True, object()])
    def test_weights_that_are_no_finite_numbers(self, bad):
        with pytest.raises(CircuitError, match=r"9.9 -> logits: weight must be a finite number"):
            Circuit.from_edges(GPT2, {"9.9 -> logits": bad})

    def test_intervals(self):
        with pytest.raises(CircuitError, match="upside down"):
            Circuit.from_edges(GPT2, {"9.9 -> logits": (0.1, 0.3, 0.2)})
        with pytest.raises(CircuitError, match="low must be a finite number or None, got nan"):
            Circuit.from_edges(GPT2, {"9.9 -> logits": (0.1, nan, 0.2)})
        with pytest.raises(CircuitError, match=r"a weight is a number, None or \(value, low, high"):
            Circuit.from_edges(GPT2, {"9.9 -> logits": (0.1, 0.2)})
        with pytest.raises(CircuitError, match="give both low and high"):
            Weight(0.1, low=0.0)
        with pytest.raises(CircuitError, match="an interval without a value"):
            Weight(None, 0.0, 1.0)

    def test_what_is_no_edge(self):
        for bad, why in [
            ("9.9", "write one sender and one receiver"),
            ("9.9 -> 10.0", "needs a port"),
            ("logits -> 9.9.q", "a sender is the embedding, a head or an MLP"),
            ("9.9 => logits", "write one sender and one receiver"),
            (7, "give an Edge or its text"),
        ]:
            with pytest.raises(CircuitError, match=why):
                Circuit.from_edges(GPT2, [bad])

    def test_an_edge_given_twice(self):
        with pytest.raises(CircuitError, match=r"the edge 9.9 -> logits is given twice"):
            Circuit.from_edges(GPT2, ["9.9 -> logits", "L9H9 -> logits"])

    def test_groups_that_overlap_or_do_not_exist(self):
        with pytest.raises(CircuitError) as caught:
            IOI.with_groups({"a": ["9.9", "12.0"], "b": ["9.9"]})
        message = str(caught.value)
        assert "group 'a': no node '12.0' in this graph" in message
        assert "9.9 is in groups 'a' and 'b': choose one" in message
        with pytest.raises(CircuitError, match=r"'9.x' is no node"):
            IOI.with_groups({"a": ["9.x"]})

    def test_unknown_edges(self):
        with pytest.raises(
            CircuitError, match=r"does not know the edge '0.0 -> logits': it knows 5"
        ):
            IOI.weight("0.0 -> logits")

    def test_members_that_are_not_known(self):
        with pytest.raises(CircuitError, match="in the circuit but not among the known edges"):
            Circuit(GPT2, {}, frozenset({Edge(Head(9, 9), Logits())}))

    def test_other_models(self):
        other = Circuit.from_edges(ModelShape(2, 2), ["0.0 -> logits"])
        for join in ("__or__", "__and__", "__sub__"):
            with pytest.raises(CircuitError, match="circuits of different models"):
                getattr(IOI, join)(other)

    def test_choosing_without_weights(self):
        bare = Circuit.from_edges(GPT2, {"9.9 -> logits": None, "9.6 -> logits": 1.0})
        for choose in (lambda: bare.top(1), lambda: bare.threshold(0.1)):
            with pytest.raises(
                CircuitError, match=r"1 of 2 edges have none, the first '9.9 -> log"
            ):
                choose()
        with pytest.raises(CircuitError, match="n must be a whole number of at least 0"):
            IOI.top(-1)
        with pytest.raises(
            CircuitError, match="among must be one of 'circuit', 'known', got 'all'"
        ):
            IOI.top(1, among="all")

    def test_attrs_that_json_cannot_hold(self):
        with pytest.raises(CircuitError, match="attrs must be what JSON can hold"):
            IOI.with_attrs(shape=GPT2)
        with pytest.raises(CircuitError, match="attrs must be what JSON can hold"):
            IOI.with_attrs(score=nan)


class TestImmutability:
    def test_nothing_can_be_set(self):
        with pytest.raises(AttributeError):
            IOI.members = frozenset()
        with pytest.raises(TypeError):
            IOI.known[Edge(Head(9, 9), Logits())] = Weight(0.0)
        with pytest.raises(TypeError):
            IOI.groups["x"] = frozenset()
        with pytest.raises(nx.NetworkXError):
            IOI.graph.add_node(Embed())

    def test_what_was_given_is_copied(self):
        given = {"seeds": [1, 2]}
        circuit = IOI.with_attrs(**given)
        given["seeds"].append(3)
        assert circuit.attrs["seeds"] == (1, 2)

    def test_it_can_be_pickled(self):
        circuit = IOI.with_attrs(nested={"a": [1, {"b": None}]})
        assert pickle.loads(pickle.dumps(circuit)) == circuit


class TestChoosing:
    def test_threshold_counts_either_sign_and_keeps_what_is_equal(self):
        assert [str(edge) for edge in IOI.threshold(0.2)] == [
            "8.6 -> 9.9.q",
            "9.9 -> logits",
            "10.7 -> logits",
        ]

    def test_top_counts_either_sign(self):
        assert {str(edge) for edge in IOI.top(2)} == {"9.9 -> logits", "10.7 -> logits"}
        assert len(IOI.top(0)) == 0
        assert IOI.top(99) == IOI

    def test_ties_go_to_the_earlier_edge(self):
        equal = Circuit.from_edges(GPT2, {"10.0 -> logits": 0.5, "9.9 -> logits": -0.5})
        assert [str(edge) for edge in equal.top(1)] == ["9.9 -> logits"]

    def test_restrict_keeps_edges_between_the_nodes(self):
        assert [str(e) for e in IOI.restrict(["8.6", Head(9, 9), "10.7"])] == ["8.6 -> 9.9.q"]

    def test_prune_drops_what_leads_nowhere(self):
        circuit = Circuit.from_edges(
            GPT2,
            ["embed -> 0.0.q", "0.0 -> 5.5.k", "5.5 -> 8.6.v", "1.1 -> 5.5.q", "9.9 -> logits"],
        )
        assert len(circuit.prune()) == 0
        # 8.6 leads on to the logits; nothing reaches 1.1 and 9.9 from the embedding.
        joined = circuit | Circuit.from_edges(GPT2, ["8.6 -> logits"])
        kept = ["embed -> 0.0.q", "0.0 -> 5.5.k", "5.5 -> 8.6.v", "8.6 -> logits"]
        assert [str(edge) for edge in joined.prune()] == kept
        assert len(Circuit.from_edges(GPT2, ["5.5 -> 8.6.v"]).prune()) == 0

    def test_the_graph_carries_everything(self):
        graph = IOI.graph
        assert nx.is_directed_acyclic_graph(graph)
        assert graph.nodes[Head(9, 9)]["group"] == "name movers"
        data = graph.edges[Head(8, 6), Head(9, 9), "q"]
        assert data["edge"] == Edge(Head(8, 6), Head(9, 9).q)
        assert (data["weight"], data["ci_low"], data["ci_high"]) == (-0.2, -0.25, -0.15)


class TestSetAlgebra:
    def test_by_hand(self):
        left = Circuit.from_edges(
            GPT2, {"9.9 -> logits": 1.0, "9.6 -> logits": 2.0}, {"movers": ["9.9"]}
        )
        right = Circuit.from_edges(
            GPT2, {"9.9 -> logits": 7.0, "10.0 -> logits": 3.0}, {"others": ["9.9", "10.0"]}
        )
        both = left | right
        assert {str(edge): both.weight(edge) for edge in both} == {
            "9.9 -> logits": 1.0,
            "9.6 -> logits": 2.0,
            "10.0 -> logits": 3.0,
        }
        assert dict(both.groups) == {"movers": {Head(9, 9)}, "others": {Head(10, 0)}}
        assert [str(edge) for edge in left & right] == ["9.9 -> logits"]
        assert [str(edge) for edge in left - right] == ["9.6 -> logits"]
        assert (left - right).weight("9.9 -> logits") == 1.0

    def test_a_union_claims_no_request_that_gave_only_a_part_of_it(self):
        said = {"variant": "mlps", "quantity": "effect", "note": "mine"}
        left, right = (
            Circuit.from_edges(GPT2, {f"{head} -> logits": 1.0}, attrs=said | {"request": request})
            for head, request in (("9.9", "head -> logits"), ("9.6", "9.6 -> logits"))
        )
        assert dict((left | right).attrs) == said
        assert dict((left | left).attrs) == dict(left.attrs)
        assert dict((left - right).attrs) == dict(left.attrs)

    @given(circuit_pairs())
    def test_members_behave_like_sets(self, pair):
        a, b = pair
        assert (a | b).members == a.members | b.members == (b | a).members
        assert (a & b).members == a.members & b.members == (b & a).members
        assert (a - b).members == a.members - b.members
        assert ((a - b) | (a & b)).members == a.members
        assert (a & a) == a == (a | a)
        assert not len(a - a)

    @given(circuit_pairs())
    def test_weights_of_the_left_one_win_and_none_are_lost(self, pair):
        a, b = pair
        joined = a | b
        assert joined.known == {**b.known, **a.known}
        assert (a & b).known == a.known == (a - b).known

    @given(circuits(weighted=True), st.floats(0, 2), st.integers(0, 20))
    def test_threshold_and_top_narrow(self, circuit, smallest, n):
        above = circuit.threshold(smallest)
        assert above.members == {e for e in circuit if abs(circuit.weight(e)) >= smallest}
        strongest = circuit.top(n)
        assert len(strongest) == min(n, len(circuit))
        assert strongest.members <= circuit.members
        kept = [abs(circuit.weight(edge)) for edge in strongest]
        left = [abs(circuit.weight(edge)) for edge in circuit.members - strongest.members]
        assert min(kept, default=inf) >= max(left, default=-inf)
        assert strongest.top(n) == strongest

    @given(circuits())
    def test_prune_is_idempotent_and_keeps_every_path_through_the_model(self, circuit):
        pruned = circuit.prune()
        assert pruned.members <= circuit.members
        assert pruned.prune() == pruned
        for edge in circuit:
            graph = circuit.graph
            leads = Logits() in graph and nx.has_path(graph, edge.receiver.node, Logits())
            comes = Embed() in graph and nx.has_path(graph, Embed(), edge.sender)
            assert (edge in pruned) == (leads and comes)

    @given(circuits())
    def test_equality_ignores_order(self, circuit):
        again = Circuit(
            circuit.shape,
            dict(reversed(list(circuit.known.items()))),
            circuit.members,
            dict(reversed(list(circuit.groups.items()))),
            dict(reversed(list(circuit.attrs.items()))),
        )
        assert again == circuit
        assert hash(again) == hash(circuit)


class TestShowing:
    def test_repr(self):
        assert repr(IOI) == (
            "Circuit: 5 edges, 6 nodes on 12 layers of 12 heads; "
            "groups: name movers, S-inhibition\n"
            "  9.9 -> logits    −0.5\n"
            "  10.7 -> logits   0.3\n"
            "  8.6 -> 9.9.q     −0.2 [−0.25, −0.15]\n"
            "  5.5 -> 8.6.v     −0.1\n"
            "  2.2 -> 5.5.k     0.05"
        )
        assert repr(IOI.top(1)).startswith("Circuit: 1 edge (of 5 known), 2 nodes on")
        many = Circuit.from_edges(GPT2, [f"9.{head} -> logits" for head in range(8)])
        assert repr(many).endswith("and 3 more")

    def test_importing_circuits_brings_in_no_torch_and_no_plotting(self):
        code = (
            "import sys, circuitgraph.circuit; "
            "print([m for m in ('torch', 'transformer_lens', 'vl_convert', 'pygraphviz', 'graphviz') "
            "if m in sys.modules])"
        )
        done = run_python(code)
        assert done.stdout.strip() == "[]", done.stderr
