"""Effects from parts: a sweep that was run in pieces, put together and checked while doing so."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitgraph.effects.checks import PER_PROMPT, cell_dims, reading_problem
from circuitgraph.errors import EffectsError

__all__ = ["fill_in", "join_along"]

_MEANING = ("variant", "mode", "metric", "model", "source")
"""Attributes in which parts of one result cannot differ."""


def join_along(parts: Sequence[xr.Dataset], dim: str) -> xr.Dataset:
    """Return parts that follow each other along one dimension as one data set."""
    own_readings = dim in ("prompt", "metric")
    for number, part in enumerate(parts, start=1):
        if dim not in part["patched"].dims and not _is_scalar(part, dim):
            raise EffectsError(
                f"cannot join along {dim!r}: part {number} has the dimensions "
                f"({', '.join(map(str, part['patched'].dims))}) and no value of {dim!r}"
            )
        if not own_readings:
            _check_readings(parts[0], part, number)
    if dim == "prompt":
        parts = _numbered_on(parts)
    longer = [_stretched(part["patched"], dim) for part in parts]
    _check_steps(longer, dim)
    joined: dict[str, Any] = {"patched": _concatenated(longer, dim)}
    for name in _names(parts):
        if name == "patched":
            continue
        if not all(name in part.data_vars for part in parts):
            raise EffectsError(f"cannot join along {dim!r}: only some parts have {name!r}")
        arrays = [part[name] for part in parts]
        if own_readings and name in PER_PROMPT:
            joined[name] = _concatenated([_stretched(array, dim) for array in arrays], dim)
        elif dim in arrays[0].dims:
            joined[name] = _concatenated(arrays, dim)
        else:
            joined[name] = _common(arrays, name).drop_vars(dim, errors="ignore")
    attrs = _joined_attrs(parts, free="metric" if dim == "metric" else "")
    if dim == "prompt" and any("n_prompts" in part.attrs for part in parts):
        attrs["n_prompts"] = joined["patched"].sizes["prompt"]
    return xr.Dataset(joined, attrs=attrs)


def fill_in(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return parts that fill different cells of one grid as one data set."""
    first = parts[0]
    dims = cell_dims(first)
    for number, part in enumerate(parts, start=1):
        if set(cell_dims(part)) != set(dims):
            raise EffectsError(
                f"part {number} has the cell dimensions ({', '.join(cell_dims(part))}), "
                f"part 1 has ({', '.join(dims)})"
            )
        _check_readings(first, part, number)
        _check_scalars(first, part, number)
        if "metric" in dims and not first["metric"].equals(part["metric"]):
            raise EffectsError(f"part {number} has other metrics: join along 'metric' instead")
    steps = {dim: _union([part[dim].to_numpy() for part in parts]) for dim in dims}
    kind = np.result_type(*(part["patched"].dtype for part in parts))
    shape = (*(len(values) for values in steps.values()), first.sizes["prompt"])
    grid: NDArray[Any] = np.full(shape, np.nan, dtype=kind)
    for number, part in enumerate(parts, start=1):
        places = [_places(steps[dim], part[dim].to_numpy()) for dim in dims]
        window = np.ix_(*places, np.arange(shape[-1]))
        _place(grid, window, part["patched"].transpose(*dims, "prompt").to_numpy(), number)
    joined: dict[str, Any] = {"patched": ((*dims, "prompt"), grid)}
    for name in _names(parts):
        if name != "patched":
            arrays = [part[name] for part in parts if name in part.data_vars]
            joined[name] = _common(arrays, name)
    swept = {dim: values for dim, values in steps.items() if dim != "metric"}
    return xr.Dataset(joined, coords=swept, attrs=_joined_attrs(parts))


def _place(
    grid: NDArray[Any], window: tuple[NDArray[np.intp], ...], values: NDArray[Any], number: int
) -> None:
    """Fill a part into the grid, in place; a cell that is already filled must say the same."""
    before = grid[window]
    both = ~np.isnan(before) & ~np.isnan(values)
    if not np.allclose(before[both], values[both], rtol=1e-5, atol=1e-6):
        raise EffectsError(
            f"part {number} fills cells that an earlier part fills with other values "
            f"(up to {float(np.abs(before[both] - values[both]).max()):.3g} apart)"
        )
    grid[window] = np.where(np.isnan(before), values, before)


def _names(parts: Sequence[xr.Dataset]) -> list[str]:
    return list(dict.fromkeys(str(name) for part in parts for name in part.data_vars))


