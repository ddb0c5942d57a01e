"""Both engines on models whose answers are known: by hand, and from compiled programs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import PositionTable, Setup
from circuitgraph.graph import ModelGraph
from circuitgraph.metrics import AnyMetric, Prompts, Readout
from circuitgraph.nodes import Edge, Embed, Head, Logits
from tests.engines.asking import oracle_node, oracle_port
from tests.engines.cases import close, run
from tests.engines.known_models import compiled_program, hand_worked, only_at
from tests.oracles import tracr

ENGINES = {"reference": ReferenceEngine, "fast": FastEngine}


def setup_of(bridge: Any, clean: Tensor, corrupt: Tensor, metric: Any) -> Setup:
    table = PositionTable(*clean.shape, {})
    graph = ModelGraph.from_model(bridge)
    lengths = torch.full((len(clean),), clean.shape[1])
    prompts = Prompts(*clean.shape, int(bridge.cfg.d_vocab), {}, lengths)
    readout = Readout((AnyMetric(metric),), prompts)
    return Setup(bridge, graph, clean, corrupt, readout, table)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("edges", "logits"),
    [
        ([Edge(Head(0, 1), Logits())], (-19, -41)),
        ([Edge(Head(0, 1), Logits()), Edge(Head(0, 0), Head(1, 1).v)], (-13, -25)),
        (
            [
                Edge(Head(0, 1), Logits()),
                Edge(Head(0, 0), Head(1, 1).v),
                Edge(Embed(), Head(0, 0).v),
            ],
            (-9, -13),
        ),
    ],
    ids=["one edge", "two edges", "three edges"],
)
def test_hand_worked_model(engine: str, edges: list[Edge], logits: tuple[int, int]) -> None:
    clean, corrupt = torch.tensor([[1]]), torch.tensor([[0]])
    for token in (0, 1):
        setup = setup_of(hand_worked(), clean, corrupt, only_at(0, token))
        plan = compile_request(setup.graph, edges, "single-pass", mode="replace").lint()
        assert run(ENGINES[engine](setup), plan).tolist() == [[logits[token]]]


def test_hand_worked_model_clean_and_corrupt() -> None:
    with torch.no_grad():
        logits = hand_worked()(torch.tensor([[0], [1]]))
    assert logits.tolist() == [[[25, 49]], [[-25, -49]]]


@pytest.mark.parametrize("name", tracr.PROGRAMS)
class TestCompiledPrograms:
    """Every edge of a compiled program, against the circuit that the compiler knows it has."""

    def test_the_bridge_runs_the_program(self, name: str) -> None:
        program = tracr.load(name)
        with torch.no_grad():
            logits = compiled_program(name)(program.clean)
        assert close(logits, program.clean_out, 1e-11)

    @pytest.mark.parametrize(
        ("engine", "mode", "tolerance"),
        # These programs multiply by thousands, and the engines round in different places.
        [
            ("reference", "set", 1e-9),
            ("fast", "set", 1e-5),
            ("fast", "add", 1e-5),
            ("fast", "replace", 1e-5),
        ],
    )
    def test_effects_are_where_the_circuit_is(
        self, name: str, engine: str, mode: Any, tolerance: float
    ) -> None:
        program = tracr.load(name)

        def largest_change(logits: Tensor) -> Tensor:
            return (logits - program.clean_out).abs().amax(dim=(1, 2))

        setup = setup_of(compiled_program(name), program.clean, program.corrupt, largest_change)
        graph = setup.graph
        plan = compile_request(graph, "node -> port => logits", "single-pass", mode=mode).lint()
        changes = run(ENGINES[engine](setup), plan).amax(dim=1).tolist()
        assert len(changes) == graph.n_edges
        for cell, change in zip(plan.cells, changes, strict=True):
            sender, receiver = cell.index
            edge = (oracle_node(graph.writers[sender]), oracle_port(graph.ports[receiver]))
            if edge in program.effective:
                assert change == pytest.approx(program.effective[edge], abs=tolerance), edge
            else:
                assert change < 1e-4, edge
            if edge not in program.structural:
                assert change < 1e-11, edge
