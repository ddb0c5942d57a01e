"""Whether what is sent can be heard: a direct path keeps its position, prompt by prompt.

The compiler knows positions by name. Where they stand is known here, and so is whether a sender's
position and its receiver's are the same in any prompt. Where they are in none, nothing arrives: the
answer would be a zero that says nothing about the model.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from circuitgraph.engines.setup import PositionTable
from circuitgraph.errors import Problems, RequestError
from circuitgraph.nodes import Head, Port, Writer
from circuitgraph.plan import Cell, FromRun, PatchPort, PatchWrite, Plan, ReplaceSenders, Run
from circuitgraph.request import EdgesRequest, Positions
from circuitgraph.request.sites import positions_text

__all__ = ["keep_meeting"]

Places = Bool[Tensor, "prompt pos"]


def keep_meeting(plan: Plan, table: PositionTable, is_causal: Callable[[], bool]) -> Plan:
    """Return a plan without the cells of a sweep in which some hop cannot be heard.

    Args:
        plan: The plan.
        table: Where the named positions stand.
        is_causal: Returns whether attention reads earlier positions only; it is asked only where
            the answer depends on it.

    Raises:
        RequestError: No cell is left, or an edge of a list cannot be heard.
    """
    if all(op.at is None for run in plan.runs() for op in run.ports):
        return plan
    everywhere = _Walk(plan, table, later_only=False)
    problems = {cell: everywhere.problem(cell) for cell in plan.cells}
    if not all(problems.values()):
        later = _Walk(plan, table, later_only=True)
        hidden = {cell: problem for cell in plan.cells if (problem := later.problem(cell))}
        # What is heard nowhere among all positions is heard at no later one.
        if len(hidden) > sum(map(bool, problems.values())) and is_causal():
            problems |= hidden
    kept = tuple(cell for cell in plan.cells if not problems[cell])
    if len(kept) == len(plan.cells):
        return plan
    if kept:
        return replace(plan, cells=kept)
    found = Problems()
    found.add(RequestError(problems[plan.cells[0]]))
    found.raise_if_any(f"cannot patch {plan.title!r}")
    return plan


@dataclass(frozen=True)
class _Walk:
    """Follows a change through the runs of a cell, position by position.

    Args:
        plan: The plan.
        table: Where the named positions stand.
        later_only: Whether attention carries a change to later positions only, not to all.
    """

    plan: Plan
    table: PositionTable
    later_only: bool
    _known: dict[Hashable, bool] = field(default_factory=dict)

    def problem(self, cell: Cell) -> str:
        """Return which hop of a cell cannot be heard; empty where all can."""
        ats = {op.at for run in cell.runs for op in (*run.patched, *run.ports)}
        replaced = (op for run in cell.runs for op in run.ports if isinstance(op, ReplaceSenders))
        ats |= {sender.at for op in replaced for sender in op.senders}
        if len(ats - {None}) < 2:
            return ""  # the same positions everywhere
        alike = self.likeness(cell)
        if alike not in self._known or not self._known[alike]:
            problem = self.follow(cell)
            self._known[alike] = not problem
            return problem
        return ""

    def likeness(self, cell: Cell) -> Hashable:
        """Return what cells that are heard alike have in common."""
        precedes = self.plan.graph.precedes
        found: list[Hashable] = []
        for run in cell.runs:
            mixes = bool(run.recorded_ports) and self.mixes(run)
            sent = tuple((op.at, str(op.value)) for op in run.patched)
            order = tuple(
                precedes(op.node, port) for op in run.patched for port in run.recorded_ports
            )
            heard = []
            for op in run.ports:
                senders = op.senders if isinstance(op, ReplaceSenders) else ()
                from_ = tuple((sender.at, str(sender.value)) for sender in senders)
                inside = isinstance(op, ReplaceSenders) and self.mixes(op)
                heard.append((op.at, op.port.name, from_, inside))
            found.append((run.name, mixes, sent, order, tuple(heard)))
        return tuple(found)

    def follow(self, cell: Cell) -> str:
        """Return which hop of a cell cannot be heard, run by run; empty where all can."""
        ports: dict[tuple[int, Port], Places] = {}
        writes: dict[tuple[int, Writer], Places] = {}
        every_edge = isinstance(self.plan.request, EdgesRequest)
        for number, run in enumerate(cell.runs):
            for port in run.recorded_ports:
                ports[number, port] = self.arriving(run, run.patched, port, writes)
            heard, first = False, None
            for op in run.ports:
                sends: Run | ReplaceSenders
                if isinstance(op, PatchPort):
                    arrives = ports[op.delta_from, op.port]
                    sends, senders = cell.runs[op.delta_from], cell.runs[op.delta_from].patched
                else:
                    arrives = self.arriving(op, op.senders, op.port, writes)
                    sends, senders = op, op.senders
                first = first or senders[0]
                arrives = arrives & self.places(op.at)
                if every_edge and (deaf := self.unheard(sends, senders, op, writes)):
                    return _sentence(deaf, op)
                heard |= bool(arrives.any())
                if isinstance(op.port.node, Head) and op.port.name in ("k", "v"):
                    arrives = self.spread(arrives)
                if not isinstance(op.port.node, Writer):
                    continue
                key = number, op.port.node
                writes[key] = arrives | writes.get(key, torch.zeros_like(arrives))
            if first and not heard and not self.fills_up(run, cell, number):
                return _sentence(first, run.ports[0])
        return ""

    def fills_up(self, run: Run, cell: Cell, number: int) -> bool:
        """Return whether another run of the same hop may be heard where this one is not.

        Inner receivers that could reach each other are recomputed in runs of their own.
        """
        return run.name == "recompute" and (
            cell.runs[number - 1].name == "recompute" or cell.runs[number + 1].name == "recompute"
        )

    def unheard(
        self,
        run: Run | ReplaceSenders,
        senders: tuple[PatchWrite, ...],
        op: PatchPort | ReplaceSenders,
        writes: dict[tuple[int, Writer], Places],
    ) -> PatchWrite | None:
        """Return a sender that a port never hears by itself."""
        keep = self.places(op.at)
        for sender in senders:
            if not (self.arriving(run, (sender,), op.port, writes) & keep).any():
                return sender
        return None

    def arriving(
        self,
        run: Run | ReplaceSenders,
        senders: tuple[PatchWrite, ...],
        port: Port,
        writes: dict[tuple[int, Writer], Places],
    ) -> Places:
        """Return where a change arrives at a port."""
        found = torch.zeros(self.table.n_prompts, self.table.n_pos, dtype=torch.bool)
        for sender in senders:
            if self.plan.graph.precedes(sender.node, port):
                found |= self.sent(sender, writes)
        return self.spread(found) if self.mixes(run) else found

    def sent(self, op: PatchWrite, writes: dict[tuple[int, Writer], Places]) -> Places:
        """Return where a patched write differs from clean."""
        keep = self.places(op.at)
        if isinstance(op.value, FromRun):
            return keep & writes.get((op.value.run, op.node), torch.zeros_like(keep))
        return keep

    def mixes(self, run: Run | ReplaceSenders) -> bool:
        """Return whether a direct path may pass through a head, and so change its position."""
        if isinstance(run, ReplaceSenders):
            return any(isinstance(node, Head) for node in run.through)
        set_whole = {op.node for op in run.patched if op.at is None}
        return any(
            head not in run.frozen and head not in set_whole for head in self.plan.graph.heads
        )

    def spread(self, places: Places) -> Places:
        """Return where attention carries a change."""
        if self.later_only:
            return places.cummax(dim=1).values
        return places.any(dim=1, keepdim=True).expand_as(places)

    def places(self, at: Positions) -> Places:
        """Return the positions that are meant."""
        mask = self.table.mask(at)
        if mask is None:
            return torch.ones(self.table.n_prompts, self.table.n_pos, dtype=torch.bool)
        return mask.cpu()


def _sentence(sender: PatchWrite, op: PatchPort | ReplaceSenders) -> str:
    here, there = (positions_text(at) for at in (sender.at, op.at))
    return (
        f"{sender.node}{here} cannot be heard at {op.port}{there}: a direct path stays at its "
        "position, and these are the same in no prompt; give both the same"
    )
