"""One layer's attention on a stack of rows, where some rows' ports read something else.

What a head's port reads is put in by computing the head's own queries, keys or values from it. Keys
and values that several query heads share cannot be put in for one of them alone; such a head gets a
pass of its own, of which only its value is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.state import State
from circuitgraph.errors import HookError
from circuitgraph.lens.backend import Backend
from circuitgraph.lens.calls import FixedKeys, adapt_call
from circuitgraph.lens.sites import HookSite, unseen
from circuitgraph.nodes import Head, Port, PortName

__all__ = ["Override", "attend", "clean_prefix", "seen_in_attention"]


@dataclass(frozen=True, slots=True)
class Override:
    """A port of one row that reads another residual stream.

    Args:
        row: Which row of the stack.
        port: A head's port.
        reads: Which of the streams it reads.
    """

    row: int
    port: Port
    reads: int

    @property
    def head(self) -> int:
        """The head whose port it is."""
        assert isinstance(self.port.node, Head)
        return self.port.node.head


@dataclass(slots=True)
class _Pass:
    """One pass of one row: what is overridden in it, and which heads' values are kept from it.

    Args:
        row: Which row of the stack.
        overrides: Ports that read something else in this pass.
        whole: Whether overrides hold for all heads: where heads share what follows a projection.
        heads: The heads whose values are kept; None for all.
    """

    row: int
    overrides: list[Override] = field(default_factory=list)
    whole: bool = False
    heads: list[int] | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    """Projections of one port name that some passes use, in one slice of the widths or in all."""

    passes: Tensor
    widths: slice
    value: Tensor


def attend(
    state: State,
    layer: int,
    hidden: Float[Tensor, "row prompt query d_model"] | None,
    overrides: Sequence[Override],
    streams: Float[Tensor, "stream prompt query d_model"] | None,
    n_rows: int,
    start: int,
) -> Float[Tensor, "row prompt query width"]:
    """Return the heads' values, all heads side by side.

    Args:
        state: The experiment.
        layer: Which layer.
        hidden: What the rows' unpatched ports read; None where that is the clean stream, and then
            heads without an override are not computed: they are clean.
        overrides: Ports that read something else.
        streams: What those ports read.
        n_rows: Number of rows.
        start: The first position that is run; earlier ones are clean.
    """
    record = state.layer(layer)
    assert record.z is not None
    passes = _plan_passes(state, n_rows, overrides, live=hidden is not None)
    whole_rows = [number for number, one in enumerate(passes) if one.heads is None]
    found = _run_passes(state, layer, hidden, passes, streams, start) if passes else None
    if found is not None and len(whole_rows) == len(passes) == n_rows:
        return found
    clean_z = record.z[:, start:]
    z = clean_z.expand(n_rows, *clean_z.shape).clone()
    if found is None:
        return z
    if whole_rows:
        z[[passes[number].row for number in whole_rows]] = found[whole_rows]
    kept = [
        (number, one.row, head) for number, one in enumerate(passes) for head in one.heads or ()
    ]
    if kept:
        numbers, rows, heads = (
            torch.tensor(part, device=z.device) for part in zip(*kept, strict=True)
        )
        split = state.blocks.split(found)
        state.blocks.split(z)[rows, :, :, heads] = split[numbers, :, :, heads]
    return z


def seen_in_attention(
    state: State,
    layer: int,
    hidden: Float[Tensor, "row prompt pos d_model"],
    overrides: Sequence[Override],
    streams: Float[Tensor, "stream prompt pos d_model"] | None,
    site: HookSite,
) -> Float[Tensor, "row*prompt head query key"]:
    """Return what a hook with a head axis sees, of every head as its own ports make it.

    Args:
        state: The experiment.
        layer: Which layer.
        hidden: What the rows' unpatched ports read.
        overrides: Ports that read something else.
        streams: What those ports read.
        site: The hook: of attention patterns or scores, ``[prompt head query key]``.
    """
    passes = _plan_passes(state, len(hidden), overrides, live=True)
    with state.blocks.caught(site) as catch:
        _run_passes(state, layer, hidden, passes, streams, 0)
    if not catch.values:
        raise HookError(unseen(site.name))
    seen = catch.value.unflatten(0, (len(passes), state.n_prompts))
    rows = seen[: len(hidden)]
    for number, one in enumerate(passes):
        for head in one.heads or ():
            rows[one.row][:, head] = seen[number][:, head]
    return rows.flatten(0, 1)


def _plan_passes(
    state: State, n_rows: int, overrides: Sequence[Override], live: bool
) -> list[_Pass]:
    """Return as few passes as let every override act on its own head alone."""
    shape, apart = state.setup.graph.shape, state.traits.heads_apart
    per_group = shape.n_heads // shape.kv_heads
    passes = [_Pass(row) for row in range(n_rows)] if live else []
    main: dict[int, _Pass] = {one.row: one for one in passes}
    by_row: dict[int, dict[int, list[Override]]] = {}
    for one in overrides:
        by_row.setdefault(one.row, {}).setdefault(one.head, []).append(one)
    for row, by_head in by_row.items():
        alone: dict[int, list[Override]] = {}
        for head, ports in by_head.items():
            if not apart or (per_group > 1 and any(one.port.name != "q" for one in ports)):
                alone[head] = ports
                continue
            if row not in main:
                main[row] = _Pass(row, heads=[])
                passes.append(main[row])
            main[row].overrides += ports
            kept = main[row].heads
            if kept is not None:
                kept.append(head)
        if not apart:
            passes += [_Pass(row, ports, whole=True, heads=[head]) for head, ports in alone.items()]
        else:
            passes += _one_of_each_group(row, alone, per_group)
    return passes


def _one_of_each_group(row: int, waiting: dict[int, list[Override]], per_group: int) -> list[_Pass]:
    """Return passes for heads whose keys or values are shared: one head of every group in each."""
    passes = []
    while waiting:
        groups: dict[int, int] = {}
        for head in waiting:
            groups.setdefault(head // per_group, head)
        chosen = list(groups.values())
        passes.append(_Pass(row, [one for head in chosen for one in waiting[head]], heads=chosen))
        waiting = {head: ports for head, ports in waiting.items() if head not in chosen}
    return passes


def _run_passes(
    state: State,
    layer: int,
    hidden: Tensor | None,
    passes: Sequence[_Pass],
    streams: Tensor | None,
    start: int,
) -> Float[Tensor, "pass prompt query width"]:
    """Run all passes stacked and return every head's value in each."""
    blocks, record = state.blocks, state.layer(layer)
    n_passes, n_prompts = len(passes), state.n_prompts
    rows = [one.row for one in passes]
    clean = record.resid[:, start:]
    if hidden is None:
        base = clean.expand(n_passes, *clean.shape)
    elif rows == list(range(len(hidden))):
        base = hidden
    else:
        base = hidden[rows]
    flat = base.reshape(-1, *base.shape[2:])
    queries = slice(start, None) if start else None
    keys = clean_prefix(state, layer, n_passes, start) if start else None
    call = adapt_call(record.call, n_passes, n_prompts, state.n_pos, queries, keys)
    changes = _project(state, layer, passes, streams)
    made: dict[str, Callable[[Tensor], Tensor]] = {}
    for name in ("q", "k", "v"):
        recorded = getattr(record, name)
        if hidden is None:
            made[name] = _from_recorded(recorded[:, start:], n_passes, changes[name])
        elif changes[name]:
            made[name] = _with_changes(blocks, layer, name, n_passes, changes[name])
    z = blocks.attention_z(layer, flat, call, q=made.get("q"), k=made.get("k"), v=made.get("v"))
    return z.unflatten(0, (n_passes, n_prompts))


