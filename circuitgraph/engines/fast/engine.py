"""The fast engine: records the prompts once, then runs schedules."""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.engines.engine import MeasuredCells
from circuitgraph.engines.fast.activations import read_activations
from circuitgraph.engines.fast.circuits import Circuits, cannot_judge
from circuitgraph.engines.fast.counting import count_stacks
from circuitgraph.engines.fast.kept import kept_by_plan
from circuitgraph.engines.fast.measure import run_measure, with_activations
from circuitgraph.engines.fast.memory import parse_budget, recording_bytes
from circuitgraph.engines.fast.one_port import PortTests
from circuitgraph.engines.fast.readout import clean_logits, measure_rows
from circuitgraph.engines.fast.recompute import run_recompute
from circuitgraph.engines.fast.send import run_send
from circuitgraph.engines.fast.stack import JobStack
from circuitgraph.engines.fast.state import Outputs, State
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import Setup
from circuitgraph.errors import HookError
from circuitgraph.lens.fingerprint import Fingerprint, fingerprint
from circuitgraph.lens.record import Recording
from circuitgraph.lens.traits import Traits, close, find_traits, probe_length, probes
from circuitgraph.metrics import Readout
from circuitgraph.nodes import Logits
from circuitgraph.plan import Cell, Plan, ReplaceSenders, SetCells, Source
from circuitgraph.schedule import PASSES, Schedule, Stage
from circuitgraph.schedule import schedule as make_schedule

__all__ = ["FastEngine", "Recordings", "ReplayWarning", "warn_of_replay"]

UNCHECKED = Traits(
    additive=False, plain_readout=False, heads_apart=False, sliceable=False, causal=False
)
"""Where nothing was tried out, nothing is taken for granted: right on every model, but slower."""


MANY_EDGES = 16
"""From so many patched edges on, cells of mode ``replace`` are judged as circuits."""


REPLAYED = ("mid", "q", "k", "v", "z", "mlp", "keys", "values")
"""What of the clean run is needed to replay its parts."""


_KNOWN_TRAITS: WeakKeyDictionary[Any, tuple[tuple[Fingerprint, int], Traits]] = WeakKeyDictionary()
"""What was found of models that are still there, with their state and the length of the probes."""


@dataclass(frozen=True, slots=True)
class Recordings:
    """What was recorded of the prompts; engines on the same prompts may share it.

    Args:
        clean: The clean run.
        corrupt: The corrupt run: values only.
        traits: What was found of the model.
    """

    clean: Recording
    corrupt: Recording
    traits: Traits


class ReplayWarning(UserWarning):
    """The model or request cannot be replayed exactly, so the reference engine runs it."""


