"""The grid of cells: a request's sweeps written out, each cell with what is patched together.

Here key-value heads become the ports of their query heads, ``@each`` becomes one position per cell,
and a node that stands at several positions becomes one sender or receiver at all of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Literal, NamedTuple, TypeVar, assert_never

from circuitgraph.compiler.grid import Candidate, EdgeSet, Grid, Hop, Path, Receiver, Sender
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Embed, Head, Port, Writer
from circuitgraph.plan import Axis
from circuitgraph.request import (
    EachPosition,
    EdgesRequest,
    Every,
    Joint,
    KVPort,
    PathRequest,
    Positions,
    Request,
    Site,
    Sweep,
    Term,
)
from circuitgraph.request.terms import sites_of

__all__ = ["has_each", "lay_out", "ports_at", "receivers_at", "senders_at", "writer_at"]

What = TypeVar("What", Writer, Port)


def lay_out(graph: ModelGraph, request: Request, n_positions: int | None = None) -> Grid:
    """Return the swept dimensions and every cell of their grid, possible or not.

    Args:
        graph: The model's graph, on which the request was checked.
        request: What is asked.
        n_positions: Length of the prompts, where positions are swept.
    """
    match request:
        case EdgesRequest():
            return Grid((), (Candidate((), (str(request),), _edge_set(graph, request)),))
        case PathRequest():
            return _path_grid(graph, request, n_positions)
        case _:
            raise AssertionError(f"{request!r} was not checked")


# -- paths -----------------------------------------------------------------------------------------


class _Item(NamedTuple):
    """One place of a step's own grid, and the sites that are patched together there."""

    at: tuple[int, ...]
    sites: tuple[Site, ...]


def _path_grid(graph: ModelGraph, request: PathRequest, n_positions: int | None) -> Grid:
    steps = request.steps
    expanded = [_expand(graph, *named) for named in zip(steps, _prefixes(steps), strict=True)]
    axes = [axis for step_axes, _ in expanded for axis in step_axes]
    positions: Sequence[int | None] = (None,)
    if any(has_each(step) for step in steps):
        assert n_positions is not None, "a sweep over positions was checked"
        positions = range(n_positions)
        axes.append(Axis("position", tuple(range(n_positions))))

    # The same few joint sets stand in cell after cell.
    place, text = cache(_at_position), cache(lambda sites: str(Joint(sites)))
    senders, receivers = cache(_senders), cache(partial(_receivers, graph))

    def candidate(chosen: tuple[_Item, ...], position: int | None) -> Candidate:
        index = tuple(at for item in chosen for at in item.at)
        sites = [place(item.sites, position) for item in chosen]
        path = Path(senders(sites[0]), tuple(map(receivers, sites[1:])), request.recompute)
        places = index if position is None else (*index, position)
        return Candidate(places, tuple(map(text, sites)), path)

    cells = product(product(*(items for _, items in expanded)), positions)
    return Grid(tuple(axes), tuple(candidate(*cell) for cell in cells))


def _prefixes(steps: Sequence[Term]) -> list[str]:
    """Return what stands before the dimension names of each step: nothing for the senders."""
    swept = [step for step in steps[1:] if not isinstance(step, Joint)]
    numbered = [f"receiver{number}" for number in range(1, len(steps))]
    return ["", *(numbered if len(swept) > 1 else ["receiver"] * (len(steps) - 1))]


def _expand(graph: ModelGraph, term: Term, prefix: str) -> tuple[list[Axis], list[_Item]]:
    """Return a step's dimensions and the places in their grid."""
    match term:
        case Joint(sites=sites):
            return [], [_Item((), sites)]
        case Sweep(items=items):
            axis = Axis(prefix or "sender", tuple(map(str, items)))
            return [axis], [_Item((at,), item.sites) for at, item in enumerate(items)]
        case Every():
            return _everything(graph, term, prefix)
        case _:
            assert_never(term)


