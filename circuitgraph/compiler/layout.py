"""The grid of cells: a product of what each step sweeps over, and what a cell patches together.

Here key-value heads become the ports of their query heads, ``@each`` becomes one position per cell,
and a node that stands at several positions becomes one sender or receiver at all of them.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, partial
from itertools import accumulate, product
from typing import TYPE_CHECKING, Any, TypeVar

from circuitgraph.compiler.grid import EdgeSet, Hop, Path, Receiver, Sender
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Embed, Head, Logits, Port, Writer
from circuitgraph.plan import Axis
from circuitgraph.request import (
    EachPosition,
    EdgesRequest,
    Every,
    Joint,
    KVPort,
    PathRequest,
    Positions,
    Site,
    SiteEdge,
    Sweep,
    Term,
)
from circuitgraph.request.dims import SweptStep, swept_steps
from circuitgraph.request.terms import sites_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "PathGrid",
    "edge_set",
    "has_each",
    "lay_out",
    "ports_at",
    "receivers_at",
    "receivers_of",
    "senders_at",
    "senders_of",
    "writer_at",
]

What = TypeVar("What", Writer, Port)


def lay_out(graph: ModelGraph, request: PathRequest, n_positions: int | None = None) -> "PathGrid":
    """Return the swept dimensions and the cells of their grid, possible or not; none is made.

    Args:
        graph: The model's graph, on which the request was checked.
        request: What is asked.
        n_positions: Length of the prompts, where positions are swept.

    Example:
        >>> from circuitgraph.graph import ModelShape
        >>> from circuitgraph.request import parse
        >>> grid = lay_out(ModelGraph(ModelShape(12, 12)), parse("node -> port => logits"))
        >>> [str(axis) for axis in grid.axes], len(grid)
        (['sender (157)', 'receiver (445)'], 32491)
    """
    each = any(has_each(step) for step in request.steps)
    return PathGrid(graph, request, n_positions if each else None)


# -- paths -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepGrid:
    """One step of a path: its own grid, and what is patched together at each place of it.

    Args:
        axes: Its dimensions.
        items: The sites at each place, in order.
        writes: By place, the last point at which something writes; beyond all for the logits.
        reads: By place, the last point at which something reads; -1 for senders.
    """

    axes: tuple[Axis, ...]
    items: tuple[tuple[Site, ...], ...]
    writes: tuple[int, ...]
    reads: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each of its dimensions."""
        return tuple(len(axis.values) for axis in self.axes)

    def place(self, item: int) -> tuple[int, ...]:
        """Return where an item stands."""
        found = []
        for length in reversed(self.shape):
            item, at = divmod(item, length)
            found.append(at)
        return tuple(reversed(found))