def _is_scalar(part: xr.Dataset, dim: str) -> bool:
    return dim in part.coords and part[dim].ndim == 0


def _stretched(array: xr.DataArray, dim: str) -> xr.DataArray:
    return array if dim in array.dims else array.expand_dims(dim)


def _concatenated(arrays: Sequence[xr.DataArray], dim: str) -> xr.DataArray:
    first = arrays[0]
    for number, array in enumerate(arrays, start=1):
        for other in first.dims:
            if other != dim and not (other in array.dims and first[other].equals(array[other])):
                raise EffectsError(
                    f"cannot join along {dim!r}: part {number} differs from part 1 in {other!r} too"
                )
    try:
        return xr.concat(arrays, dim, join="exact", coords="minimal", compat="equals")
    except ValueError as error:
        raise EffectsError(f"cannot join along {dim!r}: {error}") from error


def _common(arrays: Sequence[xr.DataArray], name: str) -> xr.DataArray:
    """Return what all parts share: the first's clean and corrupt, already found to agree."""
    if name == "noise":
        return functools.reduce(lambda one, other: one.where(one >= other, other), arrays)
    if name not in ("clean", "corrupt"):
        for number, array in enumerate(arrays, start=1):
            if not array.equals(arrays[0]):
                raise EffectsError(f"part {number} has other values of {name!r} than part 1")
    return arrays[0]


def _check_readings(first: xr.Dataset, part: xr.Dataset, number: int) -> None:
    if problem := reading_problem(first, part):
        raise EffectsError(
            f"part 1 and part {number} were not measured on the same prompts: {problem}"
        )


def _check_scalars(first: xr.Dataset, part: xr.Dataset, number: int) -> None:
    """Find single coordinates, left by a selection, in which a part lies elsewhere."""
    single = [
        {str(name): coord.item() for name, coord in data.coords.items() if coord.ndim == 0}
        for data in (first, part)
    ]
    for name in dict.fromkeys([*single[0], *single[1]]):
        one, other = (values.get(name, "none") for values in single)
        if one != other:
            raise EffectsError(
                f"part 1 and part {number} are cells of other grids: {name} is {one} against "
                f"{other}; Effects.concat(parts, {name!r}) joins them along it"
            )


def _check_steps(arrays: Sequence[xr.DataArray], dim: str) -> None:
    steps = [step for array in arrays for step in array[dim].to_numpy().tolist()]
    seen: set[Any] = set()
    for step in steps:
        if step in seen:
            raise EffectsError(
                f"cannot join along {dim!r}: more than one part has {dim} {step!r}; without a "
                "dimension, Effects.concat(parts) fills parts of one grid into each other"
            )
        seen.add(step)


def _numbered_on(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Return the parts with prompts numbered through, where each part counts its own from 0."""
    if not all(
        np.array_equal(part["prompt"].to_numpy(), np.arange(part.sizes["prompt"])) for part in parts
    ):
        return list(parts)
    starts = np.cumsum([0, *(part.sizes["prompt"] for part in parts)])
    return [
        part.assign_coords(prompt=np.arange(part.sizes["prompt"]) + start)
        for part, start in zip(parts, starts, strict=False)
    ]


def _union(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return all steps once: numbers in order, names in the order in which they come."""
    steps = dict.fromkeys(step for array in values for step in array.tolist())
    numbers = all(array.dtype.kind in "iuf" for array in values)
    return np.array(sorted(steps) if numbers else list(steps))


def _places(steps: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.intp]:
    place = {step: number for number, step in enumerate(steps.tolist())}
    return np.array([place[step] for step in wanted.tolist()], dtype=np.intp)


def _joined_attrs(parts: Sequence[xr.Dataset], free: str = "") -> dict[str, Any]:
    """Return what all parts say; requests that differ are listed, other differences dropped.

    Raises:
        EffectsError: The parts differ in what their numbers mean.
    """
    attrs: dict[str, Any] = {}
    for key in dict.fromkeys(str(key) for part in parts for key in part.attrs):
        said = [part.attrs.get(key) for part in parts]
        if all(value == said[0] for value in said):
            attrs[key] = said[0]
        elif key in _MEANING and key != free:
            other = next(n for n, value in enumerate(said, start=1) if value != said[0])
            raise EffectsError(
                f"part 1 and part {other} cannot be joined: {key} is {said[0]!r} "
                f"against {said[other - 1]!r}"
            )
        elif key == "request":
            attrs[key] = "; ".join(dict.fromkeys(str(value) for value in said))
    return attrs
