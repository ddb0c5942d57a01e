"""Plans: what lint refuses, what plans cost, and what print shows."""

from dataclasses import replace

import pytest

from circuitgraph.compiler import compile
from circuitgraph.errors import PlanError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits
from circuitgraph.plan import (
    Axis,
    Cell,
    Cost,
    Freeze,
    FromRun,
    PatchPort,
    PatchWrite,
    ReadLogits,
    Record,
    ReplaceSenders,
    Run,
)
from circuitgraph.plan.table import describe_nodes
from circuitgraph.request import EachPosition, Through
from tests.golden import check_golden
from tests.plans import SMALL, corrupt, freeze, from_run, port, record, record_writes

GPT2 = ModelGraph(ModelShape(12, 12))
ONE_EDGE = compile(SMALL, "0.1 -> 1.0.v => logits")
TWO_HOPS = compile(SMALL, "0.1 -> 1.0.v -> 2.0.q => logits")
REPLACED = compile(SMALL, "0.1 -> 2.0.v => logits", mode="replace")
SWEEP = compile(SMALL, "head -> logits")


def with_ops(plan, number, *ops):
    """The plan with the ops of one run of its first cell replaced."""
    cell = plan.cells[0]
    runs = list(cell.runs)
    runs[number] = replace(runs[number], ops=ops)
    return replace(plan, cells=(replace(cell, runs=tuple(runs)), *plan.cells[1:]))


def with_op(plan, number, old, new):
    """The plan with one op of one run of its first cell replaced; it is found by its kind."""
    ops = [new if isinstance(op, old) else op for op in plan.cells[0].runs[number].ops]
    return with_ops(plan, number, *ops)


def problems_of(plan):
    with pytest.raises(PlanError) as caught:
        plan.lint()
    return str(caught.value)


