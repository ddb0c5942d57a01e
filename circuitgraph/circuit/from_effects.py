"""From effects to a circuit: which edges each cell of a sweep patched, and how much that changed.

The request's text says what the steps of the path are, the coordinates of a cell say which of the
swept nodes and ports it patched; both are read by the rules that the compiler laid it out by.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circuitgraph.arguments import flag, instance, number, whole
from circuitgraph.circuit.attrs import PROVENANCE
from circuitgraph.circuit.circuit import Circuit
from circuitgraph.circuit.storage import read_shape
from circuitgraph.circuit.weights import Weight
from circuitgraph.compiler.grid import Path
from circuitgraph.compiler.layout import edge_set, receivers_of, senders_of
from circuitgraph.effects import Effects
from circuitgraph.effects.statistics import Measurement
from circuitgraph.errors import CircuitError, NodeError, RequestError
from circuitgraph.files import parse_json
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import Edge
from circuitgraph.request import EdgesRequest, PathRequest, Request, Site, parse
from circuitgraph.request.dims import SweptStep, swept_steps

__all__ = ["cells_of_edges", "circuit_from_effects", "edges_of_cells", "scored_edges"]

Point = Mapping[str, Any]
"""The coordinates of one cell."""

Patched = TypeVar("Patched")


def circuit_from_effects(
    effects: Effects,
    *,
    threshold: float | None = None,
    top: int | None = None,
    significant_only: bool = False,
    shape: ModelShape | None = None,
) -> Circuit:
    """Return the circuit of the edges whose patching changes the metric most.

    See `Circuit.from_effects`.
    """
    if top is not None:
        top = whole("top", top, CircuitError, 0)
    if threshold is not None:
        threshold = number("threshold", threshold, CircuitError)
    flag("significant_only", significant_only, CircuitError)
    graph, cells = cells_of_edges(effects, shape)
    flat = effects.normalized().to_numpy().ravel()
    chosen = set(cells)
    if significant_only:
        stands_out = _stands_out(effects)
        chosen = {edge for edge in chosen if stands_out[cells[edge]]}
    if threshold is not None:
        chosen = {edge for edge in chosen if abs(flat[cells[edge]]) >= threshold}
    if top is not None:
        ranked = sorted(chosen, key=lambda edge: (-abs(flat[cells[edge]]), edge))
        chosen = set(ranked[:top])
    known = {edge: Weight(float(flat[cell])) for edge, cell in cells.items()}
    known |= _with_intervals(effects, {edge: cells[edge] for edge in chosen}, flat)
    attrs = {key: effects.attrs[key] for key in PROVENANCE if key in effects.attrs}
    if "estimate" in attrs:
        attrs["estimate"] = str(effects.attrs.get("engine", "a gradient"))
    attrs |= {"quantity": "effect", "helps": "negative"}
    return Circuit(graph.shape, known, frozenset(chosen), {}, attrs)


def _stands_out(effects: Effects) -> NDArray[np.bool_]:
    """Return which cells are significant after the correction, with an interval without zero."""
    significant = effects.measure(Measurement(), only=np.array([], dtype=np.intp)).significant
    found = effects.measure(Measurement(), only=np.flatnonzero(significant))
    return significant & ((found.ci_low > 0) | (found.ci_high < 0))


def cells_of_edges(
    effects: Effects, shape: ModelShape | None = None
) -> tuple[ModelGraph, dict[Edge, int]]:
    """Return the graph, and for every edge that was patched the flat number of its strongest cell.

    Raises:
        CircuitError: Effects of several metrics, of no single edges, or without shape or request.
    """
    instance("effects", effects, Effects, "as Experiment.patch returns", CircuitError)
    if "metric" in effects.dims:
        names = ", ".join(map(str, effects.data["metric"].to_numpy().tolist()))
        raise CircuitError(
            f"these effects are of several metrics ({names}): choose one, effects.sel(metric=...)"
        )
    if shape is not None:
        instance("shape", shape, ModelShape, "cg.ModelShape(12, 12)", CircuitError)
    graph = ModelGraph(_shape(effects) if shape is None else shape)
    request = _request(effects)
    values = effects.normalized()
    cells = _strongest_cells(edges_of_cells(graph, request, values), values.to_numpy().ravel())
    if not cells:
        raise CircuitError(
            f"the request {str(request)!r} patches no single edges: it patches what nodes write, "
            "with everything downstream recomputed. Ask for edges, such as 'head -> logits'"
        )
    return graph, cells


def scored_edges(effects: Effects) -> tuple[ModelShape, dict[Edge, float]]:
    """Return the model's shape and the normalised effect of every edge that was patched.

    Raises:
        CircuitError: As for `cells_of_edges`.
    """
    graph, cells = cells_of_edges(effects)
    flat = effects.normalized().to_numpy().ravel()
    return graph.shape, {edge: float(flat[cell]) for edge, cell in cells.items()}


def edges_of_cells(
    graph: ModelGraph, request: Request, values: xr.DataArray
) -> Iterator[tuple[int, tuple[Edge, ...]]]:
    """Yield the number of every filled cell, counted flat, with the edges that it patched.

    Args:
        graph: The model's graph.
        request: What was asked.
        values: Effects over the swept dimensions; empty cells are NaN.
    """
    match request:
        case EdgesRequest():
            yield 0, edge_set(graph, request).edges(graph)
        case PathRequest():
            first, *rest = swept_steps(request.steps)
            senders = _reader(first, senders_of)
            receivers = [_reader(step, partial(receivers_of, graph)) for step in rest]
            for cell, point in _points(values):
                hops = tuple(read(point) for read in receivers)
                yield cell, Path(senders(point), hops, request.recompute).edges(graph)
        case _:
            raise CircuitError(f"cannot read edges from the request {request!r}")


def _points(values: xr.DataArray) -> Iterator[tuple[int, Point]]:
    """Yield the number and the coordinates of every filled cell."""
    dims = [str(dim) for dim in values.dims]
    along = [values[dim].to_numpy().tolist() for dim in dims]
    alone = {str(name): coord.item() for name, coord in values.coords.items() if coord.ndim == 0}
    array = values.to_numpy()
    for cell, index in enumerate(np.ndindex(*array.shape)):
        if np.isfinite(array[index]):
            at = {dim: along[axis][index[axis]] for axis, dim in enumerate(dims)}
            yield cell, alone | at


def _reader(
    step: SweptStep, patched: Callable[[tuple[Site, ...]], Patched]
) -> Callable[[Point], Patched]:
    """Return a function from a cell's coordinates to what one step of it patches."""

    @cache
    def read(at: tuple[int | str, ...]) -> Patched:
        try:
            return patched(step.sites(at))
        except RequestError:
            raise CircuitError(
                f"the effects have a cell {at[0]!r}, but their request lists "
                f"{', '.join(step.listed)}"
            ) from None
        except NodeError as error:
            raise CircuitError(f"the effects have a cell that is none: {error}") from None

    return lambda point: read(tuple(_at(point, dim) for dim in step.dims))


