"""ACDC, against the plain sequential algorithm on a plain transformer."""

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.circuit import Circuit
from circuitgraph.circuit.masks import EdgeMasks
from circuitgraph.discover import acdc
from circuitgraph.discover.acdc import prune_by_tests
from circuitgraph.errors import CircuitError
from tests.models import tiny_attn_only, tiny_qwen2
from tests.oracles.circuits import plain_edge, run_circuit

ANSWER, WRONG = 3, 7


def experiment(tiny, n_prompts=3):
    clean, corrupt = tiny.tokens(n_prompts, 4, seed=1), tiny.tokens(n_prompts, 4, seed=2)
    metric = cg.LogitDiff([ANSWER] * n_prompts, [WRONG] * n_prompts)
    return cg.Experiment(tiny.bridge, clean, corrupt, metric)


def sequential(edges_by_receiver, measure, threshold, everything, moves):
    """One edge after another, one run each."""
    inside, steps = set(everything), []
    before = measure(inside)
    for node, edges in edges_by_receiver:
        if node is not None and not any(edge.sender == node for edge in inside):
            inside -= set(edges)
            continue
        for edge in edges:
            after = measure(inside - {edge})
            kept = not moves(before, after) < threshold
            steps.append((str(edge), before, after, kept))
            if not kept:
                inside, before = inside - {edge}, after
    return inside, steps


def receivers(graph, order):
    for port in reversed(graph.ports):
        edges = list(graph.edges_into(port))
        node = None if isinstance(port.node, cg.Logits) else port.node
        yield node, edges[::-1] if order == "reverse" else edges


def divergence(tiny, exp, edges):
    setup = exp._setup
    clean = tiny.plain(setup.clean)[:, -1].log_softmax(-1)
    logits = run_circuit(tiny.plain, setup.clean, setup.corrupt, [plain_edge(e) for e in edges])
    found = (clean.exp() * (clean - logits[:, -1].log_softmax(-1))).sum(-1)
    return float(found.mean())


@pytest.mark.parametrize("build", [tiny_attn_only, tiny_qwen2])
@pytest.mark.parametrize("order", ["reverse", "forward"])
def test_it_is_the_sequential_algorithm(build, order):
    tiny = build()
    exp = experiment(tiny)
    start = cg.discover.cut(
        Circuit.from_edges(exp.graph, {e: -i % 7 + 0.5 for i, e in enumerate(exp.graph.edges())}),
        60,
    )
    found = acdc(exp, 0.05, order=order, start=start)
    ways = [
        (node, [edge for edge in edges if edge in start.members])
        for node, edges in receivers(exp.graph, order)
    ]
    inside, steps = sequential(
        ways,
        lambda edges: divergence(tiny, exp, edges),
        0.05,
        start.members,
        lambda before, after: after - before,
    )
    assert found.circuit.members == inside
    assert [step[0] for step in steps] == found.steps["edge"].tolist()
    assert [step[3] for step in steps] == found.steps["kept"].tolist()
    for column, at in (("before", 1), ("after", 2)):
        assert found.steps[column].to_numpy() == pytest.approx(
            [step[at] for step in steps], abs=1e-9
        )
    assert 0 < len(inside) < 60


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("rises", [True, False])
def test_batches_change_nothing(seed, rises):
    """Any function of the edges will do: the batched search is the plain loop, step by step."""
    graph = cg.ModelGraph(cg.ModelShape(n_layers=2, n_heads=2))
    masks = EdgeMasks(graph)
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=len(masks.edges)) * (generator.random(len(masks.edges)) < 0.3)
    twist = generator.normal(size=(len(masks.edges), 3))

    def value(row):
        return float((1 - row) @ weight + np.sin((1 - row) @ twist).sum() * 0.2)

    candidates = []
    for port in reversed(graph.ports):
        edges = [masks.index.number(edge) for edge in graph.edges_into(port)]
        candidates.append((port, generator.permutation(edges).tolist()))
    everything = np.ones(len(masks.edges), dtype=bool)
    found = prune_by_tests(
        masks,
        everything,
        candidates,
        lambda _, rows: np.array([value(row.astype(float)) for row in rows]),
        0.1,
        rises=rises,
    )

    def measure(edges):
        return value(masks.mask(edges).astype(float))

    ways = [
        (None if isinstance(port.node, cg.Logits) else port.node, [masks.edges[e] for e in edges])
        for port, edges in candidates
    ]
    inside, steps = sequential(
        ways,
        measure,
        0.1,
        masks.edges,
        lambda before, after: after - before if rises else abs(after - before),
    )
    assert {masks.edges[at] for at in np.flatnonzero(found.inside)} == inside
    assert [(str(masks.edges[e]), kept) for e, _, _, kept in found.steps] == [
        (step[0], step[3]) for step in steps
    ]
    assert [after for _, _, after, _ in found.steps] == pytest.approx([step[2] for step in steps])


