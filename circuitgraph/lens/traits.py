"""What is special about a model, found by trying it out rather than by its name."""

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.lens.backend import Backend
from circuitgraph.lens.calls import CannotSlice, FixedKeys, adapt_call
from circuitgraph.lens.record import Recording
from circuitgraph.lens.shortage import is_shortage

__all__ = ["Traits", "find_traits", "probe_length", "probes"]

LARGE = 2.0**14
"""How large logits are made to see whether a model caps them; every type holds it."""

LEAST_PROBE = 8
"""Length of a probe, in tokens, where prompts are shorter: one token looks at no other."""


@dataclass(frozen=True, slots=True)
class Traits:
    """How far parts of a model can be run by themselves.

    Args:
        additive: Every block adds its attention's and MLP's outputs to its input as they are.
        plain_readout: Logits are the unembedding of the final norm, with nothing after it.
        heads_apart: A head's queries, keys and values depend on its own projections alone.
        direct_mlp: An MLP and its norm give by themselves what they give in their block.
        sliceable: The attention can be run at some query positions with the keys of all.
        causal: What is computed at a position depends on no later one.
        problems: Why the model cannot be replayed exactly; empty where it can.
    """

    additive: bool
    plain_readout: bool
    heads_apart: bool
    sliceable: bool
    direct_mlp: bool = False
    causal: bool = True
    problems: tuple[str, ...] = ()


def probe_length(blocks: Backend, n_pos: int) -> int:
    """Return how many tokens a probe has: as many as prompts, but not too few to tell anything."""
    wanted = max(n_pos, LEAST_PROBE)
    return min(wanted, blocks.limits.n_ctx) if blocks.limits.n_ctx else wanted


def probes(
    blocks: Backend, length: int
) -> tuple[Int[Tensor, "prompt pos"], Int[Tensor, "prompt pos"]]:
    """Return two pairs of random prompts, which differ at every position.

    What a model is must not hang on whether a user's prompts are short or alike.
    """
    generator = torch.Generator().manual_seed(length)
    n_words = blocks.limits.d_vocab
    clean = torch.randint(n_words, (2, length), generator=generator)
    other = torch.randint(1, max(2, n_words), (2, length), generator=generator)
    device = blocks.limits.device
    return clean.to(device), ((clean + other) % n_words).to(device)


def find_traits(blocks: Backend, clean: Recording, corrupt: Recording) -> Traits:
    """Return a model's traits, tried out on two recorded runs.

    Args:
        blocks: The model's blocks.
        clean: A recording with all fields, and logits at all positions.
        corrupt: Another one on other tokens of the same shape.
    """
    problems: list[str] = []
    for what, check in (
        ("replaying the clean run block by block does not give its logits", _replays_clean),
        ("all writers corrupt do not give the corrupt run's logits", _becomes_corrupt),
        ("an MLP run by itself does not give what it gave in the model", _mlps_alone),
        ("an attention run by itself does not give what it gave in the model", _attention_alone),
    ):
        try:
            if not check(blocks, clean, corrupt):
                problems.append(what)
        except Exception as error:  # whatever a foreign block does, we must not replay it
            if is_shortage(error):
                raise
            problems.append(f"{what} ({type(error).__name__}: {error})")
    causal = not problems and _causal(blocks, clean)
    return Traits(
        additive=_additive(clean),
        plain_readout=not problems and _plain_readout(blocks, clean),
        heads_apart=not problems and _heads_apart(blocks, clean, corrupt),
        sliceable=causal and _sliceable(blocks, clean),
        direct_mlp=not problems and _mlps_direct(blocks, clean, corrupt),
        causal=causal,
        problems=tuple(problems),
    )


def close(one: Tensor, other: Tensor, looser: float = 1.0) -> bool:
    """Return whether two tensors agree to their type's precision, relative to the largest value."""
    tolerance = {torch.float64: 1e-6, torch.float32: 2e-4}.get(one.dtype, 5e-2) * looser
    scale = other.abs().amax().clamp_min(1e-6)
    return bool(((one - other).abs().amax() <= tolerance * scale).item())


def _replays_clean(blocks: Backend, clean: Recording, corrupt: Recording) -> bool:
    hidden = clean.layers[0].resid
    for number, layer in enumerate(clean.layers):
        hidden = blocks.run_block(number, hidden, layer.call, z=layer.z, mlp=layer.mlp).out
    assert clean.logits is not None
    return close(blocks.read_out(hidden, clean.layers[0].call), clean.logits)


def _becomes_corrupt(blocks: Backend, clean: Recording, corrupt: Recording) -> bool:
    """Embedding and heads corrupt, MLPs live: that is the corrupt run."""
    hidden = corrupt.layers[0].resid
    for number, (layer, other) in enumerate(zip(clean.layers, corrupt.layers, strict=True)):
        hidden = blocks.run_block(number, hidden, layer.call, z=other.z).out
    assert corrupt.logits is not None
    return close(blocks.read_out(hidden, clean.layers[0].call), corrupt.logits)


def _mlps_alone(blocks: Backend, clean: Recording, corrupt: Recording) -> bool:
    for number, layer in enumerate(corrupt.layers):
        if layer.mlp is not None:
            mid = layer.resid if layer.mid is None else layer.mid
            if not close(blocks.mlp_output(number, mid, layer.call), layer.mlp):
                return False
    return True


