"""Senders times receivers at once, as one product: a sweep over both ends with no plan per cell.

At every point of the stream all senders' changes meet the gradients of all ports that read there.
In the variant ``single-pass``, on blocks that add what their parts write, a sender's change is its
write, the same wherever it arrives: writes are laid out for some tokens at a time, since tokens
do not meet. Elsewhere senders are walked through the model, a row each, as for exact effects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.compiler.cells import PathCells
from circuitgraph.compiler.grid import Receiver, Sender
from circuitgraph.compiler.runs import RunWriter
from circuitgraph.engines.fast.engine import FastEngine
from circuitgraph.engines.fast.memory import rows_that_fit
from circuitgraph.engines.fast.send import Sender as SenderStage
from circuitgraph.engines.fast.state import State
from circuitgraph.engines.gradient.asked import HeldPlaces
from circuitgraph.engines.gradient.estimators import Estimator
from circuitgraph.engines.gradient.ports import PortGradients, prompt_slices
from circuitgraph.engines.gradient.runs import mean_gradients
from circuitgraph.engines.splitting import in_stacks
from circuitgraph.nodes import MLP, Embed, Head, Logits, Writer
from circuitgraph.plan import Axis, Cell, PatchPort, Plan, ReadLogits, Run, Source
from circuitgraph.plan.cells import SomeCells
from circuitgraph.request import Positions
from circuitgraph.schedule import schedule as make_schedule

__all__ = ["NUMBERS_AT_ONCE", "Product", "product_of"]

NUMBERS_AT_ONCE = 2**27
"""How many numbers of writes are laid out at once."""

WORTH = 8
"""Where a plan holds fewer than one in so many cells of its product, they are taken one by one."""

Changes = Float[Tensor, "sending token d_model"]
Totals = Float[Tensor, "prompt row column"]


@dataclass(frozen=True, slots=True)
class Product:
    """Every sender to every receiver that it comes before.

    Args:
        plan: Whose cells these are.
        through: What direct paths may pass through.
        senders: What each row patches together.
        receivers: What each column receives together: ports that read one point.
        cells: The row and the column of every cell, ``[cell 2]``.
    """

    plan: Plan
    through: frozenset[Head | MLP]
    senders: tuple[tuple[Sender, ...], ...]
    receivers: tuple[tuple[Receiver, ...], ...]
    cells: NDArray[np.intp]

    def changes(
        self, fast: FastEngine, estimator: Estimator, numbers_at_once: int = NUMBERS_AT_ONCE
    ) -> list[Totals]:
        """Return the estimated change of every metric.

        What stands where a sender does not come before a receiver means nothing.

        Args:
            fast: Has recorded the experiment.
            estimator: Where gradients are taken.
            numbers_at_once: How many numbers of writes are laid out at once.
        """
        state, nothing = fast.state, HeldPlaces()
        gradients = mean_gradients(state, estimator, [nothing])[nothing]
        arrivals = _Arrivals(state, self.receivers)
        with torch.no_grad():
            if self.sends_the_same(state):
                writes = _Writes(state, self.plan.source, self.senders)
                return _laid_out(writes, arrivals, gradients, numbers_at_once)
            return self._walked(fast, arrivals, gradients, numbers_at_once)

    def sends_the_same(self, state: State) -> bool:
        """Return whether a row's change is the same wherever it arrives: what its nodes write."""
        places: dict[Writer, Positions] = {}
        alike = all(
            places.setdefault(to.node, to.at) == to.at for row in self.senders for to in row
        )
        return alike and not self.through and state.traits.additive

    def _walked(
        self,
        fast: FastEngine,
        arrivals: "_Arrivals",
        gradients: Sequence[PortGradients],
        numbers_at_once: int,
    ) -> list[Totals]:
        """Walk all senders through the model; what arrives at a point meets its gradients."""
        state = fast.state
        stage = make_schedule(self.sending(), fast.passes).stages[0]
        sender = SenderStage(state, stage, {})
        order = sorted(range(len(stage.jobs)), key=sender.first_layers.__getitem__)
        row_of = {job: row for row, job in enumerate(order)}
        totals = [arrivals.nothing(len(order)) for _ in gradients]

        def run(jobs: Sequence[int]) -> None:
            for total in totals:  # a stack that ran out of memory half way is run again
                total[:, [row_of[job] for job in jobs]] = 0

            def visit(point: int, of_stack: Sequence[int], change: Tensor, _: bool) -> None:
                rows = [row_of[jobs[row]] for row in of_stack]
                here = change if len(rows) == len(change) else change[list(of_stack)]
                flat, n_places = here.flatten(1, 2), here.shape[2]
                width = max(len(rows), arrivals.n_ports(point)) * flat.shape[-1]
                for prompts, part in prompt_slices(
                    state.n_prompts, n_places, width, numbers_at_once
                ):
                    tokens: slice | Tensor = part
                    if sender.places is not None:
                        number = torch.arange(part.start, part.stop, device=flat.device)
                        tokens = number // n_places * state.n_pos + sender.places.flatten()[part]
                    for total, of_metric in zip(totals, gradients, strict=True):
                        mine = total[prompts]
                        arrivals.add(mine, rows, point, flat[:, part], tokens, of_metric)

            sender.walk(jobs, visit)

        for _ in in_stacks(order, rows_that_fit(fast.for_stacks, sender.bytes_per_row), run):
            pass
        row_at = torch.tensor([row_of[job] for job in stage.job_of_cell], device=state.final.device)
        return [total[:, row_at] for total in totals]

    def sending(self) -> Plan:
        """Return a plan in which each row's senders are heard by all receivers."""
        plan = self.plan
        writer = RunWriter(plan.graph, self.through, "set", plan.source)
        every = tuple(dict.fromkeys(to for together in self.receivers for to in together))
        at_logits = PatchPort(Logits().port, 0, "add")
        cells = []
        for row, senders in enumerate(self.senders):
            send = writer.send(writer.sent(senders), every)
            cells.append(Cell((row,), str(row), (send, Run("measure", (at_logits, ReadLogits())))))
        axis = Axis("row", tuple(range(len(cells))))
        return Plan(
            plan.graph, plan.request, plan.variant, "set", plan.source, (axis,), tuple(cells)
        )


