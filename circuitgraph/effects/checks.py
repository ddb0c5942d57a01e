"""Whether a data set is what effects are made of, and whether two of them can be set side by side.

`canonical` is the one door: behind it dimensions have one order, arrays cannot be written to, every
swept dimension has a coordinate, and a cell is either filled for every prompt or empty.
"""

import json
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitgraph.errors import EffectsError, Problems

__all__ = ["PER_PROMPT", "canonical", "cell_dims", "precision", "reading_problem"]

READINGS = ("patched", "clean", "corrupt")
PER_PROMPT = ("clean", "corrupt", "noise")
"""Numbers of each prompt, the same in all cells; `noise` may be missing."""


def cell_dims(data: xr.Dataset) -> tuple[str, ...]:
    """Return the dimensions of the cells: those of ``patched`` but for ``prompt``."""
    return tuple(str(dim) for dim in data["patched"].dims if dim != "prompt")


def canonical(data: xr.Dataset) -> xr.Dataset:
    """Return the data in the one form that `Effects` holds; the input is left alone.

    Dimensions are ordered metric, swept ones, prompt; arrays are copied and cannot be written to;
    numbers of the readings are float32 or float64; texts are NumPy strings; prompts are numbered
    where they have no coordinate.

    Raises:
        EffectsError: What is missing or wrong, all of it at once.
    """
    problems = Problems()
    _check_layout(data, problems)
    problems.raise_if_any("these are not effects")
    variables = {str(name): _variable(data, name, problems) for name in data.data_vars}
    coords = {str(name): _variable(data, name, problems) for name in data.coords}
    coords.setdefault("prompt", (("prompt",), np.arange(data.sizes["prompt"]), {}))
    _check_coords(data, problems)
    attrs = _plain_attrs(data.attrs, problems)
    problems.raise_if_any("these are not effects")
    _check_numbers(variables, problems)
    problems.raise_if_any("these are not effects")
    for _, array, _ in (*variables.values(), *coords.values()):
        array.flags.writeable = False
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def precision(*arrays: NDArray[Any]) -> float:
    """Return the rounding step of the numbers: float32's where all of them fit into a float32.

    So float32 results that were widened to float64 are still read as what they are.
    """
    step = max(float(np.finfo(array.dtype).eps) for array in arrays)
    single = float(np.finfo(np.float32).eps)
    if step >= single:
        return step
    with np.errstate(over="ignore"):
        narrow = all(
            np.array_equal(array.astype(np.float32), array, equal_nan=True) for array in arrays
        )
    return single if narrow else step


def reading_problem(one: xr.Dataset, other: xr.Dataset, at_least: float = 0.0) -> str | None:
    """Return how the clean and corrupt readings of two data sets differ, or None where they agree.

    They may differ by what rounding explains: 1e-4 of the largest value where the numbers carry
    float32 precision, 1e-8 otherwise.

    Args:
        one: A data set.
        other: Another.
        at_least: What they may differ by in any case, relative to the largest value.
    """
    if one.sizes["prompt"] != other.sizes["prompt"]:
        return f"{one.sizes['prompt']} prompts against {other.sizes['prompt']}"
    for name in ("clean", "corrupt"):
        first, second = one[name], other[name]
        if first.dims != second.dims or first.shape != second.shape:
            return f"{name} has dimensions {dict(first.sizes)} against {dict(second.sizes)}"
        a, b = first.to_numpy().astype(np.float64), second.to_numpy().astype(np.float64)
        coarse = precision(first.to_numpy(), second.to_numpy()) > 1e-10
        scale = max(float(np.abs(a).max()), float(np.abs(b).max()))
        apart = np.abs(a - b)
        if float(apart.max()) > max(at_least, 1e-4 if coarse else 1e-8) * scale:
            at = np.unravel_index(int(apart.argmax()), apart.shape)
            prompt = first["prompt"].to_numpy()[at[-1]] if "prompt" in first.coords else at[-1]
            return f"{name} is {a[at]:.6g} against {b[at]:.6g} on prompt {prompt}"
    return None


def _check_layout(data: Any, problems: Problems) -> None:
    """Find readings that are missing and dimensions that do not fit together."""
    if not isinstance(data, xr.Dataset):
        problems.add(EffectsError(f"they are an xarray.Dataset, got {type(data).__name__}"))
        return
    missing = [name for name in READINGS if name not in data.data_vars]
    if missing:
        found = ", ".join(map(str, data.data_vars)) or "nothing"
        problems.add(
            EffectsError(
                f"the variable{'s' * (len(missing) > 1)} {', '.join(missing)} "
                f"{'are' if len(missing) > 1 else 'is'} missing; the data set has {found}"
            )
        )
        return
    metric = ("metric",) if "metric" in data["patched"].dims else ()
    for name in ("clean", "corrupt", *(("noise",) if "noise" in data.data_vars else ())):
        if set(data[name].dims) != {*metric, "prompt"} or len(data[name].dims) != len(metric) + 1:
            problems.add(
                EffectsError(
                    f"{name} must have the dimensions ({', '.join((*metric, 'prompt'))}), "
                    f"got ({', '.join(map(str, data[name].dims))})"
                )
            )
    if "prompt" not in data["patched"].dims:
        problems.add(
            EffectsError(
                "patched must have a dimension prompt, got "
                f"({', '.join(map(str, data['patched'].dims))})"
            )
        )
    for dim, size in data.sizes.items():
        if size == 0:
            problems.add(EffectsError(f"the dimension {dim} is empty"))
    for dim in data["patched"].dims:
        if dim != "prompt" and dim not in data.coords:
            problems.add(
                EffectsError(f"the swept dimension {dim} has no coordinate that names its cells")
            )