def _mlps_direct(blocks: Backend, clean: Recording, corrupt: Recording) -> bool:
    for number, layer in enumerate(corrupt.layers):
        if layer.mlp is not None:
            mid = layer.resid if layer.mid is None else layer.mid
            try:
                alone = blocks.mlp_output(number, mid, layer.call, direct=True)
            except Exception as error:  # some cannot be called alone
                if is_shortage(error):
                    raise
                return False
            if alone.shape != layer.mlp.shape or not close(alone, layer.mlp, looser=0.1):
                return False
    return True


def _attention_alone(blocks: Backend, clean: Recording, corrupt: Recording) -> bool:
    for number, layer in enumerate(corrupt.layers):
        resid = layer.resid
        z = blocks.attention_from_ports(number, resid, resid, resid, layer.call)
        assert layer.z is not None
        if not close(z.flatten(-2), layer.z):
            return False
    return True


def _additive(clean: Recording) -> bool:
    ends = [*(layer.resid for layer in clean.layers[1:]), clean.final]
    for layer, end in zip(clean.layers, ends, strict=True):
        assert layer.attn is not None
        assert layer.projected is not None
        assert end is not None
        total = layer.resid + layer.attn
        if layer.mid is not None and not close(total, layer.mid, looser=0.1):
            return False
        if layer.mlp is not None:
            total = total + layer.mlp
        if not close(total, end, looser=0.1) or not close(layer.projected, layer.attn, looser=0.1):
            return False
    return True


def _plain_readout(blocks: Backend, clean: Recording) -> bool:
    assert clean.final is not None
    assert clean.logits is not None
    logits = blocks.unembedded(clean.final)
    if logits is None or not close(logits, clean.logits, looser=0.1):
        return False
    # A cap leaves small logits as they are, to the precision of their type: look at large ones.
    scale = 2.0 ** math.floor(math.log2(LARGE / max(float(logits.abs().max()), 1e-6)))
    capped = blocks.read_out(clean.final, clean.layers[0].call, scale=scale)
    return close(capped, logits * scale, looser=0.1)


def _heads_apart(blocks: Backend, clean: Recording, corrupt: Recording) -> bool:
    """Whether changing the projections of the first head leaves the others alone."""
    if blocks.n_heads == 1:
        return True
    if clean.tokens.shape[1] == 1:  # one token looks at itself, whatever its query
        return False
    for number, (layer, other) in enumerate(zip(clean.layers, corrupt.layers, strict=True)):
        assert layer.q is not None
        assert other.q is not None
        assert layer.z is not None
        width = layer.q.shape[-1] // blocks.n_heads
        if torch.equal(other.q[..., :width], layer.q[..., :width]):
            return False  # nothing was changed, so nothing was seen
        q = torch.cat([other.q[..., :width], layer.q[..., width:]], dim=-1)
        z = blocks.attention_z(number, layer.resid, layer.call, q=functools.partial(_give, q))
        d_head = layer.z.shape[-1] // blocks.n_heads
        if not close(z[..., d_head:], layer.z[..., d_head:], looser=0.1):
            return False
    return True


def _causal(blocks: Backend, clean: Recording) -> bool:
    """Return whether other tokens in the second half leave the first half alone."""
    half = clean.tokens.shape[1] // 2
    if half == 0:  # there is nothing before the only token
        return False
    tokens = clean.tokens.clone()
    tokens[:, half:] = (tokens[:, half:] + 1) % blocks.limits.d_vocab
    other = blocks.record(tokens, fields=())
    assert clean.final is not None
    assert other.final is not None
    if torch.equal(other.final[:, half:], clean.final[:, half:]):
        return False  # nobody heard the other tokens
    return close(other.final[:, :half], clean.final[:, :half], looser=0.1)


def _sliceable(blocks: Backend, clean: Recording) -> bool:
    """Whether running the attention at the last positions alone gives what it gave there."""
    n_prompts, n_pos = clean.tokens.shape
    if n_pos == 1:
        return False
    start = n_pos // 2
    rows = torch.arange(n_prompts, device=clean.tokens.device)[:, None]
    for number, layer in enumerate(clean.layers):
        if layer.keys is None or layer.values is None or layer.z is None:
            return False
        keys, values = layer.keys, layer.values

        def prefix(
            k: Tensor, v: Tensor, keys: Tensor = keys, values: Tensor = values
        ) -> tuple[Tensor, Tensor]:
            return (
                torch.cat([keys[:, :, :start], k], dim=2),
                torch.cat([values[:, :, :start], v], dim=2),
            )

        try:
            call = adapt_call(
                layer.call, 1, n_prompts, n_pos, slice(start, None), FixedKeys(prefix)
            )
            z = blocks.attention_z(number, layer.resid[:, start:], call)
            if not close(z, layer.z[:, start:]):
                return False
            last: Int[Tensor, "prompt 1"] = torch.full((n_prompts, 1), n_pos - 1, device=z.device)
            last[0] = start
            whole = FixedKeys(functools.partial(_give_both, keys, values))
            call = adapt_call(layer.call, 1, n_prompts, n_pos, last, whole)
            z = blocks.attention_z(number, layer.resid[rows, last], call)
            if not close(z, layer.z[rows, last]):
                return False
        except (CannotSlice, RuntimeError, TypeError, AttributeError, IndexError) as error:
            if is_shortage(error):
                raise
            return False
    return True


def _give(value: Tensor, _: Tensor) -> Tensor:
    return value


def _give_both(keys: Tensor, values: Tensor, _: Tensor, __: Tensor) -> tuple[Tensor, Tensor]:
    return keys, values