def product_of(plan: Plan) -> Product | None:
    """Return the product that a plan is a sweep over, or None where it is something else.

    It is one where what is patched together cannot reach each other.
    """
    some = plan.sweep if isinstance(plan.sweep, SomeCells) else None
    cells = plan.sweep if some is None else some.cells
    if not isinstance(cells, PathCells) or cells.grid.n_positions is not None:
        return None
    grid = cells.grid
    if len(grid.steps) != 2:
        return None
    n_senders, n_receivers = (len(step.items) for step in grid.steps)
    if len(plan.cells) * WORTH < n_senders * n_receivers:
        return None
    receivers = tuple(grid.receivers(1, item, None) for item in range(n_receivers))
    points = [{(grid.graph.reads_at(to.port), to.at) for to in tos} for tos in receivers]
    if any(len(point) > 1 for point in points):
        return None
    chosen = grid.all_items()[:, :2]
    return Product(
        plan,
        cells.through,
        tuple(grid.senders(item, None) for item in range(n_senders)),
        receivers,
        chosen if some is None else chosen[list(some.numbers)],
    )


# -- where changes meet gradients ------------------------------------------------------------------


class _Arrivals:
    """Which ports' gradients meet what arrives at a point, and in which column that counts.

    Args:
        state: The recorded experiment.
        receivers: What each column receives together.
    """

    def __init__(self, state: State, receivers: Sequence[Sequence[Receiver]]) -> None:
        """Sort the receivers by the point that they read, and where they stand."""
        self.state = state
        self.n_columns = len(receivers)
        self.at: dict[int, dict[Positions, list[tuple[int, Receiver]]]] = {}
        for column, together in enumerate(receivers):
            for to in together:
                here = self.at.setdefault(state.point(to.port), {})
                here.setdefault(to.at, []).append((column, to))

    def n_ports(self, point: int) -> int:
        """Return how many ports hear what arrives at a point."""
        return sum(map(len, self.at.get(point, {}).values()))

    def nothing(self, n_rows: int) -> Totals:
        """Return sums of nothing yet."""
        state = self.state
        shape = (state.n_prompts, n_rows, self.n_columns)
        return torch.zeros(shape, dtype=state.delta_dtype, device=state.final.device)

    def add(
        self,
        total: Totals,
        rows: Sequence[int],
        point: int,
        changes: Changes,
        tokens: slice | Int[Tensor, "token"],
        gradients: PortGradients,
    ) -> None:
        """Add what changes that have arrived at a point make of the metric.

        Args:
            total: Of the prompts that the tokens belong to; gets it.
            rows: Whose changes these are.
            point: Where they arrive.
            changes: At some tokens.
            tokens: Which tokens of ``prompt * pos`` these are.
            gradients: Of the metric.
        """
        state = self.state
        ports = {port: number for number, port in enumerate(gradients.ports_at(point))}
        for at, heard in self.at.get(point, {}).items():
            numbers = sorted({ports[to.port] for _, to in heard})
            wanted = None if len(numbers) == len(ports) else numbers
            mask = state.setup.positions.mask(at)
            here = changes if mask is None else changes * mask.flatten()[tokens][:, None]
            summed = gradients.summed(point, here, tokens, len(total), wanted)
            place = {number: at for at, number in enumerate(numbers)}
            columns = torch.tensor([column for column, _ in heard], device=total.device)
            found = [place[ports[to.port]] for _, to in heard]
            if found != list(range(len(numbers))):
                summed = summed[:, :, found]
            if list(rows) == list(range(rows[0], rows[0] + len(rows))):
                total[:, rows[0] : rows[0] + len(rows)].index_add_(2, columns, summed)
            else:
                mine = total[:, list(rows)]
                total[:, list(rows)] = mine.index_add_(2, columns, summed)


