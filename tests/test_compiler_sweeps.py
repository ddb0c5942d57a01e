"""Sweeps: their axes, their cells, and the cells that are left out."""

import pytest

from circuitgraph.compiler import compile
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import Head
from circuitgraph.plan import Axis, Run
from circuitgraph.request import parse
from tests.plans import ATTN_ONLY, GROUPED, PARALLEL, SMALL, runs_of


class TestSweeps:
    @pytest.mark.parametrize(
        ("request_", "axes"),
        [
            ("head -> logits", "layer 0 1 2; head 0 1"),
            ("mlp -> logits", "layer 0 1 2"),
            ("node -> logits", "sender embed 0.0 0.1 mlp0 1.0 1.1 mlp1 2.0 2.1 mlp2"),
            ("[0.1, {0.0, mlp0}@S2] -> logits", "sender 0.1 {0.0, mlp0}@S2"),
            ("embed -> head.q => logits", "receiver_layer 0 1 2; receiver_head 0 1"),
            ("embed -> mlp => logits", "receiver_layer 0 1 2"),
            ("embed -> [mlp0, {1.0, 1.1}.k] => logits", "receiver mlp0 {1.0, 1.1}.k"),
            ("embed -> kv.k => logits", "receiver_layer 0 1 2; receiver_kv_head 0 1"),
            ("head -> mlp => logits", "layer 0 1 2; head 0 1; receiver_layer 0 1 2"),
            (
                "mlp -> head.v -> logits",
                "layer 0 1 2; receiver_layer 0 1 2; receiver_head 0 1",
            ),
            (
                "embed -> mlp -> head.v => logits",
                "receiver1_layer 0 1 2; receiver2_layer 0 1 2; receiver2_head 0 1",
            ),
            ("embed -> 0.0.q -> [1.0.q, 2.0.q] => logits", "receiver 1.0.q 2.0.q"),
            (
                "embed -> [0.0.q, 0.1.q] -> [1.0.q, 2.0.q] => logits",
                "receiver1 0.0.q 0.1.q; receiver2 1.0.q 2.0.q",
            ),
            ("head@each -> logits", "layer 0 1 2; head 0 1; position 0 1 2"),
            ("0.0 -> 1.0.q@each => logits", "position 0 1 2"),
            ("mlp@end => logits", "layer 0 1 2"),
        ],
    )
    def test_axes(self, request_, axes):
        plan = compile(SMALL, request_, n_positions=3).lint()
        found = [f"{axis.dim} {' '.join(map(str, axis.values))}" for axis in plan.axes]
        assert "; ".join(found) == axes
        assert plan.request == parse(request_)

    def test_a_port_sweep_names_every_port(self):
        plan = compile(ModelGraph(ModelShape(1, 1)), "embed -> port => logits").lint()
        assert plan.axes == (Axis("receiver", ("0.0.q", "0.0.k", "0.0.v", "mlp0", "logits")),)
        assert [cell.name for cell in plan.cells] == [
            "embed -> 0.0.q => logits",
            "embed -> 0.0.k => logits",
            "embed -> 0.0.v => logits",
            "embed -> mlp0 => logits",
            "embed -> logits",
        ]

    @pytest.mark.parametrize(
        "request_",
        [
            "head -> logits",
            "node -> 2.1.q -> logits",
            "[0.0, {0.1, mlp0}] -> head.q => logits",
            "embed -> [{0.0, 0.1}.v, 1.1.k] -> 2.0.q => logits",
            "0.0@S2 -> port => logits",
        ],
    )
    @pytest.mark.parametrize("variant", ["mlps", "single-pass"])
    def test_a_cell_is_what_its_name_asks(self, request_, variant):
        plan = compile(SMALL, request_, variant).lint()
        for cell in plan.cells:
            # A cell of the logits is measured by name, and read out where it stands alone.
            assert [run.ops for run in cell.runs] == [
                run.ops for run in runs_of(cell.name, variant)
            ]

    def test_the_swept_logits_are_measured_as_in_closed_form(self):
        plan = compile(SMALL, "0.0 -> [1.0.q, logits] => logits").lint()
        alone = runs_of("0.0 -> logits")
        assert plan.cells[1].runs == (alone[0], Run("measure", alone[1].ops))
        assert plan.cost.closed_form == 1

    def test_cells_that_no_valid_request_fills_are_left_out(self):
        plan = compile(SMALL, "head -> [1.0.q, 2.0.q] => logits").lint()
        assert plan.shape == (3, 2, 2)
        assert [cell.index for cell in plan.cells] == [
            (0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1),
        ]  # fmt: skip

    def test_parallel_blocks_leave_out_more(self):
        sequential = compile(SMALL, "head -> mlp => logits").lint()
        parallel = compile(PARALLEL, "head -> mlp => logits").lint()
        assert len(sequential.cells) - len(parallel.cells) == SMALL.n_edges - PARALLEL.n_edges == 6

    def test_all_pairs_are_all_edges(self):
        for graph in (SMALL, PARALLEL, ATTN_ONLY, GROUPED):
            assert len(compile(graph, "node -> port => logits").lint().cells) == graph.n_edges

    def test_receivers_that_a_sender_does_not_reach_are_left_out_of_its_cell(self):
        plan = compile(SMALL, "mlp -> {1.0.q, 2.0.q} => logits").lint()
        assert [cell.index for cell in plan.cells] == [(0,), (1,)]
        assert [cell.runs[0].recorded_ports for cell in plan.cells] == [
            (Head(1, 0).q, Head(2, 0).q),
            (Head(2, 0).q,),
        ]

    def test_the_logits_end_every_path(self):
        plan = compile(SMALL, "2.0 -> port => logits").lint()
        assert [cell.name for cell in plan.cells] == ["2.0 -> mlp2 => logits", "2.0 -> logits"]
        inner = compile(SMALL, "2.0 -> port -> logits").lint()
        assert [cell.name for cell in inner.cells] == ["2.0 -> mlp2 -> logits"]

    def test_positions_one_at_a_time(self):
        plan = compile(
            SMALL, "[0.0, {0.1, mlp0}]@each -> 2.0.q@end => logits", n_positions=2
        ).lint()
        assert [cell.name for cell in plan.cells] == [
            "0.0@0 -> 2.0.q@end => logits",
            "0.0@1 -> 2.0.q@end => logits",
            "{0.1, mlp0}@0 -> 2.0.q@end => logits",
            "{0.1, mlp0}@1 -> 2.0.q@end => logits",
        ]
        assert [cell.index for cell in plan.cells] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert plan.cells[3].runs == runs_of("{0.1, mlp0}@1 -> 2.0.q@end => logits")

    def test_one_site_of_a_joint_set_can_be_swept(self):
        plan = compile(SMALL, "{0.0@each, 0.1@end} -> logits", n_positions=2).lint()
        assert plan.cells[1].runs == runs_of("{0.0@1, 0.1@end} -> logits")

    def test_every_cell_of_a_sweep_has_runs_of_the_same_names(self):
        for mode in ("set", "add", "replace"):
            plan = compile(SMALL, "node -> port => logits", "single-pass", mode=mode).lint()
            assert len({tuple(run.name for run in cell.runs) for cell in plan.cells}) == 1


class TestSizes:
    """What real models need; how long it takes stands in benchmarks/."""

    def test_every_head_of_smollm2(self):
        graph = ModelGraph(ModelShape(30, 9, 3))
        plan = compile(graph, "head -> logits").lint()
        assert plan.shape == (30, 9)
        assert len(plan.cells) == 270
        assert (plan.cost.forward_passes, plan.cost.closed_form) == (270, 270)
        assert compile(graph, "head -> logits", "single-pass").cost.forward_passes == 0

    def test_every_edge_of_gpt2(self):
        graph = ModelGraph(ModelShape(12, 12))
        plan = compile(graph, "node -> port => logits", "single-pass").lint()
        assert len(plan.cells) == 32_491
        assert plan.shape == (157, 445)
        # All but the edges into the logits are measured by a pass; no sender run needs one.
        assert plan.cost.forward_passes == 32_491 - 157
        assert plan.cost.closed_form == 32_491 + 157
