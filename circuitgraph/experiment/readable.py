"""Fitting metrics to the prompts, and to the run that a plan measures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitgraph.errors import (
    CircuitGraphError,
    MetricError,
    Problems,
    RequestError,
    UnsupportedError,
)
from circuitgraph.lens.backend import Backend
from circuitgraph.lens.sites import HookSite
from circuitgraph.metrics import Activation, Metric, Prompts, Readout, as_metric
from circuitgraph.nodes import MLP, Head, Logits
from circuitgraph.plan import Plan, Run

__all__ = ["bind_metrics", "check_finite", "check_readable"]


def bind_metrics(
    metrics: Mapping[str, Any], prompts: Prompts, problems: Problems
) -> Readout | None:
    """Return metrics fitted to the prompts, or note what is wrong with each and return None."""
    bound, before = [], len(problems.found)
    if not metrics:
        problems.add(MetricError("no metric is given: name one or more, such as {'answer': ...}"))
    for metric in metrics.values():
        if isinstance(metric, type):
            problems.add(
                MetricError(
                    f"{metric.__name__} is a class: make a metric of it, {metric.__name__}(...)"
                )
            )
            continue
        try:
            found = as_metric(metric).bind(prompts)
        except ValueError as error:
            problems.add(error if isinstance(error, MetricError) else MetricError(str(error)))
            continue
        if isinstance(found, Metric | Activation):
            bound.append(found)
            continue
        problems.add(
            MetricError(
                f"{type(metric).__name__}.bind gave {type(found).__name__}, which is no metric: it "
                "needs name, read, tokens and measure"
            )
        )
    return Readout(tuple(bound), prompts) if len(problems.found) == before else None


def check_finite(
    values: NDArray[np.float64], plan: Plan, cells: Sequence[int], readout: Readout, prompts: slice
) -> None:
    """Raise where a metric gave no number: NaN stands for cells that no request fills.

    Args:
        values: ``[cell metric prompt]``.
        plan: What was run.
        cells: Which cells of the plan these are.
        readout: What was measured.
        prompts: Which prompts these are.

    Raises:
        MetricError: Which metric, cell and prompt.
    """
    strange = np.argwhere(~np.isfinite(values))
    if len(strange):
        cell, metric, prompt = map(int, strange[0])
        raise MetricError(
            f"{readout.parts[metric].name} is {values[cell, metric, prompt]} on prompt "
            f"{prompts.start + prompt} where {plan.sweep.name(cells[cell])!r} is patched: a metric "
            "gives one finite number per prompt"
        )


def check_readable(plan: Plan, readout: Readout, backend: Backend) -> None:
    """Raise where a metric reads an activation that the measured run does not change or make.

    Raises:
        RequestError: A request that ends in ``-> logits``: nothing before the logits changes.
        UnsupportedError: A hook inside the attention or the MLP whose own port is patched.
    """
    problems = Problems()
    for metric in readout.activations:
        site, pattern = backend.find_hook(metric.hook), backend.hook_names.pattern_kind
        # A sweep's cells are alike but for the nodes: one of each problem is enough.
        found = {
            str(p): p
            for number, _ in plan.sweep.kinds()
            if (p := _problem(plan.cells[number].runs[-1], metric, site, pattern))
        }
        for problem in list(found.values())[:1]:
            problems.add(problem)
    problems.raise_if_any(f"cannot measure {plan.title!r}")


def _problem(
    run: Run, metric: Activation, site: HookSite, pattern: str
) -> CircuitGraphError | None:
    nodes = [op.port.node for op in run.ports]
    if nodes and all(isinstance(node, Logits) for node in nodes) and not run.patched:
        return RequestError(
            f"{metric.name!r} reads {metric.hook}, but in a request that ends in `-> logits` only "
            "what the logits read is patched: end it in `=> logits` to let the rest of the model "
            "answer, or measure the logits"
        )
    kinds = {"attention": Head, "mlp": MLP}
    kind = kinds.get(site.part)
    patched = [node for node in nodes if kind and isinstance(node, kind)]
    for node in patched:
        if getattr(node, "layer", None) == site.layer:
            return UnsupportedError(
                f"{metric.name!r} reads {metric.hook} inside {node}, whose own port is patched: a "
                "port is patched for one node by itself, so there is no one such activation; read "
                f"{pattern}, or anything from the node's value on"
            )
    return None
