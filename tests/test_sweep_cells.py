"""Cells of a sweep that are made when looked at are those that would have been written out."""

import pickle
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from circuitgraph.compiler import compile
from circuitgraph.compiler.runs import RunWriter
from circuitgraph.errors import NodeError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Edge, Head
from circuitgraph.plan import Plan
from circuitgraph.request import Through, parse
from tests.plans import ATTN_ONLY, GROUPED, PARALLEL, SMALL

REQUESTS = [
    (SMALL, "node -> port => logits", "mlps", "set"),
    (SMALL, "node -> port => logits", "single-pass", "replace"),
    (PARALLEL, "node -> port => logits", "mlps", "add"),
    (ATTN_ONLY, "head -> head.q => logits", "mlps", "set"),
    (GROUPED, "head -> kv.k => logits", "mlps", "set"),
    (SMALL, "head -> logits", "mlps", "set"),
    (SMALL, "head => logits", "mlps", "set"),
    (SMALL, "head -> head.v -> head.q => logits", "mlps", "set"),
    (SMALL, "[{0.0, 1.1}, mlp0] -> [1.0.q, 2.1.v] => logits", "single-pass", "set"),
    (SMALL, "head@each -> logits", "mlps", "set"),
    (SMALL, "head -> head.v@each => logits", "mlps", "set"),
    (SMALL, "head -> head.q => logits", Through([Head(1, 0)]), "set"),
]


def plan_of(case) -> Plan:
    graph, request, variant, mode = case
    return compile(graph, request, variant, mode=mode, n_positions=3)


@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: f"{case[1]}, {case[2]}")
class TestEqualToCellsWrittenOut:
    def test_what_is_said_of_them_is_what_they_are(self, case):
        plan = plan_of(case)
        listed = replace(plan, cells=tuple(plan.cells))
        assert plan == listed
        assert listed == plan
        assert plan.cost == listed.cost
        assert set(plan.sweep.sent()) == set(listed.sweep.sent())
        assert plan.sweep.places().tolist() == [list(cell.index) for cell in plan.cells]
        for number, cell in enumerate(plan.cells):
            assert plan.place(number) == cell.index
            assert plan.sweep.name(number) == cell.name
            assert plan.edges(number) == listed.edges(number)
        assert pickle.loads(pickle.dumps(plan)) == plan

    def test_they_are_the_possible_places_in_order(self, case):
        """Each place of the grid asked for by itself, in a request of its own."""
        graph, request, variant, mode = case
        plan = plan_of(case)
        names = {cell.index: cell.name for cell in plan.cells}
        assert list(names) == sorted(names)
        if "@each" in request or "{" in request:
            return
        for index in product(*map(range, plan.shape)):
            name = names.get(index) or name_at(plan, index)
            try:
                alone = compile(graph, name, variant, mode=mode)
            except NodeError:
                assert index not in names, name
            else:
                runs = plan.cells[list(names).index(index)].runs
                if mode == "replace" and name.endswith("-> logits"):
                    continue  # by itself it is measured where it arrives, in any mode
                assert [run.ops for run in alone.cells[0].runs] == [run.ops for run in runs], name

    def test_kinds_hold_all_cells(self, case):
        plan = plan_of(case)
        kinds = [plan.sweep.kind(number) for number in range(len(plan.cells))]
        counted = {plan.sweep.kind(number): many for number, many in plan.sweep.kinds()}
        assert counted == Counter(kinds)
        closed = {}
        for kind, cell in zip(kinds, plan.cells, strict=True):
            names = [(run.name, plan.is_closed_form(run)) for run in cell.runs]
            assert closed.setdefault(kind, names) == names

    def test_a_part_keeps_its_places(self, case):
        plan = plan_of(case)
        numbers = range(0, len(plan.cells), 2)
        part = plan.part(numbers)
        listed = replace(plan, cells=tuple(plan.cells[number] for number in numbers))
        assert part == listed
        assert part.cost == listed.cost
        assert part.sweep.places().tolist() == listed.sweep.places().tolist()


def name_at(plan: Plan, index: tuple[int, ...]) -> str:
    """A request for one place of a grid, by the names of the plan's axes."""
    at = {axis.dim: axis.values[place] for axis, place in zip(plan.axes, index, strict=True)}
    steps = plan.request.steps
    names = []
    many = sum(not str(step)[0].isdigit() for step in steps[1:] if str(step) != "logits") > 1
    for number, step in enumerate(map(str, steps)):
        start = "" if not number else f"receiver{number}_" if many else "receiver_"
        kind, _, port = step.partition(".")
        match kind:
            case "node" | "port":
                names.append(str(at["receiver" if number else "sender"]))
            case "head":
                names.append(
                    f"{at[f'{start}layer']}.{at[f'{start}head']}" + f".{port}" * bool(port)
                )
            case "kv":
                names.append(f"{at[f'{start}layer']}.kv{at[f'{start}kv_head']}.{port}")
            case _:
                names.append(at["sender"] if "sender" in at and not number else step)
    text = " -> ".join(names)
    return text if names[-1] == "logits" else f"{text} => logits"


class TestLarge:
    """Counted, not timed: what is made of 1.59 million cells."""

    @pytest.fixture
    def written(self, monkeypatch):
        written = []
        runs = RunWriter.runs
        monkeypatch.setattr(
            RunWriter, "runs", lambda self, asks: written.append(asks) or runs(self, asks)
        )
        return written

    def test_no_cell_is_made_before_it_is_looked_at(self, written):
        graph = ModelGraph(ModelShape(n_layers=32, n_heads=32, n_kv_heads=8))
        plan = compile(graph, "node -> port => logits", "single-pass")
        assert len(plan.cells) == graph.n_edges == 1_592_881
        assert plan.shape == (1057, 3105)
        # The embedding reaches all ports; the first head's first is its own layer's MLP.
        assert plan.sweep.name(3105) == "0.0 -> mlp0 => logits"
        assert plan.edges(3105) == (Edge(Head(0, 0), MLP(0)),)
        assert plan.sweep.name(1_592_880) == "mlp31 -> logits"
        assert plan.place(1_592_880) == (1056, 3104)
        assert not written
        assert plan.cells[-1].name == "mlp31 -> logits"
        assert len(written) == 1

    def test_cost_and_order_are_found_kind_by_kind(self, written):
        graph = ModelGraph(ModelShape(n_layers=32, n_heads=32, n_kv_heads=8))
        plan = compile(graph, "node -> port => logits", "single-pass")
        assert plan.cost.forward_passes == 1_592_881 - 1057
        assert plan.cost.closed_form == 1_592_881 + 1057
        assert len(written) < 5_000
        plan.lint()
        assert len(written) < 15_000

    def test_every_edge_stands_in_one_cell(self):
        plan = compile(SMALL, parse("node -> port => logits"), "single-pass")
        found = [plan.edges(number) for number in range(len(plan.cells))]
        assert sorted(edge for (edge,) in found) == sorted(SMALL.edges())
