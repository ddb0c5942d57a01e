"""Path patches from first principles, on a `PlainTransformer`.

Everything rests on two functions. `shadow` answers "what would the nodes be if these senders sent
something else, these nodes were recomputed, and all others stayed as they are?"; the difference it
makes in the residual stream of a port is D. `live` runs the model with what its ports read replaced
by a function of the caller's. Tokens are `[prompt, pos]`; every result is logits
`[prompt, pos, d_vocab]` or a residual difference `[prompt, pos, d_model]`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tests.oracles.plain import (
    EMBED,
    LOGITS,
    Edge,
    Node,
    PlainTransformer,
    Port,
    Residual,
    Values,
    node_of,
)

Tokens = Int[Tensor, "prompt pos"]
LogitsTensor = Float[Tensor, "prompt pos d_vocab"]
Mode = Literal["set", "add", "replace"]


class At(NamedTuple):
    """One position of every prompt: where in the clean run, and where in the corrupt one.

    Without `corrupt`, it is the same position. Of a port's positions only `clean` is read.
    """

    clean: Int[Tensor, " prompt"]
    corrupt: Int[Tensor, " prompt"] | None = None


SendAt = Mapping[Node, Sequence[At]]
"""The positions of the senders that do not send at all positions."""

ReadAt = Mapping[Port, Sequence[At]]
"""The positions of the ports that are not patched at all positions."""


class Sent(NamedTuple):
    """What a sender sends instead of its own value, and where: everywhere if `at` is None."""

    value: Float[Tensor, "prompt pos d"]
    at: Sequence[At] | None = None

    def onto(self, value: Float[Tensor, "prompt pos d"]) -> Float[Tensor, "prompt pos d"]:
        """`value`, with what is sent in its place at the patched positions."""
        if self.at is None:
            return self.value
        patched = value.clone()
        prompts = torch.arange(len(value))
        for clean, corrupt in self.at:
            patched[prompts, clean] = self.value[prompts, clean if corrupt is None else corrupt]
        return patched


def product(senders: Collection[Node], receivers: Collection[Port]) -> list[Edge]:
    """Every sender with every receiver."""
    return [(sender, receiver) for receiver in receivers for sender in senders]


def corrupt_senders(
    model: PlainTransformer,
    corrupt: Tokens,
    senders: Collection[Node],
    send_at: SendAt | None = None,
) -> dict[Node, Sent]:
    """The senders with their corrupt values."""
    values = model.values(corrupt)
    return {node: Sent(values[node], (send_at or {}).get(node)) for node in senders}


def shadow(
    model: PlainTransformer,
    background: Values,
    sent: Mapping[Node, Sent],
    through: Collection[Node],
    until: Port = LOGITS,
) -> dict[Node, Tensor]:
    """The value of every node before `until`, when the senders send what they send.

    Nodes in `through` are recomputed, all others keep their background value. A sender is set: at
    positions where it sends nothing it is what it would be otherwise.
    """
    values: dict[Node, Tensor] = {}
    for node in model.senders(until):
        value = background[node]
        if node in through and node != EMBED:
            value = model.value(node, lambda port: model.residual_at(values, port))
        if node in sent:
            value = sent[node].onto(value)
        values[node] = value
    return values


def difference(
    model: PlainTransformer,
    background: Values,
    sent: Mapping[Node, Sent],
    receiver: Port,
    through: Collection[Node],
) -> Residual:
    """D at one receiver, for any values sent over any background."""
    _check_order(model, sent, receiver)
    patched = shadow(model, background, sent, through, receiver)
    return model.residual_at(patched, receiver) - model.residual_at(background, receiver)


def live(
    model: PlainTransformer,
    tokens: Tokens,
    read: Callable[[Port, Values], Residual],
    sent: Mapping[Node, Sent] | None = None,
) -> LogitsTensor:
    """Run the model; each port reads what `read` says, given the values so far."""
    sent = sent or {}
    values: dict[Node, Tensor] = {}
    for node in model.nodes:
        if node == EMBED:
            value = model.embed(tokens)
        else:
            value = model.value(node, lambda port: read(port, values))
        values[node] = sent[node].onto(value) if node in sent else value
    return model.logits(read(LOGITS, values))


def patch_receivers(
    model: PlainTransformer,
    clean: Tokens,
    sent: Mapping[Port, Mapping[Node, Sent]],
    *,
    through: Collection[Node],
    mode: Mode,
    read_at: ReadAt | None = None,
) -> LogitsTensor:
    """Patch each receiver with what its own senders send; everything else is recomputed."""
    for receiver, senders in sent.items():
        _check_order(model, senders, receiver)
    clean_values = model.values(clean)

    def read(port: Port, values: Values) -> Residual:
        unpatched = model.residual_at(values, port)
        if port not in sent:
            return unpatched
        match mode:
            case "set":
                change = difference(model, clean_values, sent[port], port, through)
                patched = model.residual_at(clean_values, port) + change
            case "add":
                change = difference(model, clean_values, sent[port], port, through)
                patched = unpatched + change
            case "replace":
                return replaced(model, values, sent, port, through=through, read_at=read_at)
        return Sent(patched, _same_position((read_at or {}).get(port))).onto(unpatched)

    return live(model, clean, read)


def replaced(
    model: PlainTransformer,
    live_values: Values,
    sent: Mapping[Port, Mapping[Node, Sent]],
    port: Port,
    *,
    through: Collection[Node],
    on_the_way: Mapping[Node, Sent] | None = None,
    read_at: ReadAt | None = None,
) -> Residual:
    """What a port reads in mode `replace`: the live stream with its senders' values replaced.

    A node in `through` is recomputed from that stream, and every other node is live. If the node
    in `through` is itself a receiver, its own senders are replaced as well in what it reads: it
    stays patched. `on_the_way` holds the senders of the receivers further down.
    """
    on_the_way = on_the_way or {}

    def stream(replacing: Mapping[Node, Sent]) -> Residual:
        values = {}
        for node in model.senders(port):
            value = live_values[node]
            if node in through and node != EMBED:
                value = model.value(
                    node,
                    lambda inner: replaced(
                        model,
                        live_values,
                        sent,
                        inner,
                        through=through,
                        on_the_way=replacing,
                        read_at=read_at,
                    ),
                )
            values[node] = replacing[node].onto(value) if node in replacing else value
        return model.residual_at(values, port)

    at = _same_position((read_at or {}).get(port))
    return Sent(stream({**on_the_way, **sent.get(port, {})}), at).onto(stream(on_the_way))


def _check_order(model: PlainTransformer, senders: Collection[Node], receiver: Port) -> None:
    for sender in senders:
        if not model.before(sender, receiver):
            raise ValueError(f"{sender} is not before {receiver}")


def _same_position(at: Sequence[At] | None) -> list[At] | None:
    return None if at is None else [At(clean) for clean, _ in at]


# ---------------------------------------------------------------------------- what tests ask for


def direct_difference(
    model: PlainTransformer,
    clean: Tokens,
    corrupt: Tokens,
    senders: Collection[Node],
    receivers: Collection[Port],
    *,
    through: Collection[Node] = (),
    send_at: SendAt | None = None,
) -> dict[Port, Residual]:
    """D at every receiver: clean run, senders corrupt, `through` recomputed, all others frozen.

    `through` is `model.mlps` for the variant "mlps" and empty for "single-pass".
    """
    clean_values = model.values(clean)
    sent = corrupt_senders(model, corrupt, senders, send_at)
    return {port: difference(model, clean_values, sent, port, through) for port in receivers}


def patch_edges(
    model: PlainTransformer,
    clean: Tokens,
    corrupt: Tokens,
    edges: Collection[Edge],
    *,
    through: Collection[Node] = (),
    mode: Mode = "set",
    send_at: SendAt | None = None,
    read_at: ReadAt | None = None,
) -> LogitsTensor:
    """Patch edges together, each receiver with its own senders; all downstream recomputed (`=>`).

    The logits may be among the receivers. `product(senders, receivers)` makes the edges of
    `senders -> receivers => logits`.
    """
    sent: dict[Port, dict[Node, Sent]] = {}
    corrupt_values = corrupt_senders(model, corrupt, {node for node, _ in edges}, send_at)
    for sender, receiver in edges:
        sent.setdefault(receiver, {})[sender] = corrupt_values[sender]
    return patch_receivers(model, clean, sent, through=through, mode=mode, read_at=read_at)


def patch_path(
    model: PlainTransformer,
    clean: Tokens,
    corrupt: Tokens,
    steps: Sequence[Collection[Node | Port]],
    *,
    through: Collection[Node] = (),
    end: Literal["->", "=>"] = "->",
    mode: Mode = "set",
    send_at: SendAt | None = None,
    read_at: ReadAt | None = None,
) -> LogitsTensor:
    """`steps[0] -> steps[1] -> ... -> logits`, or with `=>` before the logits.

    The first step holds nodes, all others ports; the logits are not a step. An inner node is
    recomputed from its patched ports alone, all else clean, and its changed value is the sender of
    the next hop. `mode` matters only where the last receivers before `=>` reach each other.
    """
    senders, *hops = steps
    last = hops.pop() if hops and end == "=>" else None
    sent = corrupt_senders(model, corrupt, senders, send_at)
    for hop in hops:
        sent = relay(model, clean, sent, hop, through=through, read_at=read_at)
    if end == "=>" and last is None:
        return live(model, clean, lambda port, values: model.residual_at(values, port), sent)
    receivers = [LOGITS] if last is None else last
    return patch_receivers(
        model,
        clean,
        dict.fromkeys(receivers, sent),
        through=through,
        mode=mode,
        read_at=read_at,
    )


def relay(
    model: PlainTransformer,
    clean: Tokens,
    sent: Mapping[Node, Sent],
    ports: Collection[Port],
    *,
    through: Collection[Node] = (),
    read_at: ReadAt | None = None,
) -> dict[Node, Sent]:
    """What the nodes of these ports become when the ports alone hear the senders."""
    clean_values = model.values(clean)

    def read(port: Port) -> Residual:
        residual = model.residual_at(clean_values, port)
        if port not in ports:
            return residual
        patched = residual + difference(model, clean_values, sent, port, through)
        return Sent(patched, _same_position((read_at or {}).get(port))).onto(residual)

    return {node_of(port): Sent(model.value(node_of(port), read)) for port in ports}


def activation_patch(
    model: PlainTransformer,
    clean: Tokens,
    corrupt: Tokens,
    nodes: Collection[Node],
    send_at: SendAt | None = None,
) -> LogitsTensor:
    """`nodes => logits`: the nodes corrupt, everything after them recomputed."""
    return patch_path(model, clean, corrupt, [nodes], end="=>", send_at=send_at)


def unrolled(
    model: PlainTransformer,
    clean: Tokens,
    corrupt: Tokens,
    edges: Collection[Edge],
    *,
    through: Collection[Node] = (),
    send_at: SendAt | None = None,
    read_at: ReadAt | None = None,
) -> LogitsTensor:
    """The graph unrolled into a tree of paths; those that cross `edges` start from corrupt tokens.

    An edge is crossed by a path that goes from its sender to its receiver through nothing but
    nodes of `through`. Every node is computed anew for every path from it to the logits, so the
    time is exponential in the number of layers.
    """
    inputs = {False: model.embed(clean), True: model.embed(corrupt)}

    def value(node: Node, crossed: bool, on_the_way: frozenset[Node]) -> Tensor:
        """`on_the_way`: the senders whose edges are crossed by paths that come straight here."""
        if node == EMBED:
            return inputs[crossed]
        waiting = on_the_way if node in through else frozenset()
        return model.value(node, lambda port: read(port, crossed, waiting))

    def read(port: Port, crossed: bool, on_the_way: frozenset[Node]) -> Residual:
        here = frozenset(sender for sender, receiver in edges if receiver == port)
        at = _same_position((read_at or {}).get(port))
        patched = stream(port, crossed, on_the_way | here)
        return patched if at is None else Sent(patched, at).onto(stream(port, crossed, on_the_way))

    def stream(port: Port, crossed: bool, crossing: frozenset[Node]) -> Residual:
        values = {}
        for sender in model.senders(port):
            values[sender] = value(sender, crossed, crossing)
            if not crossed and sender in crossing:
                corrupt_value = value(sender, True, frozenset())
                at = (send_at or {}).get(sender)
                values[sender] = Sent(corrupt_value, at).onto(values[sender])
        return model.residual_at(values, port)

    return model.logits(read(LOGITS, False, frozenset()))
