"""More prompts than fit into memory: some at a time, each recorded, run and forgotten."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.engine import MeasuredCells
from circuitgraph.engines.fast.engine import FastEngine, warn_of_replay
from circuitgraph.engines.fast.memory import parse_budget, recording_bytes
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import Setup
from circuitgraph.plan import Plan
from circuitgraph.schedule import PASSES, Schedule
from circuitgraph.schedule import schedule as make_schedule

__all__ = ["ChunkedEngine", "can_split", "prompts_at_once"]


def can_split(setup: Setup) -> bool:
    """Return whether some prompts can be run without the others.

    A metric that is any function of all logits or of an activation cannot be cut up, since what it
    does to other prompts is not known.
    """
    return setup.metric.of_prompts(slice(0, 1)) is not None


def prompts_at_once(
    setup: Setup, memory_budget: str | int | None, at_most: int | None = None
) -> int:
    """Return how many prompts may be recorded at once: all of them where the metric needs them.

    Recordings may take a quarter of the budget.
    """
    if not can_split(setup):
        return setup.n_prompts
    share = parse_budget(memory_budget, setup.clean.device) // 4
    fit = min(setup.n_prompts, share // recording_bytes(setup))
    return max(1, fit if at_most is None else min(fit, at_most))


class ChunkedEngine:
    """Runs plans on some prompts at a time.

    Every request records its prompts anew, two forward passes each; nothing is kept between.

    Args:
        setup: The experiment.
        size: How many prompts to run at once.
        memory_budget: As for `FastEngine`.
        self_check: As for `FastEngine`.
        passes: As for `FastEngine`.
        at_most: How many prompts may be run at once, whatever memory there is; None for any.
        reference: Whether the reference engine runs each part of the prompts.
    """

    def __init__(
        self,
        setup: Setup,
        size: int,
        *,
        memory_budget: str | int | None = None,
        self_check: bool = True,
        passes: Any = PASSES,
        at_most: int | None = None,
        reference: bool = False,
    ) -> None:
        """Prepare to run plans; nothing is run yet."""
        self.setup = setup
        self.size = size
        self.passes = passes
        self._budget = memory_budget
        self._self_check = self_check
        self._at_most = at_most
        self._reference = reference

    @property
    def name(self) -> str:
        """What the engines of its parts are called."""
        return "reference" if self._reference else "fast"

    @property
    def is_causal(self) -> bool:
        """Whether what is computed at a position depends on earlier ones only."""
        return all(self._fast(setup).is_causal for _, setup in self.chunks())

    def with_setup(self, setup: Setup) -> "ChunkedEngine | FastEngine | ReferenceEngine":
        """Return an engine with other patched values or metrics."""
        if self._reference and can_split(setup):
            return self._with(setup, self.size, reference=True)
        size = prompts_at_once(setup, self._budget, self._at_most)
        if size < setup.n_prompts:
            return self._with(setup, min(size, self.size), reference=False)
        return self._part(setup)

    def schedule(self, plan: Plan) -> Schedule:
        """Return what would be run for a plan, on every chunk of the prompts."""
        return make_schedule(plan, self.passes)

    def described(self, plan: Plan) -> Schedule:
        """Return the same with the number of stacks of each stage, over all chunks."""
        found = [self._fast(part).described(plan) for _, part in self.chunks(plan)]
        counts = zip(*(one.stacks for one in found), strict=True)
        return replace(found[0], stacks=tuple(map(sum, counts)))

    def chunks(self, plan: Plan | None = None) -> Iterator[tuple[slice, Setup]]:
        """Yield the experiment on some prompts at a time, and which they are.

        Args:
            plan: What is to be run on them: means over the prompts must still be over all of them.
        """
        setup = self.setup
        if plan is not None and plan.source.startswith("mean") and setup.dataset is None:
            setup = replace(setup, dataset=setup.corrupt, dataset_lengths=setup.positions.lengths)
        for start in range(0, setup.n_prompts, self.size):
            rows = slice(start, min(start + self.size, setup.n_prompts))
            yield rows, setup.of_prompts(rows)

    def answering(self, plan: Plan) -> "ChunkedEngine":
        """Return the engine that answers a plan: of reference engines where replay is not exact.

        Warns:
            ReplayWarning: Reference engines run the plan, and why.
        """
        if self._reference:
            return self
        reasons = (self._fast(setup).cannot(plan) for _, setup in self.chunks(plan))
        reason = next(filter(None, reasons), "")
        if not reason:
            return self
        warn_of_replay(plan, reason)
        return self._with(self.setup, self.size, reference=True)

    def run(self, plan: Plan) -> Iterator[MeasuredCells]:
        """Yield the cells of a plan with their metric, on some prompts after others."""
        for rows, setup in self.chunks(plan):
            for found in self._part(setup).run(plan):
                yield replace(found, prompts=rows)

    def _part(self, setup: Setup) -> FastEngine | ReferenceEngine:
        """Return the engine of some of the prompts."""
        return ReferenceEngine(setup) if self._reference else self._fast(setup)

    def _fast(self, setup: Setup) -> FastEngine:
        return FastEngine(
            setup,
            memory_budget=self._budget,
            self_check=self._self_check,
            passes=self.passes,
        )

    def _with(self, setup: Setup, size: int, *, reference: bool) -> "ChunkedEngine":
        return ChunkedEngine(
            setup,
            size,
            memory_budget=self._budget,
            self_check=self._self_check,
            passes=self.passes,
            at_most=self._at_most,
            reference=reference,
        )

    @property
    def clean_metric(self) -> Float[Tensor, "value"]:
        """The metric on the clean prompts."""
        return self._both[0]

    @property
    def corrupt_metric(self) -> Float[Tensor, "value"]:
        """The metric on the corrupt prompts."""
        return self._both[1]

    @cached_property
    def _both(self) -> tuple[Tensor, Tensor]:
        """The metric on clean and corrupt prompts, from one recording of each chunk."""
        n_metrics = len(self.setup.metric.parts)
        found = []
        for _, setup in self.chunks():
            part = self._part(setup)
            both = torch.stack([part.clean_metric, part.corrupt_metric])
            found.append(both.unflatten(1, (n_metrics, -1)))
        clean, corrupt = torch.cat(found, dim=2).flatten(1)
        return clean, corrupt
