"""Experiments on the tiny models, made once: prompts, positions, metrics, both engines.

The prompts are padded on the right to different lengths, and the named position S2 stands elsewhere
in the corrupt prompts. Tests share these, so they must not change them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.engines.engine import Engine
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import PositionTable, Setup
from circuitgraph.graph import ModelGraph
from circuitgraph.metrics import AnyMetric, KLDivergence, LogitDiff, LogProb, Prompts, Readout
from circuitgraph.plan import Plan
from tests import models
from tests.engines.asking import oracle_logits
from tests.models import D_VOCAB, TinyModel

N_PROMPTS, N_POS = 3, 6
LENGTHS = torch.tensor([6, 4, 5])
POSITIONS = {"end": LENGTHS - 1, "S2": torch.tensor([2, 1, 3])}
CORRUPT_POSITIONS = {"S2": torch.tensor([3, 1, 0])}

MODELS: dict[str, Callable[[], TinyModel]] = {
    "gpt2": models.tiny_gpt2,
    "llama": models.tiny_llama,
    "neox": models.tiny_neox,
    "attn_only": models.tiny_attn_only,
    "gemma2": models.tiny_gemma2,
    "qwen2": models.tiny_qwen2,
    "mistral": models.tiny_mistral,
}


def everything(logits: Float[Tensor, "prompt pos d_vocab"]) -> Float[Tensor, " prompt"]:
    """Read every logit, each with a weight of its own: a metric that nothing can hide from."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(logits.shape[1:], generator=generator, dtype=torch.float64)
    return (logits * weight).sum(dim=(1, 2))


METRICS: dict[str, Callable[[], Any]] = {
    "everything": lambda: AnyMetric(everything),
    "logit diff": lambda: LogitDiff([1, 2, 3], [4, 5, 6]),
    "logit diff early": lambda: LogitDiff([1, 2, 3], [4, 5, 6], position=[2, 1, 3]),
    "log prob": lambda: LogProb([1, 2, 3], position="S2"),
    "KL": lambda: KLDivergence(),
}


@dataclass(frozen=True, eq=False)
class Case:
    """One model on fixed prompts under one metric."""

    name: str
    tiny: TinyModel
    setup: Setup

    @property
    def graph(self) -> ModelGraph:
        return self.setup.graph

    @functools.cached_property
    def reference(self) -> ReferenceEngine:
        return ReferenceEngine(self.setup)

    @functools.cached_property
    def fast(self) -> FastEngine:
        return FastEngine(self.setup)

    def new_fast(self, **options: Any) -> FastEngine:
        """Another fast engine, which shares the recordings."""
        return FastEngine(self.setup, recordings=self.fast.recordings, **options)

    def oracle(self, plan: Plan) -> list[Float[Tensor, "prompt pos d_vocab"]]:
        """The oracle's logits of every cell of a plan."""
        return [
            oracle_logits(
                self.tiny.plain,
                self.graph,
                self.setup.clean,
                self.setup.corrupt,
                cell.name,
                plan.variant,
                plan.mode,
                POSITIONS,
                CORRUPT_POSITIONS,
            )
            for cell in plan.cells
        ]

    def measured(self, logits: Sequence[Tensor]) -> Float[Tensor, "cell prompt"]:
        """The metric of full logits."""
        return torch.stack([self.reference.measure(one) for one in logits])


def run(engine: Engine, plan: Plan) -> Float[Tensor, "cell value"]:
    """Every cell's metric, in the plan's order."""
    setup, parts = engine.setup, list(engine.run(plan))
    n_metrics = parts[0].values.shape[1] // len(setup.clean[parts[0].prompts])
    shape = (len(plan.cells), n_metrics, setup.n_prompts)
    found = parts[0].values.new_full(shape, torch.nan)
    times = torch.zeros(len(plan.cells), setup.n_prompts)
    for part in parts:
        for number, values in zip(part.cells, part.values, strict=True):
            found[number][:, part.prompts] = values.unflatten(0, (n_metrics, -1))
            times[number, part.prompts] += 1
    assert (times == 1).all()
    return found.flatten(1)


@functools.cache
def case(model: str, metric: str = "everything") -> Case:
    """The shared experiment on one model."""
    tiny = MODELS[model]()
    clean = tiny.tokens(N_PROMPTS, N_POS, seed=1)
    corrupt = tiny.tokens(N_PROMPTS, N_POS, seed=2)
    return Case(model, tiny, make_setup(tiny.bridge, clean, corrupt, METRICS[metric]()))


def make_setup(
    bridge: Any,
    clean: Int[Tensor, "prompt pos"],
    corrupt: Int[Tensor, "prompt pos"],
    metric: Any,
    positions: Mapping[str, Tensor] | None = None,
    corrupt_positions: Mapping[str, Tensor] | None = None,
) -> Setup:
    """An experiment as the engines see it; positions are the shared ones unless given."""
    n_prompts, n_pos = clean.shape
    here = dict(POSITIONS if positions is None else positions)
    there = dict(CORRUPT_POSITIONS if corrupt_positions is None else corrupt_positions)
    if positions is not None and corrupt_positions is None:
        there = {}
    lengths = here["end"] + 1 if "end" in here else torch.full((n_prompts,), n_pos)
    prompts = Prompts(n_prompts, n_pos, D_VOCAB, here, lengths)
    bound = Readout((metric.bind(prompts),), prompts)
    table = PositionTable(n_prompts, n_pos, here, there)
    return Setup(bridge, ModelGraph.from_model(bridge), clean, corrupt, bound, table)


def rows_of(setup: Setup, rows: slice) -> Setup:
    """The same experiment on some of its prompts, under the metric that reads everything."""
    positions = setup.positions
    return replace(
        setup,
        clean=setup.clean[rows],
        corrupt=setup.corrupt[rows],
        metric=Readout((AnyMetric(everything),), setup.metric.prompts),
        positions=PositionTable(
            len(setup.clean[rows]),
            setup.n_pos,
            {name: index[rows] for name, index in positions.clean.items()},
            {name: index[rows] for name, index in positions.corrupt.items()},
        ),
    )


def close(one: Tensor, other: Tensor, atol: float = 1e-9) -> bool:
    """Whether two tensors agree; relative where values are large."""
    return bool(torch.allclose(one, other, rtol=atol, atol=atol))