def _at(point: Point, name: str) -> Any:
    if name not in point:
        raise CircuitError(
            f"the effects have no coordinate {name!r}, which their request sweeps over: "
            "were they averaged or cut by hand?"
        )
    return point[name]


# -- what the effects carry ------------------------------------------------------------------------


def _shape(effects: Effects) -> ModelShape:
    text = effects.attrs.get("shape")
    if text is None:
        raise CircuitError(
            "these effects do not say which model they are of: give shape=ModelShape(...)"
        )
    try:
        return read_shape(parse_json(text) if isinstance(text, str) else text)
    except (ValueError, TypeError, AttributeError) as error:
        raise CircuitError(f"cannot read the model's shape from {text!r}: {error}") from None


def _request(effects: Effects) -> Request:
    text = effects.attrs.get("request")
    if not text:
        raise CircuitError("these effects do not say what was patched: they have no request")
    try:
        return parse(str(text))
    except (RequestError, NodeError) as error:
        raise CircuitError(f"cannot tell which edges were patched: {error}") from None


def _strongest_cells(
    cells: Iterator[tuple[int, tuple[Edge, ...]]], flat: NDArray[np.float64]
) -> dict[Edge, int]:
    """Return for every edge the cell that says most about it."""
    found: dict[Edge, int] = {}
    for cell, edges in cells:
        for edge in edges:
            if edge not in found or abs(flat[cell]) > abs(flat[found[edge]]):
                found[edge] = cell
    return found


def _with_intervals(
    effects: Effects, cells: Mapping[Edge, int], flat: NDArray[np.float64]
) -> dict[Edge, Weight]:
    """Return the weights of some edges with their intervals, where there are prompts for that."""
    if effects.n_prompts < 2 or not cells:
        return {edge: Weight(float(flat[cell])) for edge, cell in cells.items()}
    asked = np.unique(np.fromiter(cells.values(), dtype=np.intp))
    measured = effects.measure(Measurement(), only=asked)
    weights = {}
    for edge, cell in cells.items():
        low, high = float(measured.ci_low[cell]), float(measured.ci_high[cell])
        there = np.isfinite(low) and np.isfinite(high)
        weights[edge] = Weight(float(flat[cell]), low if there else None, high if there else None)
    return weights
