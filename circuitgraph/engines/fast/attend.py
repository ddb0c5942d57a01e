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
from circuitgraph.lens.blocks import Blocks
from circuitgraph.lens.calls import FixedKeys, adapt_call
from circuitgraph.nodes import Head, Port

__all__ = ["Override", "attend"]


@dataclass(frozen=True, slots=True)
class Override:
    """A port of one row that reads another residual stream.

    Args:
        row: Which row of the stack.
        port: A head's port.
        resid: What it reads, ``[prompt query d_model]``.
    """

    row: int
    port: Port
    resid: Tensor

    @property
    def head(self) -> Head:
        """The head whose port it is."""
        assert isinstance(self.port.node, Head)
        return self.port.node


@dataclass(slots=True)
class _Pass:
    """One pass of one row: what is overridden in it, and which heads' values are kept from it."""

    row: int
    overrides: list[Override] = field(default_factory=list)
    whole: bool = False
    heads: list[int] | None = None


def attend(
    state: State,
    layer: int,
    hidden: Float[Tensor, "row prompt query d_model"] | None,
    overrides: Sequence[Override],
    n_rows: int,
    start: int,
) -> Float[Tensor, "row prompt query width"]:
    """Return the heads' values.

    Args:
        state: The experiment.
        layer: Which layer.
        hidden: What the rows' unpatched ports read; None where that is the clean stream, and then
            only the heads that have an override are computed.
        overrides: Ports that read something else.
        n_rows: Number of rows.
        start: The first position that is run; earlier ones are clean.

    Returns:
        All heads side by side for every row; heads that were not computed are clean.
    """
    record = state.layer(layer)
    assert record.z is not None
    passes = _plan_passes(state, n_rows, overrides, live=hidden is not None)
    clean_z = record.z[:, start:]
    z = clean_z.expand(n_rows, *clean_z.shape).clone()
    heads = state.blocks.split(z)
    if not passes:
        return z
    found = _run_passes(state, layer, hidden, passes, start)
    split = state.blocks.split(found)
    everything = [number for number, one in enumerate(passes) if one.heads is None]
    if everything:
        rows = [passes[number].row for number in everything]
        if rows == list(range(n_rows)) and len(everything) == len(passes):
            return found
        z[rows] = found[everything]
    for number, one in enumerate(passes):
        for head in one.heads or ():
            heads[one.row, :, :, head] = split[number, :, :, head]
    return z


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
        by_row.setdefault(one.row, {}).setdefault(one.head.head, []).append(one)
    for row, by_head in by_row.items():
        alone: dict[int, list[Override]] = {}
        together: dict[int, list[Override]] = {}
        for head, ports in by_head.items():
            shared = per_group > 1 and any(one.port.name != "q" for one in ports)
            (alone if shared or not apart else together)[head] = ports
        if together:
            if row not in main:
                main[row] = _Pass(row, heads=[])
                passes.append(main[row])
            for head, ports in together.items():
                main[row].overrides += ports
                if main[row].heads is not None:
                    main[row].heads.append(head)  # type: ignore[union-attr]
        if not apart:
            passes += [_Pass(row, ports, whole=True, heads=[head]) for head, ports in alone.items()]
            continue
        # One head of every group fits into a pass.
        waiting = dict(alone)
        while waiting:
            groups: dict[int, int] = {}
            for head in waiting:
                groups.setdefault(head // per_group, head)
            chosen = list(groups.values())
            ports = [one for head in chosen for one in waiting.pop(head)]
            passes.append(_Pass(row, ports, heads=chosen))
    return passes


def _run_passes(
    state: State, layer: int, hidden: Tensor | None, passes: Sequence[_Pass], start: int
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
    keys = None
    if start:
        assert record.keys is not None and record.values is not None
        old = (record.keys[:, :, :start], record.values[:, :, :start])

        def prefix(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            repeated = [part.repeat(n_passes, 1, 1, 1) for part in old]
            return torch.cat([repeated[0], k], dim=2), torch.cat([repeated[1], v], dim=2)

        keys = FixedKeys(prefix)
    queries = slice(start, None) if start else None
    call = adapt_call(record.call, n_passes, n_prompts, state.n_pos, queries, keys)
    overrides = [(number, one) for number, item in enumerate(passes) for one in item.overrides]
    whole = {number for number, item in enumerate(passes) if item.whole}
    projections = _project(state, layer, overrides, whole)
    made: dict[str, Callable[[Tensor], Tensor]] = {}
    for name in ("q", "k", "v"):
        recorded = getattr(record, name)
        if hidden is None:
            made[name] = _from_recorded(recorded[:, start:], n_passes, projections[name])
        elif projections[name]:
            made[name] = _with_changes(blocks, layer, name, n_passes, projections[name])
    z = blocks.attention_z(layer, flat, call, q=made.get("q"), k=made.get("k"), v=made.get("v"))
    return z.unflatten(0, (n_passes, n_prompts))


Changes = list[tuple[int, slice | None, Tensor]]


def _project(
    state: State, layer: int, overrides: Sequence[tuple[int, Override]], whole: set[int]
) -> dict[str, Changes]:
    """Return, for q, k and v, which pass reads which projection in which slice of the widths."""
    changes: dict[str, Changes] = {"q": [], "k": [], "v": []}
    if not overrides:
        return changes
    blocks, record = state.blocks, state.layer(layer)
    resid = torch.cat([one.resid for _, one in overrides])
    call = adapt_call(record.call, 1, state.n_prompts, state.n_pos)
    inputs = blocks.attention_input(layer, resid.to(record.resid.dtype), call)
    inputs = inputs.unflatten(0, (len(overrides), -1))
    shape = state.setup.graph.shape
    slots: dict[tuple[str, _Widths | None], list[int]] = {}
    for at, (number, one) in enumerate(overrides):
        name = one.port.name
        if number in whole:
            slots.setdefault((name, None), []).append(at)
            continue
        head = one.head.head
        if name != "q":
            head //= shape.n_heads // shape.kv_heads
        n_slots = shape.n_heads if name == "q" else shape.kv_heads
        width = getattr(record, name).shape[-1] // n_slots
        slots.setdefault((name, _Widths(head * width, (head + 1) * width)), []).append(at)
    for (name, widths), members in slots.items():
        part = None if widths is None else slice(widths.start, widths.stop)
        made = blocks.project(layer, name, inputs[members], part)
        for value, at in zip(made, members, strict=True):
            changes[name].append((overrides[at][0], part, value))
    return changes


@dataclass(frozen=True, slots=True)
class _Widths:
    """A slice that can be a dictionary's key."""

    start: int
    stop: int


def _from_recorded(recorded: Tensor, n_passes: int, changes: Changes) -> Callable[[Tensor], Tensor]:
    def make(_: Tensor) -> Tensor:
        full = recorded.expand(n_passes, *recorded.shape)
        return _put(full.clone() if changes else full, changes).reshape(-1, *recorded.shape[1:])

    return make


def _with_changes(
    blocks: Blocks, layer: int, name: str, n_passes: int, changes: Changes
) -> Callable[[Tensor], Tensor]:
    def make(inputs: Tensor) -> Tensor:
        full = blocks.project(layer, name, inputs).unflatten(0, (n_passes, -1))
        return _put(full, changes).flatten(0, 1)

    return make


def _put(full: Tensor, changes: Changes) -> Tensor:
    for number, widths, value in changes:
        if widths is None:
            full[number] = value
        else:
            full[number, :, :, widths] = value
    return full
