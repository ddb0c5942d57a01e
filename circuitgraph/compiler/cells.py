"""The cells of a path: numbered by its grid, written when looked at."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from circuitgraph.compiler.grid import Path, Receiver, Sender
from circuitgraph.compiler.layout import PathGrid, receivers_of, senders_of
from circuitgraph.compiler.runs import RunWriter, by_point
from circuitgraph.nodes import MLP, Edge, Head, Logits
from circuitgraph.plan import Cell, Cells, FromSource, PatchWrite, Source
from circuitgraph.request import Mode, Site

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PathCells"]


@dataclass(frozen=True, slots=True)
class _StepOfCell:
    """One step of a cell: where it stands, what it is called, what sends or receives."""

    place: tuple[int, ...]
    text: str
    senders: tuple[Sender, ...]
    receivers: tuple[Receiver, ...]


@dataclass(frozen=True, eq=False)
class PathCells(Cells):
    """The possible cells of a path's grid.

    Args:
        grid: What is swept over.
        through: What direct paths may pass through.
        mode: What patching several receivers means.
        source: Where patched values come from.
    """

    grid: PathGrid
    through: frozenset[Head | MLP]
    mode: Mode
    source: Source

    def __len__(self) -> int:
        return len(self.grid)

    def cell(self, number: int) -> Cell:
        """Return a cell, made anew."""
        index, name, path = self._read(number)
        return Cell(index, name, tuple(self._writer.runs(path)))

    def place(self, number: int) -> tuple[int, ...]:
        """Return where a cell stands in the grid."""
        return self._read(number)[0]

    def name(self, number: int) -> str:
        """Return a cell's own request as text."""
        return self._read(number)[1]

    def edges(self, number: int) -> tuple[Edge, ...]:
        """Return the edges that a cell patches."""
        return self._read(number)[2].edges(self.grid.graph)

    def _read(self, number: int) -> tuple[tuple[int, ...], str, Path]:
        """Return where a cell stands, its own request as text, and what it patches."""
        items, position = self.grid.items(number)
        known = [self._known(step, item, position) for step, item in enumerate(items)]
        index = tuple(at for step in known for at in step.place)
        recompute = self.grid.request.recompute
        path = Path(known[0].senders, tuple(step.receivers for step in known[1:]), recompute)
        name = " -> ".join(step.text for step in known)
        if recompute and not path.stops_at_logits:
            name += " => logits"
        return index if position is None else (*index, position), name, path

    @cached_property
    def _known(self) -> "Callable[[int, int, int | None], _StepOfCell]":
        # The same few items stand in cell after cell; equal parts of a plan are one object.
        return cache(self._step)

    def _step(self, step: int, item: int, position: int | None) -> "_StepOfCell":
        grid = self.grid
        return _StepOfCell(
            grid.steps[step].place(item),
            grid.text(step, item, position),
            () if step else grid.senders(item, position),
            grid.receivers(step, item, position) if step else (),
        )

    def places(self) -> "NDArray[np.intp]":
        """Return where all cells stand, ``[cell axis]``."""
        import numpy as np

        *items, positions = self.grid.all_items().T
        columns = [
            column
            for step, of_step in zip(self.grid.steps, items, strict=True)
            if step.shape
            for column in np.unravel_index(of_step, step.shape)
        ]
        columns += [positions] * (self.grid.n_positions is not None)
        return np.stack(columns, axis=1) if columns else np.empty((len(self), 0), dtype=np.intp)

    @cached_property
    def _writer(self) -> RunWriter:
        # How many runs recompute the receivers of an inner hop: as many in all cells.
        grid, inner = self.grid, range(1, len(self.grid.steps) - 1)
        recomputes = tuple(
            max(
                (
                    len(by_point(grid.graph, self._receivers(step, item)))
                    for item in grid.used[step]
                ),
                default=0,
            )
            for step in inner
        )
        return RunWriter(grid.graph, self.through, self.mode, self.source, recomputes)

    def _receivers(self, step: int, item: int) -> tuple[Receiver, ...]:
        return self.grid.receivers(step, item, self.grid.positions[0])

    # -- kinds ----------------------------------------------------------------------------------

    @cached_property
    def _kinds(self) -> tuple[tuple[Hashable, ...], ...]:
        """By step and item, what its cells do: at which points, through which ports, where."""
        return tuple(
            tuple(map(self._sends if number == 0 else self._reads, step.items))
            for number, step in enumerate(self.grid.steps)
        )

    def _sends(self, sites: tuple[Site, ...]) -> Hashable:
        graph, senders = self.grid.graph, senders_of(sites)
        passed = self.through.intersection(sender.node for sender in senders)
        return tuple((graph.writes_at(sender.node), sender.at) for sender in senders), passed

    def _reads(self, sites: tuple[Site, ...]) -> Hashable:
        graph, receivers = self.grid.graph, receivers_of(self.grid.graph, sites)
        nodes = [receiver.port.node for receiver in receivers]
        points = tuple(
            (
                nodes.index(to.port.node),
                to.port.name,
                graph.reads_at(to.port),
                -1 if isinstance(to.port.node, Logits) else graph.writes_at(to.port.node),
                to.at,
            )
            for to in receivers
        )
        return points, self.through.intersection(nodes)

    def kind(self, number: int) -> Hashable:
        """Return what cells have in common that do the same to other nodes at the same points."""
        items, position = self.grid.items(number)
        return tuple(kinds[item] for kinds, item in zip(self._kinds, items, strict=True)), position

    def kinds(self) -> Iterator[tuple[int, int]]:
        """Yield the first cell of each kind, in order, and how many there are of it."""
        return iter(self._counted)

    @cached_property
    def _counted(self) -> tuple[tuple[int, int], ...]:
        # Items of one kind write and read at the same points, so the same ones hear them.
        groups = []
        for kinds, used in zip(self._kinds, self.grid.used, strict=True):
            group: dict[Hashable, list[int]] = {}
            for item in used:
                group.setdefault(kinds[item], []).append(item)
            groups.append(list(group.values()))
        chains: list[tuple[tuple[int, ...], int]] = [((), 1)]
        for step, group_list in enumerate(groups):
            chains = [
                ((*items, members[0]), many * len(members))
                for items, many in chains
                for members in group_list
                if not items or self.grid.fits(step - 1, items[-1], members[0])
            ]
        return tuple(
            sorted(
                (self.grid.number(items, position), many)
                for items, many in chains
                for position in self.grid.positions
            )
        )

    def samples(self) -> Sequence[int]:
        """Return cells of every kind, with every node and port that is patched among them."""
        if len(self) <= 1000:
            return range(len(self))
        found = {number for number, _ in self._counted}
        for step, used in enumerate(self.grid.used):
            found.update(self._with(step, item) for item in used)
        return sorted(found)

    def _with(self, step: int, item: int) -> int:
        """Return a cell in which an item of a step stands."""
        grid, items = self.grid, [item]
        for before in reversed(range(step)):
            items.insert(0, next(i for i in grid.used[before] if grid.fits(before, i, items[0])))
        for after in range(step, len(grid.steps) - 1):
            items.append(next(i for i in grid.used[after + 1] if grid.fits(after, items[-1], i)))
        return grid.number(items)

    def sent(self) -> Iterator[PatchWrite]:
        """Yield every write whose value comes from the plan's source."""
        for item in self.grid.used[0]:
            for position in self.grid.positions:
                for sender in self.grid.senders(item, position):
                    yield PatchWrite(sender.node, FromSource(self.source), sender.at)

    def __getstate__(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(self)}
