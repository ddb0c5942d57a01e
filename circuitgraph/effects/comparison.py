"""`Comparison`: the effects of one request under several variants, modes, sources or engines."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from circuitgraph.arguments import instance, mapping, text, whole
from circuitgraph.effects import display, files, sentences, tables
from circuitgraph.effects.agreement import TAKEN, agreement, what_differs
from circuitgraph.effects.cells import cell_columns, cell_labels
from circuitgraph.effects.normalization import signal_of
from circuitgraph.effects.results import Effects
from circuitgraph.effects.statistics import Measured, Measurement, Signal
from circuitgraph.errors import EffectsError, Problems
from circuitgraph.files import path_of

if TYPE_CHECKING:
    from circuitgraph.draw import Chart

__all__ = ["Comparison"]


class Comparison:
    """Effects of the same cells on the same prompts, set side by side.

    Args:
        effects: Two or more effects by name, such as ``{"mlps": ..., "single-pass": ...}``; the
            first is the one that tables list first.

    Raises:
        EffectsError: What the effects do not share: prompts, clean or corrupt values, cells.

    Example:
        >>> shared = {"clean": [4.0, 2.0], "corrupt": [0.0, -2.0], "sweep": {"sender": ["23.3"]}}
        >>> both = Comparison(
        ...     {
        ...         "mlps": Effects.from_arrays([[3.2, 1.3]], variant="mlps", **shared),
        ...         "single-pass": Effects.from_arrays(
        ...             [[3.5, 1.5]], variant="single-pass", **shared
        ...         ),
        ...     }
        ... )
        >>> both.table(1)[["name", "mlps", "single-pass"]]
           name    mlps  single-pass
        0  23.3 -0.1875       -0.125
    """

    __slots__ = ("_effects",)

    def __init__(self, effects: Mapping[str, Effects]) -> None:
        problems = Problems()
        mapping("effects", effects, "names to Effects", EffectsError)
        for name, one in effects.items():
            text("the name of effects in a comparison", name, EffectsError)
            instance(f"{name!r}", one, Effects, "as Experiment.patch returns", EffectsError)
        if len(effects) < 2:
            problems.add(EffectsError(f"it takes two effects or more, got {len(effects)}"))
        for name in effects:
            if not name or name in TAKEN:
                problems.add(EffectsError(f"{name!r} cannot name effects in a comparison"))
        for name, one in effects.items():
            first_name, first = next(iter(effects.items()))
            if difference := what_differs(first, one):
                problems.add(EffectsError(f"{first_name} and {name} differ: {difference}"))
        problems.raise_if_any("cannot compare these effects")
        self._effects = MappingProxyType(dict(effects))

    @property
    def effects(self) -> Mapping[str, Effects]:
        """The effects by name; cannot be written to."""
        return self._effects

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what is compared, in order."""
        return tuple(self._effects)

    @property
    def labels(self) -> NDArray[np.str_]:
        """One text per cell, flat and in order, that tells cells and metrics apart."""
        return cell_labels(self._effects[self.names[0]].data)

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return every two names, in order."""
        return tuple(combinations(self.names, 2))

    # -- numbers ---------------------------------------------------------------------------------

    def difference(
        self, a: str | None = None, b: str | None = None, **statistics: Any
    ) -> xr.Dataset:
        """Return how much each cell's effect under ``a`` exceeds that under ``b``.

        Args:
            a: A name; the first by default.
            b: Another; the second by default.
            statistics: Settings of `Effects.statistics`.

        Returns:
            A data set over the cells, as of `Effects.statistics`: ``effect`` is the normalized
            effect under ``a`` minus that under ``b``, with standard error, interval and p values
            paired by prompt; ``difference`` is the mean difference of the raw metric.

        Raises:
            EffectsError: No such name.
        """
        first, second = self._pair(a, b)
        how = Measurement(**statistics)
        data = tables.as_dataset(self._effects[first].data, self.measure(first, second, how), how)
        return data.assign_attrs(a=first, b=second)

    def measure(
        self, a: str, b: str, how: Measurement, only: NDArray[np.intp] | None = None
    ) -> Measured:
        """Return the statistics of the difference between two, flat over the cells.

        Args:
            a: A name.
            b: Another.
            how: Settings of the statistics.
            only: Flat numbers of the cells that need intervals; all by default.
        """
        one, other = (signal_of(self._effects[name].data) for name in (a, b))
        # The spans agree up to rounding; so do the normalized effects with what is taken here.
        unit = (one.span.mean(axis=-1) / other.span.mean(axis=-1))[:, None, None]
        noise = np.maximum(one.noise, other.noise)
        return how.measure(Signal(one.change - other.change * unit, one.span, noise), only)

    def agreement(self, k: int = 10) -> pd.DataFrame:
        """Return how far each two agree, over the cells that both fill.

        Args:
            k: How many of the strongest cells of each to compare.

        Returns:
            A row per pair: ``a``, ``b``, ``n_cells``, ``pearson`` and ``spearman`` correlation (NaN
            where one does not vary), ``sign`` (the share of cells whose effects have the same
            sign), ``k`` (no more than there are cells), ``shared`` (how many of
            the k strongest of both are the same), ``jaccard`` (shared over all named by either),
            ``max_difference`` (absolute) and ``at``, the cell where it is.
        """
        k = whole("k", k, EffectsError, 1)
        values, labels = self.values(), self.labels
        return pd.DataFrame(
            [{"a": a, "b": b} | agreement(values[a], values[b], labels, k) for a, b in self.pairs()]
        )

    def worst(self, k: int = 10, a: str | None = None, b: str | None = None) -> pd.DataFrame:
        """Return the cells in which two differ most, such as those an estimate gets most wrong.

        Args:
            k: How many; no more than both fill.
            a: A name; the first by default.
            b: Another; the second by default.

        Returns:
            A row per cell, ``name``, the effect under each and their ``difference``, largest first.

        Raises:
            EffectsError: No such name.
        """
        first, second = self._pair(a, b)
        values = self.values()
        apart = values[first] - values[second]
        order = np.argsort(-np.abs(np.nan_to_num(apart)), kind="stable")
        order = order[~np.isnan(apart[order])][:k]
        return pd.DataFrame(
            {
                "name": self.labels[order],
                first: values[first][order],
                second: values[second][order],
                "difference": apart[order],
            }
        )

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Return the normalized effects by name, flat over the cells and in one order."""
        return {name: one.normalized().to_numpy().ravel() for name, one in self._effects.items()}

    # -- tables and words ------------------------------------------------------------------------

    def table(self, n: int = 10, **statistics: Any) -> pd.DataFrame:
        """Return the cells that are strongest under any of them, with the effects side by side.

        Args:
            n: How many.
            statistics: Settings of `Effects.statistics`.

        Returns:
            A row per cell: ``name``, its coordinates, its effect under each name. Of two, also
            ``difference`` (the first minus the second), its interval ``ci_low``, ``ci_high``, and
            ``differs``: whether it stands out from zero after the correction. Of more, ``range``.
        """
        chosen = self._strongest(n)
        values = self.values()
        first = self._effects[self.names[0]].data
        columns: dict[str, Any] = {
            name: column[chosen] for name, column in cell_columns(first).items()
        } | {name: values[name][chosen] for name in self.names}
        if len(self.names) == 2:
            found = self.measure(*self.names, Measurement(**statistics), only=chosen)
            columns |= {
                "difference": found.effect[chosen],
                "ci_low": found.ci_low[chosen],
                "ci_high": found.ci_high[chosen],
                "differs": found.significant[chosen],
            }
        else:
            beside = np.array([values[name][chosen] for name in self.names])
            columns["range"] = np.fmax.reduce(beside) - np.fmin.reduce(beside)
        return pd.DataFrame(columns)

    def strongest(self, n: int) -> pd.DataFrame:
        """Return ``label`` and effects of the strongest cells: `table` without statistics."""
        chosen, values = self._strongest(n), self.values()
        return pd.DataFrame(
            {"label": self.labels[chosen]} | {name: values[name][chosen] for name in self.names}
        )

    def sentences(self, n: int = 3, **statistics: Any) -> list[str]:
        """Return what the comparison says, in plain sentences with numbers.

        Only cells that stand out from zero under one of two, and that differ between them by more
        than chance explains, are said to differ.

        Args:
            n: How many cells to speak of, for each pair.
            statistics: Settings of `Effects.statistics`.
        """
        n = whole("n", n, EffectsError, 1)
        return sentences.findings(self, n, Measurement(**statistics))

    def heatmap(
        self,
        a: str | None = None,
        b: str | None = None,
        *,
        title: str | None = None,
        statistics: bool | None = None,
        values: bool = False,
        max_panels: int = 4,
    ) -> "Chart":
        """Return a chart of the effects side by side and the difference of two of them.

        See `circuitgraph.draw.effects.comparison.heatmaps`.
        """
        from circuitgraph.draw.effects.comparison import heatmaps

        return heatmaps(
            self, a, b, title=title, statistics=statistics, values=values, max_panels=max_panels
        )

    def scatter(
        self,
        a: str | None = None,
        b: str | None = None,
        *,
        title: str | None = None,
        named: int = 8,
    ) -> "Chart":
        """Return a chart of one against the other, a point per cell.

        See `circuitgraph.draw.effects.scatter.scatter`.
        """
        from circuitgraph.draw.effects.scatter import scatter

        return scatter(self, a, b, title=title, named=named)

    # -- files and manners -----------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write everything to one JSON file that `load` gives back exactly; return its path."""
        path = path_of(path, EffectsError)
        documents = {name: files.as_document(one.data) for name, one in self._effects.items()}
        files.write(
            path, {"format": files.COMPARISON, "version": files.VERSION, "effects": documents}
        )
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Comparison":
        """Return the comparison that `save` wrote.

        Raises:
            EffectsError: There is no such file, or it is not one of ours.
        """
        path = path_of(path, EffectsError)
        document = files.read(path, files.COMPARISON)
        documents = files.comparison_parts(document, repr(str(path)))
        data = {
            name: files.from_document(part, f"{str(path)!r}, {name!r},")
            for name, part in documents.items()
        }
        try:
            comparison = cls({name: Effects(one) for name, one in data.items()})
        except EffectsError as error:
            raise EffectsError(f"{str(path)!r} is damaged: {error}") from error
        files.check_intact(document, repr(str(path)))
        return comparison

    def __eq__(self, other: object) -> bool:
        """Return whether names, order and all effects are the same."""
        if not isinstance(other, Comparison):
            return NotImplemented
        return list(self.effects.items()) == list(other.effects.items())

    __hash__ = None  # type: ignore[assignment]  # compared by value, and large

    def __reduce__(self) -> tuple[Any, ...]:
        return Comparison, (dict(self._effects),)

    def __repr__(self) -> str:
        return display.comparison_text(self)

    def _repr_html_(self) -> str:
        return display.comparison_html(self)

    def _pair(self, a: str | None, b: str | None) -> tuple[str, str]:
        first = self.names[0] if a is None else a
        second = next(name for name in self.names if name != first) if b is None else b
        for name in (first, second):
            if not isinstance(name, str) or name not in self._effects:
                raise EffectsError(f"no {name!r} in this comparison of {', '.join(self.names)}")
        return first, second

    def _strongest(self, n: int) -> NDArray[np.intp]:
        n = whole("n", n, EffectsError, 1)
        beside = np.abs(np.array(list(self.values().values())))
        return tables.ranked(np.fmax.reduce(beside), "absolute")[:n]
