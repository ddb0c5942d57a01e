"""From what an engine yields, cell by cell, to one array over the whole grid of a request."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.engines.engine import Engine
from circuitgraph.experiment.readable import check_finite
from circuitgraph.metrics import Readout
from circuitgraph.plan import Plan

__all__ = ["measured_grid", "metrics_apart"]


def measured_grid(
    engine: Engine, plan: Plan, advance: Callable[[float], None]
) -> NDArray[np.float64]:
    """Return the metrics of every patched run, ``[metric *axes prompt]``; NaN in cells left out.

    Args:
        engine: What runs the plan.
        plan: What is run.
        advance: Told how many cells more are done.

    Raises:
        MetricError: A metric gave no finite number.
    """
    readout, n_prompts = engine.setup.metric, engine.setup.n_prompts
    n_metrics = len(readout.parts)
    grid = np.full((*plan.shape, n_metrics, n_prompts), np.nan)
    for part in engine.run(plan):
        values = part.values.unflatten(1, (n_metrics, -1)).double().cpu().numpy()
        check_finite(values, plan, part.cells, readout, part.prompts)
        for number, value in zip(part.cells, values, strict=True):
            grid[plan.place(number)][:, part.prompts] = value
        advance(len(part.cells) * values.shape[-1] / n_prompts)
    return metrics_apart(readout, torch.from_numpy(grid).flatten(-2))


def metrics_apart(readout: Readout, values: Tensor) -> NDArray[np.float64]:
    """Return what an engine gives as float64 on the CPU, ``[metric ... prompt]``."""
    return torch.stack(readout.split(values.double().cpu())).numpy()