class FastEngine:
    """Runs plans with frozen modules replayed and requests stacked.

    Args:
        setup: The experiment.
        memory_budget: What stacks may hold at once: bytes, ``"2GiB"``, or None for a fraction of
            what is free.
        self_check: Whether to prove on two random prompts that the model can be replayed; where it
            cannot, the reference engine runs instead, with a warning. Without it, nothing that
            saves work in most models is taken for granted.
        passes: Passes of the schedule.
        recordings: What another engine has recorded of the same model and prompts.
    """

    name = "fast"

    def __init__(
        self,
        setup: Setup,
        *,
        memory_budget: str | int | None = None,
        self_check: bool = True,
        passes: Any = PASSES,
        recordings: Recordings | None = None,
    ) -> None:
        """Prepare to run plans on an experiment; nothing is run yet."""
        self.setup = setup
        self._recordings = recordings
        self.passes = passes
        self.self_check = self_check
        self.blocks = setup.backend
        self._budget = memory_budget
        self._last: Schedule | None = None
        self.budget = parse_budget(memory_budget, setup.clean.device)

    def with_setup(self, setup: Setup) -> "FastEngine":
        """Return an engine with other patched values that shares this one's recordings."""
        return FastEngine(
            setup,
            memory_budget=self._budget,
            self_check=self.self_check,
            passes=self.passes,
            recordings=self.recordings,
        )

    # -- recordings -----------------------------------------------------------------------------

    @cached_property
    def traits(self) -> Traits:
        """What is special about the model, tried out on two pairs of random prompts."""
        if self._recordings is not None:
            return self._recordings.traits
        if not self.self_check:
            return UNCHECKED
        model = self.blocks.model
        state = fingerprint(model), probe_length(self.blocks, self.setup.n_pos)
        known = _KNOWN_TRAITS.get(model)
        # What longer probes have shown holds for shorter prompts too.
        if known is None or known[0][0] != state[0] or known[0][1] < state[1]:
            clean, corrupt = (self.blocks.record(one) for one in probes(self.blocks, state[1]))
            with torch.no_grad():
                traits = find_traits(self.blocks, clean, corrupt)
            # What failed may have failed this once: that is tried again next time.
            if not traits.problems:
                _KNOWN_TRAITS[model] = (state, traits)
            return traits
        return known[1]

    @property
    def is_causal(self) -> bool:
        """Whether what is computed at a position depends on earlier ones only."""
        return self.traits.causal

    @cached_property
    def recordings(self) -> Recordings:
        """What is recorded of the prompts: two forward passes, unless another engine made them."""
        if self._recordings is not None:
            return self._recordings
        clean, corrupt = self._record_both()
        # The trial was on other prompts: longer ones may have left a layer without all its keys.
        has_keys = all(layer.keys is not None for layer in clean.layers)
        traits = replace(self.traits, sliceable=self.traits.sliceable and has_keys)
        return Recordings(clean, corrupt, traits)

    @cached_property
    def state(self) -> State:
        """The recorded experiment."""
        found = self.recordings
        return State(self.setup, self.blocks, found.clean, found.corrupt, found.traits)

    def _record_both(self) -> tuple[Recording, Recording]:
        """Record clean and corrupt, in one pass where they fit into a quarter of the budget.

        The metric is measured from the residual stream, so hardly any logits are made.
        """
        setup = self.setup
        n_prompts = setup.n_prompts
        at = torch.zeros_like(setup.clean[:, :1])
        if n_prompts * recording_bytes(setup) <= self.budget // 4:
            both = torch.cat([setup.clean, setup.corrupt])
            found = self.blocks.record(both, read=at.repeat(2, 1), fields=REPLAYED)
            corrupt = found.part(slice(n_prompts, None), ("z", "mlp"))
            return found.part(slice(0, n_prompts)), corrupt
        clean = self.blocks.record(setup.clean, read=at, fields=REPLAYED)
        return clean, self.blocks.record(setup.corrupt, read=at, fields=("z", "mlp"))

    @cached_property
    def reference(self) -> ReferenceEngine:
        """The engine that runs what this one cannot."""
        return ReferenceEngine(self.setup)

    @cached_property
    def clean_metric(self) -> Float[Tensor, "value"]:
        """The metric on the clean prompts."""
        if self.traits.problems:
            return self.reference.clean_metric
        return self._metric_of(self.state.final, self.own_activations[0])

    @cached_property
    def corrupt_metric(self) -> Float[Tensor, "value"]:
        """The metric on the corrupt prompts."""
        if self.traits.problems:
            return self.reference.corrupt_metric
        final = self.state.corrupt.final
        assert final is not None
        return self._metric_of(final, self.own_activations[1], self.setup.corrupt_metric)

    def _metric_of(
        self, final: Tensor, seen: Mapping[str, Tensor], metric: Readout | None = None
    ) -> Tensor:
        """Return the metric of a recorded run, measured just as patched runs are."""
        state, clean = self.state, None
        if metric is not None:
            clean = clean_logits(state)
            setup = replace(self.setup, metric=metric)
            state = State(setup, self.blocks, state.clean, state.corrupt, state.traits)
        change = final.to(state.delta_dtype) - state.final.to(state.delta_dtype)
        read = state.setup.metric.read
        picked = change[None] if read is None else change[state.rows, read[:, None]][None]
        with torch.no_grad():
            values = measure_rows(state, picked, clean)
            return with_activations(state, values, {n: v[None] for n, v in seen.items()})[0]

    @cached_property
    def own_activations(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a metric reads besides logits in the clean and in the corrupt run, by hook."""
        sites, setup = self.state.sites, self.setup
        if not sites:
            return {}, {}
        both = torch.cat([setup.clean, setup.corrupt])
        found = self.blocks.see(both, sites)
        n_prompts = setup.n_prompts
        return (
            {name: value[:n_prompts] for name, value in found.items()},
            {name: value[n_prompts:] for name, value in found.items()},
        )

    @cached_property
    def unreadable(self) -> str:
        """Why an activation that a metric reads cannot be replayed; empty where all can.

        The clean run's activations are made by replay and compared with the model's own.
        """
        state = self.state
        stack = JobStack(state, (), {}, 0)
        change = torch.zeros_like(state.final, dtype=state.delta_dtype)[None]
        own = self.own_activations[0]
        for name, site in state.sites.items():
            with torch.no_grad():
                try:
                    found = read_activations(stack, change, site.layer)[name][0]
                except HookError:
                    return f"the hook at {name} does not fire when its block is replayed"
            if found.shape != own[name].shape or not close(found, own[name]):
                return f"replaying a block does not give the model's own activation at {name}"
        return ""

    # -- running --------------------------------------------------------------------------------

    def schedule(self, plan: Plan) -> Schedule:
        """Return what would be run for a plan; the last one asked for is kept."""
        if self._last is None or self._last.plan != plan:
            self._last = make_schedule(plan, self.passes)
        return self._last

    def described(self, plan: Plan) -> Schedule:
        """Return what would be run for a plan, with the number of stacks of each stage."""
        stacks: list[tuple[int, ...]] = []
        for cells in self.batches(plan):
            schedule = make_schedule(plan.part(cells), self.passes)
            stacks.append(count_stacks(self.state, schedule, self.for_stacks))
        return replace(self.schedule(plan), stacks=tuple(map(sum, zip(*stacks, strict=True))))

    def answering(self, plan: Plan) -> "FastEngine | ReferenceEngine":
        """Return the engine that answers a plan: the reference engine where replay is not exact.

        Warns:
            ReplayWarning: The reference engine runs the plan, and why.
        """
        reason = self.cannot(plan)
        if not reason:
            return self
        warn_of_replay(plan, reason)
        return self.reference

    def run(self, plan: Plan) -> Iterator[MeasuredCells]:
        """Yield the cells of a plan with their metric, per prompt, as they come.

        Plans that cannot be replayed are run by the engine that `answering` returns.
        """
        if self.cannot(plan):
            yield from self.answering(plan).run(plan)
            return
        if plan.source.startswith("mean") and self.setup.dataset is not None:
            with torch.no_grad():
                # Recorded before a part of the model runs with anything replaced.
                _ = self.state.sources.sums
        kept = self.judged(plan)
        if kept is not None:
            yield from self.judge(plan, kept)
            return
        everyone = slice(0, self.setup.n_prompts)
        for cells in self.batches(plan):
            part = plan if len(cells) == len(plan.cells) else plan.part(cells)
            with torch.no_grad():
                values = self.run_schedule(self.schedule(part))
            yield MeasuredCells(cells, everyone, values)

    def cannot(self, plan: Plan) -> str:
        """Return why a plan cannot be run by replay; empty where it can."""
        if self.traits.problems:
            return self.traits.problems[0]
        if self.judged(plan) is not None:
            return ""
        replaced = [
            op
            for number, _ in (plan.sweep.kinds() if plan.mode == "replace" else ())
            for run in plan.cells[number].runs
            for op in run.ports
            if isinstance(op, ReplaceSenders)
        ]
        if any(op.through for op in replaced):
            return "mode 'replace' recomputes nodes between sender and receiver"
        if replaced and not self.traits.additive:
            return "mode 'replace' on blocks that do not add what their parts write"
        if replaced and self.state.sites:
            return "mode 'replace' with a metric of an activation"
        return self.unreadable if self.state.sites else ""

    # -- circuits -------------------------------------------------------------------------------

    def judged(self, plan: Plan) -> NDArray[np.bool_] | None:
        """Return which edges each cell keeps, where cells are judged as circuits; else None.

        A few patched edges are run as changes of the clean run, which rounds less. Where blocks
        do not add what their parts write, edges are replaced in no other way.
        """
        if self.traits.problems or plan.mode != "replace":
            return None
        if not isinstance(plan.cells, SetCells) and self.traits.additive:
            kinds = (number for number, _ in plan.sweep.kinds())
            if min(map(_n_replaced, map(plan.cells.__getitem__, kinds))) < MANY_EDGES:
                return None
        kept = kept_by_plan(plan)
        return None if kept is None or self.unjudgeable else kept

    def judge(self, plan: Plan, kept: NDArray[np.bool_]) -> Iterator[MeasuredCells]:
        """Yield cells with their metric, each cell being a circuit."""
        circuits = self.circuits(plan.source)
        if plan.source == "given":  # a value is there only for what is patched
            index = plan.graph.edge_index
            patched = np.zeros(len(plan.graph.writers), dtype=np.bool_)
            for place, heard in enumerate(index.heard.tolist()):
                start = int(index.starts[place])
                patched[:heard] |= ~kept[:, start : start + heard].all(axis=0)
            circuits = Circuits(self.state, "given", budget=self.for_stacks, patched=patched)
        everyone = slice(0, self.setup.n_prompts)
        for numbers, values in circuits.stacks(kept):
            yield MeasuredCells(numbers, everyone, values)

    def circuits(self, source: Source = "corrupt") -> Circuits:
        """Return what measures circuits that are given as rows of kept edges.

        Args:
            source: Where the values of edges outside a circuit come from.
        """
        if source not in self._circuits:
            self._circuits[source] = Circuits(self.state, source, budget=self.for_stacks)
        return self._circuits[source]

    def port_tests(self, start: NDArray[np.bool_]) -> PortTests | None:
        """Return what measures circuits that differ at one port; None where replay is not exact.

        Args:
            start: The circuit that a search starts from, ``[edge]``.
        """
        traits = self.traits
        if traits.problems or self.unjudgeable or not (traits.additive and traits.heads_apart):
            return None
        return PortTests(self.circuits().baseline, self.for_stacks, start)

    @cached_property
    def _circuits(self) -> dict[Source, Circuits]:
        return {}

    @cached_property
    def unjudgeable(self) -> str:
        """Why circuits cannot be judged by replay; empty where they can."""
        return cannot_judge(self.state)

    @property
    def for_stacks(self) -> int:
        """What of the budget a stack may take: recordings and changes have a quarter each."""
        return 3 * self.budget // 8

    def batches(self, plan: Plan) -> Iterator[range]:
        """Yield ranges of cells whose recorded changes fit into a quarter of the budget."""
        state = self.state
        per_position = state.n_prompts * state.final.shape[-1] * state.delta_dtype.itemsize
        at_logits = 1 if self.setup.metric.read is not None else state.n_pos
        share = self.budget // (4 * per_position)
        ports = sum(
            many * sum(len(run.recorded_ports) for run in plan.cells[number].runs[:-1])
            for number, many in plan.sweep.kinds()
        )
        if ports * state.n_pos <= share:
            yield range(len(plan.cells))
            return
        first, held, positions = 0, set[Any](), 0
        for number, cell in enumerate(plan.cells):
            # Cells that share a sender run share what it records.
            recorded = {
                (run.patched, state.point(port)): at_logits
                if isinstance(port.node, Logits)
                else state.n_pos
                for run in cell.runs[:-1]
                for port in run.recorded_ports
            }
            if held and positions + sum(recorded.values()) > share:
                yield range(first, number)
                first, held, positions = number, set(), 0
            positions += sum(size for key, size in recorded.items() if key not in held)
            held |= recorded.keys()
        yield range(first, len(plan.cells))

    def run_schedule(self, schedule: Schedule) -> Float[Tensor, "cell value"]:
        """Return the metric of every cell of a schedule."""
        outputs: dict[int, Outputs] = {}
        measured = self.state.final.new_zeros(0)
        for number, stage in enumerate(schedule.stages):
            match stage.name:
                case "send":
                    outputs[number] = run_send(self.state, stage, outputs, self.for_stacks)
                case "recompute":
                    outputs[number] = run_recompute(self.state, stage, outputs, self.for_stacks)
                case "measure":
                    measured = run_measure(self.state, stage, outputs, self.for_stacks)
                case "read out":
                    measured = run_read_out(self.state, stage, outputs)
        jobs = schedule.stages[-1].job_of_cell
        if jobs == tuple(range(len(measured))):
            return measured
        return measured[torch.tensor(jobs, device=measured.device)]


def _n_replaced(cell: Cell) -> int:
    """Return how many edges the last run of a cell patches."""
    return sum(len(op.senders) for op in cell.runs[-1].ports if isinstance(op, ReplaceSenders))


def warn_of_replay(plan: Plan, reason: str) -> None:
    """Warn, where the user asked, that the reference engine runs a plan."""
    ours = ("circuitgraph.", "jaxtyping.", "beartype.")
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_globals.get("__name__", "").startswith(ours):
        frame, level = frame.f_back, level + 1
    warnings.warn(
        f"the reference engine runs {plan.title!r}: {reason}", ReplayWarning, stacklevel=level
    )


def run_read_out(
    state: State, stage: Stage, outputs: dict[int, Outputs]
) -> Float[Tensor, "job value"]:
    """Return the metric of every job whose change has arrived at the logits."""
    changes = []
    read = state.setup.metric.read
    for job in stage.jobs:
        (op,) = job.run.ports
        assert not isinstance(op, ReplaceSenders)
        arrived = outputs[op.delta_from].ports[job.source(op.delta_from), state.point(op.port)]
        mask = state.setup.positions.mask(op.at)
        if read is not None and mask is None and arrived.is_only_where_metric_reads:
            changes.append(arrived.change)
            continue
        change = arrived.everywhere(state.n_pos)
        if mask is not None:
            change = change * mask[..., None]
        changes.append(change if read is None else change[state.rows, read[:, None]])
    return measure_rows(state, torch.stack(changes))
