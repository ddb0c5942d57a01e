"""What a comparison says, in words: findings with their numbers, and no more than they carry.

Effects of the variants ``mlps`` and ``single-pass`` differ by what reaches the receiver through
MLPs, so of those two, and with all else equal, a sentence may speak of MLPs. Of any other two it
says only that they differ.
"""

from collections.abc import Hashable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitgraph.effects.display import interval_text, signed
from circuitgraph.effects.statistics import Measured, Measurement
from circuitgraph.effects.tables import ranked

if TYPE_CHECKING:
    from circuitgraph.effects.comparison import Comparison

__all__ = ["findings", "share_in_words"]

_SAME = 1e-4
"""Effects that differ by less, relatively, and on no prompt by more than rounding, are the same."""

_LEAST = 0.005
"""Smaller differences of normalized effects are not worth a sentence of their own."""

_LITTLE = 0.05
"""The share of an effect below which one that does not stand out is not spoken of as a share."""

_SHARES = {
    Fraction(1, 10): "a tenth",
    Fraction(1, 5): "a fifth",
    Fraction(1, 4): "a quarter",
    Fraction(1, 3): "a third",
    Fraction(2, 5): "two fifths",
    Fraction(1, 2): "half",
    Fraction(3, 5): "three fifths",
    Fraction(2, 3): "two thirds",
    Fraction(3, 4): "three quarters",
    Fraction(4, 5): "four fifths",
    Fraction(9, 10): "nine tenths",
}


def share_in_words(share: float) -> str:
    """Return a share between 0 and 1 as a person says it.

    Example:
        >>> share_in_words(1 / 3), share_in_words(0.47), share_in_words(0.98)
        ('a third', 'about half', 'nearly all')
    """
    if share > 0.95:
        return "nearly all"
    if share < 0.07:
        return f"a small part ({share:.0%})"
    nearest = min(_SHARES, key=lambda fraction: abs(float(fraction) - share))
    exact = abs(float(nearest) - share) < 0.015
    return _SHARES[nearest] if exact else f"about {_SHARES[nearest]}"


def findings(comparison: "Comparison", n: int, how: Measurement) -> list[str]:
    """Return the sentences of a comparison: what stands out, how far they agree, what differs."""
    each = {name: one.measure(how, _none()) for name, one in comparison.effects.items()}
    found = [_standing_out(comparison, each, how)]
    found += [_agreeing(row) for row in comparison.agreement().to_dict("records")]
    if next(iter(comparison.effects.values())).n_prompts < 2:
        found.append("One prompt cannot tell an effect from chance: use more to compare cells.")
        return found
    for a, b in comparison.pairs():
        found += _Pair(comparison, a, b, each, how).sentences(n)
    return found


def _none() -> NDArray[np.intp]:
    return np.array([], dtype=np.intp)


def _standing_out(comparison: "Comparison", each: dict[str, Measured], how: Measurement) -> str:
    counts = ", ".join(
        f"{int(one.significant.sum())} of {int((~np.isnan(one.effect)).sum())} under {name}"
        for name, one in each.items()
    )
    prompts = next(iter(comparison.effects.values())).n_prompts
    rule = {
        "fdr_bh": "false discovery rate",
        "fdr_by": "false discovery rate",
        "none": "level, uncorrected",
    }.get(how.correction, "family-wise error rate")
    return (
        f"Effects that stand out from zero: {counts} "
        f"({100 * (1 - how.confidence):.2g}% {rule}, {prompts} prompt{'s' * (prompts != 1)})."
    )


def _agreeing(row: Mapping[Hashable, Any]) -> str:
    start = f"{row['a']} and {row['b']}"
    largest = f"the largest difference is {row['max_difference']:.2g} at {row['at']}"
    if row["n_cells"] == 0:
        return f"{start} have no cell in common."
    if row["max_difference"] == 0:
        return f"{start} give the same effects."
    if np.isnan(row["spearman"]):
        return f"{start}: {largest}."
    return (
        f"{start} order the cells with a rank correlation of {row['spearman']:.2f} and share "
        f"{row['shared']} of their {row['k']} strongest; {largest}."
    )