@dataclass(frozen=True)
class PathGrid:
    """The grid of a path: a product of its steps, and of positions where these are swept.

    A cell is possible where every step can be heard by the next one: something of it writes no
    later than something of the next one reads. That is a matter of neighbours, so cells are counted
    and numbered without being written down.

    Args:
        graph: The model's graph.
        request: What is asked.
        n_positions: How many positions are swept; None where none are.
    """

    graph: ModelGraph
    request: PathRequest
    n_positions: int | None

    @cached_property
    def swept(self) -> tuple[SweptStep, ...]:
        """What the dimensions of each step are called."""
        return swept_steps(self.request.steps)

    @cached_property
    def steps(self) -> tuple[StepGrid, ...]:
        """The grid of each step."""
        return tuple(self._step(step, number > 0) for number, step in enumerate(self.swept))

    def _step(self, step: SweptStep, receives: bool) -> StepGrid:
        values = _values(self.graph, step.term)
        items = tuple(step.sites(at) for at in product(*values))
        points = [self._points(sites, receives) for sites in items]
        axes = tuple(Axis(dim, along) for dim, along in zip(step.dims, values, strict=True))
        return StepGrid(axes, items, *zip(*points, strict=True))

    def _points(self, sites: tuple[Site, ...], receives: bool) -> tuple[int, int]:
        graph = self.graph
        if not receives:
            return max(graph.writes_at(writer_at(site)) for site in sites), -1
        ports = [port for site in sites for port in ports_at(graph, site)]
        nodes = [port.node for port in ports]
        never = graph.reads_at(Logits().port) + 1
        writes = (never if isinstance(node, Logits) else graph.writes_at(node) for node in nodes)
        return max(writes), max(map(graph.reads_at, ports))

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The swept dimensions, in order."""
        axes = tuple(axis for step in self.steps for axis in step.axes)
        if self.n_positions is None:
            return axes
        return (*axes, Axis("position", tuple(range(self.n_positions))))

    @property
    def positions(self) -> tuple[int | None, ...]:
        """The swept positions; None alone where none are."""
        return (None,) if self.n_positions is None else tuple(range(self.n_positions))

    # -- which cells are possible ---------------------------------------------------------------

    def fits(self, step: int, item: int, following: int) -> bool:
        """Return whether an item of a step is heard by one of the next step."""
        return self.steps[step].writes[item] <= self.steps[step + 1].reads[following]

    @cached_property
    def ways_on(self) -> tuple[tuple[int, ...], ...]:
        """By step and item, in how many ways a path can go on from there."""
        found = [(1,) * len(self.steps[-1].items)]
        for step in reversed(range(len(self.steps) - 1)):
            heard = cache(partial(self._ways_heard, self.steps[step + 1].reads, found[0]))
            found.insert(0, tuple(map(heard, self.steps[step].writes)))
        return tuple(found)

    @staticmethod
    def _ways_heard(reads: Sequence[int], ways: Sequence[int], written: int) -> int:
        return sum(on for read, on in zip(reads, ways, strict=True) if read >= written)

    @cached_property
    def _ends(self) -> Callable[[int, int], list[int]]:
        """Of a step whose items hear what is written at a point: how many ways up to each item.

        There are few points, so a cell's items are found by bisection.
        """

        @cache
        def ends(step: int, written: int) -> list[int]:
            pairs = zip(self.steps[step].reads, self.ways_on[step], strict=True)
            return list(accumulate(on if read >= written else 0 for read, on in pairs))

        return ends

    def _ends_after(self, items: Sequence[int]) -> list[int]:
        step = len(items)
        return self._ends(step, self.steps[step - 1].writes[items[-1]] if step else -1)

    def __len__(self) -> int:
        return sum(self.ways_on[0]) * len(self.positions)

    def items(self, number: int) -> tuple[tuple[int, ...], int | None]:
        """Return the item of each step in a cell, and its position."""
        rest, at = divmod(number, len(self.positions))
        chosen: list[int] = []
        for _ in self.steps:
            ends = self._ends_after(chosen)
            item = bisect_right(ends, rest)
            rest -= ends[item - 1] if item else 0
            chosen.append(item)
        return tuple(chosen), self.positions[at]

    def number(self, items: Sequence[int], position: int | None = None) -> int:
        """Return the number of a cell, the inverse of `items`."""
        found = 0
        for step, item in enumerate(items):
            found += self._ends_after(items[:step])[item - 1] if item else 0
        return found * len(self.positions) + (position or 0)

    def all_items(self) -> "NDArray[np.intp]":
        """Return the item of each step in all cells, then the position: ``[cell step+1]``."""
        import numpy as np

        found = [np.flatnonzero(self.ways_on[0])]
        for step in range(len(self.steps) - 1):
            reads, on = np.array(self.steps[step + 1].reads), np.array(self.ways_on[step + 1]) > 0
            lists = [np.flatnonzero((reads >= point) & on) for point in self.steps[step].writes]
            many = np.array([len(list_) for list_ in lists])[found[-1]]
            following = np.concatenate([lists[item] for item in found[-1]] or [many])
            found = [np.repeat(column, many) for column in found] + [following]
        places = len(self.positions)
        columns = [np.repeat(column, places) for column in found]
        columns.append(np.tile(np.arange(places), len(found[0])))
        return np.stack(columns, axis=1).astype(np.intp)

    @cached_property
    def used(self) -> tuple[tuple[int, ...], ...]:
        """By step, the items that stand in some possible cell."""
        reached = [item for item, ways in enumerate(self.ways_on[0]) if ways]
        found = [tuple(reached)]
        for step in range(1, len(self.steps)):
            first = min((self.steps[step - 1].writes[item] for item in found[-1]), default=None)
            reads, ways = self.steps[step].reads, self.ways_on[step]
            found.append(
                tuple(
                    item
                    for item in range(len(reads))
                    if first is not None and ways[item] and reads[item] >= first
                )
            )
        return tuple(found)

    # -- one cell -------------------------------------------------------------------------------

    def sites(self, step: int, item: int, position: int | None) -> tuple[Site, ...]:
        """Return what is patched at one step of a cell."""
        return _at_position(self.steps[step].items[item], position)

    def senders(self, item: int, position: int | None) -> tuple[Sender, ...]:
        """Return what sends."""
        return senders_of(self.sites(0, item, position))

    def receivers(self, step: int, item: int, position: int | None) -> tuple[Receiver, ...]:
        """Return what receives at one step of a cell."""
        return receivers_of(self.graph, self.sites(step, item, position))

    def measured(self) -> Iterator[tuple[Receiver, ...]]:
        """Yield the receivers that some cell measures, but for their positions."""
        last = len(self.steps) - 1
        for item in self.used[last] if last else ():
            yield self.receivers(last, item, None)

    def path(self, items: Sequence[int], position: int | None) -> Path:
        """Return what a cell patches, possible or not."""
        receivers = (
            self.receivers(step, item, position) for step, item in enumerate(items) if step
        )
        return Path(self.senders(items[0], position), tuple(receivers), self.request.recompute)

    def text(self, step: int, item: int, position: int | None) -> str:
        """Return one step of a cell's own request."""
        return str(Joint(self.sites(step, item, position)))

    def __getstate__(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(self)}


