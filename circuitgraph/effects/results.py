"""`Effects`: the metric of every patched run, per prompt, with names."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pandas.errors import InvalidIndexError

from circuitgraph.arguments import collection, flag, instance, mapping, text
from circuitgraph.effects import display, files, tables
from circuitgraph.effects.cells import cell_labels, cell_names
from circuitgraph.effects.checks import canonical, cell_dims
from circuitgraph.effects.joining import fill_in, join_along
from circuitgraph.effects.normalization import changes, normalized, signal_of
from circuitgraph.effects.statistics import Correction, Interval, Measured, Measurement, Test
from circuitgraph.errors import EffectsError
from circuitgraph.files import path_of

if TYPE_CHECKING:
    from circuitgraph.draw import Chart

__all__ = ["Effects"]


class Effects:
    """Effects of a request: a number per cell of its sweep and prompt, beside clean and corrupt.

    Effects do not change: what they hold cannot be written to, and what they give is new. Sign
    convention: a normalized effect of 0 says that patching harmed nothing, -1 that all was lost
    (Wang et al. 2022, arXiv:2211.00593).

    Args:
        data: A data set with ``patched`` (swept dimensions, then ``prompt``), ``clean`` and
            ``corrupt`` (``prompt``). With several metrics, all three have the dimension ``metric``
            first. Cells that no valid request fills are NaN. ``noise``, shaped like ``clean``, may
            say how much of the metric is rounding: smaller changes are no effects. ``data.attrs``
            says in plain values what was asked: ``request``, ``variant``, ``mode``, ``metric`` and
            whatever else.

    Raises:
        EffectsError: What is wrong with the data, all of it at once.

    Example:
        >>> effects = Effects.from_arrays(
        ...     patched=[[[3.0, 1.0], [4.0, 2.0]]],
        ...     clean=[4.0, 2.0],
        ...     corrupt=[0.0, -2.0],
        ...     sweep={"layer": [9], "head": [6, 9]},
        ...     request="head -> logits",
        ...     variant="mlps",
        ... )
        >>> effects.normalized().values
        array([[-0.25,  0.  ]])
        >>> effects
        Effects of 'head -> logits' (variant mlps): layer 1 x head 2, 2 prompts
          metric 3 clean, -1 corrupt
          strongest: 9.6 -0.25, 9.9 0
    """

    __slots__ = ("_data", "_known")

    def __init__(self, data: xr.Dataset) -> None:
        self._data = canonical(data)
        self._known: dict[Measurement, Measured] = {}

    @classmethod
    def from_arrays(
        cls,
        patched: ArrayLike,
        clean: ArrayLike,
        corrupt: ArrayLike,
        sweep: Mapping[str, Iterable[Any]] | None = None,
        **attrs: Any,
    ) -> "Effects":
        """Return effects from plain arrays.

        Args:
            patched: The metric on the patched runs, shape (each swept dimension, prompt).
            clean: The metric on the clean prompts, shape (prompt), or (metric, prompt).
            corrupt: The metric on the corrupt prompts, shape as ``clean``.
            sweep: The swept dimensions in order, each with its coordinates; none for one request.
            attrs: What was asked: ``request="head -> logits"``, ``variant="mlps"``, ...

        Raises:
            EffectsError: Shapes that do not fit together, or numbers that cannot be effects.

        Example:
            >>> Effects.from_arrays(
            ...     [1.0], [2.0], [0.0], request="9.9 -> logits"
            ... ).normalized().item()
            -0.5
        """
        each = mapping("sweep", {} if sweep is None else sweep, "names to values", EffectsError)
        swept = {
            dim: collection(f"sweep[{dim!r}]", values, "values", EffectsError)
            for dim, values in each.items()
        }
        reading = ("metric", "prompt") if "metric" in swept else ("prompt",)
        given = {"patched": patched, "clean": clean, "corrupt": corrupt}
        arrays = {name: _array(name, values) for name, values in given.items()}
        dims = {"patched": (*swept, "prompt"), "clean": reading, "corrupt": reading}
        try:
            return cls(
                xr.Dataset(
                    {name: (dims[name], array) for name, array in arrays.items()},
                    coords=swept,
                    attrs=attrs,
                )
            )
        except EffectsError:
            raise
        except (TypeError, ValueError) as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            lengths = ", ".join(f"{dim} {len(values)}" for dim, values in swept.items())
            raise EffectsError(
                f"these shapes do not fit together: {shapes} "
                f"for a sweep over {lengths or 'nothing'}"
            ) from error

    # -- what is there ---------------------------------------------------------------------------

    @property
    def data(self) -> xr.Dataset:
        """The data set, as a shallow copy: its arrays cannot be written to."""
        return self._data.copy(deep=False)

    @property
    def attrs(self) -> dict[str, Any]:
        """What was asked, in plain values."""
        return dict(self._data.attrs)

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of the cells, in order: all but ``prompt``."""
        return cell_dims(self._data)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each dimension of the cells."""
        return tuple(self._data.sizes[dim] for dim in self.dims)

    @property
    def n_prompts(self) -> int:
        """The number of prompts."""
        return int(self._data.sizes["prompt"])

    @property
    def names(self) -> xr.DataArray:
        """The name of every cell, such as ``9.6`` or ``9.6 -> 8.6.v``, over all but ``metric``."""
        return cell_names(self._data)

    def cells(self) -> tuple[str, ...]:
        """Return the names of the filled cells in order; a metric's name follows in parentheses.

        Example:
            >>> Effects.from_arrays(
            ...     [[1.0], [float("nan")]], [2.0], [0.0], sweep={"sender": ["9.6", "mlp3"]}
            ... ).cells()
            ('9.6',)
        """
        filled = ~np.isnan(self._data["patched"].to_numpy()[..., 0]).ravel()
        return tuple(str(name) for name in cell_labels(self._data)[filled])

    # -- effects ---------------------------------------------------------------------------------

    def normalized(self, per_prompt: bool = False) -> xr.DataArray:
        """Return ``(m(patched) - m(clean)) / (m(clean) - m(corrupt))``, m the mean over prompts.

        0 where nothing was harmed, -1 where all was lost, NaN in cells that no request fills.

        Args:
            per_prompt: Keep the prompts: each prompt's change over the same, mean denominator, so
                that the mean over ``prompt`` is the normalized effect.

        Raises:
            EffectsError: The metric cannot tell clean from corrupt.
        """
        flag("per_prompt", per_prompt, EffectsError)
        return normalized(self._data, per_prompt=per_prompt)

    def difference(self) -> xr.DataArray:
        """Return the raw change of the metric, ``patched - clean``, for every cell and prompt."""
        return changes(self._data)

    def statistics(
        self,
        confidence: float = 0.95,
        correction: Correction = "fdr_bh",
        seed: int = 0,
        *,
        test: Test = "t",
        interval: Interval = "BCa",
        resamples: int = 2000,
    ) -> xr.Dataset:
        """Return how sure each cell's effect is.

        Args:
            confidence: Of the intervals; ``1 - confidence`` is the level of significance.
            correction: For the number of cells tested, all cells of the sweep being one family:
                ``"fdr_bh"`` (Benjamini and Hochberg: of the cells called significant, a share of
                ``1 - confidence`` at most is expected to be false, if cells are independent or
                positively dependent), ``"fdr_by"`` (the same under any dependence), ``"holm"`` or
                ``"bonferroni"`` (a chance of ``1 - confidence`` at most that any is false),
                ``"none"``.
            seed: Of the resampling; the same seed gives the same intervals, in any order of cells.
            test: From zero, paired by prompt. ``"t"`` (default) tests the mean change, which is
                what the effect reports, and can reach small p values with few prompts.
                ``"wilcoxon"`` asks less of the distribution, but tests symmetry around zero
                instead, and with n prompts its p value is never below ``2 / 2**n``.
            interval: How scipy's bootstrap makes the interval: ``"BCa"``, ``"percentile"`` or
                ``"basic"``.
            resamples: How often prompts are drawn again.

        Returns:
            A data set over the cells: ``effect`` (normalized), ``difference`` (mean raw change),
            ``stderr``, ``ci_low`` and ``ci_high`` (of the normalized effect; prompts are resampled
            with their patched, clean and corrupt values together), ``p``, ``p_corrected``,
            ``significant``. With one prompt intervals and p values are NaN, and nothing is
            significant. Intervals are not corrected for the number of cells.

        Raises:
            EffectsError: The metric cannot tell clean from corrupt, or an unknown setting.
        """
        how = Measurement(confidence, correction, seed, test, interval, resamples)
        return tables.as_dataset(self._data, self.measure(how), how)

    def measure(self, how: Measurement, only: NDArray[np.intp] | None = None) -> Measured:
        """Return the numbers behind `statistics`, flat over the cells.

        Args:
            how: Settings.
            only: Flat numbers of the cells that need standard errors and intervals; all by default.
        """
        if only is not None and how not in self._known:
            return how.measure(signal_of(self._data), only)
        if how not in self._known:
            self._known[how] = how.measure(signal_of(self._data))
        return self._known[how]

    # -- tables ----------------------------------------------------------------------------------

    def top(
        self,
        n: int = 10,
        by: Literal["absolute", "negative", "positive"] = "absolute",
        **statistics: Any,
    ) -> pd.DataFrame:
        """Return the strongest cells with their statistics, the strongest first.

        Args:
            n: How many.
            by: ``"absolute"``, or only the ``"negative"`` (harmful to lose) or ``"positive"`` ones.
            statistics: Settings of `statistics`.

        Example:
            >>> effects = Effects.from_arrays(
            ...     [[3.0, 1.0], [4.5, 2.0]],
            ...     [4.0, 2.0],
            ...     [0.0, -2.0],
            ...     sweep={"sender": ["9.6", "9.9"]},
            ... )
            >>> effects.top(1)[["name", "effect", "difference"]]
              name  effect  difference
            0  9.6   -0.25        -1.0
        """
        return tables.top_table(self, n, by, Measurement(**statistics))

    def significant(self, **statistics: Any) -> pd.DataFrame:
        """Return the cells whose effects stand out from zero, the strongest first.

        Args:
            statistics: Settings of `statistics`, among them ``confidence`` and ``correction``.
        """
        return tables.significant_table(self, Measurement(**statistics))

    def to_dataframe(self, empty: bool = False, **statistics: Any) -> pd.DataFrame:
        """Return a tidy table: one row per cell, in order, with its statistics.

        Args:
            empty: Keep the cells that no request fills.
            statistics: Settings of `statistics`.
        """
        return tables.whole_table(self, Measurement(**statistics), empty=empty)

    def to_csv(self, path: str | Path, **statistics: Any) -> Path:
        """Write `to_dataframe` as comma-separated values and return the path.

        Raises:
            EffectsError: There is no such folder, or something else under that name.
        """
        return files.write_table(path, self.to_dataframe(**statistics))

    def heatmap(
        self,
        *,
        title: str | None = None,
        statistics: xr.Dataset | bool | None = None,
        values: bool = False,
        limit: float | None = None,
        max_panels: int = 12,
    ) -> "Chart":
        """Return a chart of the normalized effects (see `circuitgraph.draw.effects.heatmap`)."""
        from circuitgraph.draw.effects.heatmap import heatmap

        return heatmap(
            self,
            title=title,
            statistics=statistics,
            values=values,
            limit=limit,
            max_panels=max_panels,
        )

    # -- parts -----------------------------------------------------------------------------------

    def __getitem__(self, metric: str) -> "Effects":
        """Return the effects by one of several metrics, as if it had been measured alone.

        Raises:
            EffectsError: No metric of that name, or only one metric.
        """
        if "metric" not in self._data["patched"].dims:
            only = self._data.attrs.get("metric") or "the metric"
            raise EffectsError(f"no metric {metric!r} to select: there is only one, {only}")
        data = self.sel(metric=metric).data.drop_vars("metric")
        names = self._data["metric"].to_numpy().tolist()
        measures = data.attrs.pop("measures", None) or names
        return Effects(data.assign_attrs(metric=measures[names.index(metric)]))

    def sel(self, **indexers: Any) -> "Effects":
        """Return the effects at some coordinates, by xarray's ``sel``: ``sel(layer=9, head=6)``.

        Raises:
            EffectsError: No such dimension, or no such coordinate in it.
        """
        unknown = [name for name in indexers if name not in self._data["patched"].dims]
        if unknown:
            dims = ", ".join(map(str, self._data["patched"].dims))
            raise EffectsError(f"no dimension {unknown[0]!r} to select from; there are {dims}")
        try:
            data = self._data.sel(indexers)
        except (KeyError, TypeError, ValueError, IndexError, InvalidIndexError) as error:
            asked = ", ".join(f"{name}={value!r}" for name, value in indexers.items())
            there = "; ".join(f"{name} has {_shown(self._data[name])}" for name in indexers)
            raise EffectsError(f"nothing at {asked}: {there}") from error
        if "prompt" not in data.dims:
            data = data.expand_dims("prompt")
        if "prompt" in indexers and "n_prompts" in data.attrs:
            data = data.assign_attrs(n_prompts=data.sizes["prompt"])
        return Effects(data)

    @classmethod
    def concat(cls, parts: Iterable["Effects"], dim: str | None = None) -> "Effects":
        """Return effects that were measured in parts as one.

        Args:
            parts: What to join, in order.
            dim: The dimension along which the parts follow each other: a swept one, ``"prompt"``
                or ``"metric"``. Without one, parts are filled into one grid, each where it is not
                NaN.

        Raises:
            EffectsError: The parts overlap, or were measured on other prompts (their clean or
                corrupt values differ), or in another variant, mode, metric, model or source.

        Example:
            >>> part = {"clean": [4.0], "corrupt": [0.0]}
            >>> nine = Effects.from_arrays([[3.0]], **part, sweep={"layer": [9]})
            >>> ten = Effects.from_arrays([[5.0]], **part, sweep={"layer": [10]})
            >>> Effects.concat([nine, ten], "layer").normalized().values
            array([-0.25,  0.25])
        """
        found: Sequence[Effects] = collection("parts", parts, "Effects", EffectsError)
        if not found:
            raise EffectsError("nothing to join: there are no parts")
        for part in found:
            instance("a part", part, Effects, "as Experiment.patch returns", EffectsError)
        if dim is not None:
            text("dim", dim, EffectsError)
        data = [part.data for part in found]
        return cls(fill_in(data) if dim is None else join_along(data, dim))

    # -- files -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write everything to one JSON file that `load` gives back exactly; return its path.

        The file is written as a whole or not at all. `circuitgraph.effects.files` describes the
        format.

        Raises:
            EffectsError: There is no such folder, or something else under that name.
        """
        path = path_of(path, EffectsError)
        files.write(path, files.as_document(self._data))
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Effects":
        """Return the effects that `save` wrote.

        Raises:
            EffectsError: There is no such file, or it is not one of ours.
        """
        document, source = files.read(path_of(path, EffectsError), files.EFFECTS), repr(str(path))
        data = files.from_document(document, source)
        try:
            effects = cls(data)
        except EffectsError as error:
            raise EffectsError(f"{source} is damaged: {error}") from error
        files.check_intact(document, source)
        return effects

    # -- manners ---------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """Return whether all values, names and attributes are the same; NaN equals NaN."""
        if not isinstance(other, Effects):
            return NotImplemented
        return self._data.identical(other.data)

    __hash__ = None  # type: ignore[assignment]  # compared by value, and large

    def __reduce__(self) -> tuple[Any, ...]:
        return Effects, (self._data,)

    def __repr__(self) -> str:
        return display.effects_text(self)

    def _repr_html_(self) -> str:
        return display.effects_html(self)


def _array(name: str, values: Any) -> NDArray[Any]:
    """Return numbers as an array; ragged lists and other things have none."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EffectsError(f"{name} must be an array of numbers: {error}") from error


def _shown(coord: xr.DataArray) -> str:
    """Return a coordinate's values, the middle left out where they are many."""
    values: list[Hashable] = coord.to_numpy().tolist()
    few = values if len(values) <= 8 else [*values[:3], "...", values[-1]]
    return ", ".join(map(str, few))
