"""What the compiler refuses, in which words."""

import pytest

from circuitgraph.compiler import compile
from circuitgraph.errors import CircuitGraphError, NodeError, RequestError, UnsupportedError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Edge, Head
from circuitgraph.request import Through
from tests.plans import ATTN_ONLY, GROUPED, SMALL


class TestErrors:
    @pytest.mark.parametrize(
        ("request_", "kind", "problem"),
        [
            (
                "2.0 -> 1.0.v => logits",
                NodeError,
                (
                    "2.0 does not come before 1.0.v: "
                    "it must write to the residual stream before the receiver reads it"
                ),
            ),
            ("1.0 -> 1.1.v => logits", NodeError, "1.0 does not come before 1.1.v"),
            (
                "1.2 -> logits",
                NodeError,
                (
                    "no node '1.2' in this graph (3 layers of 2 heads): head must be 0..1; "
                    "did you mean 1.1?"
                ),
            ),
            (
                "head -> 0.0.q => logits",
                NodeError,
                "0.0 does not come before 0.0.q",
            ),
            (
                "0.0 -> {1.0, 0.1}.q => logits",
                NodeError,
                "0.0 does not come before 0.1.q",
            ),
            ("{0.0, 2.0} -> 1.0.q => logits", NodeError, "2.0 does not come before 1.0.q"),
            ("0.0 -> 2.0.q -> 1.0.q => logits", NodeError, "2.0 does not come before 1.0.q"),
            (
                "{0.0, 0.0@S2} -> logits",
                RequestError,
                "0.0 stands both at all positions and at S2 in {0.0, 0.0@S2}: choose one",
            ),
            (
                "0.0 -> {2.0.q@each, 2.0.q@1} => logits",
                RequestError,
                "2.0.q stands both at each and at 1 in {2.0.q@each, 2.0.q@1}: choose one",
            ),
            (
                "0.0@each -> 1.0.q@each => logits",
                UnsupportedError,
                "@each can stand at one step of a path only",
            ),
            (
                "[0.0@each, 0.1] -> logits",
                RequestError,
                "@each stands at some members of [0.0@each, 0.1]: give it to all or to none",
            ),
            (
                "0.0@S1 -> 1.0.q@S1, 0.1 -> 1.0.q@S2 => logits",
                UnsupportedError,
                (
                    "1.0.q receives at different positions in one list of edges, so each edge sends "
                    "where it is heard: write 0.1@S2 -> 1.0.q@S2 for 0.1 -> 1.0.q@S2"
                ),
            ),
            (
                "0.0 -> 1.0.q, 0.0@S2 -> 1.0.q => logits",
                RequestError,
                "0.0 stands both at all positions and at S2 among the senders to 1.0.q: choose one",
            ),
            (
                "0.0 -> 1.0.q, 2.0 -> 1.0.q => logits",
                NodeError,
                "2.0 does not come before 1.0.q",
            ),
        ],
    )
    def test_says_what_is_wrong(self, request_, kind, problem):
        with pytest.raises(CircuitGraphError) as caught:
            compile(SMALL, request_, n_positions=2)
        assert type(caught.value) is kind
        start = f"cannot compile {request_!r}: "
        assert str(caught.value).startswith(start)
        assert str(caught.value).removeprefix(start).startswith(problem)

    def test_the_same_port_through_its_key_value_head(self):
        with pytest.raises(UnsupportedError, match=r"1\.0\.k receives at different positions"):
            compile(GROUPED, "0.0 -> 1.kv0.k@S1, 0.1 -> 1.0.k@S2 => logits")

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (
                {"variant": "mlp"},
                (
                    "no variant 'mlp': write 'mlps' (direct paths pass through MLPs), "
                    "'single-pass' (through nothing) or cg.Through(nodes)"
                ),
            ),
            ({"variant": [MLP(0)]}, "no variant [MLP(layer=0)]: write 'mlps'"),
            ({"variant": Through([MLP(7)])}, "no node 'mlp7' in this graph"),
            ({"mode": "sett"}, "no mode 'sett': write one of set, add, replace"),
            (
                {"source": "noise"},
                "no source 'noise': write one of corrupt, zero, mean, mean-position, given",
            ),
            ({"n_positions": 0}, "n_positions must be a whole number of 1 or more, got 0"),
        ],
    )
    def test_options(self, options, problem):
        with pytest.raises(CircuitGraphError) as caught:
            compile(SMALL, "0.0 -> logits", **options)
        assert str(caught.value).startswith(f"cannot compile '0.0 -> logits': {problem}")

    def test_sweeping_over_positions_needs_to_know_how_many(self):
        with pytest.raises(RequestError, match="@each needs to know how many positions there are"):
            compile(SMALL, "head@each -> logits")

    def test_sweeping_over_mlps_needs_some(self):
        with pytest.raises(RequestError, match="nothing to sweep over: the model has no MLPs"):
            compile(ATTN_ONLY, "mlp -> logits")

    def test_several_problems_are_reported_together(self):
        with pytest.raises(RequestError) as caught:
            compile(SMALL, "[0.5, 9.0] -> {1.7.q, mlp8} => logits", "mlp", mode="sett")
        assert str(caught.value).splitlines() == [
            "cannot compile '[0.5, 9.0] -> {1.7.q, mlp8} => logits': 6 problems",
            (
                "  1. no variant 'mlp': write 'mlps' (direct paths pass through MLPs), "
                "'single-pass' (through nothing) or cg.Through(nodes)"
            ),
            "  2. no mode 'sett': write one of set, add, replace",
            (
                "  3. no node '0.5' in this graph (3 layers of 2 heads): head must be 0..1; "
                "did you mean 0.1?"
            ),
            (
                "  4. no node '9.0' in this graph (3 layers of 2 heads): layer must be 0..2; "
                "did you mean 2.0?"
            ),
            (
                "  5. no node '1.7.q' in this graph (3 layers of 2 heads): head must be 0..1; "
                "did you mean 1.1.q?"
            ),
            (
                "  6. no node 'mlp8' in this graph (3 layers of 2 heads): layer must be 0..2; "
                "did you mean mlp2?"
            ),
        ]

    def test_every_wrong_edge_of_a_list_is_reported(self):
        edges = [
            Edge(Head(2, 0), Head(1, 0).q),
            Edge(Head(0, 0), Head(1, 0).q),
            Edge(MLP(2), MLP(0)),
        ]
        with pytest.raises(NodeError) as caught:
            compile(SMALL, edges)
        assert "2 problems" in str(caught.value)
        assert "1. 2.0 does not come before 1.0.q" in str(caught.value)
        assert "2. mlp2 does not come before mlp0" in str(caught.value)

    def test_every_wrong_pair_of_a_path_is_reported(self):
        with pytest.raises(NodeError) as caught:
            compile(SMALL, "{0.0, 2.0, 2.1} -> {1.0.q, 0.1.k} => logits")
        assert "3 problems" in str(caught.value)
        assert "2.1 does not come before 1.0.q" in str(caught.value)
        assert "0.0 does not come before 0.1.k" in str(caught.value)

    def test_a_thousand_problems_are_not_all_listed(self):
        edges = [Edge(Head(layer, 0), Head(0, 0).q) for layer in range(3, 53)]
        with pytest.raises(NodeError) as caught:
            compile(SMALL, edges)
        lines = str(caught.value).splitlines()
        assert lines[0].endswith("50 problems")
        assert len(lines) == 22
        assert lines[-1] == "  and 30 more"

    def test_a_text_that_cannot_be_read_says_so_first(self):
        with pytest.raises(RequestError, match=r"cannot read the request '9\.9 ->'"):
            compile(SMALL, "9.9 ->")


