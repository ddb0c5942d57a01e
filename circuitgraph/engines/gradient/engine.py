"""The estimating engine: exact changes, and a gradient in place of the run that measures them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.engine import EngineOptions, MeasuredCells
from circuitgraph.engines.fast.engine import FastEngine
from circuitgraph.engines.fast.memory import parse_budget, recording_bytes
from circuitgraph.engines.gradient.asked import asked_of, check_mode
from circuitgraph.engines.gradient.contraction import Contraction
from circuitgraph.engines.gradient.edges import Product, product_of
from circuitgraph.engines.gradient.estimators import Estimator
from circuitgraph.engines.gradient.metrics import check_gradient
from circuitgraph.engines.gradient.runs import mean_gradients
from circuitgraph.engines.setup import Setup
from circuitgraph.errors import Problems, UnsupportedError
from circuitgraph.plan import Plan
from circuitgraph.request import EdgeSets

__all__ = ["GradientEngine"]

CHANGES_AT_ONCE = 2**22
"""How many estimated changes are handed over at once."""


class GradientEngine:
    """Estimates plans: what arrives at the receivers is exact, what becomes of it is first order.

    Args:
        setup: The experiment.
        estimator: Where gradients are taken, and by which rules.
        options: Memory, and whether the model is first tried out.
        fast: Has recorded the same prompts already; None to record them.
    """

    def __init__(
        self,
        setup: Setup,
        estimator: Estimator,
        options: EngineOptions,
        fast: FastEngine | None = None,
    ) -> None:
        """Prepare to estimate plans on an experiment; nothing is run yet."""
        self.setup = setup
        self.estimator = estimator
        self.options = options
        self._recorded = fast

    @property
    def name(self) -> str:
        """What results call it."""
        return self.estimator.name

    @cached_property
    def size(self) -> int:
        """How many prompts are run at once: their graph may take half of the memory."""
        setup = self.setup
        if setup.metric.of_prompts(slice(0, 1)) is None:
            return setup.n_prompts
        share = parse_budget(self.options.memory_budget, setup.clean.device) // 2
        fit = min(setup.n_prompts, share // graph_bytes(setup))
        return max(1, min(fit, self.options.at_once or fit))

    @cached_property
    def fast(self) -> FastEngine:
        """Records all prompts at once; only where they fit."""
        return self._recorded or self._fast(self.setup)

    def beside(self, fast: FastEngine) -> "GradientEngine":
        """Return an engine that takes what another one has recorded of the same setup."""
        if self.size < self.setup.n_prompts:
            return self
        return GradientEngine(self.setup, self.estimator, self.options, fast=fast)

    def _fast(self, setup: Setup) -> FastEngine:
        return FastEngine(
            setup,
            memory_budget=self.options.memory_budget,
            self_check=self.options.self_check,
        )

    def parts(self, plan: Plan | None = None) -> Iterator[tuple[slice, FastEngine]]:
        """Yield some prompts at a time, each with what records them.

        Args:
            plan: What is to be run on them: means over the prompts must still be over all of them.
        """
        setup = self.setup
        if self.size >= setup.n_prompts:
            yield slice(0, setup.n_prompts), self.fast
            return
        if plan is not None and plan.source.startswith("mean") and setup.dataset is None:
            setup = replace(setup, dataset=setup.corrupt, dataset_lengths=setup.positions.lengths)
        for start in range(0, setup.n_prompts, self.size):
            rows = slice(start, min(start + self.size, setup.n_prompts))
            yield rows, self._fast(setup.of_prompts(rows))

    def with_setup(self, setup: Setup) -> "GradientEngine":
        """Return an engine for other patched values or metrics, on the same recordings."""
        other = GradientEngine(setup, self.estimator, self.options)
        if min(self.size, other.size) < setup.n_prompts:
            return other
        return GradientEngine(setup, self.estimator, self.options, fast=self.fast.with_setup(setup))

    # -- measuring ------------------------------------------------------------------------------

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
        n_metrics = len(self.setup.metric.parts)
        found = [
            torch.stack([fast.clean_metric, fast.corrupt_metric]).unflatten(1, (n_metrics, -1))
            for _, fast in self.parts()
        ]
        clean, corrupt = torch.cat(found, dim=2).flatten(1)
        return clean, corrupt

    # -- estimating -----------------------------------------------------------------------------

    def answering(self, plan: Plan) -> "GradientEngine":
        """Return this engine, where the plan can be estimated.

        Raises:
            UnsupportedError: It cannot: the metric is of an activation or has no gradient; or mode
                ``replace`` on edges that reach each other; before anything is run.
        """
        problems = Problems()
        problems.add(check_gradient(self.setup, self.estimator))
        if isinstance(plan.request, EdgeSets):
            problems.add(
                UnsupportedError(
                    "sets of edges are whole circuits, far from clean: a gradient there says "
                    "nothing of them; take engine='fast'"
                )
            )
        else:
            problems.add(check_mode(plan))
        problems.raise_if_any(f"cannot estimate {plan.title!r}")
        return self

    def run(self, plan: Plan) -> Iterator[MeasuredCells]:
        """Yield the plan's cells with their estimated metric, on some prompts after others.

        Raises:
            UnsupportedError: The model's parts cannot be run by themselves.
        """
        if plan.mode == "replace":  # the modes agree here, and 'set' says what arrives
            plan = compile_request(
                plan.graph,
                plan.request,
                plan.variant,
                mode="set",
                source=plan.source,
                n_positions=self.setup.positions.shortest,
            )
        product = product_of(plan)
        for rows, fast in self.parts(plan):
            if fast.traits.problems:
                raise UnsupportedError(
                    f"cannot estimate {plan.title!r}: {fast.traits.problems[0]}; "
                    "engine='reference' runs it exactly"
                )
            if product is not None:
                yield from self._at_once(product, rows, fast)
                continue
            yield from self._cell_by_cell(plan, rows, fast)

    def _at_once(self, product: Product, rows: slice, fast: FastEngine) -> Iterator[MeasuredCells]:
        """Yield cells that are senders times receivers."""
        found = product.changes(fast, self.estimator)
        sender, receiver = torch.from_numpy(product.cells).to(found[0].device).T
        clean, step = fast.clean_metric.to(found[0].dtype), max(1, CHANGES_AT_ONCE // rows.stop)
        for start in range(0, len(product.cells), step):
            cells = range(start, min(start + step, len(product.cells)))
            at = slice(cells.start, cells.stop)
            change = [of_metric[:, sender[at], receiver[at]] for of_metric in found]
            yield MeasuredCells(cells, rows, clean + torch.cat(change).T)

    def _cell_by_cell(self, plan: Plan, rows: slice, fast: FastEngine) -> Iterator[MeasuredCells]:
        """Yield cells, each with changes and gradients of its own."""
        asked = asked_of(plan)
        points = any(meeting.port is None for meeting in asked.meetings)
        gradients = mean_gradients(fast.state, self.estimator, asked.held, points=points)
        with torch.no_grad():
            change = Contraction(fast, asked, gradients).run()
        values = fast.clean_metric.to(change.dtype) + change.flatten(1)
        yield MeasuredCells(range(len(plan.cells)), rows, values)


def graph_bytes(setup: Setup) -> int:
    """Return what a run of one prompt takes with its graph, and its recordings."""
    limits, shape = setup.backend.limits, setup.graph.shape
    heads = shape.n_heads * limits.d_head
    width = 12 * limits.d_model + 6 * heads + 5 * limits.d_mlp + 4 * shape.n_heads * setup.n_pos
    size = limits.dtype.itemsize
    return setup.n_pos * shape.n_layers * width * size + recording_bytes(setup)
