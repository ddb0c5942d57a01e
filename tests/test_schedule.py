"""Schedules: what each pass leaves out, and that no pass leaves out anything that matters."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitgraph.compiler import compile
from circuitgraph.errors import CircuitGraphError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Head
from circuitgraph.plan import ReadLogits, Record, Run
from circuitgraph.request import Through
from circuitgraph.schedule import (
    PASSES,
    Job,
    Schedule,
    Stage,
    replay_frozen,
    schedule,
    share_runs,
    trim_layers,
    trim_positions,
)
from circuitgraph.schedule.schedule import METRIC, references
from tests.dependencies import Dependencies, live_layers
from tests.plans import ATTN_ONLY, PARALLEL, SMALL, corrupt, freeze, port, record
from tests.strategies import examples

GPT2 = ModelGraph(ModelShape(12, 12))
ALL = frozenset({0, 1, 2})
NONE = frozenset()
SUBSETS = [found for n in range(5) for found in combinations(PASSES, n)]


def lone(plan, *passes):
    """The jobs of a plan's schedule, stage by stage."""
    found = Schedule.of(plan)
    for apply in passes:
        found = apply(found)
    return [stage.jobs for stage in found.stages]


def wheres(plan):
    return [(stage.name, stage.where, stage.from_first) for stage in schedule(plan).stages]


class TestAsItStands:
    def test_every_run_of_every_cell_is_a_job(self):
        plan = compile(SMALL, "0.0 -> [1.0.q, 2.0.q] => logits")
        send = [Job(cell.runs[0], (), 0, 6, ALL, ALL) for cell in plan.cells]
        measure = [
            Job(cell.runs[1], ((0, number),), 0, 6, ALL, ALL)
            for number, cell in enumerate(plan.cells)
        ]
        assert Schedule.of(plan) == Schedule(
            plan,
            (
                Stage("send", tuple(send), None, False, (0, 1)),
                Stage("measure", tuple(measure), None, False, (0, 1)),
            ),
        )

    def test_layers_without_an_mlp_have_none_to_run(self):
        plan = compile(ATTN_ONLY, "0.0 => logits")
        assert Schedule.of(plan).stages[0].jobs[0].mlps == NONE

    def test_a_plan_without_cells(self):
        empty = replace(compile(SMALL, "head -> logits"), cells=())
        assert schedule(empty).stages == ()


class TestShareRuns:
    def test_runs_that_patch_the_same_record_for_all(self):
        plan = compile(SMALL, "[0.0, 0.1] -> [1.0.q, 2.0.q] => logits")
        shared = share_runs(Schedule.of(plan))
        others = "embed 1.0 1.1 2.0 2.1"
        both = record("1.0.q", "2.0.q")
        sends = (
            Run("send", (corrupt("0.0"), freeze(f"0.1 {others}"), both)),
            Run("send", (corrupt("0.1"), freeze(f"0.0 {others}"), both)),
        )
        one, two = (Run("measure", (port(name, 0), ReadLogits())) for name in ("1.0.q", "2.0.q"))
        assert shared.stages == (
            Stage(
                "send",
                tuple(Job(run, (), 0, 6, ALL, ALL) for run in sends),
                None,
                False,
                (0, 0, 1, 1),
            ),
            Stage(
                "measure",
                (
                    Job(one, ((0, 0),), 0, 6, ALL, ALL),
                    Job(two, ((0, 0),), 0, 6, ALL, ALL),
                    Job(one, ((0, 1),), 0, 6, ALL, ALL),
                    Job(two, ((0, 1),), 0, 6, ALL, ALL),
                ),
                None,
                False,
                (0, 1, 2, 3),
            ),
        )
        assert shared.passes == ("share runs",)

    def test_different_positions_are_different_runs(self):
        plan = compile(SMALL, "0.0@each -> 1.0.q => logits", n_positions=3)
        assert [len(jobs) for jobs in lone(plan, share_runs)] == [3, 3]
        plan = compile(SMALL, "0.0 -> 1.0.q@each => logits", n_positions=3)
        assert [len(jobs) for jobs in lone(plan, share_runs)] == [1, 3]

    def test_recomputed_heads_are_shared_too(self):
        plan = compile(SMALL, "0.0 -> 1.0.v -> [2.0.q, 2.1.q] => logits")
        assert [len(jobs) for jobs in lone(plan, share_runs)] == [1, 1, 1, 2]

    def test_nothing_equal_nothing_shared(self):
        plan = compile(SMALL, "head => logits")
        assert lone(plan, share_runs) == lone(plan)