def _check_coords(data: xr.Dataset, problems: Problems) -> None:
    """Find coordinates that do not name each step of their dimension, or not as a node's parts."""
    for name, index in data.indexes.items():
        if not index.is_unique:
            twice = index[index.duplicated()][0]
            problems.add(EffectsError(f"the coordinate {name} holds {twice} more than once"))
    for name, coord in data.coords.items():
        if str(name).endswith(("layer", "head")) and coord.dtype.kind not in "iu":
            problems.add(
                EffectsError(f"the coordinate {name} must hold integers, got {coord.dtype}")
            )


def _variable(
    data: xr.Dataset, name: Hashable, problems: Problems
) -> tuple[tuple[str, ...], NDArray[Any], dict[str, Any]]:
    """Return one variable or coordinate as dimensions, a fresh array and attributes."""
    variable = data[name].variable
    if name in (*READINGS, "noise"):
        order = [dim for dim in ("metric",) if dim in variable.dims]
        order += [str(dim) for dim in variable.dims if dim not in ("metric", "prompt")]
        variable = variable.transpose(*order, "prompt")
    array = np.array(variable.to_numpy())
    if name in (*READINGS, "noise") and array.dtype not in (np.float32, np.float64):
        if array.dtype.kind in "iu":
            array = array.astype(np.float64)
        elif array.dtype == np.float16:
            array = array.astype(np.float32)
        else:
            problems.add(EffectsError(f"{name} must hold real numbers, got {array.dtype}"))
    elif array.dtype.kind in "OUT":
        if all(isinstance(value, str) for value in array.ravel().tolist()):
            array = array.astype(np.str_)
        else:
            problems.add(EffectsError(f"{name} must hold numbers or texts, not a mixture"))
    elif array.dtype.kind not in "biuf":
        problems.add(EffectsError(f"{name} must hold numbers or texts, got {array.dtype}"))
    dims = tuple(map(str, variable.dims))
    return dims, array, _plain_attrs(variable.attrs, problems)


def _check_numbers(
    variables: Mapping[str, tuple[tuple[str, ...], NDArray[Any], dict[str, Any]]],
    problems: Problems,
) -> None:
    """Find readings that are no numbers, and cells that only some prompts fill."""
    for name, (_, array, _) in variables.items():
        if array.dtype.kind == "f" and bool(np.isinf(array).any()):
            problems.add(EffectsError(f"{name} holds infinite values"))
        if name in PER_PROMPT and bool(np.isnan(array).any()):
            prompt = int(np.isnan(array).any(axis=tuple(range(array.ndim - 1))).argmax())
            problems.add(EffectsError(f"{name} is not a number on prompt {prompt}"))
        if name == "noise" and bool((array < 0).any()):
            problems.add(EffectsError("noise must not be negative: it is a size"))
    dims, patched, _ = variables["patched"]
    empty = np.isnan(patched)
    partly = empty.any(axis=-1) & ~empty.all(axis=-1)
    if bool(partly.any()):
        where = np.unravel_index(int(partly.argmax()), partly.shape)
        at = ", ".join(f"{dim} {place}" for dim, place in zip(dims, where, strict=False))
        problems.add(
            EffectsError(
                "a cell is filled for every prompt or for none, but patched is not a number "
                f"on {int(empty[where].sum())} of {patched.shape[-1]} prompts"
                + (f" at index {at}" if at else "")
            )
        )


def _plain_attrs(attrs: Mapping[Any, Any], problems: Problems) -> dict[str, Any]:
    """Return attributes as what JSON can hold, so that a file gives back what went in."""
    plain: dict[str, Any] = {}
    for key, value in attrs.items():
        if not isinstance(key, str):
            problems.add(EffectsError(f"the attribute {key!r} must be named by a text"))
            continue
        try:
            plain[key] = json.loads(json.dumps(value, default=_plain_value, allow_nan=False))
        except (TypeError, ValueError):
            problems.add(
                EffectsError(
                    f"the attribute {key!r} must be a text, a finite number, true, false, None "
                    f"or a list of these, got {value!r}"
                )
            )
    return plain


def _plain_value(value: object) -> Any:
    match value:
        case np.generic():
            return value.item()
        case np.ndarray():
            return value.tolist()
        case _:
            raise TypeError(type(value).__name__)
