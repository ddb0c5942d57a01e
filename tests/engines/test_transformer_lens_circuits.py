"""TransformerLens' own edge attribution and faithfulness as outside oracles.

Both score edges position by position, one prompt pair at a time. Its attribution takes the gradient
on the corrupt run and points toward clean: clean and corrupt change places.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis import attribution_patching as theirs

import circuitgraph as cg
from tests import models

PORTS = {"q_input": "q", "k_input": "k", "v_input": "v"}


def experiment(name: str, n_prompts: int) -> tuple[Any, cg.Experiment]:
    tiny = getattr(models, f"tiny_{name}")()
    clean, corrupt = tiny.tokens(n_prompts, 5, seed=1), tiny.tokens(n_prompts, 5, seed=2)
    metric = cg.LogitDiff([3] * n_prompts, [7] * n_prompts)
    bridge = tiny.new_bridge()
    bridge.requires_grad_(True)  # its gradients are those of a run with trainable weights
    return bridge, cg.Experiment(tiny.bridge, clean, corrupt, metric)


def measured(logits: torch.Tensor) -> torch.Tensor:
    return logits[0, -1, 3] - logits[0, -1, 7]


def named(node: Any) -> str:
    """A node of theirs by our name."""
    match node.kind:
        case "embed" | "logits":
            return str(node.kind)
        case "mlp_out" | "mlp_in":
            return f"mlp{node.layer}"
        case "attn_head_out":
            return f"{node.layer}.{node.head}"
        case kind:
            return f"{node.layer}.{node.head}.{PORTS[kind]}"


@pytest.mark.parametrize("name", ["gpt2", "neox"])
def test_attribution_of_every_edge(name: str) -> None:
    bridge, exp = experiment(name, 2)
    setup = exp._setup
    config = theirs.EdgeAttributionConfig(granularity="edge")
    found = theirs.attribution_patch(bridge, setup.corrupt, setup.clean, measured, config)
    expected: dict[str, float] = defaultdict(float)
    for (writer, reader), score in found.edge_scores.items():
        expected[f"{named(writer)} -> {named(reader)}"] += score
    effects = exp.patch("node -> port => logits", "single-pass", engine=cg.EAP())
    ours = effects.difference().mean("prompt").to_numpy().ravel()
    there = np.isfinite(ours)
    names = effects.names.to_numpy().ravel()[there]
    assert set(expected) == set(names)
    assert ours[there] == pytest.approx([expected[name] for name in names], abs=1e-5, rel=1e-5)
    assert np.abs(ours[there]).max() > 0.1


@pytest.mark.parametrize("name", ["gpt2", "neox"])
def test_faithfulness_of_circuits(name: str) -> None:
    bridge, exp = experiment(name, 1)
    setup = exp._setup
    config = theirs.EdgeAttributionConfig(granularity="edge")
    every = theirs.attribution_patch(bridge, setup.clean, setup.corrupt, measured, config)
    generator = np.random.default_rng(0)
    edges = list(exp.graph.edges())
    for share in (0.3, 0.8):
        kept = [edge for edge in edges if generator.random() < share]
        names = set(map(str, kept))
        circuit = [e for e in every.edge_scores if f"{named(e[0])} -> {named(e[1])}" in names]
        found = theirs.faithfulness(bridge, setup.clean, setup.corrupt, measured, circuit)
        ours = exp.evaluate(cg.Circuit.from_edges(exp.graph, kept), baselines=0)
        assert ours.faithfulness == pytest.approx(found.recovered, abs=1e-5)
