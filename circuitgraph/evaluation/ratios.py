"""Faithfulness and its interval: a ratio of means, prompts resampled in pairs.

For a circuit whose metric is ``m(C)`` with all else patched, ``f = (m(C) - m(empty)) / (m(clean) -
m(empty))``, each m a mean over prompts first: a mean of per-prompt ratios is another number, and
explodes where a prompt's denominator is small (Miller et al. 2024, arXiv:2407.08734). Plain arrays
in, plain arrays out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ratio", "faithfulness", "ratio_of_means"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of means with an interval.

    Args:
        value: The ratio over all prompts.
        low: Lower end of the interval; NaN with a single prompt.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the interval."""
        return self.low, self.high

    def __str__(self) -> str:
        ends = "" if np.isnan(self.low) else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:.2f}{ends}".replace("-", "−")


def faithfulness(values: Floats, clean: Floats, empty: Floats) -> Floats:
    """Return ``f`` of every circuit.

    Args:
        values: The metric with each circuit alone, ``[..., prompt]``.
        clean: With the whole model, ``[prompt]``.
        empty: With nothing in the circuit, ``[prompt]``.

    Example:
        >>> faithfulness(np.array([[3.0, 1.0]]), np.array([4.0, 2.0]), np.array([0.0, -2.0]))
        array([0.75])
    """
    found: Floats = (values.mean(axis=-1) - empty.mean()) / (clean.mean() - empty.mean())
    return found


def ratio_of_means(
    values: Floats,
    clean: Floats,
    empty: Floats,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Ratio]:
    """Return ``f`` of every circuit with its bootstrap interval.

    Prompts are resampled with their three values together, the same draws for every circuit, so
    that intervals of circuits can be compared. Percentile intervals, never clipped: f may lie
    outside [0, 1], and then its interval does.

    Args:
        values: ``[circuit, prompt]``.
        clean: ``[prompt]``.
        empty: ``[prompt]``.
        confidence: Of the interval.
        resamples: How often prompts are drawn.
        seed: Of the drawing.
    """
    n_prompts = len(clean)
    whole = faithfulness(values, clean, empty)
    if n_prompts < 2:
        return [Ratio(float(value), np.nan, np.nan) for value in whole]
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (counts @ (values - empty).T) / (counts @ (clean - empty))[:, None]
    tail = (1 - confidence) / 2
    # A draw in which clean and corrupt agree has no f, so neither end is known.
    endless = ~np.isfinite(drawn).all(axis=0)
    low, high = np.quantile(np.where(np.isfinite(drawn), drawn, 0.0), [tail, 1 - tail], axis=0)
    low[endless], high[endless] = np.nan, np.nan
    return [Ratio(*map(float, ends)) for ends in zip(whole, low, high, strict=True)]
