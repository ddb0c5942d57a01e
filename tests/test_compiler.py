"""The compiler: plans against plans written out by hand."""

import pytest

from circuitgraph.compiler import compile
from circuitgraph.errors import NodeError, UnsupportedError
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits
from circuitgraph.plan import Axis, FromSource, PatchWrite, ReadLogits, Record, ReplaceSenders, Run
from circuitgraph.request import Through
from tests.plans import (
    ATTN_ONLY,
    GROUPED,
    PARALLEL,
    SMALL,
    corrupt,
    freeze,
    from_run,
    port,
    record,
    record_writes,
    runs_of,
)


class TestOneEdge:
    def test_head_to_head_through_mlps(self):
        assert runs_of("0.1 -> 2.0.v => logits") == (
            Run(
                "send",
                (corrupt("0.1"), freeze("embed 0.0 1.0 1.1 2.0 2.1"), record("2.0.v")),
            ),
            Run("measure", (port("2.0.v", 0), ReadLogits())),
        )

    def test_head_to_head_single_pass(self):
        assert runs_of("0.1 -> 2.0.v => logits", "single-pass") == (
            Run(
                "send",
                (
                    corrupt("0.1"),
                    freeze("embed 0.0 mlp0 1.0 1.1 mlp1 2.0 2.1 mlp2"),
                    record("2.0.v"),
                ),
            ),
            Run("measure", (port("2.0.v", 0), ReadLogits())),
        )

    def test_through_some_nodes(self):
        first, _ = runs_of("0.1 -> 2.0.v => logits", Through([MLP(1), Head(1, 0)]))
        assert first.ops[1] == freeze("embed 0.0 mlp0 1.1 2.0 2.1 mlp2")

    def test_head_to_logits(self):
        assert runs_of("1.1 -> logits") == (
            Run("send", (corrupt("1.1"), freeze("embed 0.0 0.1 1.0 2.0 2.1"), record("logits"))),
            Run(
                "read out",
                (
                    port("logits", 0),
                    freeze("embed 0.0 0.1 mlp0 1.0 1.1 mlp1 2.0 2.1 mlp2"),
                    ReadLogits(),
                ),
            ),
        )

    def test_an_mlp_that_sends_is_set_not_recomputed(self):
        first, _ = runs_of("mlp1 -> logits")
        assert first.ops == (
            corrupt("mlp1"),
            freeze("embed 0.0 0.1 1.0 1.1 2.0 2.1"),
            record("logits"),
        )
        assert MLP(1) not in first.frozen
        assert MLP(1) not in first.recomputed(SMALL.nodes)

    def test_the_embedding_sends(self):
        first, _ = runs_of("embed -> 0.0.q => logits", "single-pass")
        assert first.ops[0] == corrupt("embed")
        assert Embed() not in first.frozen

    def test_an_edge_in_code_is_the_same(self):
        for graph in (SMALL, ATTN_ONLY):
            edge = Edge(Head(0, 1), Head(2, 0).v)
            assert runs_of(edge, graph=graph) == runs_of("0.1 -> 2.0.v => logits", graph=graph)
            assert runs_of([edge], graph=graph) == runs_of(edge, graph=graph)
            assert runs_of(Edge(Head(1, 1), Logits()), graph=graph) == runs_of(
                "1.1 -> logits", graph=graph
            )

    def test_other_sources(self):
        first, _ = runs_of("1.1 -> logits", source="zero")
        assert first.patched == (PatchWrite(Head(1, 1), FromSource("zero")),)

    def test_attention_only_models_have_one_variant(self):
        assert runs_of("0.1 -> 2.0.v => logits", "mlps", ATTN_ONLY) == runs_of(
            "0.1 -> 2.0.v => logits", "single-pass", ATTN_ONLY
        )


