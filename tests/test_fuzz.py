"""Whatever is asked: a plan that is well formed, or an error of this package, and nothing else."""

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from circuitgraph.compiler import compile
from circuitgraph.errors import CircuitGraphError, PlanError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Edge, Head
from circuitgraph.request import MODES, PathRequest, Request, Through, as_request, parse, path
from circuitgraph.schedule import schedule
from tests.plans import ATTN_ONLY, PARALLEL, SMALL
from tests.strategies import edge_lists, examples, inner_ports, nodes, paths, requests, writers

GRAPHS = [SMALL, PARALLEL, ATTN_ONLY, ModelGraph(ModelShape(2, 4, 2, mlp_layers=(1,)))]
WORDS = [
    "->", "=>", "→", "⇒", "{", "}", "[", "]", ",", "@", ".", "-", " ", "\n", "0.0", "1.1", "2.0",
    "0.1.v", "2.1.q", ".k", "mlp0", "m1", "embed", "logits", "head", "head.q", "mlp", "node",
    "port", "kv.k", "1.kv0.k", "end", "each", "S2", "3", "-1", "L1H0", "a0.h1", "0.0.0", "é", "\0",
]  # fmt: skip

graphs = st.sampled_from(GRAPHS)
variants = st.one_of(
    st.sampled_from(["mlps", "single-pass"]),
    st.sets(st.one_of(writers(3), st.just(Head(1, 0)), st.just(MLP(0)))).map(
        lambda found: Through(node for node in found if str(node) != "embed")
    ),
)
options = st.fixed_dictionaries(
    {"variant": variants, "mode": st.sampled_from(MODES), "n_positions": st.sampled_from([None, 2])}
)


@st.composite
def damaged(draw):
    """The text of a request with a few slices taken out, doubled or put elsewhere."""
    text = str(draw(requests(2)))
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        here = draw(st.integers(0, len(text)))
        match draw(st.sampled_from(["cut", "double", "insert", "swap"])):
            case "cut":
                text = text[:start] + text[min(end, start + 4) :]
            case "double":
                text = text[:end] + text[start:]
            case "insert":
                text = text[:here] + draw(st.sampled_from(WORDS)) + text[here:]
            case _:
                text = text[end:] + text[:end]
    return text


def asked(graph, request, **options):
    """What becomes of a request: a plan that holds all that is promised of plans, or no plan."""
    problem = None
    try:
        plan = compile(graph, request, **options)
    except CircuitGraphError as error:
        problem = error
    if problem is not None:
        assert not isinstance(problem, PlanError)
        assert str(problem)
        return None
    plan.lint()
    assert plan.cells
    assert plan.request == as_request(request)
    assert plan.cost.total >= 2
    assert plan.cost.forward_passes + plan.cost.closed_form == len(list(plan.runs()))
    made = schedule(plan)
    assert len(made.stages) == len(plan.cells[0].runs)
    assert sum(made.layer_runs) <= sum(schedule(plan, ()).layer_runs)
    for text in (str(plan), str(made)):
        assert all(len(line) <= 100 and line == line.rstrip() for line in text.splitlines())
    return plan


class TestText:
    @given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map("".join), damaged()))
    @examples(500)
    @example("9" * 5000 + ".1 -> logits")
    @example("0.0@" + "9" * 5000 + " -> logits")
    @example("{" * 2000)
    def test_a_request_or_an_error(self, text):
        problem = None
        try:
            found = parse(text)
        except CircuitGraphError as error:
            problem = error
        if problem is not None:
            assert str(problem).startswith(f"cannot read the request {text!r}: ")
        else:
            assert isinstance(found, Request)
            assert parse(str(found)) == found

    @given(graphs, damaged(), options)
    @examples(150)
    def test_a_plan_or_an_error(self, graph, text, options):
        asked(graph, text, **options)


class TestRequests:
    @given(graphs, requests(2), options)
    @examples(200)
    def test_a_plan_or_an_error(self, graph, request_, options):
        plan = asked(graph, request_, **options)
        if plan is not None:
            for cell in plan.cells:
                parse(cell.name)

    @given(paths(2, at=st.none()), st.sampled_from(["mlps", "single-pass"]))
    @examples(100)
    def test_a_sweep_is_its_requests_one_by_one(self, request_, variant):
        plan = asked(SMALL, request_, variant=variant)
        if plan is None:
            return
        for cell in plan.cells[:: max(1, len(plan.cells) // 10)]:
            alone = asked(SMALL, cell.name, variant=variant)
            if alone is None:
                continue  # it names a receiver that its sender does not reach: left out in a sweep
            (only,) = alone.cells
            idle = [run for run in cell.runs if run.name == "recompute" and not run.ports]
            if not idle:  # a run that fills up moves the numbers of the later ones
                assert [run.ops for run in cell.runs] == [run.ops for run in only.runs]

    @given(edge_lists(2), st.sampled_from(MODES))
    @examples(100)
    def test_edges_are_patched_together(self, request_, mode):
        plan = asked(SMALL, request_, mode=mode, variant="single-pass")
        if plan is not None:
            (cell,) = plan.cells
            ports = [op.port for op in cell.runs[-1].ports]
            assert len(set(ports)) == len(ports)

    @given(graphs, st.lists(st.one_of(nodes(2), inner_ports(2)), max_size=4), st.booleans())
    @examples(200)
    def test_paths_from_any_objects(self, graph, steps, recompute):
        try:
            request_ = path(*steps, recompute=recompute)
        except CircuitGraphError:
            return
        assert isinstance(request_, PathRequest)
        asked(graph, request_)

    @given(st.lists(st.builds(Edge, writers(2), inner_ports(2)), max_size=5))
    def test_any_list_of_edges(self, edges):
        asked(SMALL, edges)

    @given(
        st.one_of(
            st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
        )
    )
    def test_things_that_are_no_options(self, thing):
        for name in ("variant", "mode", "source"):
            if thing not in ("mlps", "single-pass", *MODES):
                with pytest.raises(CircuitGraphError, match=f"no {name}"):
                    compile(SMALL, "0.0 -> logits", **{name: thing})