def _everything(graph: ModelGraph, term: Every, prefix: str) -> tuple[list[Axis], list[_Item]]:
    """Return the dimensions of a sweep over everything of a kind, and the places in their grid."""
    dim = f"{prefix}_" if prefix else ""
    layers = Axis(f"{dim}layer", tuple(range(graph.shape.n_layers)))
    found: Sequence[Writer | Port | KVPort]
    match term.kind:
        case "head":
            port = term.port
            found = [getattr(head, port) for head in graph.heads] if port else graph.heads
            axes = [layers, Axis(f"{dim}head", tuple(range(graph.shape.n_heads)))]
        case "kv":
            kv_heads = range(graph.shape.kv_heads)
            kind: Literal["k", "v"] = "k" if term.port == "k" else "v"
            both = product(range(graph.shape.n_layers), kv_heads)
            found = [KVPort(layer, kv_head, kind) for layer, kv_head in both]
            axes = [layers, Axis(f"{dim}kv_head", tuple(kv_heads))]
        case "mlp":
            found = [mlp.port for mlp in graph.mlps] if prefix else graph.mlps
            axes = [Axis(f"{dim}layer", tuple(mlp.layer for mlp in graph.mlps))]
        case "node" | "port":
            found = graph.writers if term.kind == "node" else graph.ports
            axes = [Axis(prefix or "sender", tuple(map(str, found)))]
        case _:
            assert_never(term.kind)
    places = product(*(range(len(axis.values)) for axis in axes))
    sites = [(Site(what, term.at),) for what in found]
    return axes, [_Item(*item) for item in zip(places, sites, strict=True)]


def _at_position(sites: tuple[Site, ...], position: int | None) -> tuple[Site, ...]:
    """Return sites with ``@each`` as one position."""
    if position is None:
        return sites
    return tuple(
        replace(site, at=(position,)) if isinstance(site.at, EachPosition) else site
        for site in sites
    )


def has_each(term: Term) -> bool:
    """Return whether a step of a path sweeps over positions."""
    sites = (term,) if isinstance(term, Every) else sites_of(term)
    return any(isinstance(site.at, EachPosition) for site in sites)


# -- lists of edges --------------------------------------------------------------------------------


def _edge_set(graph: ModelGraph, request: EdgesRequest) -> EdgeSet:
    """Return receivers grouped by equal sets of senders, since those share a sender run."""
    heard: dict[Receiver, list[Site]] = {}
    for edge in request.edges:
        for port in ports_at(graph, edge.receiver):
            heard.setdefault(Receiver(port, edge.receiver.at), []).append(edge.sender)
    groups: dict[frozenset[Sender], list[Receiver]] = {}
    for receiver, sites in heard.items():
        groups.setdefault(frozenset(_senders(tuple(sites))), []).append(receiver)
    return EdgeSet(
        tuple(
            Hop(tuple(sorted(senders, key=lambda sender: sender.node)), tuple(receivers))
            for senders, receivers in groups.items()
        )
    )


# -- from sites to senders and receivers -----------------------------------------------------------


def writer_at(site: Site) -> Writer:
    """Return the node that a sender's site means."""
    assert isinstance(site.what, Embed | Head | MLP), "a request has senders in their place"
    return site.what


def ports_at(graph: ModelGraph, site: Site) -> tuple[Port, ...]:
    """Return the ports that a receiver's site means; a key-value head has several."""
    if isinstance(site.what, KVPort):
        heads = graph.shape.heads_of_group(site.what.kv_head)
        return tuple(Port(Head(site.what.layer, head), site.what.name) for head in heads)
    assert isinstance(site.what, Port), "a request has receivers in their place"
    return (site.what,)


def senders_at(sites: Iterable[Site]) -> dict[Writer, list[Positions]]:
    """Return the senders that sites mean, each with its distinct positions."""
    return _positions_of((writer_at(site), site.at) for site in sites)


def receivers_at(graph: ModelGraph, sites: Iterable[Site]) -> dict[Port, list[Positions]]:
    """Return the ports that sites mean, each with its distinct positions."""
    return _positions_of((port, site.at) for site in sites for port in ports_at(graph, site))


def _positions_of(named: Iterable[tuple[What, Positions]]) -> dict[What, list[Positions]]:
    found: dict[What, dict[Positions, None]] = {}
    for what, at in named:
        found.setdefault(what, {})[at] = None
    return {what: list(positions) for what, positions in found.items()}


def _senders(sites: tuple[Site, ...]) -> tuple[Sender, ...]:
    return tuple(Sender(node, _joined(at)) for node, at in senders_at(sites).items())


def _receivers(graph: ModelGraph, sites: tuple[Site, ...]) -> tuple[Receiver, ...]:
    return tuple(Receiver(port, _joined(at)) for port, at in receivers_at(graph, sites).items())


def _joined(positions: list[Positions]) -> Positions:
    """Return all positions at which one node is patched; several sites name some each."""
    if len(positions) == 1:
        return positions[0]
    places = [place for at in positions if isinstance(at, tuple) for place in at]
    return tuple(dict.fromkeys(places))
