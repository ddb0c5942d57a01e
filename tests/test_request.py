"""Requests: the notation and its round trip, requests from objects, and what is refused."""

import numpy as np
import pytest
from hypothesis import given

from circuitgraph.errors import CircuitGraphError, NodeError, RequestError
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits
from circuitgraph.request import (
    EachPosition,
    EdgesRequest,
    Every,
    Joint,
    KVPort,
    PathRequest,
    Site,
    SiteEdge,
    Sweep,
    Through,
    as_request,
    parse,
    path,
    positions_in,
    sites_in,
)
from tests.strategies import edge_lists, examples, heads, paths, ports, requests, writers


def one(what, at=None):
    return Joint((Site(what, at),))


LOGITS = one(Logits())


class TestNotation:
    @pytest.mark.parametrize(
        ("text", "request_"),
        [
            ("9.9 -> logits", PathRequest((one(Head(9, 9)), LOGITS), False)),
            (
                "5.5 -> 8.6.v => logits",
                PathRequest((one(Head(5, 5)), one(Head(8, 6).v)), True),
            ),
            ("9.9 => logits", PathRequest((one(Head(9, 9)),), True)),
            ("embed -> mlp3 => logits", PathRequest((one(Embed()), one(MLP(3).port)), True)),
            ("head -> logits", PathRequest((Every("head"), LOGITS), False)),
            ("node -> port => logits", PathRequest((Every("node"), Every("port")), True)),
            (
                "mlp@end -> kv.k => logits",
                PathRequest((Every("mlp", None, ("end",)), Every("kv", "k")), True),
            ),
            (
                "head@each -> logits",
                PathRequest((Every("head", None, EachPosition()), LOGITS), False),
            ),
            (
                "5.5@S2 -> 8.6.v@{S2, 3} -> 9.9.q@end -> logits@end",
                PathRequest(
                    (
                        one(Head(5, 5), ("S2",)),
                        one(Head(8, 6).v, ("S2", 3)),
                        one(Head(9, 9).q, ("end",)),
                        one(Logits(), ("end",)),
                    ),
                    False,
                ),
            ),
            (
                "{5.5, 6.9} -> {8.6, 8.10}.v@S2 => logits",
                PathRequest(
                    (
                        Joint((Site(Head(5, 5)), Site(Head(6, 9)))),
                        Joint((Site(Head(8, 6).v, ("S2",)), Site(Head(8, 10).v, ("S2",)))),
                    ),
                    True,
                ),
            ),
            (
                "{5.5@S1, mlp6} -> [{8.6, 8.10}.v, mlp9, 9.9.q@end, 10.kv2.k] => logits",
                PathRequest(
                    (
                        Joint((Site(Head(5, 5), ("S1",)), Site(MLP(6)))),
                        Sweep(
                            (
                                Joint((Site(Head(8, 6).v), Site(Head(8, 10).v))),
                                one(MLP(9).port),
                                one(Head(9, 9).q, ("end",)),
                                one(KVPort(10, 2, "k")),
                            )
                        ),
                    ),
                    True,
                ),
            ),
            (
                "5.5 -> [{8.6, 8.10}, 9.9].q@end => logits",
                PathRequest(
                    (
                        one(Head(5, 5)),
                        Sweep(
                            (
                                Joint(
                                    (Site(Head(8, 6).q, ("end",)), Site(Head(8, 10).q, ("end",)))
                                ),
                                one(Head(9, 9).q, ("end",)),
                            )
                        ),
                    ),
                    True,
                ),
            ),
            (
                "5.5@S2 -> 8.6.v, embed -> logits => logits",
                EdgesRequest(
                    (
                        SiteEdge(Site(Head(5, 5), ("S2",)), Site(Head(8, 6).v)),
                        SiteEdge(Site(Embed()), Site(Logits())),
                    )
                ),
            ),
        ],
    )
    def test_what_a_text_means(self, text, request_):
        assert parse(text) == request_
        assert parse(str(request_)) == request_

    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("L9H9->logits", "9.9 -> logits"),
            ("  a9.h9→logits ", "9.9 -> logits"),
            ("{9.9} -> logits", "9.9 -> logits"),
            ("5.5->8.6.v⇒logits", "5.5 -> 8.6.v => logits"),
            ("m3 -> mlp4.in => logits", "mlp3 -> mlp4 => logits"),
            ("{8.6, 8.10} => logits", "{8.6, 8.10} => logits"),
            ("5.5 -> {8.6.v, 8.10.v} => logits", "5.5 -> {8.6, 8.10}.v => logits"),
            ("5.5 -> {8.6.v, 8.10.q} => logits", "5.5 -> {8.6.v, 8.10.q} => logits"),
            ("{5.5@S2, 6.9@S2} -> logits", "{5.5, 6.9}@S2 -> logits"),
            ("9.9@{end} -> logits", "9.9@end -> logits"),
            ("9.9@- -> logits", "9.9@- -> logits"),
            ("5.5 -> [8.6, 9.9].v => logits", "5.5 -> [8.6.v, 9.9.v] => logits"),
        ],
    )
    def test_spellings_and_what_is_written_back(self, text, canonical):
        assert str(parse(text)) == canonical
        assert parse(canonical) == parse(text)

    @given(requests())
    @examples(400)
    def test_every_request_is_read_back_from_its_text(self, request_):
        assert parse(str(request_)) == request_

    @given(paths())
    @examples(100)
    def test_spaces_mean_nothing(self, request_):
        assert parse(str(request_).replace(" ", "")) == request_
        assert parse(str(request_).replace(" ", "\n\t ")) == request_

    def test_one_edge_to_the_logits_is_written_as_a_path(self):
        edges = EdgesRequest((SiteEdge(Site(Head(9, 9)), Site(Logits())),))
        assert str(edges) == "9.9 -> logits"


class TestNotationErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "it is empty; write for instance 'head -> logits'"),
            ("  ", "it is empty; write for instance 'head -> logits'"),
            ("9.9 -> $", "unexpected '$' at character 8"),
            ("9.9 - logits", "expected `->`, `=> logits` or the end at character 5, got '-'"),
            (
                "9.9 ->",
                (
                    "expected a node such as 9.9, mlp3, embed, or a port such as 8.6.v, "
                    "but the text ends there"
                ),
            ),
            (
                "-> logits",
                (
                    "expected a node such as 9.9, mlp3, embed, or a port such as 8.6.v "
                    "at character 1, got '->'"
                ),
            ),
            ("9.9 -> foo", "at character 8: 'foo' is no node: write embed, logits, a head as 9.6"),
            ("99999999999.1 -> logits", "at character 1: '99999999999.1' is no node"),
            (
                "5.5 -> 8.6 => logits",
                "at character 8: the receiver 8.6 needs a port: write 8.6.q, 8.6.k or 8.6.v",
            ),
            ("5.5 -> 8.6.w => logits", "at character 8: no port 'w' on 8.6: its ports are q, k, v"),
            (
                "5.5 -> 8.kv2.q => logits",
                "at character 8: no port 'q' on key-value head 8.kv2: its ports are k, v",
            ),
            (
                "5.5 -> embed => logits",
                "at character 8: embed reads nothing, so it cannot receive",
            ),
            (
                "8.6.v -> logits",
                "at character 1: the sender 8.6.v has a port: a path starts with a node",
            ),
            (
                "{5.5, logits} -> logits",
                "at character 7: the logits send nothing, so they cannot be a sender",
            ),
            (
                "head.q -> logits",
                "expected as senders one of head, mlp, node at character 1, got 'head.q'",
            ),
            (
                "9.9 -> head => logits",
                (
                    "expected as receivers one of head.q, head.k, head.v, mlp, port, kv.k, kv.v "
                    "at character 8, got 'head'"
                ),
            ),
            (
                "{head, 5.5} -> logits",
                (
                    "expected a single node (head, mlp, node and port stand alone) "
                    "at character 2, got 'head'"
                ),
            ),
            ("{5.5 6.9} -> logits", "expected `,` or `}` at character 6, got '6.9'"),
            ("[5.5 -> logits", "expected `,` or `]` at character 6, got '->'"),
            (
                "5.5 -> {8.6, mlp3}.v => logits",
                ("at character 19: .v behind brackets belongs to heads, not to mlp3"),
            ),
            (
                "5.5 -> {8.6}.w => logits",
                "expected the port .q, .k or .v at character 13, got '.w'",
            ),
            (
                "{5.5@S1}@S2 -> logits",
                "at character 9: 5.5@S1 has a position inside and outside its brackets",
            ),
            (
                "9.9@ -> logits",
                "expected a position: a name such as end or S2, or an index at character 6, got",
            ),
            (
                "9.9@-1 -> logits",
                (
                    "at character 5: position -1: positions count from 0 at the start, since "
                    "prompts may be padded at the end; name the position "
                    "(positions={'end': ...}) instead"
                ),
            ),
            (
                "9.9@{S1, S1} -> logits",
                "at character 5: the position S1 stands twice in @{S1, S1}",
            ),
            (
                "9.9@{each, 1} -> logits",
                "at character 5: 'each' is no position: write an index, or a name",
            ),
            ("{9.9, 9.9} -> logits", "9.9 stands twice in one joint set"),
            ("[9.9, 9.9] -> logits", "9.9 stands twice in one list"),
            (
                "9.9 -> 10.0.q",
                (
                    "'9.9 -> 10.0.q' stops at 10.0.q: end it in `=> logits` (everything downstream "
                    "recomputed) or `-> logits` (straight into the logits)"
                ),
            ),
            ("9.9", "a request has at least a sender and a receiver: 9.9 -> logits"),
            (
                "9.9 -> logits => logits",
                "nothing is downstream of the logits: write `-> logits` without `=> logits`",
            ),
            ("9.9 -> [logits, logits@1] => logits", "nothing is downstream of the logits"),
            (
                "9.9 -> {logits, 10.0.q} -> 11.0.q => logits",
                "the logits can only stand at the end of a path",
            ),
            (
                "9.9 -> [logits, 10.0.q] -> logits",
                "the logits can only stand at the end of a path",
            ),
            (
                "9.9 => 10.0.q",
                (
                    "expected `logits` after `=>` (everything downstream is recomputed up to "
                    "there) at character 8, got '10.0.q'"
                ),
            ),
            ("9.9 => logits -> logits", "expected the end at character 15, got '->'"),
            ("9.9 => logits@end", "expected the end at character 14, got '@'"),
            ("5.5 -> 8.6.v, 3.0 -> 9.9.q", "edges patched together end in `=> logits`"),
            (
                "5.5 -> 8.6.v -> 9.9.q, 3.0 -> 9.9.q => logits",
                (
                    "'5.5 -> 8.6.v -> 9.9.q' is not one edge: commas join single edges "
                    "such as 5.5 -> 8.6.v, 3.0 -> 9.9.q => logits"
                ),
            ),
            ("5.5 -> 8.6.v, head -> 9.9.q => logits", "'head -> 9.9.q' is not one edge"),
            (
                "5.5 -> 8.6.v, 5.5 -> 8.6.v => logits",
                "the edge 5.5 -> 8.6.v stands twice in the list",
            ),
            (
                "5.5@each -> 8.6.v, 3.0 -> 9.9.q => logits",
                "5.5@each -> 8.6.v: @each cannot stand in a list of edges",
            ),
        ],
    )
    def test_says_where_and_what(self, text, message):
        with pytest.raises(RequestError) as caught:
            parse(text)
        start = f"cannot read the request {text!r}: "
        assert str(caught.value).startswith(start)
        assert str(caught.value).removeprefix(start).startswith(message)

    def test_no_text_at_all(self):
        with pytest.raises(RequestError, match="a request is text, got int"):
            parse(3)