class TestTrimLayers:
    def test_starts_at_the_first_change_and_stops_after_the_last_use(self):
        plan = compile(SMALL, "1.0 -> 2.1.v => logits")
        (send,), (measure,) = lone(plan, trim_layers)
        # 1.0 writes between attention and MLP of block 1; 2.1.v reads the input of block 2.
        assert send == Job(plan.cells[0].runs[0], (), 3, 4, NONE, frozenset({1}))
        assert measure == Job(
            plan.cells[0].runs[1], ((0, 0),), 4, 6, frozenset({2}), frozenset({2})
        )

    def test_parallel_blocks(self):
        plan = compile(PARALLEL, "1.0 -> logits")
        (send,), (read,) = lone(plan, trim_layers)
        assert (send.first, send.last) == (4, 6)
        assert (send.attention, send.mlps) == ({2}, {2})
        assert (read.first, read.last, read.attention, read.mlps) == (6, 6, NONE, NONE)

    def test_a_recomputed_head_needs_its_own_layer_only(self):
        plan = compile(SMALL, "embed -> 1.0.v -> logits")
        _, (recompute,), _, _ = lone(plan, trim_layers)
        assert (recompute.attention, recompute.mlps) == ({1}, NONE)

    def test_a_run_that_changes_nothing_runs_nothing(self):
        plan = compile(SMALL, "mlp -> {1.0.v, 2.1.q} -> logits")
        late = plan.cells[1]
        assert late.name == "mlp1 -> {1.0.v, 2.1.q} -> logits"
        idle = lone(plan, trim_layers)[2][1]
        assert (idle.attention, idle.mlps) == (NONE, NONE)
        assert idle.first > idle.last


class TestReplayFrozen:
    def test_with_all_heads_frozen_only_mlps_run(self):
        plan = compile(SMALL, "0.0 -> logits")
        (send,), (read,) = lone(plan, replay_frozen)
        assert (send.attention, send.mlps) == (NONE, ALL)
        assert (read.attention, read.mlps) == (NONE, NONE)

    def test_single_pass_runs_nothing_at_all(self):
        plan = compile(SMALL, "0.0 -> 2.0.q => logits", "single-pass")
        (send,), (measure,) = lone(plan, replay_frozen)
        assert (send.attention, send.mlps) == (NONE, NONE)
        assert (measure.attention, measure.mlps) == (ALL, ALL)

    def test_an_mlp_that_is_set_is_not_run(self):
        plan = compile(SMALL, "mlp1 -> logits")
        (send,), _ = lone(plan, replay_frozen)
        assert send.mlps == {0, 2}

    def test_an_mlp_that_is_set_at_some_positions_is(self):
        plan = compile(SMALL, "mlp1@end -> logits")
        (send,), _ = lone(plan, replay_frozen)
        assert send.mlps == ALL

    def test_a_head_that_is_set_at_some_positions_and_frozen_is_not_run(self):
        plan = compile(SMALL, "1.0@end -> logits")
        (send,), _ = lone(plan, replay_frozen)
        assert send.attention == NONE

    def test_heads_inside_the_variant_run(self):
        plan = compile(SMALL, "0.0 -> logits", Through([Head(1, 1), MLP(2)]))
        (send,), _ = lone(plan, replay_frozen)
        assert (send.attention, send.mlps) == ({1}, {2})