class TestLint:
    def test_a_good_plan_is_returned(self):
        for plan in (ONE_EDGE, TWO_HOPS, REPLACED, SWEEP):
            assert plan.lint() is plan

    @pytest.mark.parametrize(
        ("plan", "problem"),
        [
            # the grid
            (
                replace(SWEEP, cells=(replace(SWEEP.cells[0], index=(3, 0)),)),
                "cell (3, 0) is outside the grid (3, 2)",
            ),
            (
                replace(SWEEP, cells=(replace(SWEEP.cells[0], index=(0,)),)),
                "cell (0,) is outside the grid (3, 2)",
            ),
            (replace(SWEEP, axes=()), "cell (0, 0) is outside the grid ()"),
            (
                replace(SWEEP, cells=(SWEEP.cells[0], SWEEP.cells[0])),
                "cell (0, 0) stands twice",
            ),
            (
                replace(SWEEP, cells=(SWEEP.cells[0], replace(ONE_EDGE.cells[0], index=(1, 0)))),
                (
                    "0.1 -> 1.0.v => logits has the runs send, measure, "
                    "the first cell send, read out"
                ),
            ),
            # the runs of a cell
            (
                replace(ONE_EDGE, cells=(Cell((), "nothing", ()),)),
                "nothing: its last run does not read the logits",
            ),
            (
                with_ops(ONE_EDGE, 1, port("1.0.v", 0)),
                "0.1 -> 1.0.v => logits: its last run does not read the logits",
            ),
            (
                with_ops(ONE_EDGE, 0, *ONE_EDGE.cells[0].runs[0].ops, ReadLogits()),
                "0.1 -> 1.0.v => logits, run 1: reads the logits before the last run",
            ),
            (with_ops(ONE_EDGE, 1, ReadLogits()), "run 2: patches nothing"),
            # patched writes
            (with_op(ONE_EDGE, 0, PatchWrite, corrupt("0.7")), "run 1: patches 0.7, which is not"),
            (
                with_op(ONE_EDGE, 0, PatchWrite, PatchWrite(Logits())),
                "run 1: patches the write of the logits, which write nothing",
            ),
            (
                with_op(ONE_EDGE, 0, PatchWrite, from_run("0.1", 0)),
                "run 1: 0.1 takes its write from run 1",
            ),
            (
                with_op(TWO_HOPS, 2, PatchWrite, from_run("1.0", 0)),
                "run 3: run 1 did not record the write of 1.0",
            ),
            (
                with_op(ONE_EDGE, 0, PatchWrite, corrupt("0.1", EachPosition())),
                "run 1: patches 0.1 at each position, which has to be written out",
            ),
            (
                with_ops(ONE_EDGE, 0, corrupt("0.1"), *ONE_EDGE.cells[0].runs[0].ops),
                "run 1: patches 0.1 twice",
            ),
            (
                with_ops(
                    ONE_EDGE,
                    0,
                    corrupt("0.1", ("S2",)),
                    corrupt("0.1", ("end", "S2")),
                    freeze("embed 0.0 0.1 1.0 1.1 2.0 2.1"),
                    record("1.0.v"),
                ),
                "run 1: patches 0.1 twice",
            ),
            (
                with_ops(TWO_HOPS, 1, corrupt("0.0"), *TWO_HOPS.cells[0].runs[1].ops),
                "run 2: patches 0.0 in a run that recomputes",
            ),
            # frozen nodes
            (
                with_op(ONE_EDGE, 0, Freeze, freeze("embed 0.0 0.1 1.0")),
                "run 1: patches and freezes 0.1",
            ),
            (
                with_op(ONE_EDGE, 0, Freeze, freeze("embed 5.0")),
                "run 1: freezes 5.0, which is not in the graph",
            ),
            # patched ports
            (
                with_op(ONE_EDGE, 1, PatchPort, port("1.9.v", 0)),
                "run 2: patches the port 1.9.v, which is not in the graph",
            ),
            (
                with_op(ONE_EDGE, 1, PatchPort, port("1.0.v", 1)),
                "run 2: 1.0.v takes its change from run 2",
            ),
            (
                with_op(ONE_EDGE, 1, PatchPort, port("1.0.v", -1)),
                "run 2: 1.0.v takes its change from run 0",
            ),
            (
                with_op(ONE_EDGE, 1, PatchPort, port("1.0.q", 0)),
                "run 2: run 1 did not record 1.0.q",
            ),
            (
                with_op(ONE_EDGE, 1, PatchPort, port("1.0.v", 0, at=EachPosition())),
                "run 2: patches 1.0.v at each position",
            ),
            (
                with_ops(ONE_EDGE, 1, port("1.0.v", 0), port("1.0.v", 0, "add"), ReadLogits()),
                "run 2: patches the port 1.0.v twice",
            ),
            (
                with_ops(ONE_EDGE, 1, port("1.0.v", 0), freeze("1.0"), ReadLogits()),
                "run 2: patches the port 1.0.v of a frozen or patched node",
            ),
            (
                with_ops(ONE_EDGE, 1, port("1.0.v", 0), corrupt("1.0"), ReadLogits()),
                "run 2: patches the port 1.0.v of a frozen or patched node",
            ),
            (
                with_ops(SWEEP, 1, port("logits", 0)),
                "run 2: patches the logits' port but does not read the logits",
            ),
            # replaced senders
            (
                with_op(REPLACED, 0, ReplaceSenders, ReplaceSenders(Head(2, 0).v, ())),
                "run 1: replaces no sender of 2.0.v",
            ),
            (
                with_op(
                    REPLACED, 0, ReplaceSenders, ReplaceSenders(Head(1, 0).v, (corrupt("mlp2"),))
                ),
                "run 1: mlp2 does not come before 1.0.v",
            ),
            (
                with_op(
                    REPLACED,
                    0,
                    ReplaceSenders,
                    ReplaceSenders(Head(1, 0).v, (corrupt("0.0"), corrupt("0.0"))),
                ),
                "run 1: replaces 0.0 twice in 1.0.v",
            ),
            (
                with_op(
                    REPLACED, 0, ReplaceSenders, ReplaceSenders(Head(1, 0).v, (corrupt("0.9"),))
                ),
                "run 1: patches 0.9, which is not in the graph",
            ),
            (
                with_op(
                    REPLACED,
                    0,
                    ReplaceSenders,
                    ReplaceSenders(Head(1, 0).v, (from_run("0.0", 0),)),
                ),
                "run 1: 0.0 takes its write from run 1",
            ),
            (
                with_op(
                    REPLACED,
                    0,
                    ReplaceSenders,
                    ReplaceSenders(Head(1, 0).v, (corrupt("0.0"),), frozenset({MLP(1), MLP(7)})),
                ),
                "run 1: mlp1 does not come before 1.0.v",
            ),
            # what is recorded
            (
                with_op(ONE_EDGE, 0, Record, record("1.0.v", "9.0.v")),
                "run 1: records the port 9.0.v, which is not in the graph",
            ),
            (
                with_op(ONE_EDGE, 0, Record, record("1.0.v", "0.0.v")),
                "run 1: records 0.0.v, which no patched sender comes before",
            ),
            (
                with_op(TWO_HOPS, 1, Record, record_writes("1.0", "1.1")),
                "run 2: records the write of 1.1, which it does not compute",
            ),
            (
                with_op(TWO_HOPS, 1, Record, Record(writes=(Head(1, 0), Logits()))),
                "run 2: records the write of the logits, which write nothing",
            ),
        ],
    )
    def test_a_broken_plan_is_refused(self, plan, problem):
        text = problems_of(plan)
        assert text.startswith(f"the plan for {str(plan.request)!r} is not well formed: ")
        assert problem in text

    def test_every_problem_is_reported_at_once(self):
        broken = with_op(ONE_EDGE, 0, PatchWrite, corrupt("0.7"))
        broken = with_op(broken, 1, PatchPort, port("1.0.q", 5))
        text = problems_of(broken)
        assert "3 problems" in text
        assert "patches 0.7" in text
        assert "no patched sender comes before" in text
        assert "run 2: 1.0.q takes its change from run 6" in text

    def test_positions_of_one_node_may_be_patched_apart(self):
        with_ops(
            ONE_EDGE,
            0,
            corrupt("0.1", ("S1",)),
            corrupt("0.1", ("S2",)),
            freeze("embed 0.0 0.1 1.0 1.1 2.0 2.1"),
            record("1.0.v"),
        ).lint()