class _Pair:
    """The sentences on two of a comparison."""

    def __init__(
        self,
        comparison: "Comparison",
        a: str,
        b: str,
        each: dict[str, Measured],
        how: Measurement,
    ) -> None:
        self.comparison, self.how = comparison, how
        self.a, self.b, self.each = a, b, each
        self.apart = comparison.measure(a, b, how, _none())
        self.labels = comparison.labels
        self.mlps = _mlp_variants(comparison, a, b)

    def sentences(self, n: int) -> list[str]:
        """Return the sentences on the cells that differ most, and on the strongest if it cannot."""
        first, second = self.each[self.a], self.each[self.b]
        stands_out = first.significant | second.significant
        clear = stands_out & self.apart.significant & (np.abs(self.apart.effect) >= _LEAST)
        order = ranked(self.apart.effect, "absolute")
        cells = order[clear[order]][:n]
        intervals = self.comparison.measure(self.a, self.b, self.how, cells)
        found = [self._differs(int(cell), intervals) for cell in cells]
        if not found:
            found.append(
                f"No effect that stands out differs between {self.a} and {self.b} by more than "
                f"chance explains and by at least {_LEAST}."
            )
        size = np.fmax(np.abs(first.effect), np.abs(second.effect))
        undecided = stands_out & ~self.apart.significant
        return found + [
            self._undecided(int(cell)) for cell in ranked(size, "absolute")[:1] if undecided[cell]
        ]

    def _undecided(self, cell: int) -> str:
        """Return the sentence on the strongest cell, where it does not differ for certain."""
        one, other = (float(self.each[name].effect[cell]) for name in (self.a, self.b))
        # No prompt differs by more than rounding: there is nothing to tell apart.
        if self.apart.p[cell] == 1 and abs(one - other) <= _SAME * abs(one):
            return f"The strongest, {self.labels[cell]}, is the same in both: {signed(one)}."
        return (
            f"The strongest, {self.labels[cell]}, cannot be told apart: "
            f"{signed(one)} under {self.a}, {signed(other)} under {self.b}."
        )

    def _differs(self, cell: int, intervals: Measured) -> str:
        """Return the sentence on a cell that stands out and that differs."""
        name = str(self.labels[cell])
        ends = interval_text(intervals.ci_low[cell], intervals.ci_high[cell])
        said = f" ({self.how.confidence:.0%} interval of the difference {ends})" if ends else ""
        if self.mlps is None:
            values = (
                f"{signed(self.each[self.a].effect[cell])} under {self.a} against "
                f"{signed(self.each[self.b].effect[cell])} under {self.b}"
            )
            return f"{name} differs between {self.a} and {self.b}: {values}{said}."
        through, direct = (self.each[which] for which in self.mlps)
        values = (
            f"{signed(direct.effect[cell])} single-pass against "
            f"{signed(through.effect[cell])} with MLPs"
        )
        return f"{_mlps_do(name, through, direct, cell)}: {values}{said}."


def _mlps_do(name: str, through: Measured, direct: Measured, cell: int) -> str:
    """Return what MLPs do to an effect, where the two variants are known to differ."""
    with_mlps, without = float(through.effect[cell]), float(direct.effect[cell])
    # What cannot be told from zero has no share and no sign to speak of.
    if not direct.significant[cell] and without * with_mlps < _LITTLE * with_mlps**2:
        return f"Without MLPs {name} has no effect that stands out"
    if not through.significant[cell] and without * with_mlps < _LITTLE * without**2:
        return f"With MLPs {name} has no effect that stands out"
    if with_mlps * without < 0:
        return f"MLPs turn {name}'s effect around"
    if abs(with_mlps) >= abs(without):
        return f"MLPs carry {share_in_words(1 - without / with_mlps)} of {name}'s effect"
    return f"MLPs cancel {share_in_words(1 - with_mlps / without)} of {name}'s direct effect"


def _mlp_variants(comparison: "Comparison", a: str, b: str) -> tuple[str, str] | None:
    """Return the names of the variants with and without MLPs, if those are what is compared."""
    one, other = comparison.effects[a].attrs, comparison.effects[b].attrs
    if any(one.get(key) != other.get(key) for key in ("request", "mode", "source", "model")):
        return None
    named = {one.get("variant", a): a, other.get("variant", b): b}
    if set(named) != {"mlps", "single-pass"}:
        return None
    return named["mlps"], named["single-pass"]
