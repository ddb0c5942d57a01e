"""Both engines on models whose answers are known: by hand, and from compiled programs."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitgraph.circuit import Circuit
from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import PositionTable, Setup
from circuitgraph.experiment import Experiment
from circuitgraph.graph import ModelGraph
from circuitgraph.metrics import AnyMetric, Prompts, Readout
from circuitgraph.nodes import Edge, Embed, Head, Logits
from circuitgraph.request import Mode
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
    """Every edge of a compiled program, through a bridge, against the circuit it is known to have.

    One edge alone, everything after it recomputed: all three modes mean the same.
    """

    def test_the_bridge_runs_the_program(self, name: str) -> None:
        program = tracr.load(name)
        with torch.no_grad():
            logits = compiled_program(name)(program.clean)
        assert close(logits, program.clean_out, 1e-11)

    @pytest.mark.parametrize("mode", get_args(Mode))
    @pytest.mark.parametrize("engine", ENGINES)
    def test_effects_are_where_the_circuit_is(self, name: str, engine: Any, mode: Mode) -> None:
        program = tracr.load(name)
        experiment = experiment_on(program)
        effects = experiment.patch("node -> port => logits", "single-pass", mode, engine)
        largest = effects.data["patched"].max("prompt").to_numpy().ravel()
        changes = dict(zip(effects.names.to_numpy().ravel(), largest, strict=True))
        assert np.isfinite(largest).sum() == experiment.graph.n_edges
        for edge in experiment.graph.edges():
            key, change = oracle_edge(edge), changes[str(edge)]
            if key in program.effective:
                assert change == pytest.approx(program.effective[key], abs=1e-9), edge
            else:
                assert change < 1e-9, edge
            if key not in program.structural:
                assert change < 1e-11, edge

    def test_the_circuit_of_the_effects_is_the_circuit_of_the_program(self, name: str) -> None:
        program = tracr.load(name)
        effects = experiment_on(program).patch("node -> port => logits", "single-pass")
        circuit = Circuit.from_effects(effects, threshold=1e-6)
        assert {oracle_edge(edge) for edge in circuit} == program.effective.keys()

    def test_a_corrupt_edge_outside_the_structure_leaves_the_logits_alone(self, name: str) -> None:
        """All such edges at once: not even their sum arrives anywhere."""
        program = tracr.load(name)
        experiment = experiment_on(program)
        outside = [e for e in experiment.graph.edges() if oracle_edge(e) not in program.structural]
        for mode in get_args(Mode):
            effects = experiment.patch(outside, "single-pass", mode)
            assert effects.data["patched"].max() < 1e-11


def experiment_on(program: tracr.Program) -> Experiment:
    """A program as a user has it; the metric is how far any logit is from where it should be."""

    def largest_change(logits: Tensor) -> Tensor:
        return (logits - program.clean_out).abs().amax(dim=(1, 2))

    model = compiled_program(program.name)
    return Experiment(model, program.clean, program.corrupt, largest_change, progress=False)


def oracle_edge(edge: Edge) -> tuple[Any, Any]:
    return oracle_node(edge.sender), oracle_port(edge.receiver)