class TestObjects:
    @given(writers(), ports())
    @examples(100)
    def test_an_edge_is_a_path_of_one_hop(self, sender, port):
        request_ = as_request(Edge(sender, port))
        assert isinstance(request_, PathRequest)
        assert request_ == parse(str(request_))
        assert request_.recompute == (port != Logits().port)
        assert as_request([Edge(sender, port)]) == request_

    def test_a_list_of_edges_is_patched_together(self):
        edges = [Edge(Head(5, 5), Head(8, 6).v), Edge(Head(3, 0), Logits())]
        assert as_request(edges) == parse("5.5 -> 8.6.v, 3.0 -> logits => logits")
        assert as_request(iter(edges)) == as_request(tuple(edges))

    def test_a_set_of_edges_is_sorted(self):
        edges = {Edge(Head(5, 5), Head(8, 6).v), Edge(Head(3, 0), Logits())}
        assert str(as_request(edges)) == "3.0 -> logits, 5.5 -> 8.6.v => logits"

    def test_requests_and_texts_pass_through(self):
        request_ = parse("9.9 -> logits")
        assert as_request(request_) is request_
        assert as_request("9.9 -> logits") == request_

    @given(heads(), heads(), heads())
    @examples(100)
    def test_a_path_from_objects(self, first, second, third):
        assert path(first, second.v, third.q, Logits()) == parse(
            f"{first} -> {second}.v -> {third}.q -> logits"
        )
        assert path(first, second.v, recompute=True) == parse(f"{first} -> {second}.v => logits")
        assert path(first, recompute=True) == parse(f"{first} => logits")

    def test_receivers_with_one_port_need_no_name(self):
        assert path(Embed(), MLP(3), recompute=True).steps[1] == one(MLP(3).port)
        request_ = PathRequest((one(Embed()), one(MLP(3)), one(Logits())), False)
        assert request_ == parse("embed -> mlp3 -> logits")

    def test_positions_in_the_order_of_first_mention(self):
        assert positions_in(parse("5.5@S2 -> 8.6.v@{S1, S2} -> 9.9.q@3 -> logits")) == (
            "S2", "S1", 3,
        )  # fmt: skip
        assert positions_in(parse("head@each -> mlp@end => logits")) == ("end",)
        assert positions_in(parse("[5.5@a, {6.9, 7.3}@b] -> logits")) == ("a", "b")
        assert positions_in(parse("5.5@a -> 8.6.v@b, 3.0@a -> 9.9.q => logits")) == ("a", "b")
        assert positions_in(parse("head -> logits")) == ()

    @given(edge_lists())
    @examples(100)
    def test_sites_of_a_list_of_edges(self, request_):
        assert sites_in(request_) == tuple(
            site for edge in request_.edges for site in (edge.sender, edge.receiver)
        )

    def test_numpy_positions_become_plain_ones(self):
        site = Site(Head(9, 9), (np.int64(3), "end"))
        assert site.at == (3, "end")
        assert type(site.at[0]) is int
        assert type(KVPort(np.int64(3), np.int64(1), "k").layer) is int


