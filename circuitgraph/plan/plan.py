"""A plan: for every cell of a request, the ordered runs that answer it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Edge, Logits
from circuitgraph.plan.cells import Cell, Cells, ListedCells
from circuitgraph.plan.lint import lint_plan
from circuitgraph.plan.ops import Run, Source
from circuitgraph.request import EdgeSets, Mode, Request, Variant
from circuitgraph.request.brief import brief

if TYPE_CHECKING:
    from circuitgraph.draw import Chart

__all__ = ["Axis", "Cost", "Plan"]


@dataclass(frozen=True, slots=True)
class Axis:
    """One swept dimension: its name and the coordinate of each step along it."""

    dim: str
    values: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dim} ({len(self.values)})"


@dataclass(frozen=True, slots=True)
class Cost:
    """What running a plan hook by hook costs, in forward passes.

    Args:
        recordings: Passes that record the clean and corrupt prompts; paid once per experiment.
        forward_passes: Further passes, over all cells, one request at a time.
        closed_form: Runs that need no pass: a sum of recorded writes, or a norm and unembedding.
    """

    recordings: int
    forward_passes: int
    closed_form: int

    @property
    def total(self) -> int:
        """All forward passes."""
        return self.recordings + self.forward_passes

    def __str__(self) -> str:
        passes = f"{self.forward_passes} forward pass{'es' * (self.forward_passes != 1)}"
        return (
            f"{passes} + {self.recordings} recordings one request at a time, "
            f"{self.closed_form} run{'s' * (self.closed_form != 1)} in closed form"
        )


@dataclass(frozen=True)
class Plan:
    """The ordered runs that answer a request, as plain data.

    Made by `circuitgraph.compile`, read by the engines, shown by ``print``. Cells that no valid
    request fills (a sender not before its receiver) are left out. All cells have runs of the same
    names, so that an engine can do the same step of many cells together.

    Args:
        graph: The model's graph.
        request: What was asked.
        variant: What direct paths may pass through.
        mode: What patching several receivers means.
        source: Where patched values come from.
        axes: The swept dimensions, in order; none for a single request.
        cells: The valid cells of the grid, in order. Those of a sweep are made when looked at.
    """

    graph: ModelGraph
    request: Request
    variant: Variant
    mode: Mode
    source: Source
    axes: tuple[Axis, ...]
    cells: Sequence[Cell] = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each swept dimension."""
        return tuple(len(axis.values) for axis in self.axes)

    def __post_init__(self) -> None:
        if not isinstance(self.cells, Cells):
            object.__setattr__(self, "cells", ListedCells(self.graph, tuple(self.cells)))

    @property
    def sweep(self) -> Cells:
        """The cells, with what can be said of them without making them."""
        assert isinstance(self.cells, Cells)
        return self.cells

    def place(self, number: int) -> tuple[int, ...]:
        """Return where a cell stands in the grid, without making the cell."""
        return self.sweep.place(number)

    def edges(self, number: int) -> tuple[Edge, ...]:
        """Return the edges that a cell patches, without making the cell.

        None where it sets what senders write, with everything downstream recomputed.

        Example:
            >>> from circuitgraph.compiler import compile
            >>> from circuitgraph.graph import ModelShape
            >>> plan = compile(ModelGraph(ModelShape(12, 12)), "node -> port => logits")
            >>> len(plan.cells), str(plan.edges(20_000)[0])
            (32491, '4.4 -> 8.7.q')
        """
        return self.sweep.edges(number)

    def part(self, numbers: Sequence[int]) -> "Plan":
        """Return a plan of some of the cells; they keep their places."""
        return replace(self, cells=self.sweep.part(numbers))

    def runs(self) -> Iterator[Run]:
        """Yield the runs of every cell, in order."""
        for cell in self.cells:
            yield from cell.runs

    def is_closed_form(self, run: Run) -> bool:
        """Return whether a run computes no node before the logits, so needs no forward pass."""
        if any(op.port.node != Logits() for op in run.ports):
            return False
        held = run.frozen.union(op.node for op in run.patched)
        return len(held) == len(self.graph.writers)

    @cached_property
    def cost(self) -> Cost:
        """Forward passes that the reference engine needs."""
        if isinstance(self.request, EdgeSets):
            return Cost(recordings=2, forward_passes=len(self.cells), closed_form=0)
        passes = closed = 0
        for number, many in self.sweep.kinds():
            for run in self.cells[number].runs:
                if self.is_closed_form(run):
                    closed += many
                else:
                    passes += many
        return Cost(recordings=2, forward_passes=passes, closed_form=closed)

    def lint(self) -> "Plan":
        """Return the plan itself where it is well formed.

        Raises:
            PlanError: The plan refers to something that is not there, patches and freezes the same
                node, records a port that no sender comes before, or the like.
        """
        lint_plan(self)
        return self

    def draw(
        self, *, cell: int | str | None = None, title: str | None = None, legend: bool = True
    ) -> "Chart":
        """Draw the runs as panels of heads and MLPs (see `circuitgraph.draw.draw_plan`)."""
        from circuitgraph.draw import draw_plan

        return draw_plan(self, cell=cell, title=title, legend=legend)

    def __str__(self) -> str:
        from circuitgraph.plan.table import plan_table

        return plan_table(self)

    @property
    def title(self) -> str:
        """The request's text, cut where it would fill a page."""
        return brief(str(self.request))

    def __repr__(self) -> str:
        cells = f"{len(self.cells)} cell{'s' * (len(self.cells) != 1)}"
        swept = f" over {' x '.join(map(str, self.axes))}" if self.axes else ""
        settings = f"variant {self.variant}, mode {self.mode}"
        return f"Plan of {self.title!r} ({settings}): {cells}{swept}\n  {self.cost}"

    def _repr_html_(self) -> str:
        from circuitgraph.draw import plan_html

        return plan_html(self)