class TestActivationPatching:
    def test_one_run(self):
        assert runs_of("1.1 => logits") == (Run("measure", (corrupt("1.1"), ReadLogits())),)

    def test_joint_and_at_positions(self):
        assert runs_of("{1.1@end, mlp0} => logits") == (
            Run("measure", (corrupt("1.1", ("end",)), corrupt("mlp0"), ReadLogits())),
        )

    def test_the_variant_does_not_matter(self):
        assert runs_of("1.1 => logits", "mlps") == runs_of("1.1 => logits", "single-pass")


class TestJointSets:
    def test_senders_and_receivers(self):
        assert runs_of("{0.0, mlp0} -> {1.1, 2.0}.k => logits") == (
            Run(
                "send",
                (
                    corrupt("0.0"),
                    corrupt("mlp0"),
                    freeze("embed 0.1 1.0 1.1 2.0 2.1"),
                    record("1.1.k", "2.0.k"),
                ),
            ),
            Run("measure", (port("1.1.k", 0), port("2.0.k", 0), ReadLogits())),
        )

    def test_several_ports_of_one_head(self):
        _, last = runs_of("0.0 -> {2.0.q, 2.0.v} => logits")
        assert last.ops == (port("2.0.q", 0), port("2.0.v", 0), ReadLogits())

    def test_the_logits_among_the_receivers(self):
        first, last = runs_of("0.0 -> {2.0.q, logits} => logits")
        assert first.recorded_ports == (Head(2, 0).q, Logits().port)
        assert last.ops == (port("2.0.q", 0), port("logits", 0), ReadLogits())

    def test_mode_add(self):
        _, last = runs_of("0.0 -> {1.0.q, 2.0.q} => logits", mode="add")
        assert last.ops == (port("1.0.q", 0, "add"), port("2.0.q", 0, "add"), ReadLogits())

    def test_a_sender_that_reaches_only_some_receivers(self):
        first, last = runs_of("{0.0, 1.0} -> {1.1.q, 2.0.q} => logits")
        assert first.recorded_ports == (Head(1, 1).q, Head(2, 0).q)
        assert len(last.ports) == 2


