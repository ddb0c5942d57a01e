"""The model under check: its prompts, its engines, and what a request gives on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.checks.choosing import Chosen
from circuitgraph.checks.footprint import Footprint
from circuitgraph.checks.precision import Precision, measure_precision
from circuitgraph.checks.prompts import telling_metric
from circuitgraph.checks.results import LeftOut, Same
from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import PositionTable, Setup
from circuitgraph.errors import Problems
from circuitgraph.experiment.prompts import (
    PromptsGiven,
    find_backend,
    position_table,
    read_prompts,
)
from circuitgraph.graph import ModelGraph
from circuitgraph.lens.additivity import check_additive
from circuitgraph.lens.backend import Backend
from circuitgraph.metrics import AnyMetric, Prompts, Readout
from circuitgraph.plan import Plan, ReplaceSenders
from circuitgraph.request import Mode, Variant

__all__ = ["Subject", "every_logit", "part_of", "run_plan"]

MOST_PASSES = 120
"""Plans of more passes are not run where only the reference engine can."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, prompts, and two metrics: one that people use, one from which nothing can hide.

    Args:
        setup: The experiment, under the logit difference at each prompt's end.
        everything: The other metric: a sum of all logits, each with a weight of its own.
        precision: How exactly the model computes.
        cells: How many cells of a sweep the reference engine runs.
        before: What the model was like before anything was run.
    """

    setup: Setup
    everything: Readout
    precision: Precision
    cells: int
    before: Footprint

    @classmethod
    def of(cls, model: Any, clean: PromptsGiven, corrupt: PromptsGiven, cells: int) -> "Subject":
        """Return a model on given prompts, after checking both.

        Raises:
            CircuitGraphError: Model or prompts are not such as an `Experiment` takes.
        """
        problems = Problems()
        backend = find_backend(model, problems)
        if backend is None:
            problems.raise_if_any("cannot check the model")
            raise AssertionError("unreachable")
        graph = ModelGraph(backend.shape)
        pair = read_prompts(backend, clean, corrupt, None, problems)
        problems.raise_if_any("cannot check the model")
        assert pair is not None
        check_additive(backend)
        before = Footprint.of(backend.model)
        n_prompts = len(pair.clean)
        spread = torch.arange(n_prompts) % pair.lengths.clamp_max(2)
        named = {"a": spread, "b": pair.lengths - 1 - spread % 2}
        table = position_table(pair, named, {"b": spread}, problems)
        problems.raise_if_any("cannot check the model")
        runs = [backend.logits(tokens) for tokens in (pair.clean, pair.corrupt)]
        prompts = Prompts(
            n_prompts=n_prompts,
            n_pos=table.n_pos,
            d_vocab=backend.limits.d_vocab_out,
            positions=table.clean,
            lengths=pair.lengths,
            device=pair.clean.device,
            dtype=backend.limits.dtype,
            n_heads=graph.shape.n_heads,
        )
        metric = telling_metric(runs[0], runs[1], pair.lengths).bind(prompts)
        setup = Setup(backend, graph, pair.clean, pair.corrupt, Readout((metric,), prompts), table)
        everything = Readout((AnyMetric(every_logit),), prompts)
        return cls(setup, everything, measure_precision(backend, pair.clean), cells, before)

    # -- the model ------------------------------------------------------------------------------

    @property
    def backend(self) -> Backend:
        """The model, as engines see it."""
        return self.setup.backend

    @property
    def brief(self) -> bool:
        """Whether the model is so large that one comparison of a kind must do."""
        return self.cells == 1

    @property
    def graph(self) -> ModelGraph:
        """Its graph."""
        return self.setup.graph

    @cached_property
    def chosen(self) -> Chosen:
        """The nodes that stand for it."""
        return Chosen(self.graph)

    @cached_property
    def reference(self) -> ReferenceEngine:
        """The engine that goes hook by hook."""
        return ReferenceEngine(self.setup)

    @cached_property
    def answering(self) -> FastEngine:
        """The fast engine under the logit difference."""
        return FastEngine(self.setup)

    @cached_property
    def fast(self) -> FastEngine:
        """The fast engine under the sum of all logits, with the same recordings."""
        return self.answering.with_setup(replace(self.setup, metric=self.everything))

    def logits(self, tokens: Int[Tensor, "prompt pos"]) -> Float[Tensor, "prompt pos d_vocab"]:
        """Return the logits of the model as it is."""
        return self.backend.logits(tokens)

    # -- what it measures -----------------------------------------------------------------------

    @cached_property
    def clean(self) -> Float[Tensor, " prompt"]:
        """The sum of all logits of the clean run, by the model itself."""
        return every_logit(self.logits(self.setup.clean))

    @cached_property
    def corrupt(self) -> Float[Tensor, " prompt"]:
        """The same of the corrupt run."""
        return every_logit(self.logits(self.setup.corrupt))

    @cached_property
    def scale(self) -> float:
        """The difference between clean and corrupt run: the unit of every deviation."""
        return float((self.clean - self.corrupt).abs().max().item())

    @cached_property
    def answer_scale(self) -> float:
        """The same under the logit difference."""
        change = self.answering.clean_metric - self.answering.corrupt_metric
        return float(change.abs().max().item())

    # -- asking ---------------------------------------------------------------------------------

    def plan(self, request: Any, variant: Variant = "mlps", mode: Mode = "set") -> Plan:
        """Return the plan of a request."""
        plan = compile_request(
            self.graph, request, variant, mode=mode, n_positions=self.setup.n_pos
        )
        return plan.lint()

    def run(
        self,
        request: Any,
        variant: Variant = "mlps",
        mode: Mode = "set",
        *,
        engine: Any = None,
    ) -> Float[Tensor, "cell prompt"]:
        """Return what a request gives, by the fast engine under the sum of all logits.

        Args:
            request: What to patch.
            variant: What direct paths may pass through.
            mode: What patching several receivers means.
            engine: Another fast engine, such as one on other prompts.

        Raises:
            LeftOut: The fast engine cannot run it, and the reference engine would take too long.
        """
        return run_plan(self.fast if engine is None else engine, self.plan(request, variant, mode))

    def given(self, request: str, variant: Variant, engine: FastEngine) -> Tensor:
        """Return what a request gives on an engine with patched values of its own."""
        plan = compile_request(self.graph, request, variant, source="given")
        return run_plan(engine, plan)

    def same(self, what: str, found: Tensor, expected: Tensor) -> Same:
        """Return two measured results as what should be equal."""
        return Same(what, found, expected.expand_as(found), self.clean.expand_as(found))

    def with_prompts(self, clean: Tensor, corrupt: Tensor, positions: PositionTable) -> FastEngine:
        """Return a fast engine on other prompts, under the sum of all logits."""
        prompts = replace(
            self.everything.prompts,
            n_prompts=len(clean),
            n_pos=clean.shape[1],
            positions=positions.clean,
            lengths=torch.full((len(clean),), clean.shape[1]),
        )
        readout = Readout(self.everything.parts, prompts)
        setup = replace(
            self.setup, clean=clean, corrupt=corrupt, positions=positions, metric=readout
        )
        return FastEngine(setup)


def run_plan(engine: FastEngine, plan: Plan) -> Float[Tensor, "cell value"]:
    """Return the metric of every cell of a plan, in its order.

    Raises:
        LeftOut: Only the reference engine can run it, and it would take long.
    """
    reason = engine.cannot(plan)
    if reason and _passes(plan) > MOST_PASSES:
        raise LeftOut(f"the reference engine would take {_passes(plan)} passes: {reason}")
    found: dict[int, Tensor] = {}
    for part in (engine.reference if reason else engine).run(plan):
        found.update(zip(part.cells, part.values, strict=True))
    return torch.stack([found[number] for number in range(len(plan.cells))])


def _passes(plan: Plan) -> int:
    """Return how many forward passes the reference engine takes."""
    runs = [run for cell in plan.cells for run in cell.runs]
    replaced = sum(isinstance(op, ReplaceSenders) for run in runs for op in run.ports)
    return len(runs) + 2 * replaced


def part_of(plan: Plan, cells: Sequence[int]) -> Plan:
    """Return a plan of some of a plan's cells."""
    return plan.part(cells)


def every_logit(logits: Float[Tensor, "prompt pos d_vocab"]) -> Float[Tensor, " prompt"]:
    """Return a sum of all logits, each with a random weight of its own."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(logits.shape[1:], generator=generator, dtype=torch.float64)
    weight = weight.to(logits.device, torch.promote_types(logits.dtype, torch.float32))
    weight /= weight.numel() ** 0.5
    return (logits.to(weight.dtype) * weight).sum(dim=(1, 2))
