"""Whether what is sent can be heard: a direct path keeps its position, prompt by prompt.

The compiler knows positions by name. Where they stand is known here, and so is whether a sender's
position and its receiver's are the same in any prompt. Where they are in none, nothing arrives: the
answer would be a zero that says nothing about the model.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from circuitgraph.engines.setup import PositionTable
from circuitgraph.errors import Problems, RequestError
from circuitgraph.nodes import Head, Port, Writer
from circuitgraph.plan import (
    Cell,
    FromRun,
    PatchPort,
    PatchWrite,
    Plan,
    ReplaceSenders,
    Run,
)
from circuitgraph.request import EdgesRequest, Positions, Through
from circuitgraph.request.requests import has_positions
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
    if not has_positions(plan.request):
        return plan
    # Cells of one kind stand at the same positions, and what one of them sends is heard alike.
    cells = {number: plan.cells[number] for number, _ in plan.sweep.kinds()}
    everywhere = _Walk(plan, table, later_only=False)
    problems = {number: everywhere.problem(cell) for number, cell in cells.items()}
    if not all(problems.values()):
        later = _Walk(plan, table, later_only=True)
        hidden = {number: hides for number, cell in cells.items() if (hides := later.problem(cell))}
        # What is heard nowhere among all positions is heard at no later one.
        if len(hidden) > sum(map(bool, problems.values())) and is_causal():
            problems |= hidden
    if not any(problems.values()):
        return plan
    heard = {plan.sweep.kind(number) for number, problem in problems.items() if not problem}
    if heard:
        kept = [at for at in range(len(plan.cells)) if plan.sweep.kind(at) in heard]
        return plan.part(kept)
    found = Problems()
    found.add(RequestError(problems[0]))
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
        found: list[Hashable] = [run.name for run in cell.runs]
        for run in cell.runs:
            pairs: list[tuple[Run | ReplaceSenders, PatchWrite, Port]]
            pairs = [(run, op, port) for op in run.patched for port in run.recorded_ports]
            for op in run.ports:
                found.append((op.at, op.port.name))
                if isinstance(op, ReplaceSenders):
                    pairs += [(op, sender, op.port) for sender in op.senders]
            found += [
                (op.at, str(op.value), self.carries(sends, op.node, port))
                for sends, op, port in pairs
            ]
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
            match self.carries(run, sender.node, port):
                case "in place":
                    found |= self.sent(sender, writes)
                case "attended":
                    found |= self.spread(self.sent(sender, writes))
                case "nothing":
                    pass
        return found

    def sent(self, op: PatchWrite, writes: dict[tuple[int, Writer], Places]) -> Places:
        """Return where a patched write differs from clean."""
        keep = self.places(op.at)
        if isinstance(op.value, FromRun):
            return keep & writes.get((op.value.run, op.node), torch.zeros_like(keep))
        return keep

    def carries(
        self, run: Run | ReplaceSenders, sender: Writer, port: Port
    ) -> Literal["nothing", "in place", "attended"]:
        """Return how a sender's change reaches a port; attention may change its position."""
        precedes = self.plan.graph.precedes
        if not precedes(sender, port):
            return "nothing"
        variant = self.plan.variant
        live = variant.nodes if isinstance(variant, Through) else ()
        patched = run.senders if isinstance(run, ReplaceSenders) else run.patched
        held = {op.node for op in patched if op.at is None} if live else ()
        between = any(
            precedes(sender, head.q) and precedes(head, port)
            for head in live
            if isinstance(head, Head) and head not in held
        )
        return "attended" if between else "in place"

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