def _laid_out(
    writes: "_Writes",
    arrivals: _Arrivals,
    gradients: Sequence[PortGradients],
    numbers_at_once: int,
) -> list[Totals]:
    """Lay out all rows' writes for some tokens at a time."""
    state, n_rows = writes.state, len(writes.points)
    totals = [arrivals.nothing(n_rows) for _ in gradients]
    numbers = n_rows * state.final.shape[-1]
    for prompts, part in prompt_slices(state.n_prompts, state.n_pos, numbers, numbers_at_once):
        changes = writes.at(part)
        for point in arrivals.at:
            # Rows stand in the order of the stream, so those before a point are the first.
            rows = range(sum(at <= point for at in writes.points))
            for total, of_metric in zip(totals, gradients, strict=True):
                if rows:
                    before = changes[: len(rows)]
                    arrivals.add(total[prompts], rows, point, before, part, of_metric)
    return [total[:, writes.row_at] for total in totals]


class _Writes:
    """What each row's senders write, less what they write in the clean run.

    Args:
        state: The recorded experiment.
        source: Where senders' values come from.
        senders: What each row patches together.
    """

    def __init__(self, state: State, source: Source, senders: Sequence[Sequence[Sender]]) -> None:
        """Nothing is laid out yet but the values of nodes."""
        self.state, self.source = state, source
        graph = state.setup.graph
        ends = [max(graph.writes_at(op.node) for op in ops) for ops in senders]
        self.order = sorted(range(len(senders)), key=ends.__getitem__)
        self.points = [ends[row] for row in self.order]
        at = np.empty(len(self.order), dtype=np.intp)
        at[self.order] = np.arange(len(self.order))
        self.row_at = torch.from_numpy(at).to(state.final.device)
        self.rows: dict[Writer, list[int]] = {}
        self.ops: dict[Writer, Sender] = {}
        for place, row in enumerate(self.order):
            for op in senders[row]:
                self.rows.setdefault(op.node, []).append(place)
                self.ops[op.node] = op

    @cached_property
    def heads(self) -> dict[int, list[int]]:
        """The heads that send, by layer."""
        found: dict[int, list[int]] = {}
        for node in sorted(self.ops):
            if isinstance(node, Head):
                found.setdefault(node.layer, []).append(node.head)
        return found

    @cached_property
    def values(self) -> dict[int, Float[Tensor, "token head d_head"]]:
        """The changes of these heads' values, by layer."""
        return {layer: self._values(layer, heads) for layer, heads in self.heads.items()}

    def _values(self, layer: int, heads: Sequence[int]) -> Float[Tensor, "token head d_head"]:
        state, wide = self.state, self.state.delta_dtype
        ops = [self.ops[Head(layer, head)] for head in heads]
        if self.source != "corrupt" or any(op.at is not None for op in ops):
            found = [state.sent(self.source, op.node, op.at) for op in ops]
            return torch.stack(found, dim=2).flatten(0, 1)
        theirs, ours = state.corrupt.layers[layer].z, state.layer(layer).z
        assert theirs is not None
        assert ours is not None
        change = state.blocks.split(theirs.to(wide) - ours.to(wide)).flatten(0, 1)
        return change if len(heads) == change.shape[1] else change[:, heads]

    @cached_property
    def others(self) -> dict[Writer, Float[Tensor, "token d_model"]]:
        """The changes of what MLPs and the embedding write."""
        return {
            node: self.state.sent(self.source, op.node, op.at).flatten(0, 1)
            for node, op in self.ops.items()
            if isinstance(node, MLP | Embed)
        }

    def at(self, part: slice) -> Changes:
        """Return all rows' changes at some tokens."""
        state = self.state
        shape = (len(self.points), part.stop - part.start, state.final.shape[-1])
        made = torch.zeros(shape, dtype=state.delta_dtype, device=state.final.device)
        for node, change in self.others.items():
            for row in self.rows[node]:
                made[row] += change[part]
        for layer, heads in self.heads.items():
            weight = state.blocks.output_weights[layer].to(state.delta_dtype)
            weight = weight if len(heads) == len(weight) else weight[heads]
            values = self.values[layer][part].transpose(0, 1)
            rows = [self.rows[Head(layer, head)] for head in heads]
            first = rows[0][0]
            if rows == [[first + number] for number in range(len(heads))]:
                made[first : first + len(heads)].baddbmm_(values, weight)
                continue
            pairs = [(row, at) for at, of_head in enumerate(rows) for row in of_head]
            row, at = torch.tensor(pairs, device=made.device).T
            made.index_add_(0, row, torch.bmm(values, weight)[at])
        return made
