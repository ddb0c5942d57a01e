"""Metrics that give one tensor again and again, or write into what they are handed.

Expected numbers come from the oracle's logits by plain formulas.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import Setup
from circuitgraph.metrics import Activation, AnyMetric, KLDivergence, Prompts, Readout
from tests.engines.cases import N_PROMPTS, case, run

ENGINES = (FastEngine, ReferenceEngine)
REQUEST = "head -> logits"


def last(logits: Tensor) -> Tensor:
    """What every metric here measures: the first token's logit at position 2."""
    return logits[:, 2, 0]


class Reused:
    """Gives one buffer every time."""

    def __init__(self) -> None:
        self.buffer = torch.zeros(N_PROMPTS, dtype=torch.float64)

    def __call__(self, logits: Tensor) -> Tensor:
        return self.buffer.copy_(last(logits))


def scribbling(logits: Tensor) -> Tensor:
    """Measures, then writes over everything."""
    found = last(logits).clone()
    logits.fill_(7.0)
    return found


class Mine:
    """A metric of one's own, with the protocol's methods, that does both."""

    name = "mine"
    read = None
    tokens = None

    def __init__(self) -> None:
        self.buffer = torch.zeros(0)

    def bind(self, prompts: Prompts) -> "Mine":
        return self

    def measure(self, logits: Tensor, clean: Tensor | None = None) -> Tensor:
        found = logits[..., 2, 0].clone()
        if self.buffer.shape != found.shape:
            self.buffer = torch.zeros_like(found)
        logits.fill_(7.0)
        if clean is not None:
            clean.fill_(9.0)
        return self.buffer.copy_(found)


def measuring(*metrics: Any) -> Setup:
    setup = case("gpt2").setup
    prompts = replace(
        setup.metric.prompts,
        hooks=setup.backend.hook_names,
        n_heads=setup.graph.shape.n_heads,
        dtype=torch.float64,
    )
    return replace(setup, metric=Readout(tuple(one.bind(prompts) for one in metrics), prompts))


def expected(setup: Setup) -> tuple[Tensor, Tensor]:
    """`last`, and the divergence from clean at the end, of every cell: ``[cell prompt]``."""
    shared = case("gpt2")
    plan = compile_request(setup.graph, REQUEST)
    logits = shared.oracle(plan)
    clean = shared.tiny.plain(setup.clean)
    rows, end = torch.arange(N_PROMPTS), setup.positions.clean["end"]
    p = clean[rows, end].softmax(-1)
    kl = [(p * (p.log() - one[rows, end].log_softmax(-1))).sum(-1) for one in logits]
    return torch.stack([last(one) for one in logits]), torch.stack(kl)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("metric", [Reused, lambda: scribbling, Mine])
def test_every_cell_has_its_own_value(engine: Any, metric: Any) -> None:
    made = metric()
    setup = measuring(made if isinstance(made, Mine) else AnyMetric(made))
    plan = compile_request(setup.graph, REQUEST)
    wanted, _ = expected(setup)
    assert wanted.std(dim=0).min() > 1e-3, "cells that are equal would hide it"
    assert torch.allclose(run(engine(setup), plan), wanted, atol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("first", [lambda: AnyMetric(scribbling), Mine])
def test_other_metrics_do_not_see_what_one_wrote(engine: Any, first: Any) -> None:
    setup = measuring(first(), KLDivergence(), AnyMetric(last), first())
    wanted, divergence = expected(setup)
    made = engine(setup)
    for _ in range(2):
        found = run(made, compile_request(setup.graph, REQUEST))
        one, kl, other, again = found.split(N_PROMPTS, dim=1)
        for values in (one, other, again):
            assert torch.allclose(values, wanted, atol=1e-9)
        assert torch.allclose(kl, divergence, atol=1e-9)
    assert made.clean_metric[N_PROMPTS : 2 * N_PROMPTS].abs().max() < 1e-12


@pytest.mark.parametrize("engine", ENGINES)
def test_activations_are_handed_out_as_copies_too(engine: Any) -> None:
    buffer = torch.zeros(N_PROMPTS, dtype=torch.float64)

    def scribbling(stream: Tensor) -> Tensor:
        buffer.copy_(stream[:, 2].double().sum(-1))
        stream.fill_(5.0)
        return buffer

    def reading(stream: Tensor) -> Tensor:
        return stream[:, 2].double().sum(-1)

    hook = "blocks.2.hook_resid_post"
    plan = compile_request(case("gpt2").graph, "head -> 1.0.q => logits")
    alone = run(engine(measuring(Activation(hook, reading))), plan)
    both = run(engine(measuring(Activation(hook, scribbling), Activation(hook, reading))), plan)
    assert alone.std(dim=0).min() > 1e-3
    for values in both.split(N_PROMPTS, dim=1):
        assert torch.allclose(values, alone, atol=1e-9)