def _values(graph: ModelGraph, term: Term) -> tuple[tuple[int | str, ...], ...]:
    """Return the coordinates along each dimension of a step, in the order of `SweptStep.dims`."""
    shape = graph.shape
    layers = tuple(range(shape.n_layers))
    match term:
        case Joint():
            return ()
        case Sweep(items=items):
            return (tuple(map(str, items)),)
        case Every(kind="head"):
            return layers, tuple(range(shape.n_heads))
        case Every(kind="kv"):
            return layers, tuple(range(shape.kv_heads))
        case Every(kind="mlp"):
            return (tuple(mlp.layer for mlp in graph.mlps),)
        case Every(kind="node"):
            return (tuple(map(str, graph.writers)),)
        case Every(kind="port"):
            return (tuple(map(str, graph.ports)),)
        case _:
            raise AssertionError(f"{term} is a step of another kind")


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


def edge_set(graph: ModelGraph, request: EdgesRequest) -> EdgeSet:
    """Return receivers grouped by equal sets of senders, since those share a sender run.

    A port whose edges stand at positions of their own receives at all of these: each sender is
    patched at its own alone.
    """
    heard: dict[Port, list[SiteEdge]] = {}
    for edge in request.edges:
        for port in ports_at(graph, edge.receiver):
            heard.setdefault(port, []).append(edge)
    groups: dict[frozenset[Sender], list[Receiver]] = {}
    for port, edges in heard.items():
        at = list(dict.fromkeys(edge.receiver.at for edge in edges))
        receiver = Receiver(port, None if None in at else _joined(at))
        senders = senders_of(tuple(edge.sender for edge in edges))
        groups.setdefault(frozenset(senders), []).append(receiver)
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


def senders_of(sites: tuple[Site, ...]) -> tuple[Sender, ...]:
    """Return what sends where sites stand, each node once."""
    return tuple(Sender(node, _joined(at)) for node, at in senders_at(sites).items())


def receivers_of(graph: ModelGraph, sites: tuple[Site, ...]) -> tuple[Receiver, ...]:
    """Return what receives where sites stand, each port once."""
    return tuple(Receiver(port, _joined(at)) for port, at in receivers_at(graph, sites).items())


def _joined(positions: list[Positions]) -> Positions:
    """Return all positions at which one node is patched; several sites name some each."""
    if len(positions) == 1:
        return positions[0]
    places = [place for at in positions if isinstance(at, tuple) for place in at]
    return tuple(dict.fromkeys(places))
