"""Screening: estimate every edge, measure the strongest exactly, say what the estimate missed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitgraph.effects import Effects
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.evaluation import whole_number
from circuitgraph.evaluation.judge import check_experiment
from circuitgraph.request import Variant

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment

__all__ = ["Screening", "screen"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Screening:
    """Estimates of all cells, exact effects of the strongest and of a random sample of the rest.

    Args:
        estimates: The estimated effects, all cells.
        exact: The measured effects; NaN where nothing was measured.
        kept: The cells that were measured for their estimate, flat truth values ``[cell]``.
        sampled: The cells that were measured at random, flat truth values ``[cell]``.
        cutoff: The estimated size of the weakest kept cell: what a cell must have to be strong.
        n_missed: Of the sampled cells, those whose exact effect is at least of that size.
    """

    estimates: Effects
    exact: Effects
    kept: NDArray[np.bool_]
    sampled: NDArray[np.bool_]
    cutoff: float
    n_missed: int

    @property
    def effects(self) -> Effects:
        """Exact effects where they were measured, estimates everywhere else."""
        measured, estimated = self.exact.data, self.estimates.data
        patched = measured["patched"].fillna(estimated["patched"])
        attrs = {**estimated.attrs, "engine": f"screened by {estimated.attrs['engine']}"}
        return Effects(estimated.assign(patched=patched).assign_attrs(attrs))

    @property
    def n_rest(self) -> int:
        """Cells that were estimated and not kept."""
        there = np.isfinite(self.estimates.normalized().to_numpy().ravel())
        return int((there & ~self.kept).sum())

    def missed(self, confidence: float = 0.95) -> tuple[float, float, float]:
        """Return how many strong cells the estimate missed: best guess, low and high end.

        The sample's share of missed cells, with Wilson's interval, times the cells not kept.
        """
        from statsmodels.stats.proportion import proportion_confint

        n_sampled = int(self.sampled.sum())
        if not n_sampled:
            return float("nan"), float("nan"), float("nan")
        low, high = proportion_confint(
            self.n_missed, n_sampled, alpha=1 - confidence, method="wilson"
        )
        rest = self.n_rest
        return rest * self.n_missed / n_sampled, rest * float(low), rest * float(high)

    def agreement(self) -> pd.DataFrame:
        """Return how far estimates and exact effects agree, on the kept and on the sampled cells.

        Columns ``cells n pearson spearman same_sign mean_error largest_error``, errors in
        normalised effect.
        """
        from scipy import stats

        exact = self.exact.normalized().to_numpy().ravel()
        estimated = self.estimates.normalized().to_numpy().ravel()
        rows = []
        for name, chosen in (("kept", self.kept), ("sampled", self.sampled)):
            x, y = exact[chosen], estimated[chosen]
            varied = len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
            error = np.abs(x - y)
            rows.append(
                (
                    name,
                    len(x),
                    float(stats.pearsonr(x, y).statistic) if varied else np.nan,
                    float(stats.spearmanr(x, y).statistic) if varied else np.nan,
                    float((np.sign(x) == np.sign(y)).mean()) if len(x) else np.nan,
                    float(error.mean()) if len(x) else np.nan,
                    float(error.max()) if len(x) else np.nan,
                )
            )
        columns = ["cells", "n", "pearson", "spearman", "same_sign", "mean_error", "largest_error"]
        return pd.DataFrame(rows, columns=columns)

    def table(self, n: int = 10) -> pd.DataFrame:
        """Return the measured cells that were estimated most wrongly: ``name exact estimate``."""
        exact = self.exact.normalized().to_numpy().ravel()
        estimated = self.estimates.normalized().to_numpy().ravel()
        names = self.estimates.names.to_numpy().ravel()
        error = np.where(np.isfinite(exact), np.abs(exact - estimated), -1.0)
        worst = np.argsort(-error, kind="stable")[: whole_number("n", n, 0)]
        worst = worst[error[worst] >= 0]
        rows = {"name": names[worst], "exact": exact[worst], "estimate": estimated[worst]}
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        guess, low, high = self.missed()
        engine = self.estimates.attrs.get("engine", "an estimate")
        lines = [
            f"Screening by {engine}",
            (
                f"measured exactly: the {int(self.kept.sum()):,} strongest cells, and "
                f"{int(self.sampled.sum()):,} of the other {self.n_rest:,}"
            ),
            *self.agreement().round(3).to_string(index=False).splitlines(),
        ]
        if np.isfinite(guess):
            lines.append(
                f"cells of size {self.cutoff:.2g} or more that the estimate missed: about "
                f"{guess:.0f} (95% interval {low:.0f} to {high:.0f})"
            )
        return "\n  ".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"


def screen(
    experiment: "Experiment",
    request: Any,
    keep: int,
    by: Any = None,
    sample: int = 200,
    *,
    variant: Variant = "single-pass",
    seed: int = 0,
) -> Screening:
    """Estimate all cells of a sweep; measure the strongest, and a sample of the rest, exactly.

    Args:
        experiment: The model, prompts and metric.
        request: A sweep, such as ``node -> port => logits``.
        keep: How many of the strongest estimates to measure.
        by: The estimating engine; ``EAPIG()`` by default.
        sample: How many of the other cells to measure at random: what they show holds for all of
            the rest, within an interval.
        variant: What direct paths may pass through.
        seed: Of the sample.

    Raises:
        CircuitError: Numbers that are not allowed.
        RequestError: A request that cannot be estimated.

    Example:
        >>> cg.discover.screen(exp, "node -> port => logits", 300)  # doctest: +SKIP
    """
    from circuitgraph.engines.gradient import EAPIG

    check_experiment(experiment)
    n_keep, n_sample = whole_number("keep", keep, 1), whole_number("sample", sample, 0)
    generator = np.random.default_rng(whole_number("seed", seed, 0))
    estimates = experiment.patch(request, variant, engine=EAPIG() if by is None else by)
    if not estimates.attrs.get("estimate"):
        raise CircuitError("by is an engine that estimates, such as cg.EAPIG(): this one is exact")
    strength = np.abs(estimates.normalized().to_numpy())
    flat = strength.ravel()
    there = np.flatnonzero(np.isfinite(flat))
    order = there[np.argsort(-flat[there], kind="stable")]
    kept, sampled = (np.zeros(flat.shape, dtype=bool) for _ in range(2))
    kept[order[:n_keep]] = True
    rest = order[n_keep:]
    sampled[generator.permutation(rest)[:n_sample]] = True
    only = (kept | sampled).reshape(strength.shape)
    exact = experiment.patch(request, variant, only=only)
    size = np.abs(exact.normalized().to_numpy().ravel())
    cutoff = float(flat[kept].min())
    n_missed = int((size[sampled] >= cutoff).sum())
    return Screening(estimates, exact, kept, sampled, cutoff, n_missed)