class TestLongerPaths:
    def test_three_hops(self):
        assert runs_of("0.1 -> 1.0.v -> 2.1.q -> logits", "single-pass") == (
            Run(
                "send",
                (
                    corrupt("0.1"),
                    freeze("embed 0.0 mlp0 1.0 1.1 mlp1 2.0 2.1 mlp2"),
                    record("1.0.v"),
                ),
            ),
            Run(
                "recompute",
                (
                    port("1.0.v", 0),
                    freeze("embed 0.0 0.1 mlp0 1.1 mlp1 2.0 2.1 mlp2"),
                    record_writes("1.0"),
                ),
            ),
            Run(
                "send",
                (
                    from_run("1.0", 1),
                    freeze("embed 0.0 0.1 mlp0 1.1 mlp1 2.0 2.1 mlp2"),
                    record("2.1.q"),
                ),
            ),
            Run(
                "recompute",
                (
                    port("2.1.q", 2),
                    freeze("embed 0.0 0.1 mlp0 1.0 1.1 mlp1 2.0 mlp2"),
                    record_writes("2.1"),
                ),
            ),
            Run(
                "send",
                (
                    from_run("2.1", 3),
                    freeze("embed 0.0 0.1 mlp0 1.0 1.1 mlp1 2.0 mlp2"),
                    record("logits"),
                ),
            ),
            Run(
                "read out",
                (
                    port("logits", 4),
                    freeze("embed 0.0 0.1 mlp0 1.0 1.1 mlp1 2.0 2.1 mlp2"),
                    ReadLogits(),
                ),
            ),
        )

    def test_ending_in_everything_recomputed(self):
        *_, before, last = runs_of("0.1 -> 1.0.v -> 2.1.q => logits")
        assert before == Run(
            "send", (from_run("1.0", 1), freeze("embed 0.0 0.1 1.1 2.0 2.1"), record("2.1.q"))
        )
        assert last == Run("measure", (port("2.1.q", 2), ReadLogits()))

    def test_inner_receivers_of_one_layer_share_a_run(self):
        names = [run.name for run in runs_of("0.1 -> {1.0.v, 1.1.k} -> logits")]
        assert names == ["send", "recompute", "send", "read out"]

    def test_inner_receivers_that_reach_each_other_are_recomputed_apart(self):
        """Each from its own port alone: 2.1 must not hear what 1.0 sends."""
        _, first, second, send, _ = runs_of("0.1 -> {2.1.q, 1.0.v} -> logits", "single-pass")
        assert first == Run(
            "recompute",
            (
                port("1.0.v", 0),
                freeze("embed 0.0 0.1 mlp0 1.1 mlp1 2.0 2.1 mlp2"),
                record_writes("1.0"),
            ),
        )
        assert second == Run(
            "recompute",
            (
                port("2.1.q", 0),
                freeze("embed 0.0 0.1 mlp0 1.0 1.1 mlp1 2.0 mlp2"),
                record_writes("2.1"),
            ),
        )
        assert send.patched == (from_run("1.0", 1), from_run("2.1", 2))

    def test_a_head_and_the_mlp_of_its_layer(self):
        sequential = [run.name for run in runs_of("0.1 -> {1.0.v, mlp1} -> logits")]
        parallel = [run.name for run in runs_of("0.1 -> {1.0.v, mlp1} -> logits", graph=PARALLEL)]
        assert sequential == ["send", "recompute", "recompute", "send", "read out"]
        assert parallel == ["send", "recompute", "send", "read out"]

    def test_cells_with_fewer_inner_receivers_are_filled_up(self):
        plan = compile(SMALL, "node -> {1.0.v, 2.1.q} -> logits", "single-pass").lint()
        names = ["send", "recompute", "recompute", "send", "read out"]
        assert all([run.name for run in cell.runs] == names for cell in plan.cells)
        (late,) = (cell for cell in plan.cells if cell.name.startswith("mlp0"))
        assert [run.recorded_writes for run in late.runs[1:3]] == [(Head(1, 0),), (Head(2, 1),)]
        (late,) = (cell for cell in plan.cells if cell.name.startswith("mlp1"))
        nothing = Run(
            "recompute", (freeze("embed 0.0 0.1 mlp0 1.0 1.1 mlp1 2.0 2.1 mlp2"), Record())
        )
        assert late.runs[2] == nothing
        assert plan.is_closed_form(nothing)


class TestEdgeLists:
    def test_each_receiver_with_its_own_senders(self):
        edges = [
            Edge(Head(0, 0), Head(1, 0).q),
            Edge(MLP(0), Head(2, 0).q),
            Edge(Head(0, 0), Head(1, 1).q),
            Edge(Head(0, 0), Head(2, 0).q),
        ]
        assert runs_of(edges) == (
            Run(
                "send",
                (corrupt("0.0"), freeze("embed 0.1 1.0 1.1 2.0 2.1"), record("1.0.q", "1.1.q")),
            ),
            Run(
                "send",
                (
                    corrupt("0.0"),
                    corrupt("mlp0"),
                    freeze("embed 0.1 1.0 1.1 2.0 2.1"),
                    record("2.0.q"),
                ),
            ),
            Run(
                "measure",
                (port("1.0.q", 0), port("1.1.q", 0), port("2.0.q", 1), ReadLogits()),
            ),
        )

    def test_the_order_of_the_list_does_not_change_who_hears_whom(self):
        edges = [
            Edge(Head(0, 0), Head(1, 0).q),
            Edge(MLP(0), Head(2, 0).q),
            Edge(Embed(), Head(2, 0).q),
        ]

        def heard(runs):
            return {
                op.port: {patch.node for patch in runs[op.delta_from].patched}
                for op in runs[-1].ports
            }

        assert heard(runs_of(edges)) == heard(runs_of(edges[::-1]))
        assert heard(runs_of(edges))[Head(2, 0).q] == {Embed(), MLP(0)}

    def test_edges_into_the_logits(self):
        *_, last = runs_of("0.0 -> 1.0.q, 0.1 -> logits => logits", mode="add")
        assert last == Run(
            "measure", (port("1.0.q", 0, "add"), port("logits", 1, "add"), ReadLogits())
        )

    def test_replace_needs_one_run(self):
        assert runs_of("0.0 -> 1.0.q, mlp0 -> 2.0.q => logits", "single-pass", mode="replace") == (
            Run(
                "measure",
                (
                    ReplaceSenders(Head(1, 0).q, (corrupt("0.0"),)),
                    ReplaceSenders(Head(2, 0).q, (corrupt("mlp0"),)),
                    ReadLogits(),
                ),
            ),
        )