class TestValues:
    def test_plans_of_equal_requests_are_equal(self):
        assert compile(SMALL, "0.1->1.0.v=>logits") == ONE_EDGE
        assert compile(SMALL, Edge(Head(0, 1), Head(1, 0).v)) == ONE_EDGE
        assert compile(SMALL, "0.1 -> 1.0.v => logits", "single-pass") != ONE_EDGE

    def test_runs_are_keys(self):
        assert len({run for plan in (ONE_EDGE, TWO_HOPS) for run in plan.runs()}) == 5

    def test_what_a_run_does_at_a_glance(self):
        send, recompute, again, measure = TWO_HOPS.cells[0].runs
        assert send.patched == (corrupt("0.1"),)
        assert send.recomputed(SMALL.nodes) == {MLP(0), MLP(1), MLP(2), Logits()}
        assert recompute.recorded_writes == (Head(1, 0),)
        assert recompute.ports == (port("1.0.v", 0),)
        assert again.patched == (PatchWrite(Head(1, 0), FromRun(1)),)
        assert measure.reads_logits
        assert not again.reads_logits
        assert measure.frozen == frozenset()
        assert Run("send", (freeze("0.0"), freeze("0.1"))).frozen == {Head(0, 0), Head(0, 1)}

    def test_axes_in_words(self):
        assert str(Axis("layer", (0, 1, 2))) == "layer (3)"


