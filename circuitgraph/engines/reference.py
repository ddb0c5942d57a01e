"""The reference engine: a plan, op by op, with ordinary hooks, one request at a time.

It is slow and meant to be obvious: whatever the fast engine does must give these numbers. Every
hook of a pass must fire exactly once, and none stays behind, since hooks live only inside a
``with backend.hooks(...)``. No recorded tensor is ever changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.engines.engine import MeasuredCells
from circuitgraph.engines.setup import Setup
from circuitgraph.engines.sources import SourceValues
from circuitgraph.errors import HookError
from circuitgraph.lens.record import BlockCall
from circuitgraph.lens.sites import HookSite, unseen
from circuitgraph.metrics import Readout
from circuitgraph.nodes import MLP, Embed, Head, Logits, Port, Writer
from circuitgraph.plan import (
    Cell,
    Freeze,
    FromRun,
    FromSource,
    PatchPort,
    PatchWrite,
    Plan,
    ReadLogits,
    Record,
    ReplaceSenders,
    Run,
)

__all__ = ["ReferenceEngine"]

Edit = Callable[[Tensor], Tensor]
Live = Callable[[Tensor], Tensor]


@dataclass
class Kept:
    """What a pass kept: streams by port, writes by node, activations by hook, and the logits."""

    ports: dict[Port, Tensor] = field(default_factory=dict)
    writes: dict[Writer, Tensor] = field(default_factory=dict)
    activations: dict[str, Tensor] = field(default_factory=dict)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))


class ReferenceEngine:
    """Runs plans hook by hook.

    Args:
        setup: The experiment.
    """

    name = "reference"

    def __init__(self, setup: Setup) -> None:
        """Prepare to run plans on an experiment; nothing is run yet."""
        self.setup = setup
        self.graph = setup.graph
        self.blocks = setup.backend
        self.sites = {
            metric.hook: self.blocks.find_hook(metric.hook) for metric in setup.metric.activations
        }
        self.forward_passes = 0
        self._inside = False
        self._patched_head: int | None = None
        self._patterns = 0

    def answering(self, plan: Plan) -> "ReferenceEngine":  # noqa: ARG002
        """Return this engine: it runs every plan."""
        return self

    def with_setup(self, setup: Setup) -> "ReferenceEngine":
        """Return an engine for other patched values or metrics; it records anew."""
        return ReferenceEngine(setup)

    def run(self, plan: Plan) -> Iterator[MeasuredCells]:
        """Yield the cells of a plan with their metric, per prompt: one cell at a time."""
        everyone = slice(0, self.setup.n_prompts)
        for number, cell in enumerate(plan.cells):
            kept = self.outcome(cell)
            yield MeasuredCells(
                (number,), everyone, self.measure(kept.logits, kept.activations)[None]
            )

    def outcome(self, cell: Cell) -> Kept:
        """Return what the last run of one cell gave."""
        earlier: list[Kept] = []
        for run in cell.runs:
            earlier.append(self.run_once(run, earlier))
        return earlier[-1]

    def measure(
        self,
        logits: Float[Tensor, "prompt pos d_vocab"],
        activations: Mapping[str, Tensor] = MappingProxyType({}),
        metric: Readout | None = None,
    ) -> Float[Tensor, "value"]:
        """Return the metric of a run, per prompt; of several metrics one after another.

        Args:
            logits: The run's full logits.
            activations: What it gave at the hooks that the metric reads.
            metric: What to measure in place of the experiment's own metric.
        """
        metric = metric or self.setup.metric
        values = metric.measure(self.read(logits, metric), self.read(self.clean.logits))
        found = [
            one.measure(activations[one.hook][None])[0].to(values.dtype)
            for one in metric.activations
        ]
        return torch.cat([values, *found]) if found else values

    def read(
        self, logits: Float[Tensor, "prompt pos d_vocab"], metric: Readout | None = None
    ) -> Tensor:
        """Return what the metric reads of full logits."""
        metric = metric or self.setup.metric
        if metric.read is None:
            return logits
        at = logits[torch.arange(len(logits), device=logits.device), metric.read]
        # Measured in float32 at least, as in the fast engine: half precision would round twice.
        at = at.to(torch.promote_types(at.dtype, torch.float32))
        return at if metric.tokens is None else at.gather(-1, metric.tokens)

    # -- recordings -----------------------------------------------------------------------------

    @cached_property
    def clean(self) -> Kept:
        """Every write and every port of the clean run."""
        self.calls = [
            layer.call for layer in self.blocks.record(self.setup.clean[:], fields=()).layers
        ]
        return self.one_pass(self.setup.clean, {}, {}, self.graph.ports, self.graph.writers)

    @cached_property
    def clean_metric(self) -> Float[Tensor, "value"]:
        """The metric on the clean prompts."""
        return self.measure(self.clean.logits, self.clean.activations)

    @cached_property
    def corrupt_metric(self) -> Float[Tensor, "value"]:
        """The metric on the corrupt prompts."""
        kept = self.one_pass(self.setup.corrupt, {}, {}, (), ())
        return self.measure(kept.logits, kept.activations, self.setup.corrupt_metric)

    @cached_property
    def sources(self) -> SourceValues:
        """Values to patch in, by source and node."""

        def writes_of(tokens: Int[Tensor, "sample pos"]) -> Mapping[Writer, Tensor]:
            return self.one_pass(tokens, {}, {}, (), self.graph.writers).writes

        return SourceValues(self.setup, lambda: writes_of(self.setup.corrupt), writes_of)

    # -- one run --------------------------------------------------------------------------------

    def run_once(self, run: Run, earlier: Sequence[Kept]) -> Kept:
        """Run one run of a plan, op by op."""
        clean = self.clean
        writes: dict[Writer, Edit] = {}
        ports: dict[Port, Live] = {}
        keep_ports: tuple[Port, ...] = ()
        keep_writes: tuple[Writer, ...] = ()
        for op in sorted(run.ops, key=lambda op: not isinstance(op, Freeze)):
            match op:
                case Freeze(nodes=nodes):
                    writes |= {node: _set_to(clean.writes[node]) for node in nodes}
                case PatchWrite():
                    writes[op.node] = self.patch_write(op, earlier, writes.get(op.node))
                case PatchPort():
                    ports[op.port] = self.patch_port(op, earlier)
                case ReplaceSenders():
                    pass  # resolved below, since what they read depends on earlier ports
                case Record(ports=recorded, writes=nodes):
                    keep_ports, keep_writes = (*keep_ports, *recorded), (*keep_writes, *nodes)
                case ReadLogits():
                    pass
                case _:
                    assert_never(op)
        replaced = [op for op in run.ports if isinstance(op, ReplaceSenders)]
        for op in sorted(replaced, key=lambda op: self.graph.reads_at(op.port)):
            ports[op.port] = self.replace_senders(op, writes, ports, earlier)
        return self.one_pass(self.setup.clean, writes, ports, keep_ports, keep_writes)

    def patch_write(self, op: PatchWrite, earlier: Sequence[Kept], before: Edit | None) -> Edit:
        """Return the edit that sets a node's write, at some positions or at all of them."""
        match op.value:
            case FromSource(source=source):
                value = self.sources.value(source, op.node)
            case FromRun(run=number):
                value = earlier[number].writes[op.node]
            case _:
                assert_never(op.value)
        if op.at is None:
            return _set_to(value)
        assert op.at is not None
        here, there = self.setup.positions.indices(op.at)  # type: ignore[arg-type]
        # Live values, and values of one's own, stand where they are patched in.
        if isinstance(op.value, FromRun) or op.value.source == "given":
            there = here
        rows = torch.arange(self.setup.n_prompts, device=value.device)[:, None]

        def edit(live: Tensor) -> Tensor:
            patched = (before(live) if before is not None else live).clone()
            patched[rows, here] = value[rows, there].to(patched.dtype)
            return patched

        return edit

    def patch_port(self, op: PatchPort, earlier: Sequence[Kept]) -> Live:
        """Return what a patched port reads, from what it would read."""
        clean = self.clean.ports[op.port]
        change = earlier[op.delta_from].ports[op.port] - clean
        keep = self.setup.positions.mask(op.at)

        def live(resid: Tensor) -> Tensor:
            patched = (clean if op.mode == "set" else resid) + change
            return patched if keep is None else torch.where(keep[..., None], patched, resid)

        return live

    def replace_senders(
        self,
        op: ReplaceSenders,
        writes: Mapping[Writer, Edit],
        ports: Mapping[Port, Live],
        earlier: Sequence[Kept],
    ) -> Live:
        """Return what a port reads when its senders' live writes are replaced.

        What is live before the port does not depend on the port, so a first pass finds every live
        write, and a second holds them all but the senders' and what lies between.
        """
        live = self.one_pass(self.setup.clean, writes, ports, (op.port,), self.graph.writers)
        held: dict[Writer, Edit] = {
            node: _set_to(value) for node, value in live.writes.items() if node not in op.through
        }
        for sender in op.senders:
            before = held.get(sender.node)
            held[sender.node] = self.patch_write(sender, earlier, before)
        shadow = self.one_pass(self.setup.clean, held, {}, (op.port,), ()).ports[op.port]
        keep = self.setup.positions.mask(op.at)

        def patched(resid: Tensor) -> Tensor:
            return shadow if keep is None else torch.where(keep[..., None], shadow, resid)

        return patched

    # -- one forward pass -----------------------------------------------------------------------

    def one_pass(
        self,
        tokens: Int[Tensor, "prompt pos"],
        writes: Mapping[Writer, Edit],
        ports: Mapping[Port, Live],
        keep_ports: Iterable[Port],
        keep_writes: Iterable[Writer],
    ) -> Kept:
        """Run the model once with writes and ports set, and keep what is wanted."""
        kept, live = Kept(), {}
        # A pass that was interrupted, Ctrl-C for example, may have left these as they were.
        self._inside, self._patched_head = False, None
        hooks: list[tuple[HookSite, Callable[..., Tensor | None]]] = []

        def see(port: Port) -> Callable[..., None]:
            def hook(resid: Tensor, hook: Any) -> None:
                live[port] = resid.detach().clone()

            return hook

        hooks += [
            (self.blocks.write_site(node), _edit_hook(edit))
            for node, edit in writes.items()
            if isinstance(node, Embed | MLP)
        ]
        for layer in range(self.graph.shape.n_layers):
            heads = {node: edit for node, edit in writes.items() if _in_layer(node, layer)}
            patched = {port: read for port, read in ports.items() if _in_layer(port.node, layer)}
            if heads or patched:
                site = self.blocks.write_site(Head(layer, 0))
                hooks.append((site, self.heads_hook(heads, patched, live)))
        for port in {*keep_ports, *ports}:
            hooks.append((self.blocks.port_site(port), see(port)))
        for port, read in ports.items():
            if isinstance(port.node, MLP):
                hooks.append((self.blocks.write_site(port.node), self.mlp_hook(port, read, live)))
            if isinstance(port.node, Logits):
                hooks.append((self.blocks.port_site(port), _edit_hook(read)))
        hooks += [
            (self.blocks.write_site(node), self.keep_hook(node, kept)) for node in keep_writes
        ]

        fired = [0] * len(hooks)
        counted = [
            (site, self.counted(number, hook, fired, tokens.shape))
            for number, (site, hook) in enumerate(hooks)
        ]
        shape = tokens.shape
        seeing = [(s, self.seeing(name, s, kept, shape)) for name, s in self.sites.items()]
        with self.blocks.hooks(counted + seeing):
            kept.logits = self.blocks.logits(tokens)
        self.forward_passes += 1
        for times, (site, _) in zip(fired, hooks, strict=True):
            if times != 1:
                raise HookError(
                    f"the hook at {site.name} fired {times} times in one pass instead of once: "
                    "this model cannot be patched there"
                )
        kept.ports = {port: live[port] for port in keep_ports}
        self.check_seen(kept)
        return kept

    def check_seen(self, kept: Kept) -> None:
        """Raise where a metric's hook never fired."""
        for name in self.sites:
            if name not in kept.activations:
                raise HookError(
                    f"the hook at {name} never fired: this model does not compute it, or only when "
                    "told to; choose another hook for the metric"
                )

    def seeing(
        self, name: str, site: HookSite, kept: Kept, shape: torch.Size
    ) -> Callable[..., None]:
        """Keep an activation that a metric reads, after any edit at the same hook.

        Heads with patched ports are recomputed by themselves: of an attention pattern, theirs is
        taken from there, be it before the whole attention hands out its own or after.
        """
        patched: dict[int, Tensor] = {}

        def hook(value: Tensor, hook: Any) -> None:
            if not self._inside:
                kept.activations[name] = _by_position(value.detach().clone(), shape)
            elif self._patched_head is not None and site.part == "pattern":
                patched[self._patched_head] = value[:, self._patched_head].detach().clone()
                self._patterns += 1
            for head, pattern in patched.items() if name in kept.activations else ():
                kept.activations[name][:, head] = pattern

        return hook

    def counted(
        self, number: int, inner: Callable[..., Any], fired: list[int], shape: torch.Size
    ) -> Callable[..., Any]:
        """Count how often a hook fires; keep it still while a part of a block runs by itself."""

        def hook(value: Tensor, hook: Any) -> Any:
            if self._inside:
                return None
            fired[number] += 1
            try:
                self._inside = True
                given = inner(_by_position(value, shape), hook)
            finally:
                self._inside = False
            return None if given is None else given.reshape(value.shape)

        return hook

    def heads_hook(
        self,
        writes: Mapping[Writer, Edit],
        ports: Mapping[Port, Live],
        live: Mapping[Port, Tensor],
    ) -> Callable[..., Tensor]:
        """Set heads' values: those whose ports are patched are recomputed, others are edited."""

        def hook(z: Tensor, hook: Any) -> Tensor:
            edited = z.reshape(*z.shape[:2], self.blocks.n_heads, -1).clone()
            for head in sorted({port.node for port in ports}):
                assert isinstance(head, Head)
                resid = next(live[port] for port in ports if port.node == head)
                q, k, v = (
                    ports[port](resid) if port in ports else resid
                    for port in (head.q, head.k, head.v)
                )
                new = self.attention_of(head, q, k, v)
                edited[:, :, head.head] = new[:, :, head.head]
            for node, edit in writes.items():
                assert isinstance(node, Head)
                edited[:, :, node.head] = edit(edited[:, :, node.head])
            return edited.reshape(z.shape)

        return hook

    def attention_of(self, head: Head, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return a layer's values when one head's ports read these; its pattern may be wanted."""
        wanted = [s for s in self.sites.values() if (s.layer, s.part) == (head.layer, "pattern")]
        try:
            self._patched_head, self._patterns = head.head, 0
            new = self.blocks.attention_from_ports(head.layer, q, k, v, self.call(head.layer))
        finally:
            self._patched_head = None
        if self._patterns < len(wanted):
            raise HookError(unseen(wanted[0].name))
        return new

    def mlp_hook(
        self, port: Port, read: Live, live: Mapping[Port, Tensor]
    ) -> Callable[..., Tensor]:
        """Set an MLP's output to what it makes of its patched port."""
        assert isinstance(port.node, MLP)
        layer = port.node.layer

        def hook(output: Tensor, hook: Any) -> Tensor:
            return self.blocks.mlp_output(layer, read(live[port]), self.call(layer))

        return hook

    def keep_hook(self, node: Writer, kept: Kept) -> Callable[..., None]:
        """Keep what a node writes; of a layer's heads, only the one."""

        def hook(value: Tensor, hook: Any) -> None:
            if isinstance(node, Head):
                value = value.reshape(*value.shape[:2], self.blocks.n_heads, -1)[:, :, node.head]
            kept.writes[node] = value.detach().clone()

        return hook

    def call(self, layer: int) -> BlockCall:
        """Return how a block is called on the clean prompts, besides its hidden states."""
        assert self.clean is not None
        return self.calls[layer]


def _by_position(value: Tensor, shape: torch.Size) -> Tensor:
    """Return an activation by prompt and position: some modules see them all side by side."""
    side_by_side = value.ndim == 2 and len(value) == shape.numel()
    return value.reshape(*shape, -1) if side_by_side else value


def _set_to(value: Tensor) -> Edit:
    return lambda live: value.to(live.dtype)


def _in_layer(node: object, layer: int) -> bool:
    return isinstance(node, Head) and node.layer == layer


def _edit_hook(edit: Edit) -> Callable[..., Tensor]:
    def hook(value: Tensor, hook: Any) -> Tensor:
        return edit(value)

    return hook