class TestReplace:
    def test_one_edge_through_mlps(self):
        assert runs_of("0.1 -> 2.0.v => logits", mode="replace") == (
            Run(
                "measure",
                (
                    ReplaceSenders(Head(2, 0).v, (corrupt("0.1"),), frozenset({MLP(0), MLP(1)})),
                    ReadLogits(),
                ),
            ),
        )

    def test_each_receiver_hears_the_senders_before_it(self):
        (run,) = runs_of("{0.0, 1.0} -> {1.1.q, 2.0.q} => logits", "single-pass", mode="replace")
        assert run.ops == (
            ReplaceSenders(Head(1, 1).q, (corrupt("0.0"),)),
            ReplaceSenders(Head(2, 0).q, (corrupt("0.0"), corrupt("1.0"))),
            ReadLogits(),
        )

    def test_straight_into_the_logits_the_modes_are_one(self):
        assert runs_of("1.1 -> logits", mode="replace") == runs_of("1.1 -> logits", mode="set")

    def test_the_last_hop_of_a_longer_path(self):
        *_, recompute, last = runs_of("0.1 -> 1.0.v -> 2.1.q => logits", mode="replace")
        assert recompute.name == "recompute"
        assert last == Run(
            "measure",
            (
                ReplaceSenders(Head(2, 1).q, (from_run("1.0", 1),), frozenset({MLP(1)})),
                ReadLogits(),
            ),
        )

    def test_a_receiver_that_paths_pass_through_is_refused_beside_others(self):
        with pytest.raises(UnsupportedError) as caught:
            compile(SMALL, "0.0 -> {mlp1, 2.0.q} => logits", mode="replace")
        assert str(caught.value) == (
            "cannot compile '0.0 -> {mlp1, 2.0.q} => logits': mode 'replace' with mlp1 both a "
            "receiver and a node that direct paths to other receivers pass through: "
            "use variant 'single-pass', or cg.Through without mlp1"
        )
        with pytest.raises(UnsupportedError, match="both a receiver and a node"):
            compile(SMALL, "0.0 -> [1.0.q, {mlp1, 2.0.q}] => logits", mode="replace")
        with pytest.raises(UnsupportedError, match="both a receiver and a node"):
            compile(SMALL, "0.0 -> mlp1, 0.0 -> 2.0.q => logits", mode="replace")

    def test_alone_or_outside_the_variant_it_is_fine(self):
        runs_of("0.0 -> mlp1 => logits", mode="replace")
        runs_of("0.0 -> {mlp1, 2.0.q} => logits", "single-pass", mode="replace")
        runs_of("0.0 -> {mlp1, 2.0.q} => logits", Through([MLP(0)]), mode="replace")
        runs_of("0.0 -> {mlp1, 2.0.q} => logits", mode="set")