class TestPositionsThatNeverMeet:
    """What a head writes at one position is read along direct paths at that position alone."""

    GRAPH = ModelGraph(ModelShape(n_layers=3, n_heads=2))

    @pytest.mark.parametrize(
        "request_text",
        [
            "0.0@1 -> 1.1.v@4 -> logits",
            "0.0@1 -> 1.1.v@4 => logits",
            "head@1 -> {1.1.v@3, 1.0.q@4} => logits",
            "[0.0@1, 0.1@2] -> mlp2@{3, 4} => logits",
            "0.0@1 -> logits@2",
        ],
    )
    @pytest.mark.parametrize("variant", ["mlps", "single-pass"])
    def test_they_are_refused(self, request_text, variant):
        with pytest.raises(CircuitGraphError, match=r"cannot be heard at .* stays at its position"):
            compile(self.GRAPH, request_text, variant)

    @pytest.mark.parametrize(
        "request_text",
        [
            "0.0@1 -> 1.1.v@{1, 4} => logits",
            "0.0@{1, 2} -> 1.1.v@2 -> 2.0.q@4 => logits",  # head 1.1 carries it from 2 to 4
            "0.0@1 -> 1.1.v@S2 => logits",
            "{0.0@1, 0.1} -> 1.1.v@4 => logits",
            "0.0@1 -> logits",
        ],
    )
    def test_others_are_not(self, request_text):
        compile(self.GRAPH, request_text)

    def test_paths_through_heads_may_change_their_position(self):
        compile(self.GRAPH, "0.0@1 -> 2.1.v@4 => logits", Through({Head(1, 0)}))
