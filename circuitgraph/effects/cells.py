"""What the cells of a sweep are called: ``9.6``, ``mlp3``, ``9.6 -> 8.6.v``, ``9.6@S2``.

A cell is named by what was swept, and by nothing else: in ``head -> logits`` the cells are heads.
The names come from the coordinates; the text of the request, where it can be read, adds which port
the swept receivers are and which end of the path a swept position belongs to.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitgraph.effects.checks import cell_dims
from circuitgraph.errors import RequestError
from circuitgraph.request import EachPosition, Every, Joint, PathRequest, Term, parse
from circuitgraph.request.dims import swept_steps

__all__ = ["cell_columns", "cell_labels", "cell_names"]

_PART = re.compile(
    r"(?:(?P<end>receiver\d*)_)?(?P<part>layer|head|kv_head)"
    r"|(?P<listed>sender|receiver\d*)|position|metric|prompt"
)
"""The coordinates that say what was swept; others are shown beside the name."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One swept step of a path: how its coordinates begin, its port, whether positions are its."""

    prefix: str
    port: str = ""
    text: str = ""
    each_position: bool = False

    @property
    def dim(self) -> str:
        return f"{self.prefix}_" if self.prefix else ""

    @property
    def dims(self) -> tuple[str, ...]:
        """The coordinates that its name depends on."""
        parts = (f"{self.dim}{part}" for part in ("layer", "head", "kv_head"))
        return (self.prefix or "sender", *parts, *("position",) * self.each_position)

    def name(self, point: Mapping[str, Any]) -> str:
        """Return what the step is at one cell; nothing where it is the same in all cells."""
        port = f".{self.port}" if self.port else ""
        listed = self.prefix or "sender"
        layer = f"{self.dim}layer"
        if listed in point:
            name = str(point[listed])
        elif layer in point and f"{self.dim}head" in point:
            name = f"{point[layer]}.{point[f'{self.dim}head']}{port}"
        elif layer in point and f"{self.dim}kv_head" in point:
            name = f"{point[layer]}.kv{point[f'{self.dim}kv_head']}{port}"
        elif layer in point:
            name = f"mlp{point[layer]}"
        else:
            name = self.text if self.each_position else ""
        if self.each_position and "position" in point:
            return f"{name.replace('@each', '')}@{point['position']}"
        return name


def cell_names(data: xr.Dataset) -> xr.DataArray:
    """Return the name of every cell, over the cell dimensions but for ``metric``.

    What a step is called is found once for each of its own coordinates, and then joined.
    """
    dims = tuple(dim for dim in cell_dims(data) if dim != "metric")
    scalars = {
        str(name): coord.item()
        for name, coord in data.coords.items()
        if coord.ndim == 0 and name != "metric"
    }
    along = {dim: data[dim].to_numpy().tolist() for dim in dims}
    grid = _Names(scalars, along)
    steps = [grid.over(step.dims, step.name) for step in _steps(data)]
    parts = [names for names in steps if any(names.flat)]
    keys = [key for key in (*scalars, *dims) if not _PART.fullmatch(key)]
    others = [grid.over((key,), partial(_told, key)) for key in keys]
    names = _joined(parts, " -> ")
    if others:
        names = names + " [" + _joined(others, ", ") + "]"
    elif not parts:
        names = names + (str(data.attrs.get("request", "")) or "all")
    names = np.broadcast_to(names, tuple(map(len, along.values())))
    coords = {
        name: coord
        for name, coord in data.coords.items()
        if set(coord.dims) <= set(dims) and name != "prompt"
    }
    return xr.DataArray(names.astype(np.str_), dims=dims, coords=coords, name="name")


@dataclass(frozen=True, slots=True)
class _Names:
    """Texts over a grid, made along the dimensions that they depend on.

    Args:
        scalars: Coordinates that all cells have.
        along: The coordinates along each dimension.
    """

    scalars: Mapping[str, Any]
    along: Mapping[str, Sequence[Any]]

    def over(
        self, wanted: Sequence[str], name: Callable[[Mapping[str, Any]], str]
    ) -> NDArray[np.object_]:
        """Return a function of some coordinates, of length 1 along all other dimensions."""
        mine = [dim for dim in self.along if dim in wanted]
        points = product(*(self.along[dim] for dim in mine))
        found = [name({**self.scalars, **dict(zip(mine, at, strict=True))}) for at in points]
        lengths = [len(values) if dim in mine else 1 for dim, values in self.along.items()]
        return np.array(found, dtype=object).reshape(lengths)


def _told(key: str, point: Mapping[str, Any]) -> str:
    return f"{key} {point[key]}"


def _joined(texts: Sequence[NDArray[np.object_]], between: str) -> NDArray[np.object_]:
    """Return texts one after the other, cell by cell."""
    found = texts[0] if texts else np.array("", dtype=object)
    for more in texts[1:]:
        found = found + between + more
    return found


def cell_labels(data: xr.Dataset) -> NDArray[np.str_]:
    """Return one text per cell, flat and in order, that tells metrics apart as well."""
    names = cell_names(data).to_numpy().ravel()
    if "metric" not in cell_dims(data):
        return names
    labels = [f"{name} ({metric})" for metric in data["metric"].to_numpy() for name in names]
    return np.array(labels, dtype=np.str_)


def cell_columns(data: xr.Dataset) -> dict[str, NDArray[Any]]:
    """Return the name and the coordinates of every cell as flat columns of equal length."""
    dims = cell_dims(data)
    shape = tuple(data.sizes[dim] for dim in dims)
    names = cell_names(data).to_numpy()
    columns: dict[str, NDArray[Any]] = {"name": np.broadcast_to(names, shape).ravel()}
    for axis, dim in enumerate(dims):
        at = [1] * len(dims)
        at[axis] = -1
        columns[dim] = np.broadcast_to(data[dim].to_numpy().reshape(at), shape).ravel()
    return columns


def _steps(data: xr.Dataset) -> list[_Step]:
    """Return the steps that may have been swept, in the order of the path."""
    parts = [found for name in data.coords if (found := _PART.fullmatch(str(name)))]
    ends = {
        found["end"] or found["listed"] or "" for found in parts if found["part"] or found["listed"]
    }
    prefixes = {"" if end == "sender" else end for end in ends}
    try:
        request = parse(str(data.attrs.get("request", "")))
    except RequestError:
        request = None
    if isinstance(request, PathRequest):
        steps = _steps_of(request.steps)
        if prefixes <= {step.prefix for step in steps}:
            return steps
    first = min(prefixes, default="")
    return [
        _Step(prefix, each_position="position" in data.coords and prefix == first)
        for prefix in sorted(prefixes | {first})
    ]


def _steps_of(terms: tuple[Term, ...]) -> list[_Step]:
    """Return the steps of a request, with the prefixes of their dimensions."""
    steps = []
    for step in swept_steps(terms):
        port = (step.term.port or "") if isinstance(step.term, Every) else ""
        steps.append(_Step(step.prefix, port, str(step.term), _each(step.term)))
    return [
        step
        for step, term in zip(steps, terms, strict=True)
        if step.each_position or not isinstance(term, Joint)
    ]


def _each(term: Term) -> bool:
    """Return whether a step is swept over positions."""
    match term:
        case Every(at=at):
            return isinstance(at, EachPosition)
        case Joint(sites=sites):
            return any(isinstance(site.at, EachPosition) for site in sites)
        case _:
            return any(
                isinstance(site.at, EachPosition) for item in term.items for site in item.sites
            )