class TestPositions:
    def test_at_both_ends(self):
        assert runs_of("0.1@S2 -> 2.0.v@{S2, 4} => logits") == (
            Run(
                "send",
                (
                    corrupt("0.1", ("S2",)),
                    freeze("embed 0.0 0.1 1.0 1.1 2.0 2.1"),  # 0.1 is clean elsewhere
                    record("2.0.v"),
                ),
            ),
            Run("measure", (port("2.0.v", 0, at=("S2", 4)), ReadLogits())),
        )

    def test_a_sender_inside_the_variant_is_live_elsewhere(self):
        first, _ = runs_of("mlp0@S2 -> logits")
        assert first.ops[:2] == (corrupt("mlp0", ("S2",)), freeze("embed 0.0 0.1 1.0 1.1 2.0 2.1"))
        first, _ = runs_of("mlp0@S2 -> logits", "single-pass")
        assert MLP(0) in first.frozen

    def test_at_inner_receivers_and_the_logits(self):
        runs = runs_of("0.1 -> 1.0.v@S2 -> logits@end")
        assert runs[1].ports == (port("1.0.v", 0, at=("S2",)),)
        assert runs[2].patched == (from_run("1.0", 1),)
        assert runs[3].ports == (port("logits", 2, at=("end",)),)

    def test_a_node_at_several_positions_is_one_sender_or_receiver(self):
        assert runs_of("{0.1@S1, 0.1@S2} -> {2.0.v@S1, 2.0.v@3} => logits") == runs_of(
            "0.1@{S1, S2} -> 2.0.v@{S1, 3} => logits"
        )
        first, _ = runs_of("0.1@S1 -> 2.0.v, 0.1@{S2, S1} -> 2.0.v => logits")
        assert first.patched == (corrupt("0.1", ("S1", "S2")),)

    def test_replaced_senders_and_ports_keep_theirs(self):
        (run,) = runs_of("0.1@S2 -> 2.0.v@end => logits", "single-pass", mode="replace")
        assert run.ports == (ReplaceSenders(Head(2, 0).v, (corrupt("0.1", ("S2",)),), at=("end",)),)


class TestGroupedHeads:
    def test_a_key_value_head_is_the_port_of_its_query_heads_together(self):
        assert runs_of("0.0 -> 1.kv1.k => logits", graph=GROUPED) == runs_of(
            "0.0 -> {1.2, 1.3}.k => logits", graph=GROUPED
        )
        plan = compile(GROUPED, "0.0 -> 1.kv1.k => logits")
        assert plan.cells[0].name == "0.0 -> 1.kv1.k => logits"

    def test_with_positions_and_beside_other_ports(self):
        assert runs_of("0.0 -> {1.kv0.v@S2, 1.2.v} => logits", graph=GROUPED) == runs_of(
            "0.0 -> {1.0.v@S2, 1.1.v@S2, 1.2.v} => logits", graph=GROUPED
        )
        assert runs_of("0.0 -> {1.kv0.v, 1.1.v} => logits", graph=GROUPED) == runs_of(
            "0.0 -> 1.kv0.v => logits", graph=GROUPED
        )

    def test_in_lists_of_edges(self):
        together = runs_of("0.0 -> 1.kv0.k, 0.1 -> 1.1.k => logits", graph=GROUPED)
        assert [run.recorded_ports for run in together] == [(Head(1, 0).k,), (Head(1, 1).k,), ()]

    def test_every_key_value_head(self):
        plan = compile(GROUPED, "embed -> kv.v => logits").lint()
        assert plan.axes == (
            Axis("receiver_layer", (0, 1)),
            Axis("receiver_kv_head", (0, 1)),
        )
        assert [cell.index for cell in plan.cells] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert plan.cells[3].runs == runs_of("embed -> 1.kv1.v => logits", graph=GROUPED)

    def test_one_that_is_not_there(self):
        with pytest.raises(NodeError) as caught:
            compile(GROUPED, "0.0 -> 1.kv2.k => logits")
        assert str(caught.value) == (
            "cannot compile '0.0 -> 1.kv2.k => logits': no port '1.kv2.k' in this graph "
            "(2 layers of 2 key-value heads): layer must be 0..1, key-value head 0..1"
        )
