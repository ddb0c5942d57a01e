"""One backward pass, block by block, that keeps the gradient at every port.

The gradient at a port is that of the metric with respect to the residual stream that this port
alone reads. Of a head's ports it is kept at the other end of the projection: per query head, the
copy of queries, keys or values that this head reads; `PortGradients` pulls it back from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from circuitgraph.graph import ModelGraph
from circuitgraph.lens.segments import LayerSegments, Segments, pull
from circuitgraph.nodes import MLP, Head, Logits, Port, PortName, Writer

__all__ = ["NOTHING_HELD", "Held", "LayerGradients", "RunGradients", "run_backward"]

Stream = Float[Tensor, "prompt pos d_model"]
Copies = Float[Tensor, "prompt pos head width"]
Where = Bool[Tensor, "prompt pos"] | None

HEAD_PORTS: tuple[PortName, ...] = ("q", "k", "v")


@dataclass(frozen=True, eq=False)
class Held:
    """What stays as it is while something before it changes: no gradient flows through it.

    Receivers that are patched together in mode ``set`` are such, and senders that are set together:
    what one of them changes does not reach the metric through another one.

    Args:
        ports: Ports, each with the positions at which it is held; None for all.
        writes: Nodes whose writes are held, likewise.
    """

    ports: Mapping[Port, Where] = field(default_factory=dict)
    writes: Mapping[Writer, Where] = field(default_factory=dict)

    def flow(self, gradient: Tensor, what: Port | Writer) -> Tensor:
        """Return what of a gradient ``[prompt pos width]`` flows on through a port or a node."""
        held = self.ports if isinstance(what, Port) else self.writes
        if what not in held:
            return gradient
        where = held[what]  # type: ignore[index]
        return torch.zeros_like(gradient) if where is None else gradient * ~where[..., None]


NOTHING_HELD = Held()


@dataclass(frozen=True, slots=True)
class LayerGradients:
    """Gradients in one block.

    Args:
        heads: At queries, keys and values, the copies that each query head reads. ``width`` is a
            head's own where heads are computed apart, else that of the whole projection.
        mlp: At what the MLP reads of the stream; None without one.
        mid: At the stream between attention and MLP, whoever reads it.
        resid: At the stream before the block, whoever reads it.
    """

    heads: dict[PortName, Copies]
    mlp: Stream | None
    mid: Stream
    resid: Stream


@dataclass(frozen=True, slots=True)
class RunGradients:
    """Gradients of one metric in one run.

    Args:
        layers: In every block.
        final: At what the logits read.
    """

    layers: Sequence[LayerGradients]
    final: Stream


def run_backward(
    segments: Segments,
    measured: Float[Tensor, "prompt"],
    graph: ModelGraph,
    *,
    heads_apart: bool,
    factors: Mapping[PortName, float],
    held: Held = NOTHING_HELD,
    keep: bool = False,
) -> RunGradients:
    """Return the gradients of a metric at all ports.

    Args:
        segments: A run.
        measured: The metric of its logits, per prompt; prompts do not meet, so their sum is taken.
        graph: The model's graph.
        heads_apart: Whether a head's value depends on its own projections alone.
        factors: What gradients at queries, keys and values are multiplied by.
        held: What no gradient flows through.
        keep: Whether the run is wanted again.
    """
    (final,) = torch.autograd.grad(measured.sum(), [segments.final], retain_graph=keep)
    block = _Block(graph, segments.parallel, heads_apart, factors, held, keep)
    layers: list[LayerGradients] = []
    stream = held.flow(final, Logits().port)
    for number in reversed(range(len(segments.layers))):
        layers.append(block.gradients(number, segments.layers[number], stream))
        stream = layers[-1].resid
    return RunGradients(layers[::-1], final)


@dataclass(frozen=True, slots=True)
class _Block:
    """How gradients pass a block."""

    graph: ModelGraph
    parallel: bool
    heads_apart: bool
    factors: Mapping[PortName, float]
    held: Held
    keep: bool

    def gradients(self, number: int, layer: LayerSegments, after: Stream) -> LayerGradients:
        """Return a block's gradients from that at its output."""
        assert layer.out is not None
        assert layer.z is not None
        made, gradients = [layer.out], [after]
        at_port: Stream | None = None
        if layer.mlp is not None and layer.mid is not None:
            at_port = self.mlp_port(number, layer, after)
            if not self.parallel:
                made.append(layer.mid.made)
                gradients.append(self.held.flow(at_port, MLP(number).port))
        mid = sum(gradients[1:], start=after)
        z, resid = pull(made, [layer.z.leaf, layer.resid], gradients, keep=self.keep)
        z = self.z_flow(number, z.reshape(*after.shape[:2], -1))
        copies = self.copies(layer, z)
        resid = resid + self.through_heads(number, layer, copies)
        if at_port is not None and self.parallel:
            resid = resid + self.held.flow(at_port, MLP(number).port)
        return LayerGradients(copies, at_port, mid, resid)

    def mlp_port(self, number: int, layer: LayerSegments, after: Stream) -> Stream:
        """Return the gradient at what the MLP alone reads."""
        assert layer.mlp is not None
        assert layer.mid is not None
        assert layer.out is not None
        (write,) = pull([layer.out], [layer.mlp.leaf], [after], keep=True)
        write = self.held.flow(write.reshape(after.shape), MLP(number))
        (reads,) = pull([layer.mlp.made], [layer.mid.leaf], [write], keep=self.keep)
        if self.parallel:
            # Attention and MLP may share their norm, so the run goes on as long as theirs does.
            (reads,) = pull([layer.mid.made], [layer.resid], [reads], keep=True)
        return reads.reshape(after.shape)

    def z_flow(self, number: int, z: Float[Tensor, "prompt pos values"]) -> Tensor:
        """Return the gradient at heads' values, less what heads that are held would pass on."""
        held = [node for node in self.held.writes if _head_of(node, number)]
        if not held:
            return z
        heads = z.unflatten(-1, (self.graph.shape.n_heads, -1)).clone()
        for node in held:
            assert isinstance(node, Head)
            heads[:, :, node.head] = self.held.flow(heads[:, :, node.head], node)
        return heads.flatten(-2)

    def copies(
        self, layer: LayerSegments, z: Float[Tensor, "prompt pos values"]
    ) -> dict[PortName, Copies]:
        """Return the gradient at each head's queries, and at the keys and values that it reads.

        Query heads of one group read the same keys. Each pass takes one head of every group, so
        what arrives at the keys of a group comes from this head.
        """
        assert layer.z is not None
        shape = self.graph.shape
        group = shape.n_heads // shape.kv_heads
        rounds = group if self.heads_apart else shape.n_heads
        leaves = [layer.projected[at].leaf for at in sorted(layer.projected)]
        found: dict[PortName, list[Tensor]] = {port: [] for port in HEAD_PORTS}
        heads = z.unflatten(-1, (shape.n_heads, -1))
        for turn in range(rounds):
            only = torch.zeros(shape.n_heads, 1, dtype=z.dtype, device=z.device)
            only[turn::rounds] = 1
            part = (heads * only).flatten(-2) if rounds > 1 else z
            last = turn == rounds - 1
            arrived = pull([layer.z.made], leaves, [part], keep=self.keep or not last)
            outputs = [gradient.reshape(*z.shape[:2], -1) for gradient in arrived]
            for port in HEAD_PORTS:
                cut = layer.ports[port]
                whole = cut.of(outputs[cut.module]) * self.factors.get(port, 1.0)
                if not self.heads_apart:
                    found[port].append(whole[:, :, None])
                    continue
                n_own = shape.n_heads if port == "q" else shape.kv_heads
                own = whole.unflatten(-1, (n_own, -1))
                found[port].append(own[:, :, turn::rounds] if port == "q" else own)
        # In turn `t` came head `t` of every group.
        return {
            port: rearrange(
                torch.stack(parts, dim=3)
                if self.heads_apart
                else torch.cat(parts, dim=2)[:, :, None],
                "prompt pos group turn width -> prompt pos (group turn) width",
            )
            for port, parts in found.items()
        }

    def through_heads(
        self, number: int, layer: LayerSegments, copies: Mapping[PortName, Copies]
    ) -> Stream:
        """Return what arrives at the block's input through its heads' ports."""
        shape = self.graph.shape
        made = [layer.projected[at].made for at in sorted(layer.projected)]
        tokens = copies["q"].shape[:2]
        gradients = [
            copies["q"].new_zeros(*tokens, value.numel() // tokens.numel()) for value in made
        ]
        held = [one for one in self.held.ports if _head_of(one.node, number)]
        for port in HEAD_PORTS:
            flow = copies[port]
            if any(one.name == port for one in held):
                flow = flow.clone()
            for one in held:
                if one.name == port and isinstance(one.node, Head):
                    head = one.node.head
                    flow[:, :, head] = self.held.flow(flow[:, :, head], one)
            if not self.heads_apart:
                flow = flow.sum(dim=2)
            elif port != "q":
                flow = flow.unflatten(2, (shape.kv_heads, -1)).sum(dim=3)
            cut = layer.ports[port]
            cut.add_to(gradients[cut.module], flow.flatten(2))
        (resid,) = pull(made, [layer.resid], gradients, keep=True)
        return resid


def _head_of(node: object, layer: int) -> bool:
    return isinstance(node, Head) and node.layer == layer
