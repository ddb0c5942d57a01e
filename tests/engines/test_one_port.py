"""Circuits that differ at one port, as a search tests them, against the oracle and other paths."""

from typing import Any

import numpy as np
import pytest
import torch

from circuitgraph.engines.fast import FastEngine
from circuitgraph.nodes import MLP, Head, Logits, Port
from tests.engines.asking import oracle_node, oracle_port
from tests.engines.cases import METRICS, MODELS, Case, case, close, make_setup
from tests.oracles.path_patching import patch_edges

PORTS = [
    Head(0, 1).q,
    Head(0, 1).k,
    Head(1, 1).v,
    MLP(0).port,
    MLP(1).port,
    Logits().port,
]


def search_rows(
    one: Case, port: Port, seed: int, share: float = 0.8
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A circuit to start from, and rows of a search that has come to a port."""
    index = one.graph.edge_index
    generator = np.random.default_rng(seed)
    start = generator.random(len(index)) < 0.9
    block = index.block(port)
    inside = start.copy()
    inside[block.stop :] &= generator.random(len(index) - block.stop) < share
    rows = np.repeat(inside[None], 3, axis=0)
    rows[1, block] &= generator.random(block.stop - block.start) < 0.5
    rows[2, block] = False
    return start, rows


def oracle(one: Case, rows: np.ndarray[Any, Any]) -> torch.Tensor:
    index = one.graph.edge_index
    found = []
    for row in rows:
        edges = [
            (oracle_node(edge.sender), oracle_port(edge.receiver))
            for edge in index.edges(np.flatnonzero(~row).tolist())
        ]
        setup = one.setup
        found.append(patch_edges(one.tiny.plain, setup.clean, setup.corrupt, edges, mode="replace"))
    return one.measured(found)


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"gemma2"}))
def test_rows_are_the_oracle(model: str) -> None:
    one = case(model)
    ports = [port for port in PORTS if port in one.graph.edge_index.port_places]
    for seed, port in enumerate(ports):
        start, rows = search_rows(one, port, seed, share=0.3 if seed % 2 else 0.9)
        tests = one.fast.port_tests(start)
        assert tests is not None
        found = tests.measure(port, rows)
        assert close(found, oracle(one, rows)), port
        assert close(tests.measure(port, rows[2:]), found[2:])


@pytest.mark.parametrize("metric", ["logit diff early", "everything", "KL"])
def test_what_the_prompts_share_and_one_position_are_cut(metric: str) -> None:
    """Prompts alike up to a token: what comes before it is not run."""
    for model in ("gpt2", "qwen2"):
        whole = case(model, metric)
        clean, corrupt = whole.setup.clean, whole.setup.corrupt.clone()
        corrupt[:, :2] = clean[:, :2]
        setup = make_setup(
            whole.tiny.bridge, clean, corrupt, METRICS[metric](), {"end": torch.tensor([5, 5, 5])}
        )
        one = Case(model, whole.tiny, setup)
        assert one.fast.circuits().baseline.start == 2
        for port in (Logits().port, Head(0, 0).v):
            start, rows = search_rows(one, port, seed=7)
            tests = one.fast.port_tests(start)
            assert tests is not None
            assert close(tests.measure(port, rows), oracle(one, rows)), port


def test_a_small_budget_runs_rows_in_parts() -> None:
    one = case("qwen2")
    port = Head(0, 1).v
    start, rows = search_rows(one, port, seed=3)
    engine = FastEngine(one.setup, recordings=one.fast.recordings)
    tests = engine.port_tests(start)
    assert tests is not None
    together = tests.measure(port, rows)
    tests._budget = 1
    assert close(tests.measure(port, rows), together)


def test_what_is_before_the_port_is_run_once() -> None:
    """Cost is counted: a test runs the layers from its port on, and only what can hear it."""
    one = case("gpt2")
    n_layers = one.graph.shape.n_layers
    everything = np.ones(len(one.graph.edge_index), dtype=np.bool_)
    for port, layers in (
        (Logits().port, 0),
        (MLP(n_layers - 1).port, 1),
        (Head(0, 0).q, n_layers),
    ):
        tests = one.fast.port_tests(everything)
        assert tests is not None
        tests.measure(port, np.repeat(everything[None], 3, axis=0))
        assert tests.layers_run == 3 * layers


def test_blocks_that_do_not_add_what_their_parts_write_are_left_to_others() -> None:
    one = case("gemma2")
    assert one.fast.port_tests(np.ones(len(one.graph.edge_index), dtype=np.bool_)) is None
