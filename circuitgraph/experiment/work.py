"""A question on an experiment, prepared: what it computes, said by name, and each part measured."""

import time
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.engines.engine import Engine, EngineOptions
from circuitgraph.engines.setup import Setup
from circuitgraph.experiment.readable import check_finite
from circuitgraph.lens.fingerprint import Fingerprint, weights_digest
from circuitgraph.metrics import Readout
from circuitgraph.plan import Plan, SetCells
from circuitgraph.request import EdgeSets
from circuitgraph.sweeps.executor import Advance, Finished
from circuitgraph.sweeps.identity import digest_of
from circuitgraph.sweeps.manifest import Manifest, Part, versions
from circuitgraph.sweeps.question import Question

__all__ = ["Work", "metrics_apart", "plan_part"]


@dataclass(frozen=True, eq=False)
class Work:
    """A question that a process with a model has prepared to answer.

    Args:
        question: What was asked.
        plan: Its cells.
        engine: What answers, clean and corrupt prompts included.
        options: What engines on some of the prompts are made with.
        model: The model's fingerprint as it is now.
    """

    question: Question
    plan: Plan
    engine: Engine
    options: EngineOptions
    model: Fingerprint

    @property
    def setup(self) -> Setup:
        """The experiment, with what this question measures."""
        return self.engine.setup

    @cached_property
    def manifest(self) -> Manifest:
        """What is computed."""
        question, setup = self.question, self.setup
        limits, readout = setup.backend.limits, setup.metric
        request, source = str(question.request), str(question.source)
        if isinstance(question.request, EdgeSets):
            request += f" {digest_of(question.request)}"
        brought = (question.values, question.dataset)
        if any(value is not None for value in brought):
            source += f" {digest_of(*brought)}"
        names, only = tuple(question.metrics or ()), question.only
        read = (names, readout.parts, setup.corrupt_metric and setup.corrupt_metric.parts)
        return Manifest(
            request=request,
            variant=str(question.variant),
            mode=question.mode,
            source=source,
            cells="all" if only is None else f"{int(only.sum())} chosen {digest_of(only)}",
            engine=f"{self.engine.name} {digest_of(question.engine)}",
            metric=f"{readout.name} {digest_of(read)}",
            prompts=prompts_digest(setup),
            model=f"{setup.backend.name}: {setup.backend.shape}",
            weights=weights_digest(setup.backend.model, self.model),
            dtype=str(limits.dtype).removeprefix("torch."),
            versions=versions(),
        )

    @property
    def n_prompts(self) -> int:
        """How many prompts there are."""
        return self.setup.n_prompts

    @property
    def whole(self) -> Part:
        """Everything as one part, which does not leave this process."""
        return Part("", range(len(self.plan.cells)))

    def measure(self, part: Part, advance: Advance) -> Finished:
        """Run one part.

        Args:
            part: Which cells, on which prompts.
            advance: Told how many cells more are done.

        Raises:
            MetricError: A metric gave no finite number.
        """
        started = time.perf_counter()
        engine, plan = self._engine_of(part), plan_part(self.plan, part.cells)
        readout = engine.setup.metric
        n_prompts, order = engine.setup.n_prompts, _order(readout)
        values = np.full((len(order), len(part.cells), n_prompts), np.nan)
        for found in engine.run(plan):
            measured = found.values.unflatten(1, (len(order), -1)).double().cpu().numpy()
            check_finite(measured, plan, found.cells, readout, found.prompts)
            at = np.asarray(found.cells)
            values[:, at, found.prompts] = measured[:, order].swapaxes(0, 1)
            advance(len(at) * measured.shape[-1] / self.setup.n_prompts)
        return Finished(
            part,
            self.places[part.cells.start : part.cells.stop],
            values,
            time.perf_counter() - started,
        )

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Where each cell stands in the grid, the swept dimensions in one."""
        found, shape = self.plan.sweep.places(), self.plan.shape
        if not shape:
            return np.zeros(len(found), dtype=np.int64)
        places: NDArray[np.int64] = np.ravel_multi_index(tuple(found.T), shape).astype(np.int64)
        return places

    def _engine_of(self, part: Part) -> Engine:
        """Return what runs a part: of some prompts an engine of their own."""
        if part.prompts is None:
            return self.engine
        setup = self.setup
        if self.plan.source.startswith("mean") and setup.dataset is None:
            lengths = setup.positions.lengths
            setup = replace(setup, dataset=setup.corrupt, dataset_lengths=lengths)
        rows = slice(part.prompts.start, part.prompts.stop)
        return self.question.engine.prepare(setup.of_prompts(rows), self.options)


def plan_part(plan: Plan, cells: range) -> Plan:
    """Return the plan of some of the cells, numbered from 0."""
    if len(cells) == len(plan.cells):
        return plan
    if isinstance(plan.cells, SetCells):
        sets = plan.cells
        names = sets.request.names[cells.start : cells.stop]
        request = EdgeSets.of_rows(sets.kept[cells.start : cells.stop], names)
        return replace(plan, request=request, cells=replace(sets, request=request))
    return plan.part(cells)


def metrics_apart(readout: Readout, values: Tensor) -> NDArray[np.float64]:
    """Return what an engine gives as float64 on the CPU, ``[metric prompt]``."""
    return torch.stack(readout.split(values.double().cpu())).numpy()


def _order(readout: Readout) -> list[int]:
    """Return where each metric stands in what an engine gives."""
    n_metrics = len(readout.parts)
    numbers = torch.arange(n_metrics).repeat_interleave(readout.prompts.n_prompts)
    return [int(found[0]) for found in readout.split(numbers)]


def prompts_digest(setup: Setup) -> str:
    """Return a text that tells prompts from others: tokens, lengths, and where positions stand."""
    table = setup.positions
    named = (sorted(table.clean.items()), sorted(table.corrupt.items()))
    return digest_of(setup.clean, setup.corrupt, table.lengths, *named)
