"""How sure an effect is: standard errors, bootstrap intervals, tests from zero, corrections.

Everything is paired by prompt, because clean, corrupt and patched are runs of the same prompts. The
methods are scipy's and statsmodels'; this module says what they are given and what happens where
they have no answer (one prompt, a cell without variation).

The unit is a *signal*: per cell and prompt, what the patch changed; and a *span*: per prompt, clean
minus corrupt. The effect of a cell is ``mean(signal) / mean(span)``.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from circuitgraph.arguments import number, whole, word
from circuitgraph.errors import EffectsError

__all__ = ["Correction", "Interval", "Measured", "Measurement", "Signal", "Test"]

Correction = Literal["fdr_bh", "fdr_by", "holm", "bonferroni", "none"]
Test = Literal["t", "wilcoxon"]
Interval = Literal["BCa", "percentile", "basic"]

Floats = NDArray[np.float64]

_BLOCK = 8_000_000
"""Numbers held at once while resampling (64 MB)."""


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """What is measured: what patching changed, per cell and prompt, beside clean minus corrupt.

    Args:
        change: Shape (metric, cell, prompt); NaN in empty cells.
        span: Shape (metric, prompt).
        noise: Shape (metric, cell, prompt): changes no larger than this are rounding, not effects.
    """

    change: Floats
    span: Floats
    noise: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Statistics of every cell, flat; NaN in empty cells and where there is no answer."""

    effect: Floats
    difference: Floats
    stderr: Floats
    ci_low: Floats
    ci_high: Floats
    p: Floats
    p_corrected: Floats
    significant: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Measurement:
    """How statistics are made: plain, comparable settings.

    Raises:
        EffectsError: A setting that is not one of those allowed.
    """

    confidence: float = 0.95
    correction: Correction = "fdr_bh"
    seed: int = 0
    test: Test = "t"
    interval: Interval = "BCa"
    resamples: int = 2000

    def __post_init__(self) -> None:
        number("confidence", self.confidence, EffectsError)
        for name in ("seed", "resamples"):
            object.__setattr__(self, name, whole(name, getattr(self, name), EffectsError, 0))
        if not 0 < self.confidence < 1:
            raise EffectsError(
                f"confidence must lie between 0 and 1, such as 0.95, got {self.confidence!r}"
            )
        for name, allowed in (("correction", Correction), ("test", Test), ("interval", Interval)):
            word(name, getattr(self, name), allowed, EffectsError)
        if self.resamples < 100:
            raise EffectsError(
                f"resamples must be at least 100 for an interval to mean anything, "
                f"got {self.resamples!r}"
            )

    def measure(self, signal: Signal, only: NDArray[np.intp] | None = None) -> Measured:
        """Return the statistics of every cell.

        Args:
            signal: What was measured.
            only: Flat numbers of the cells that need standard errors and intervals; all by default.
                Tests and their correction always cover all cells, so they do not depend on this.
        """
        n_metrics, n_cells, n_prompts = signal.change.shape
        change = signal.change.reshape(n_metrics * n_cells, n_prompts)
        noise = signal.noise.reshape(change.shape)
        difference = change.mean(axis=-1)
        effect = difference / np.repeat(signal.span.mean(axis=-1), n_cells)
        p = self._p_values(np.where(np.abs(change) <= noise, 0.0, change))
        p_corrected, significant = self._corrected(p)
        asked = np.arange(len(change)) if only is None else only
        stderr, low, high = (np.full(len(change), np.nan) for _ in range(3))
        for metric in range(n_metrics):
            cells = asked[(asked // n_cells == metric) & ~np.isnan(effect[asked])]
            for block in _blocks(cells, _BLOCK // self.resamples):
                stderr[block], low[block], high[block] = self._bootstrap(
                    change[block], signal.span[metric]
                )
        return Measured(effect, difference, stderr, low, high, p, p_corrected, significant)

    def _bootstrap(self, change: Floats, span: Floats) -> tuple[Floats, Floats, Floats]:
        """Return standard error, low and high end of ``mean(change) / mean(span)`` per cell.

        Prompts are resampled, so that a resample takes a prompt's patched, clean and corrupt values
        together. scipy resamples the numbers of the prompts, which is what it does itself for
        paired samples; counting how often each was drawn makes all cells one matrix product.
        """
        from scipy import stats

        n_cells, n_prompts = change.shape
        nothing = np.full(n_cells, np.nan)
        if n_prompts < 2:
            return nothing, nothing, nothing

        def ratio(drawn: NDArray[np.intp], axis: int = -1) -> Floats:  # noqa: ARG001  # scipy's
            rows = drawn.reshape(-1, drawn.shape[-1])
            places = rows + n_prompts * np.arange(len(rows))[:, None]
            counts = np.bincount(places.ravel(), minlength=len(rows) * n_prompts)
            times = counts.reshape(len(rows), n_prompts).astype(np.float64)
            ratios: Floats = (change @ times.T) / (span @ times.T)
            return ratios.reshape(n_cells, *drawn.shape[:-1])

        with _quiet():
            found = stats.bootstrap(
                (np.arange(n_prompts),),
                ratio,
                vectorized=True,
                n_resamples=self.resamples,
                batch=max(1, _BLOCK // n_prompts),
                confidence_level=self.confidence,
                method=self.interval,
                rng=np.random.default_rng(self.seed),
            )
            stderr = np.array(found.standard_error, dtype=np.float64)
            low, high = (np.array(end, dtype=np.float64) for end in found.confidence_interval)
            drawn = found.bootstrap_distribution
            # BCa has no answer where all resamples agree or all lie on one side: percentiles do.
            lost = np.isnan(low) | np.isnan(high)
            if bool(lost.any()):
                tail = (1 - self.confidence) / 2
                low[lost], high[lost] = np.quantile(drawn[lost], [tail, 1 - tail], axis=-1)
        # A resample in which clean and corrupt agree has no effect, so the interval has no end.
        endless = ~np.isfinite(drawn).all(axis=-1)
        for ends in (stderr, low, high):
            ends[endless] = np.nan
        return stderr, low, high

    def _p_values(self, change: Floats) -> Floats:
        """Return per cell how likely so large a mean change is where the true one is zero."""
        from scipy import stats

        p = np.full(len(change), np.nan)
        filled = ~np.isnan(change[:, 0])
        if change.shape[1] < 2 or not filled.any():
            return p
        with _quiet():
            if self.test == "t":
                found = stats.ttest_1samp(change[filled], 0.0, axis=-1)
                p[filled] = np.asarray(found.pvalue, dtype=np.float64)
            else:
                p[filled] = _wilcoxon(change[filled])
        # No change on any prompt speaks for zero as clearly as it can.
        p[filled & (change == 0).all(axis=-1)] = 1.0
        return p

    def _corrected(self, p: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return p values corrected for the number of cells tested, and which stand out."""
        corrected = p.copy()
        tested = ~np.isnan(p)
        if self.correction != "none" and tested.any():
            from statsmodels.stats.multitest import multipletests

            corrected[tested] = multipletests(p[tested], method=self.correction)[1]
        with np.errstate(invalid="ignore"):
            return corrected, corrected <= 1 - self.confidence

    def describe(self, n_cells: int, n_prompts: int) -> dict[str, Any]:
        """Return the settings as attributes of a result."""
        return {
            "confidence": self.confidence,
            "correction": self.correction,
            "test": self.test,
            "interval": self.interval,
            "resamples": self.resamples,
            "seed": self.seed,
            "n_tested": n_cells,
            "n_prompts": n_prompts,
        }


def _wilcoxon(change: Floats) -> Floats:
    """Return each cell's p value of the signed-rank test, as if it had been tested alone.

    scipy chooses the null distribution for all cells it is given together: zeros or ties in one
    would change the p values of the others. So cells with and without them are tested apart.
    """
    from scipy import stats

    n_prompts = change.shape[1]
    sizes = np.sort(np.abs(change), axis=-1)
    some = sizes[:, -1] > 0
    plain = (sizes[:, 0] > 0) & (np.diff(sizes, axis=-1) > 0).all(axis=-1)
    p = np.full(len(change), np.nan)
    if plain.any():
        p[plain] = stats.wilcoxon(change[plain], axis=-1).pvalue
    rest = np.flatnonzero(~plain & some)
    if n_prompts <= 13:
        for block in _blocks(rest, _BLOCK // 2**n_prompts):
            p[block] = _all_signs(change[block])
    elif len(rest):
        p[rest] = stats.wilcoxon(change[rest], axis=-1, method="asymptotic").pvalue
    return p


def _all_signs(change: Floats) -> Floats:
    """Return p values of the signed-rank test from all ways to give the prompts their signs.

    What scipy's permutation test gives for so few prompts, in one matrix product.
    """
    from scipy import stats

    n_prompts = change.shape[1]
    ranks = stats.rankdata(
        np.where(change == 0, np.nan, np.abs(change)), axis=-1, nan_policy="omit"
    )
    ranks = np.nan_to_num(ranks)
    positive = (np.arange(2**n_prompts)[:, None] >> np.arange(n_prompts)) & 1
    by_chance = ranks @ positive.T.astype(np.float64)
    found = (ranks * (change > 0)).sum(axis=-1, keepdims=True)
    # Sums of ranks are halves, exactly.
    more, less = (by_chance >= found).mean(axis=-1), (by_chance <= found).mean(axis=-1)
    p: Floats = np.minimum(1.0, 2 * np.minimum(more, less))
    return p


def _blocks(cells: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(cells), max(1, size)):
        yield cells[start : start + max(1, size)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back warnings about cells without variation: their answers are given here."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