class TestObjectErrors:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: as_request([]), "no edges to patch: the list is empty"),
            (
                lambda: as_request([Edge(Head(5, 5), Logits()), "9.9 -> logits"]),
                (
                    "a list of edges to patch holds '9.9 -> logits' (str): "
                    "write cg.Edge(sender, receiver)"
                ),
            ),
            (
                lambda: as_request(None),
                (
                    "None (NoneType) is no request: give text such as '9.9 -> logits', a Request, "
                    "an Edge or a list of Edges"
                ),
            ),
            (path, "a path starts with a sender node, got none"),
            (lambda: path(Logits()), "a path starts with a sender node, got logits"),
            (lambda: path(Head(9, 9)), "a request has at least a sender and a receiver"),
            (lambda: Joint(()), "a joint set {...} needs at least one member"),
            (lambda: Joint((Head(9, 9),)), "a joint set is made of sites, got Head("),
            (lambda: Sweep(()), "a list [...] needs at least one member"),
            (lambda: Sweep((Site(Head(9, 9)),)), "a list is made of joint sets, got Site("),
            (
                lambda: Every("heads"),
                (
                    "no sweep over heads: write one of head, mlp, node, head.q, head.k, head.v, "
                    "port, kv.k, kv.v"
                ),
            ),
            (lambda: Every("kv", "q"), "no sweep over kv.q: write one of head"),
            (
                lambda: PathRequest((Every("port"), LOGITS), False),
                "port sends nothing: sweep over one of head, mlp, node",
            ),
            (
                lambda: PathRequest((Every("head"), Every("node")), True),
                "node cannot receive: sweep over one of head.q, head.k, head.v, mlp, port, kv.k",
            ),
            (
                lambda: PathRequest((Head(9, 9), Logits()), False),
                "a path is made of joint sets, lists and sweeps, got Head(layer=9, head=9)",
            ),
            (
                lambda: PathRequest((one(Head(9, 9).q), LOGITS), False),
                "the sender 9.9.q has a port: a path starts with a node",
            ),
            (
                lambda: EdgesRequest((Edge(Head(9, 9), Logits()),)),
                "a list of edges to patch holds Edge(",
            ),
            (
                lambda: Site("9.9"),
                "a site is a node or a port, got '9.9' (str)",
            ),
            (
                lambda: Site(Head(9, 9), "end"),
                "positions are a tuple of names and indices, got 'end': write at=('end',)",
            ),
            (lambda: Site(Head(9, 9), ()), "positions are a tuple of names and indices, got ()"),
            (lambda: Site(Head(9, 9), (-1,)), "position -1: positions count from 0 at the start"),
            (lambda: Site(Head(9, 9), ("S 2",)), "'S 2' is no position: write an index, or a name"),
            (lambda: Site(Head(9, 9), ("3",)), "'3' is no position"),
            (lambda: Site(Head(9, 9), (1.5,)), "1.5 is no position"),
            (lambda: Every("head", None, "end"), "positions are a tuple of names and indices"),
            (lambda: KVPort(8, 2, "q"), "no port 'q' on key-value head 8.kv2: its ports are k, v"),
            (lambda: KVPort(8, -2, "k"), "KVPort: kv_head must be an integer of 0 or more, got -2"),
            (
                lambda: Through([Head(1, 2), Embed()]),
                "a path can pass through heads and MLPs, not through Embed()",
            ),
            (
                lambda: Through(MLP(0)),
                "Through takes a collection of nodes: write Through([mlp0])",
            ),
        ],
    )
    def test_says_what_is_wrong(self, make, message):
        with pytest.raises(RequestError) as caught:
            make()
        assert str(caught.value).startswith(message)

    def test_a_head_without_a_port_cannot_receive(self):
        with pytest.raises(NodeError, match=r"the receiver 8\.6 needs a port"):
            path(Head(5, 5), Head(8, 6), recompute=True)
        with pytest.raises(CircuitGraphError, match=r"the receiver 8\.6 needs a port"):
            PathRequest((one(Head(5, 5)), one(Head(8, 6))), True)


class TestThrough:
    def test_a_set_of_nodes(self):
        assert Through([MLP(0), Head(4, 11)]) == Through({Head(4, 11), MLP(0), MLP(0)})
        assert str(Through([MLP(0), Head(4, 11)])) == "through {mlp0, 4.11}"
        assert str(Through([])) == "through {}"
