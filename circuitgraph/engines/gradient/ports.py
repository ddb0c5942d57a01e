"""Gradients at ports, and what they make of changes that arrive there.

For a head's port the gradient with respect to the stream is never laid out where the norm before it
is known in closed form: it is the gradient at the queries (keys, values) times the weights, which
the norm turns into a scale per position and a multiple of the normalised stream. Pulling back
through the scale commutes with adding up runs, so all runs of an estimate share one product with
the weights; each run keeps its normalised stream, and one number per port and position.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.engines.gradient.backward import HEAD_PORTS, Copies, RunGradients
from circuitgraph.graph import ModelGraph
from circuitgraph.lens.norms import Identity, Norm
from circuitgraph.lens.segments import LayerSegments, Segments, pull
from circuitgraph.nodes import MLP, Head, Logits, Port, PortName

__all__ = ["Attention", "PortGradients", "prompt_slices", "token_slices"]

Tokens = Float[Tensor, "token *more"]

PORTS_AT_ONCE = 2**27
"""How many numbers of gradients at ports are laid out at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """What is known of the way from the stream to one layer's queries, keys and values.

    Args:
        norm: The norm that all three read.
        weights: By port, the projection's own weight, ``[d_model own*width]``.
        n_own: By port, how many heads that is: query heads, key-value heads, or 1 where a head's
            value depends on all projections.
    """

    norm: Norm | Identity
    weights: dict[PortName, Float[Tensor, "d_model features"]]
    n_own: dict[PortName, int]

    def weight(self, port: PortName, dtype: torch.dtype) -> Float[Tensor, "own width d_model"]:
        """Return from the normalised stream to a port's heads.

        Times the norm's weight; and less the mean, where the norm takes the mean away: what is
        along the mean then changes nothing.
        """
        weight = self.weights[port].to(dtype)
        if isinstance(self.norm, Norm):
            weight = weight * self.norm.weight.to(dtype)[:, None]
            if self.norm.centered:
                weight = weight - weight.mean(dim=0, keepdim=True)
        own = self.n_own[port]
        return rearrange(weight, "d_model (own width) -> own width d_model", own=own)


@dataclass(slots=True)
class _Heads:
    """Gradients at the ports of one layer's heads, added up over runs.

    Args:
        scaled: In closed form, by port: ``[head token width]``, times the norm's scale.
        streams: Per run, the normalised stream ``[token d_model]``.
        along: Per run, how much of it is taken away, ``[token port]``.
        whole: Where no closed form is known, gradients as they are: ``[token port d_model]``.
    """

    scaled: dict[PortName, Float[Tensor, "head token width"]] = field(default_factory=dict)
    streams: list[Float[Tensor, "token d_model"]] = field(default_factory=list)
    along: list[Float[Tensor, "token port"]] = field(default_factory=list)
    whole: Float[Tensor, "token port d_model"] | None = None


