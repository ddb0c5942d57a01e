"""Exact changes times gradients: what a plan's senders make of the metric, to first order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.engine import FastEngine
from circuitgraph.engines.fast.memory import rows_that_fit
from circuitgraph.engines.fast.recompute import run_recompute
from circuitgraph.engines.fast.send import Sender, run_send
from circuitgraph.engines.fast.state import Outputs, State
from circuitgraph.engines.gradient.asked import Asked, Meeting
from circuitgraph.engines.gradient.ports import PortGradients, token_slices
from circuitgraph.engines.gradient.runs import Gradients
from circuitgraph.engines.splitting import in_stacks
from circuitgraph.request import Positions
from circuitgraph.schedule import Schedule
from circuitgraph.schedule import schedule as make_schedule

__all__ = ["Contraction"]

NUMBERS_AT_ONCE = 2**27


@dataclass(frozen=True, eq=False)
class Contraction:
    """Changes times gradients, as the changes come.

    Args:
        fast: Finds the changes.
        asked: Which changes meet which gradients.
        gradients: By what is held, one of each metric.
    """

    fast: FastEngine
    asked: Asked
    gradients: Gradients

    @property
    def state(self) -> State:
        """The recorded experiment."""
        return self.fast.state

    @cached_property
    def schedule(self) -> Schedule:
        """What is run to have the changes."""
        return make_schedule(self.asked.plan, self.fast.passes)

    @cached_property
    def total(self) -> Float[Tensor, "cell metric prompt"]:
        """What has been added up so far."""
        state = self.state
        n_metrics = len(next(iter(self.gradients.values())))
        shape = (len(self.asked.plan.cells), n_metrics, state.n_prompts)
        return torch.zeros(shape, dtype=state.delta_dtype, device=state.final.device)

    def run(self) -> Float[Tensor, "cell metric prompt"]:
        """Run all stages but the one that measures; return what changes make of the metric."""
        outputs: dict[int, Outputs] = {}
        last = {meeting.run for meeting in self.asked.meetings}
        budget = self.fast.for_stacks
        for number, stage in enumerate(self.schedule.stages[:-1]):
            if number in last:
                self.meet(number, outputs)
            elif stage.name == "send":
                outputs[number] = run_send(self.state, stage, outputs, budget)
            else:
                outputs[number] = run_recompute(self.state, stage, outputs, budget)
        return self.total

    def meet(self, number: int, outputs: Mapping[int, Outputs]) -> None:
        """Run one stage of senders, and let what arrives meet its gradients."""
        stage = self.schedule.stages[number]
        sender = Sender(self.state, stage, outputs)
        meetings = self.by_arrival(number)
        order = sorted(range(len(stage.jobs)), key=sender.first_layers.__getitem__)

        def run(jobs: Sequence[int]) -> None:
            def visit(point: int, _: Sequence[int], change: Tensor, __: bool) -> None:
                rows = {job: row for row, job in enumerate(jobs[: len(change)])}
                here = [
                    (rows[job], meeting)
                    for job in rows
                    for meeting in meetings.get((job, point), ())
                ]
                if here:
                    self.add(change, here, sender.places)

            before = self.total.clone()
            try:
                sender.walk(jobs, visit)
            except BaseException:
                self.total.copy_(before)  # a stack that ran out of memory is run again, in parts
                raise

        for _ in in_stacks(order, rows_that_fit(self.fast.for_stacks, sender.bytes_per_row), run):
            pass

    def by_arrival(self, number: int) -> dict[tuple[int, int], list[Meeting]]:
        """Return the meetings of a stage's changes, by job and the point where they arrive."""
        jobs = self.schedule.stages[number].job_of_cell
        found: dict[tuple[int, int], list[Meeting]] = {}
        for meeting in self.asked.meetings:
            if meeting.run == number:
                found.setdefault((jobs[meeting.cell], meeting.recorded), []).append(meeting)
        return found

    def add(
        self,
        change: Float[Tensor, "row prompt place d_model"],
        here: Sequence[tuple[int, Meeting]],
        places: Tensor | None,
    ) -> None:
        """Add what changes that have arrived make of the metric."""
        groups: dict[tuple[object, ...], list[tuple[int, Meeting]]] = {}
        for row, meeting in here:
            alike = (meeting.held, meeting.point, meeting.port is None)
            groups.setdefault(alike, []).append((row, meeting))
        for group in groups.values():
            first = group[0][1]
            for metric, gradients in enumerate(self.gradients[first.held]):
                self.add_alike(change, group, places, gradients, metric)

    def add_alike(
        self,
        change: Float[Tensor, "row prompt place d_model"],
        group: Sequence[tuple[int, Meeting]],
        places: Tensor | None,
        gradients: PortGradients,
        metric: int,
    ) -> None:
        """Add what some changes make of one metric, all of which meet gradients at one point."""
        state, first = self.state, group[0][1]
        rows = sorted({row for row, _ in group})
        row_at = {row: at for at, row in enumerate(rows)}
        ports = gradients.ports_at(first.point)
        columns = sorted({ports.index(m.port) for _, m in group if m.port is not None})
        column_at = {ports[column]: at for at, column in enumerate(columns)}
        changes = (change if len(rows) == len(change) else change[rows]).flatten(1, 2)
        n_places = change.shape[2]
        where = dict.fromkeys(meeting.at for _, meeting in group)
        scores = {at: self.zeros(len(rows), max(1, len(columns))) for at in where}
        width = max(len(columns), len(rows)) * change.shape[-1]
        for part in token_slices(changes.shape[1], width, NUMBERS_AT_ONCE):
            prompt = torch.arange(part.start, part.stop, device=change.device) // n_places
            tokens: slice | Tensor = part
            if places is not None:
                tokens = prompt * state.n_pos + places.flatten()[part]
            mine = changes[:, part].transpose(0, 1)
            if first.port is None:
                found = gradients.at_stream(first.point, mine, tokens)[..., None]
            else:
                found = gradients.scores(first.point, mine, tokens, columns)
            for at, total in scores.items():
                mask = state.setup.positions.mask(at)
                kept = found if mask is None else found * mask.flatten()[tokens][:, None, None]
                total.index_add_(0, prompt, kept)
        cells: dict[Positions, list[tuple[int, int, int]]] = {}
        for row, meeting in group:
            column = 0 if meeting.port is None else column_at[meeting.port]
            cells.setdefault(meeting.at, []).append((meeting.cell, row_at[row], column))
        for at, index in cells.items():
            cell, row_, column_ = torch.tensor(index, device=change.device).T
            self.total[:, metric].index_add_(0, cell, scores[at][:, row_, column_].T)

    def zeros(self, *shape: int) -> Float[Tensor, "prompt row port"]:
        """Return nothing yet, per prompt."""
        state = self.state
        return torch.zeros(
            state.n_prompts, *shape, dtype=state.delta_dtype, device=state.final.device
        )