def test_a_random_order_is_repeated_by_its_seed_and_said():
    exp = experiment(tiny_attn_only())
    found, again = acdc(exp, 0.3, order=5), acdc(exp, 0.3, order=5)
    assert found.steps.equals(again.steps)
    assert found.circuit.attrs["order"] == 5
    assert found.circuit.attrs["found_by"] == "acdc"
    assert found.circuit.attrs["prompts"] == exp.fingerprint
    assert "tests" in repr(found)
    known = {str(edge) for edge in found.circuit.known}
    assert known == {str(edge) for edge in exp.graph.edges()}
    assert exp.evaluate(found.circuit, baselines=0).found_here


def test_another_metric_may_move_either_way():
    tiny = tiny_attn_only()
    exp = experiment(tiny)
    metric = cg.LogitDiff([ANSWER] * 3, [WRONG] * 3)
    found = acdc(exp, 0.4, metric=metric)
    setup = exp._setup

    def measure(edges):
        kept = [plain_edge(edge) for edge in edges]
        logits = run_circuit(tiny.plain, setup.clean, setup.corrupt, kept)[:, -1]
        return float((logits[:, ANSWER] - logits[:, WRONG]).mean())

    inside, _ = sequential(
        receivers(exp.graph, "reverse"),
        measure,
        0.4,
        exp.graph.edges(),
        lambda before, after: abs(after - before),
    )
    assert found.circuit.members == inside


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold must be above 0, got 0.0"),
        ({"threshold": float("nan")}, "threshold must be a finite number, got nan"),
        ({"threshold": "small"}, "threshold must be a number, got 'small'"),
        ({"threshold": 0.1, "order": "up"}, "order must be 'reverse', 'forward' or the seed"),
        ({"threshold": 0.1, "start": "all"}, "a Circuit is judged, got str"),
    ],
)
def test_what_is_not_allowed(options, message):
    with pytest.raises(CircuitError, match=message):
        acdc(experiment(tiny_attn_only()), **options)


def test_divergence_is_read_where_the_metric_reads():
    tiny = tiny_attn_only()
    clean, corrupt = tiny.tokens(3, 4, seed=1), tiny.tokens(3, 4, seed=2)
    at = torch.tensor([1, 3, 2])
    exp = cg.Experiment(tiny.bridge, clean, corrupt, cg.LogitDiff([3] * 3, [7] * 3, position=at))
    found = acdc(exp, 1e9)
    # Everything is removed: the last value is the corrupt run's divergence, at those positions.
    rows = torch.arange(3)
    one = tiny.plain(clean)[rows, at].log_softmax(-1)
    other = tiny.plain(corrupt)[rows, at].log_softmax(-1)
    by_hand = float((one.exp() * (one - other)).sum(-1).mean())
    assert found.steps["after"].iloc[-1] == pytest.approx(by_hand, abs=1e-9)
