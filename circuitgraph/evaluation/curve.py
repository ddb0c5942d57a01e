"""Faithfulness against size: cut at each size, prune, run; and the areas that MIB reports."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitgraph.arguments import collection, number, whole
from circuitgraph.circuit import Circuit
from circuitgraph.circuit.cutting import How, check_cut, chosen
from circuitgraph.circuit.scores import Sign, scores_of
from circuitgraph.effects import Effects
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.judge import Judge
from circuitgraph.evaluation.ratios import ratio_of_means
from circuitgraph.plan import Source

if TYPE_CHECKING:
    from circuitgraph.draw import Chart
    from circuitgraph.experiment import Experiment

__all__ = ["MIB_SHARES", "Curve", "area", "curve"]

Floats = NDArray[np.float64]

MIB_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The sizes at which the MIB benchmark measures (arXiv:2504.13151), as shares of all edges."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Faithfulness of circuits cut from the same scores at several sizes.

    Args:
        table: A row for each size: ``size`` (edges asked for), ``share`` (of all edges), ``pruned``
            (edges after pruning), ``faithfulness``, ``low``, ``high``.
        values: The metric with each circuit alone, ``[size, prompt]``.
        how: How it was cut.
        sign: Whether edges were ranked by size or by importance.
        about: What was measured.
    """

    table: pd.DataFrame
    values: Floats
    how: How
    sign: Sign
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> NDArray[np.intp]:
        """Edges asked for, ``[size]``."""
        return self.table["size"].to_numpy()

    @property
    def faithfulness(self) -> pd.Series:
        """The circuits' f over ``size``."""
        return self.table.set_index("size")["faithfulness"]

    @property
    def cpr(self) -> float:
        """Circuit performance ratio: the area under f over the share of edges, by trapezoids.

        Rewards leaving out harmful edges, and has no upper bound. MIB takes it of the signed
        ranking.
        """
        return area(self.table["share"].to_numpy(), self.table["faithfulness"].to_numpy())

    @property
    def cmd(self) -> float:
        """Circuit-model distance: the area of ``|1 - f|``, by trapezoids; 0 is best.

        MIB takes it of the absolute ranking.
        """
        distance = np.abs(1 - self.table["faithfulness"].to_numpy())
        return area(self.table["share"].to_numpy(), distance)

    def plot(self, *, title: str = "Faithfulness against size", bands: bool = True) -> "Chart":
        """Return f over the share of edges, with its interval, as a chart.

        Args:
            title: The title.
            bands: Whether to draw the intervals.
        """
        from circuitgraph.draw.curves import plot_curves

        return plot_curves({f"{self.how}, {self.sign}": self}, title=title, bands=bands)

    def save(self, path: str | Path) -> Path:
        """Write all of it to one JSON file that `circuitgraph.evaluation.load` gives back."""
        from circuitgraph.evaluation.storage import save_judgement

        return save_judgement(self, path)

    def __repr__(self) -> str:
        from circuitgraph.evaluation.display import curve_text

        return curve_text(self)

    def _repr_html_(self) -> str:
        from circuitgraph.evaluation.display import curve_html

        return curve_html(self)


def area(share: Floats, height: Floats) -> float:
    """Return the area under a curve by trapezoids on the linear axis.

    Example:
        >>> area(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0]))
        0.75
    """
    return float(np.trapezoid(height, share))


def curve(
    experiment: "Experiment",
    effects: Effects | Circuit,
    *,
    sizes: Sequence[float] | None = None,
    how: How = "top",
    sign: Sign = "signed",
    source: Source = "corrupt",
    confidence: float = 0.95,
    seed: int = 0,
) -> Curve:
    """Judge circuits of several sizes; see `Experiment.curve`."""
    check_cut(0, how, sign)
    judge = Judge(experiment, source)
    scores = scores_of(effects)
    if scores.shape != experiment.graph.shape:
        raise CircuitError("these scores are of another model than the experiment's")
    whole("seed", seed, CircuitError, 0)
    if not 0 < number("confidence", confidence, CircuitError) < 1:
        raise CircuitError(f"confidence lies between 0 and 1, such as 0.95, got {confidence!r}")
    if sizes is not None:
        sizes = collection("sizes", sizes, "numbers of edges or shares", CircuitError)
    n_all = len(judge.masks.edges)
    # On a small graph several of MIB's shares are the same number of edges.
    counts = _counts(sizes, n_all) if sizes is not None else sorted({*_counts(MIB_SHARES, n_all)})
    strength = scores.strength(sign)
    if sorted(set(counts)) != counts:
        raise CircuitError(f"sizes must grow and differ, but mean {counts} edges")
    _ = judge.span  # refuses before anything is run
    masks = []
    for count in counts:
        picked = chosen(scores, strength, count, how)
        masks.append(judge.masks.on_a_way(judge.masks.mask(scores.edges[at] for at in picked)))
    values = judge.values(masks)
    ratios = ratio_of_means(values, judge.clean, judge.empty, confidence=confidence, seed=seed)
    table = pd.DataFrame(
        {
            "size": counts,
            "share": np.array(counts) / n_all,
            "pruned": [int(mask.sum()) for mask in masks],
            "faithfulness": [ratio.value for ratio in ratios],
            "low": [ratio.low for ratio in ratios],
            "high": [ratio.high for ratio in ratios],
        }
    )
    about = {
        "source": str(source),
        "metric": experiment.metric_name,
        "n_prompts": len(judge.clean),
        "n_edges": n_all,
        "scores": scores.attrs.get("engine", scores.attrs.get("found_by", "given")),
        "confidence": confidence,
    }
    return Curve(table, values, how, sign, about)


def _counts(sizes: Sequence[float], n_all: int) -> list[int]:
    """Return numbers of edges from whole numbers and shares of all edges."""
    counts = []
    for size in sizes:
        whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
        if whole and 0 <= size <= n_all:
            counts.append(int(size))
        elif isinstance(size, float | np.floating) and 0 <= size <= 1:
            counts.append(int(size * n_all))
        else:
            raise CircuitError(
                f"sizes are whole numbers of edges (0 to {n_all}) or shares of them (0.0 to 1.0), "
                f"got {size!r}"
            )
    if not counts:
        raise CircuitError("sizes is empty: leave it out for MIB's sizes, or name one or more")
    return counts
