"""Running circuits: the metric with each circuit alone, all other edges patched.

One `Judge` belongs to an experiment and a source of the patched values. It knows what nothing and
everything in the circuit give, and takes circuits as rows of 0 and 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitgraph.arguments import instance
from circuitgraph.circuit.masks import EdgeMasks, Mask
from circuitgraph.effects import Effects
from circuitgraph.errors import CircuitError, MetricError
from circuitgraph.plan import Source
from circuitgraph.request import EdgeSets

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment

__all__ = ["Judge", "check_experiment"]

Floats = NDArray[np.float64]

NEAR = 0.01
"""A span between clean and empty smaller than this share of the metric's size is warned of."""


def check_experiment(given: object) -> None:
    """Refuse what is no experiment.

    Raises:
        CircuitError: It is something else.
    """
    from circuitgraph.experiment import Experiment

    instance("experiment", given, Experiment, "cg.Experiment(model, task)", CircuitError)


@dataclass(frozen=True)
class Judge:
    """Measures circuits on an experiment's prompts, in mode ``replace``, variant ``single-pass``.

    Args:
        experiment: The model, prompts and metric.
        source: Where edges outside the circuit take their value from.
        metric: What is measured; the experiment's own metric by default.
    """

    experiment: "Experiment"
    source: Source = "corrupt"
    metric: Any = None

    def __post_init__(self) -> None:
        check_experiment(self.experiment)
        allowed = ("corrupt", "zero", "mean", "mean-position")
        if not isinstance(self.source, str) or self.source not in allowed:
            raise CircuitError(
                f"source must be one of {', '.join(map(repr, allowed))}, got {self.source!r}"
            )

    @cached_property
    def masks(self) -> EdgeMasks:
        """The edges of the model, numbered."""
        return EdgeMasks(self.experiment.graph)

    @cached_property
    def clean(self) -> Floats:
        """The metric with the whole model, ``[prompt]``."""
        if self.metric is None:
            return self.experiment.clean_metric
        found: Floats = self._measured("embed -> logits").data["clean"].to_numpy()
        return found

    @cached_property
    def empty(self) -> Floats:
        """The metric with no edge in the circuit, ``[prompt]``; the corrupt run, for its source."""
        if self.source == "corrupt" and self.metric is None:
            return self.experiment.corrupt_metric
        nothing = np.zeros((1, len(self.masks.edges)), dtype=bool)
        found: Floats = self.values(nothing)[0]
        return found

    @property
    def span(self) -> float:
        """What f is relative to: mean clean minus mean empty.

        Raises:
            MetricError: The two are the same, so that f is undefined.
        """
        clean, empty = float(self.clean.mean()), float(self.empty.mean())
        if abs(clean - empty) <= 1e-6 * max(abs(clean), abs(empty), 1e-12):
            raise MetricError(
                f"the whole model and the empty circuit measure the same (mean {clean:.6g}) with "
                f"source={self.source!r}: faithfulness is undefined; choose another source or "
                "corrupt prompts that change the metric"
            )
        return clean - empty

    @property
    def rounding(self) -> float:
        """The size below which a change of the metric is rounding: some units of the last place."""
        half = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}
        unit = half.get(self.experiment.dtype, 2.0**-53)
        return 64 * unit * float(max(np.abs(self.clean).max(), np.abs(self.empty).max()))

    def values(self, masks: Mask | Sequence[Mask]) -> Floats:
        """Return the metric with each circuit alone, ``[circuit, prompt]``.

        Args:
            masks: ``[circuit, edge]``: which edges are in each circuit.
        """
        rows = np.asarray(masks, dtype=bool).reshape(-1, len(self.masks.edges))
        return self._run(rows)

    def _run(self, rows: Mask) -> Floats:
        found: Floats = self._measured(EdgeSets.of_rows(rows)).data["patched"].to_numpy()
        return found

    def _measured(self, request: str | EdgeSets) -> Effects:
        """Return the effects of a request, by the judge's metric."""
        exp, source = self.experiment, self.source
        if self.metric is None:
            return exp.patch(request, "single-pass", "replace", source=source)
        metrics = {"m": self.metric}
        found = exp.patch(request, "single-pass", "replace", source=source, metrics=metrics)
        return found["m"]

    @cached_property
    def metric_name(self) -> str:
        """What the metric is called."""
        if self.metric is None:
            return self.experiment.metric_name
        return str(self._measured("embed -> logits").attrs["metric"])