class PortGradients:
    """The mean gradient of one metric at every port, over the runs of an estimate.

    Args:
        graph: The model's graph.
        attention: What is known of every layer's projections; None for a layer whose norm or
            projection is not known in closed form.
        dtype: What sums are taken in.
        points: Whether gradients at the stream itself are wanted, whoever reads it.
        frozen: Whether a norm's scale counts as a constant.
    """

    def __init__(
        self,
        graph: ModelGraph,
        attention: Sequence[Attention | None],
        dtype: torch.dtype,
        *,
        points: bool = False,
        frozen: bool = False,
    ) -> None:
        """Hold nothing yet."""
        self.graph = graph
        self.attention = attention
        self.dtype = dtype
        self.frozen = frozen
        self.heads = [_Heads() for _ in attention]
        self.mlps: dict[int, Tensor] = {}
        self.final: Tensor | None = None
        self.points: dict[int, Tensor] | None = {} if points else None

    # -- adding up runs -------------------------------------------------------------------------

    def add(self, run: RunGradients, segments: Segments, share: float) -> None:
        """Add one run's gradients.

        Args:
            run: Its gradients.
            segments: The run itself; its graph must still be there for layers without closed form.
            share: What it counts for, such as one over the number of runs.
        """
        n_layers = len(run.layers)
        self.final = _added(self.final, self.flat(run.final) * share)
        for number, layer in enumerate(run.layers):
            if layer.mlp is not None:
                mlp = self.flat(layer.mlp) * share
                self.mlps[number] = _added(self.mlps.get(number), mlp)
            self._add_heads(number, layer.heads, segments.layers[number], share)
            if self.points is not None:
                for point, at in ((2 * number, layer.resid), (2 * number + 1, layer.mid)):
                    self.points[point] = _added(self.points.get(point), self.flat(at) * share)
        if self.points is not None:
            self.points[2 * n_layers] = self.final

    def flat(self, tensor: Tensor) -> Tokens:
        """Return a tensor ``[prompt pos ...]`` by token, in the type of the sums."""
        return tensor.detach().flatten(0, 1).to(self.dtype)

    def _add_heads(
        self, number: int, copies: dict[PortName, Copies], layer: LayerSegments, share: float
    ) -> None:
        known, held = self.attention[number], self.heads[number]
        if known is None:
            whole = torch.cat([self._whole(layer, port, copies[port]) for port in HEAD_PORTS], 1)
            held.whole = _added(held.whole, whole * share)
            return
        resid, along = self.flat(layer.resid), []
        scale: Tensor | float = share
        stream = None
        if isinstance(known.norm, Norm):
            scale = known.norm.scale(resid)[..., None] * share
            stream = None if self.frozen else known.norm.normalized(resid)
        for port in HEAD_PORTS:
            scaled = self.flat(copies[port]) * scale
            if stream is not None:
                along.append(self._along(known, port, stream, scaled))
            held.scaled[port] = _added(held.scaled.get(port), scaled.transpose(0, 1))
        if stream is not None:
            held.streams.append(stream)
            held.along.append(torch.cat(along, dim=1))

    def _along(
        self,
        known: Attention,
        port: PortName,
        stream: Float[Tensor, "token d_model"],
        scaled: Float[Tensor, "token head width"],
    ) -> Float[Tensor, "token head"]:
        """Return how much of the normalised stream a norm takes away, for each of a kind of port.

        That is the mean over ``d_model`` of gradient times stream: at the queries, a product of
        gradient and queries less their bias.
        """
        weight = known.weight(port, self.dtype)
        made = (stream @ weight.flatten(0, 1).T).unflatten(-1, weight.shape[:2])
        if len(weight) < scaled.shape[1]:
            made = made.repeat_interleave(scaled.shape[1] // len(weight), dim=1)
        return (made * scaled).sum(-1) / stream.shape[-1]

    def _whole(
        self, layer: LayerSegments, port: PortName, copies: Copies
    ) -> Float[Tensor, "token head d_model"]:
        """Return gradients at one kind of port, one vector-Jacobian product per head."""
        cut, n_heads = layer.ports[port], copies.shape[2]
        made = layer.projected[cut.module].made
        tokens = copies.shape[:2]
        nothing = copies.new_zeros(*tokens, made.numel() // tokens.numel())
        n_own, found = cut.of(nothing).shape[-1] // copies.shape[-1], []
        for head in range(n_heads):
            part = copies.new_zeros(*tokens, n_own, copies.shape[-1])
            part[:, :, head * n_own // n_heads] = copies[:, :, head]
            whole = torch.zeros_like(nothing)
            cut.add_to(whole, part.flatten(2))
            (resid,) = pull([made], [layer.resid], [whole], keep=True)
            found.append(self.flat(resid))
        return torch.stack(found, dim=1)

    # -- asking ---------------------------------------------------------------------------------

    def ports_at(self, point: int) -> tuple[Port, ...]:
        """Return the ports that read a point of the stream, in the order of `scores`."""
        layer, mid = divmod(point, 2)
        shape = self.graph.shape
        if layer == shape.n_layers:
            return (Logits().port,)
        mlp = (MLP(layer).port,) if shape.has_mlp(layer) else ()
        if mid:
            return () if shape.parallel else mlp
        heads = range(shape.n_heads)
        ports = [Port(Head(layer, head), name) for name in HEAD_PORTS for head in heads]
        return (*ports, *(mlp if shape.parallel else ()))

    def scores(
        self,
        point: int,
        changes: Float[Tensor, "token row d_model"],
        tokens: slice | Int[Tensor, "token"],
        columns: Sequence[int] | None = None,
    ) -> Float[Tensor, "token row port"]:
        """Return ``< change, gradient >`` per token.

        Args:
            point: Where the changes arrive.
            changes: Of the residual stream, at some tokens.
            tokens: Which tokens of ``prompt * pos`` these are.
            columns: Which of the ports there, by number; None for all.
        """
        ports = self.ports_at(point)
        wanted = range(len(ports)) if columns is None else columns
        layer = point // 2
        n_head_ports = 3 * self.graph.shape.n_heads
        whole, found = [], []
        heads = [number for number in wanted if number < n_head_ports] if len(ports) > 1 else []
        if heads:
            found.append(self._head_scores(layer, changes, tokens, heads))
        rest = [number for number in wanted if number not in set(heads)]
        for number in rest:
            node = ports[number].node
            gradient = self.final if isinstance(node, Logits) else self.mlps[layer]
            assert gradient is not None
            whole.append(gradient[tokens])
        if whole:
            found.append(torch.bmm(changes, torch.stack(whole, dim=2)))
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    def summed(
        self,
        point: int,
        changes: Float[Tensor, "row token d_model"],
        tokens: slice | Int[Tensor, "token"],
        n_prompts: int,
        columns: Sequence[int] | None = None,
    ) -> Float[Tensor, "some_prompts row port"]:
        """Return ``< change, gradient >``, summed over the tokens of each prompt.

        One matrix product for each prompt, over positions and width at once.

        Args:
            point: Where the changes arrive.
            changes: Of the residual stream, at some tokens.
            tokens: Which tokens of ``prompt * pos`` these are.
            n_prompts: How many prompts these tokens belong to, as many to each.
            columns: Which of the ports there, by number and in order; None for all.
        """
        ports = self.ports_at(point)
        wanted = list(range(len(ports))) if columns is None else list(columns)
        layer, by_prompt = point // 2, "row (prompt pos) width -> prompt row (pos width)"
        flat = rearrange(changes, by_prompt, prompt=n_prompts)
        n_heads = 3 * self.graph.shape.n_heads if len(ports) > 1 else 0
        heads = [number for number in wanted if number < n_heads]
        held, known = self.heads[layer] if heads else _Heads(), None
        found = []
        if heads:
            known = self.attention[layer]
            if known is None:
                assert held.whole is not None
                laid = held.whole[tokens][:, heads].transpose(0, 1)
            else:
                laid = self._laid_out(layer, tokens, heads).transpose(0, 1)
            laid = rearrange(laid, by_prompt, prompt=n_prompts)
            found.append(torch.bmm(flat, laid.transpose(1, 2)))
        if known is not None and held.streams:
            # What each run's norm takes away: along its normalised stream.
            streams = torch.stack([stream[tokens] for stream in held.streams], dim=2)
            along = torch.stack([one[tokens][:, heads] for one in held.along], dim=1)
            taken = torch.bmm(changes.transpose(0, 1), streams)
            found[0].baddbmm_(
                rearrange(taken, "(prompt pos) row run -> prompt row (pos run)", prompt=n_prompts),
                rearrange(
                    along, "(prompt pos) run port -> prompt (pos run) port", prompt=n_prompts
                ),
                alpha=-1,
            )
        for number in wanted[len(heads) :]:
            gradient = self.final if isinstance(ports[number].node, Logits) else self.mlps[layer]
            assert gradient is not None
            whole = rearrange(
                gradient[tokens], "(prompt pos) width -> prompt (pos width)", prompt=n_prompts
            )
            found.append(torch.bmm(flat, whole[:, :, None]))
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    def at_stream(
        self,
        point: int,
        changes: Float[Tensor, "token row d_model"],
        tokens: slice | Int[Tensor, "token"],
    ) -> Float[Tensor, "token row"]:
        """Return ``< change, gradient >`` per token, where all that reads the stream does."""
        assert self.points is not None
        return torch.bmm(changes, self.points[point][tokens][:, :, None])[:, :, 0]

    def _head_scores(
        self,
        layer: int,
        changes: Float[Tensor, "token row d_model"],
        tokens: slice | Int[Tensor, "token"],
        columns: Sequence[int],
    ) -> Float[Tensor, "token row port"]:
        held, known = self.heads[layer], self.attention[layer]
        if known is None:
            assert held.whole is not None
            return torch.bmm(changes, held.whole[tokens][:, columns].transpose(1, 2))
        ports = self._laid_out(layer, tokens, columns)
        found = torch.bmm(changes, ports.transpose(1, 2))
        if held.streams:
            # What each run's norm takes away: along its normalised stream.
            streams = torch.stack([stream[tokens] for stream in held.streams], dim=2)
            along = torch.stack([one[tokens][:, columns] for one in held.along], dim=1)
            found.baddbmm_(torch.bmm(changes, streams), along, alpha=-1)
        return found

    def _laid_out(
        self, layer: int, tokens: slice | Int[Tensor, "token"], columns: Sequence[int]
    ) -> Float[Tensor, "token port d_model"]:
        """Return heads' gradients times weights: all of the pull back but what is along."""
        held, known = self.heads[layer], self.attention[layer]
        assert known is not None
        n_heads = self.graph.shape.n_heads
        n_tokens, width = held.scaled["q"][0, tokens].shape[0], known.weights["q"].shape[0]
        shape = (len(columns), n_tokens, width)
        laid = torch.empty(shape, dtype=self.dtype, device=held.scaled["q"].device)
        first = 0
        for number, port in enumerate(HEAD_PORTS):
            heads = [column - number * n_heads for column in columns if column // n_heads == number]
            if not heads:
                continue
            weight = known.weight(port, self.dtype)
            own = weight[[head * len(weight) // n_heads for head in heads]]
            mine = held.scaled[port][:, tokens]
            mine = mine if len(heads) == n_heads else mine[heads]
            torch.bmm(mine, own, out=laid[first : first + len(heads)])
            first += len(heads)
        return laid.transpose(0, 1)


def _added(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total.add_(more)


def prompt_slices(
    n_prompts: int, n_pos: int, numbers_per_token: int, most: int
) -> Iterator[tuple[slice, slice]]:
    """Yield prompts and which tokens of ``prompt * pos`` are theirs, as many of each.

    Whole prompts, or parts of one, so that no more than ``most`` numbers are made at once.
    """
    step = most // max(1, numbers_per_token * n_pos)
    if step:
        for start in range(0, n_prompts, step):
            stop = min(n_prompts, start + step)
            yield slice(start, stop), slice(start * n_pos, stop * n_pos)
        return
    for prompt in range(n_prompts):
        for part in token_slices(n_pos, numbers_per_token, most):
            first = prompt * n_pos
            yield slice(prompt, prompt + 1), slice(first + part.start, first + part.stop)


def token_slices(n_tokens: int, numbers_per_token: int, most: int) -> Iterator[slice]:
    """Yield slices of tokens, so that no more than ``most`` numbers are made at once."""
    step = max(1, most // max(1, numbers_per_token))
    for start in range(0, n_tokens, step):
        yield slice(start, min(n_tokens, start + step))
