"""Nodes, ports and edges: their names, their order, and what cannot be written down."""

import itertools
import pickle
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from hypothesis import given

from circuitgraph.errors import CircuitGraphError, NodeError
from circuitgraph.nodes import (
    MLP,
    Edge,
    Embed,
    Head,
    Logits,
    Port,
    describe,
    parse_node,
    parse_port,
    receiver_port,
)
from tests.strategies import examples, nodes, ports, writers


class TestNames:
    @given(nodes())
    @examples(100)
    def test_every_node_is_read_back_from_its_name(self, node):
        assert parse_node(str(node)) == node

    @given(ports())
    @examples(100)
    def test_every_port_is_read_back_from_its_name(self, port):
        assert parse_port(str(port)) == port

    @pytest.mark.parametrize("text", ["9.6", "L9H6", "l9h6", "a9.h6", "A9.H6", " 9.6 ", "09.06"])
    def test_a_head_has_several_spellings(self, text):
        assert parse_node(text) == Head(9, 6)

    @pytest.mark.parametrize("text", ["mlp3", "m3", "MLP3", "M3"])
    def test_an_mlp_has_several_spellings(self, text):
        assert parse_node(text) == MLP(3)

    def test_the_two_ends_of_the_stream(self):
        assert parse_node("embed") == parse_node("Embed") == Embed()
        assert parse_node("logits") == parse_node("LOGITS") == Logits()

    def test_an_mlp_and_the_logits_stand_for_their_only_port(self):
        assert parse_port("mlp3") == parse_port("mlp3.in") == MLP(3).port
        assert parse_port("logits") == Logits().port
        assert parse_port("L8H6.v") == Head(8, 6).v

    @pytest.mark.parametrize(
        ("thing", "words"),
        [
            (Head(9, 6), "head 9.6"),
            (Head(9, 6).q, "queries of head 9.6"),
            (Head(9, 6).k, "keys of head 9.6"),
            (Head(9, 6).v, "values of head 9.6"),
            (MLP(0), "MLP 0"),
            (MLP(0).port, "MLP 0"),
            (Embed(), "the embedding"),
            (Logits().port, "the logits"),
        ],
    )
    def test_in_words(self, thing, words):
        assert describe(thing) == words


class TestValues:
    def test_equal_by_value_and_usable_as_keys(self):
        assert {Head(1, 2): "x"}[Head(1, 2)] == "x"
        assert Head(1, 2).q == Port(Head(1, 2), "q") != Head(1, 2).k
        assert Embed() == Embed() != Logits()

    @pytest.mark.parametrize("thing", [Head(1, 2), MLP(1), Head(1, 2).q, Edge(Embed(), Logits())])
    def test_immutable_and_picklable(self, thing):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, fields(thing)[0].name, 3)
        assert pickle.loads(pickle.dumps(thing)) == thing

    def test_numpy_integers_become_plain_ones(self):
        head = Head(np.int64(3), np.int32(4))
        assert head == Head(3, 4)
        assert type(head.layer) is type(head.head) is int
        assert type(MLP(np.int8(2)).layer) is int

    def test_ordered_along_the_residual_stream(self):
        stream = [Embed(), Head(0, 0), Head(0, 1), MLP(0), Head(1, 0), MLP(1), Logits()]
        assert sorted(set(stream)) == stream
        in_head = [Head(0, 0).q, Head(0, 0).k, Head(0, 0).v, MLP(0).port, Logits().port]
        assert sorted(set(in_head)) == in_head
        assert Head(2, 0) <= Head(2, 0) < Head(2, 1) > MLP(1)

    @given(writers(), writers(), ports())
    @examples(100)
    def test_edges_are_ordered_by_their_sender_first(self, one, other, port):
        edges = sorted([Edge(one, port), Edge(other, port)])
        assert [edge.sender for edge in edges] == sorted([one, other])

    def test_no_order_with_other_things(self):
        with pytest.raises(TypeError):
            assert Head(0, 0) < 3

    def test_the_sort_is_total(self):
        things = [Embed(), Head(0, 0), MLP(0), Logits()]
        for one, other in itertools.combinations(things, 2):
            assert (one < other) != (other < one)


class TestEdges:
    def test_an_mlp_or_the_logits_receive_at_their_port(self):
        assert Edge(Head(9, 9), Logits()) == Edge(Head(9, 9), Logits().port)
        assert Edge(Head(9, 9), MLP(9)).receiver == MLP(9).port
        assert str(Edge(Head(5, 5), Head(8, 6).v)) == "5.5 -> 8.6.v"
        assert str(Edge(Embed(), MLP(3))) == "embed -> mlp3"


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Head(-1, 0), "Head: layer must be an integer of 0 or more, got -1"),
            (lambda: Head(0, 1.5), "Head: head must be an integer of 0 or more, got 1.5"),
            (lambda: Head("9", 9), "Head: layer must be an integer of 0 or more, got '9'"),
            (lambda: MLP(True), "MLP: layer must be an integer of 0 or more, got True"),
            (
                lambda: Port(Head(8, 6), "in"),
                "no port 'in' on 8.6: its ports are q, k, v",
            ),
            (lambda: Port(MLP(3), "q"), "no port 'q' on mlp3: its ports are in"),
            (
                lambda: Port(Embed(), "in"),
                "embed reads nothing, so it has no port; heads, MLPs and the logits can receive",
            ),
            (
                lambda: Edge(Logits(), Logits()),
                "a sender is the embedding, a head or an MLP, got Logits() (Logits)",
            ),
            (
                lambda: Edge("9.9", Logits()),
                "a sender is the embedding, a head or an MLP, got '9.9' (str)",
            ),
            (
                lambda: Edge(Head(5, 5), Head(8, 6)),
                "the receiver 8.6 needs a port: write 8.6.q, 8.6.k or 8.6.v",
            ),
            (lambda: receiver_port(Embed()), "embed reads nothing, so it cannot receive"),
            (
                lambda: receiver_port("8.6.v"),
                "a receiver is a port, an MLP or the logits, got '8.6.v' (str)",
            ),
            (
                lambda: parse_node("foo"),
                (
                    "'foo' is no node: write embed, logits, a head as 9.6 (or L9H6, a9.h6) "
                    "or an MLP as mlp3 (or m3)"
                ),
            ),
            (lambda: parse_port("8.6"), "the receiver 8.6 needs a port"),
            (lambda: parse_port("embed.q"), "embed reads nothing, so it has no port"),
        ],
    )
    def test_says_what_is_wrong(self, make, message):
        with pytest.raises(NodeError) as caught:
            make()
        assert str(caught.value).startswith(message)
        assert isinstance(caught.value, CircuitGraphError)
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize(
        "text", ["", "9", "9.", ".9", "9.9.9", "head", "mlp", "9" * 5000 + ".1"]
    )
    def test_what_is_no_node(self, text):
        with pytest.raises(NodeError, match="is no node"):
            parse_node(text)