def clean_prefix(state: State, layer: int, n_rows: int, start: int) -> FixedKeys:
    """Return keys and values of the clean positions before ``start``, for every row."""
    record = state.layer(layer)
    assert record.keys is not None
    assert record.values is not None
    before = [part[:, :, :start].repeat(n_rows, 1, 1, 1) for part in (record.keys, record.values)]

    def attend_to(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)

    return FixedKeys(attend_to)


def _project(
    state: State, layer: int, passes: Sequence[_Pass], streams: Tensor | None
) -> dict[str, list[_Change]]:
    """Return, for q, k and v, which passes use another projection in which slice of the widths."""
    changes: dict[str, list[_Change]] = {"q": [], "k": [], "v": []}
    if streams is None:
        return changes
    blocks, record, shape = state.blocks, state.layer(layer), state.setup.graph.shape
    call = adapt_call(record.call, 1, state.n_prompts, state.n_pos)
    flat = streams.to(record.resid.dtype).flatten(0, 1)
    inputs = blocks.attention_input(layer, flat, call).unflatten(0, (len(streams), -1))
    groups: dict[tuple[PortName, int, int], list[tuple[int, int]]] = {}
    for number, one_pass in enumerate(passes):
        for one in one_pass.overrides:
            name = one.port.name
            width = getattr(record, name).shape[-1]
            start, stop = 0, width
            if not one_pass.whole:
                slots = shape.n_heads if name == "q" else shape.kv_heads
                slot = one.head // (shape.n_heads // slots)
                start, stop = slot * width // slots, (slot + 1) * width // slots
            groups.setdefault((name, start, stop), []).append((number, one.reads))
    for (name, start, stop), members in groups.items():
        numbers, reads = (
            torch.tensor(part, device=flat.device) for part in zip(*members, strict=True)
        )
        widths = slice(start, stop)
        value = blocks.project(layer, name, inputs[reads], widths)
        changes[name].append(_Change(numbers, widths, value))
    return changes


def _from_recorded(
    recorded: Tensor, n_passes: int, changes: list[_Change]
) -> Callable[[Tensor], Tensor]:
    """Return a projection that gives what was recorded, but for some changes."""

    def make(_: Tensor) -> Tensor:
        full = recorded.expand(n_passes, *recorded.shape)
        return _put(full.clone() if changes else full, changes).reshape(-1, *recorded.shape[1:])

    return make


def _with_changes(
    blocks: Backend, layer: int, name: str, n_passes: int, changes: list[_Change]
) -> Callable[[Tensor], Tensor]:
    """Return the model's own projection, but for some changes."""

    def make(inputs: Tensor) -> Tensor:
        full = blocks.project(layer, name, inputs).unflatten(0, (n_passes, -1))
        return _put(full, changes).flatten(0, 1)

    return make


def _put(full: Tensor, changes: list[_Change]) -> Tensor:
    for change in changes:
        full[change.passes, :, :, change.widths] = change.value
    return full