class TestTrimPositions:
    def test_straight_into_the_logits_only_the_metrics_position(self):
        for request in ("head -> logits", "head@S2 -> logits", "0.0 -> logits@S2"):
            assert wheres(compile(SMALL, request)) == [
                ("send", {METRIC}, False),
                ("read out", {METRIC}, False),
            ]

    def test_values_are_needed_everywhere(self):
        assert wheres(compile(SMALL, "0.0 -> 2.0.v => logits")) == [
            ("send", None, False),
            ("measure", None, False),
        ]

    def test_a_sender_at_one_position_changes_that_one_and_then_later_ones(self):
        assert wheres(compile(SMALL, "0.0@S2 -> 2.0.v => logits")) == [
            ("send", {"S2"}, False),
            ("measure", {"S2"}, True),
        ]
        assert wheres(compile(SMALL, "0.0 -> 2.0.v@{S2, 4} => logits")) == [
            ("send", {"S2", 4}, False),
            ("measure", {"S2", 4}, True),
        ]
        assert wheres(compile(SMALL, "{0.0@S1, 0.1@S2} => logits")) == [
            ("measure", {"S1", "S2"}, True),
        ]

    def test_inner_queries_are_needed_where_the_head_is_read(self):
        assert wheres(compile(SMALL, "0.0 -> 1.0.v -> 2.0.q -> logits")) == [
            ("send", None, False),
            ("recompute", None, False),
            ("send", {METRIC}, False),
            ("recompute", None, False),
            ("send", {METRIC}, False),
            ("read out", {METRIC}, False),
        ]

    def test_attention_inside_the_variant_reaches_every_position(self):
        plan = compile(SMALL, "0.0@S2 -> 2.0.v => logits", Through([Head(1, 0)]))
        assert wheres(plan) == [("send", None, False), ("measure", None, False)]

    def test_a_sweep_runs_the_positions_of_all_its_cells(self):
        plan = compile(SMALL, "[0.0@S1, 0.1@{S2, 3}] -> 2.0.v => logits")
        assert wheres(plan) == [
            ("send", {"S1", "S2", 3}, False),
            ("measure", {"S1", "S2", 3}, True),
        ]

    def test_without_knowing_what_is_frozen_all_positions(self):
        plan = compile(SMALL, "head@S2 -> logits")
        found = trim_positions(Schedule.of(plan))
        assert [stage.where for stage in found.stages] == [None, {METRIC}]


class TestNumbers:
    """How much is left to do on GPT-2 small."""

    def test_every_head_to_the_logits(self):
        plan = compile(GPT2, "head -> logits")
        found = schedule(plan)
        # 12 heads of each layer, and the MLPs from their own layer on: 12 * (12 + 11 + ... + 1)
        assert found.layer_runs == (0, 936)
        assert found.forward_passes == 39
        assert plan.cost.forward_passes == 144
        assert Schedule.of(plan).layer_runs == (2 * 144 * 12, 2 * 144 * 12)

    def test_single_pass_into_the_logits_runs_nothing(self):
        found = schedule(compile(GPT2, "head -> logits", "single-pass"))
        assert found.layer_runs == (0, 0)

    def test_every_head_to_one_value(self):
        found = schedule(compile(GPT2, "head -> 8.6.v => logits"))
        assert [len(stage.jobs) for stage in found.stages] == [96, 96]
        # MLPs from the sender's layer to layer 7; then layers 8 to 11 for each of 96.
        assert found.layer_runs == (96 * 4, 12 * sum(range(1, 9)) + 96 * 4)

    def test_a_sender_to_every_value(self):
        found = schedule(compile(GPT2, "5.5 -> head.v => logits"))
        assert [len(stage.jobs) for stage in found.stages] == [1, 72]
        assert found.stages[0].jobs[0].mlps == {5, 6, 7, 8, 9, 10}
        assert found.stages[0].jobs[0].run.recorded_ports == tuple(
            head.v for head in GPT2.heads[72:]
        )

    def test_every_edge(self):
        found = schedule(compile(GPT2, "node -> port => logits", "single-pass"))
        assert [len(stage.jobs) for stage in found.stages] == [157, 32_491]
        assert found.stages[0].job_of_cell[:2] == (0, 0)


MODELS = {
    "sequential": SMALL,
    "parallel": PARALLEL,
    "attention only": ATTN_ONLY,
    "grouped": ModelGraph(ModelShape(3, 4, n_kv_heads=2)),
}
REQUESTS = [
    "head -> logits",
    "node@S2 -> logits",
    "{0.0, 0.1}@S2 -> 1.0.v => logits",
    "{embed, mlp0@S2} -> logits",
    "{0.0@S2, mlp1@end} -> 2.1.v@end => logits",
    "0.0@S2 -> 2.1.q@{S2, end} => logits",
    "0.0 -> {1.0.q@end, 2.1.v, logits} => logits",
    "embed -> {0.0.v, 1.0.q} -> 2.1.q => logits",
    "embed@S2 -> {0.0.v, 1.0.q@end} -> logits",
    "embed -> {0.0.k, 0.1.q} -> mlp2 -> logits",
    "embed -> {0.0.q, 0.1.q} -> 1.1.q@end => logits",
    "0.0 -> head.v -> 2.1.q@end -> logits",
    "0.0@S2 -> 1.1.q -> 2.0.v => logits",
    "0.0 => logits",
    "{0.1@S2, 1.0@end} => logits",
    "0.0 -> port => logits",
    "head@each -> logits",
    "embed -> 1.0.v@each => logits",
    "0.0@S2 -> 1.0.q, embed -> 2.1.k@end, 0.1 -> logits => logits",
    "0.0 -> 1.kv0.k, 0.1 -> logits => logits",
]
VARIANTS = ["mlps", "single-pass", Through([Head(1, 1), MLP(0)]), Through([Head(0, 0), Head(1, 0)])]