class TestCost:
    @pytest.mark.parametrize(
        ("request_", "variant", "passes", "closed"),
        [
            ("9.9 -> logits", "single-pass", 0, 2),
            ("9.9 -> logits", "mlps", 1, 1),
            ("5.5 -> 8.6.v => logits", "single-pass", 1, 1),
            ("5.5 -> 8.6.v => logits", "mlps", 2, 0),
            ("5.5 -> 8.6.v -> 9.9.q -> logits", "single-pass", 2, 4),
            ("5.5 -> 8.6.v -> 9.9.q -> logits", "mlps", 5, 1),
            ("9.9 => logits", "mlps", 1, 0),
            ("head -> logits", "mlps", 144, 144),
            ("head -> logits", "single-pass", 0, 288),
            # mlp5, then 36 ports of heads and an MLP in each of 6 layers, then the logits
            ("5.5 -> port => logits", "single-pass", 1 + 6 * 37, 1 + 6 * 37 + 1 + 1),
            ("5.5@S2 -> 8.6.v@S2 => logits", "mlps", 2, 0),
            ("mlp -> logits", Through([]), 0, 24),
        ],
    )
    def test_passes_are_counted(self, request_, variant, passes, closed):
        plan = compile(GPT2, request_, variant)
        assert plan.cost == Cost(recordings=2, forward_passes=passes, closed_form=closed)
        assert plan.cost.total == passes + 2

    def test_replace_is_one_pass_for_any_number_of_edges(self):
        edges = [edge for port in GPT2.ports[-30:] for edge in GPT2.edges_into(port)]
        plan = compile(GPT2, edges, "single-pass", mode="replace").lint()
        assert plan.cost == Cost(2, 1, 0)

    def test_in_words(self):
        assert str(Cost(2, 1, 0)) == (
            "1 forward pass + 2 recordings one request at a time, 0 runs in closed form"
        )
        assert str(Cost(2, 2, 1)).endswith("1 run in closed form")
        assert str(Cost(2, 144, 144)).startswith("144 forward passes + 2 recordings")


GOLDEN = {
    "plan_one_edge.txt": compile(GPT2, "5.5 -> 8.6.v => logits"),
    "plan_sweep_single_pass.txt": compile(GPT2, "head -> 8.6.v@S2 => logits", "single-pass"),
    "plan_long_path.txt": compile(
        ModelGraph(ModelShape(30, 9, 3)),
        "{5.5, mlp6}@S2 -> {8.kv2.v, 7.3.v}@S2 -> 9.8.q@end -> logits",
        Through([MLP(6), MLP(7), MLP(8)]),
    ),
}


class TestPrint:
    @pytest.mark.parametrize("name", GOLDEN)
    def test_golden(self, name):
        check_golden(name, str(GOLDEN[name]))

    @pytest.mark.parametrize(
        ("request_", "options"),
        [
            ("node -> port => logits", {}),
            ("node -> port => logits", {"mode": "replace"}),
            ("head@each -> {8.6, 8.10, 7.9, 7.3}.v@S2 -> 9.9.q@end => logits", {}),
            ("{5.5, 6.9, 0.1, 3.0, 4.11, 5.8, 5.9}@S2 -> logits", {"variant": "single-pass"}),
            ("head -> logits", {"variant": Through(GPT2.heads[:7])}),
            ("{5.5@a-rather-long-name-of-a-position, 6.9@{S1, S1+1, S2, end}} => logits", {}),
            (", ".join(f"{layer}.0 -> 9.{layer}.q" for layer in range(9)) + " => logits", {}),
        ],
    )
    def test_fits_a_terminal(self, request_, options):
        text = str(compile(GPT2, request_, n_positions=3, **options))
        for line in text.splitlines():
            assert len(line) <= 100
            assert line == line.rstrip()
        assert "\t" not in text

    def test_says_how_many_cells_and_how_many_are_left_out(self):
        text = str(compile(GPT2, "head -> 8.6.v => logits"))
        assert (
            "96 cells over layer (12) x head (12), 48 cells have no valid request; "
            "the first of them, 0.0 -> 8.6.v => logits:"
        ) in " ".join(text.split())

    def test_a_plan_without_cells(self):
        empty = replace(SWEEP, cells=())
        assert str(empty) == "Plan of head -> logits: no valid cell"

    @pytest.mark.parametrize(
        ("nodes", "words"),
        [
            (GPT2.nodes, "embed, all heads, all mlps, logits"),
            ((), "-"),
            ((Embed(), Head(9, 9)), "embed, 9.9"),
            (set(GPT2.heads) - {Head(9, 9), Head(9, 6)}, "all heads but 9.6, 9.9"),
            (GPT2.heads[96:], "heads of layer 8-11"),
            (GPT2.heads[:12], "heads of layer 0"),
            (GPT2.mlps[8:], "mlps 8-11"),
            (GPT2.mlps[:3], "mlp0, mlp1, mlp2"),
            (GPT2.heads[:7], "7 heads"),
        ],
    )
    def test_nodes_in_few_words(self, nodes, words):
        assert describe_nodes(GPT2, nodes) == words