NAMES = {"S2": 1, "end": 3}
N_POSITIONS = 5


class TestNothingThatMattersIsLeftOut:
    """Any passes, in order: every cell's runs are done, at every layer and position that counts."""

    @pytest.mark.parametrize("model", MODELS)
    @given(data=st.data())
    @examples(100)
    def test_any_passes(self, model, data):
        graph = MODELS[model]
        request = data.draw(st.sampled_from(REQUESTS), label="request")
        variant = data.draw(st.sampled_from(VARIANTS), label="variant")
        mode = data.draw(st.sampled_from(["set", "add", "replace"]), label="mode")
        passes = data.draw(st.sampled_from(SUBSETS), label="passes")
        metric = data.draw(st.integers(0, 4), label="metric")
        try:
            plan = compile(graph, request, variant, mode=mode, n_positions=N_POSITIONS).lint()
        except CircuitGraphError:
            return  # an MLP in a model without, say
        follow = Dependencies(graph, N_POSITIONS, NAMES, metric).follow
        found = schedule(plan, passes)
        for number, cell in enumerate(plan.cells):
            done, needed = follow(cell)
            for at, (run, stage) in enumerate(zip(cell.runs, found.stages, strict=True)):
                job = stage.jobs[stage.job_of_cell[number]]
                self.does_the_run(job, run, found, number)
                attention, mlps = live_layers(graph, done[at], needed[at])
                assert attention <= job.attention
                assert mlps <= job.mlps
                if stage.where is not None:
                    matters = self.matters(done[at], needed[at])
                    assert matters <= self.places_run(stage, metric), (cell.name, run.name)

    def does_the_run(self, job, run, found, cell):
        def acts(run):
            return [op for op in run.ops if not isinstance(op, Record)]

        assert acts(job.run) == acts(run)
        assert set(run.recorded_ports) <= set(job.run.recorded_ports)
        assert set(run.recorded_writes) <= set(job.run.recorded_writes)
        assert dict(job.needs) == {
            earlier: found.stages[earlier].job_of_cell[cell] for earlier in references(run)
        }

    @staticmethod
    def matters(done, needed):
        """Where something changes that is needed."""
        things = [(done.writes, needed.writes, node) for node in done.writes]
        things += [(done.ports, needed.ports, port) for port in done.ports]
        none = frozenset()
        return none.union(*(one[thing] & other.get(thing, none) for one, other, thing in things))

    @staticmethod
    def places_run(stage, metric):
        places = {
            metric if key == METRIC else NAMES[key] if isinstance(key, str) else key
            for key in stage.where
        }
        return set(range(min(places), N_POSITIONS)) if stage.from_first else places


class TestPrint:
    def test_table(self):
        text = str(schedule(compile(GPT2, "head@S2 -> 8.6.v => logits")))
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert lines[0] == "Schedule of head@S2 -> 8.6.v => logits variant mlps, mode set"
        assert "send 96 0-8 none 0-7 (432 over the rows) S2" in lines
        assert (
            "measure 96 8-12 8-11 (384 over the rows) 8-11 (384 over the rows) from S2 on" in lines
        )
        assert "passes: share runs, trim layers, replay frozen modules, trim positions" in lines
        assert lines[-1].startswith("cost: 50.0 forward passes' worth of live modules")
        assert all(len(line) <= 100 and line == line.rstrip() for line in text.splitlines())

    def test_without_passes(self):
        assert "passes: none" in str(schedule(compile(SMALL, "head -> logits"), ()))
