"""What circuits are judged against: the run in which every edge carries its patched value.

A port with no kept edge reads this run's stream. With the corrupt run as source, that is all there
is to know: its nodes write what was recorded. With any other source a node that reads this stream
writes something else than the patched value, and so is run once, for all circuits.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.engines.fast.attend import clean_prefix
from circuitgraph.engines.fast.state import State
from circuitgraph.lens.calls import adapt_call
from circuitgraph.nodes import MLP, Embed, Head, Writer
from circuitgraph.plan import Source

__all__ = ["Baseline", "added_by_block"]

Values = Float[Tensor, "prompt query width"]
Stream = Float[Tensor, "prompt query d_model"]


class Baseline:
    """The run in which every edge carries its patched value.

    Args:
        state: The experiment.
        source: Where patched values come from.
        patched: Which writers have a patched value; the others, which no circuit ever cuts, keep
            their clean one.
        start: The first position that is run; before it nothing differs from clean.
    """

    def __init__(
        self, state: State, source: Source, patched: NDArray[np.bool_], start: int
    ) -> None:
        """Look nothing up yet."""
        self.state = state
        self.source: Source = source
        self.start = start
        writers = state.setup.graph.writers
        self._patched = {writer for writer, does in zip(writers, patched, strict=True) if does}

    @property
    def replays(self) -> bool:
        """Whether a node that reads this run's stream writes its patched value."""
        return self.source == "corrupt"

    # -- patched values -------------------------------------------------------------------------

    def value(self, node: Writer) -> Values:
        """Return a node's patched value."""
        if node not in self._patched:
            return self.state.clean_value(node)[:, self.start :]
        return self.state.sources.value(self.source, node)[:, self.start :]

    def embed_change(self) -> Stream:
        """Return by how much the clean embedding differs from the patched one."""
        wide = self.state.delta_dtype
        clean = self.state.clean_value(Embed())[:, self.start :]
        return clean.to(wide) - self.value(Embed()).to(wide)

    def z(self, layer: int) -> Values:
        """Return the patched values of a layer's heads, side by side."""
        if self.source == "corrupt":
            z = self.state.corrupt.layers[layer].z
            assert z is not None
            # GPT-2's projections view what they are given, so it must lie in one piece.
            return z[:, self.start :].contiguous()
        return self._z[layer]

    @cached_property
    def _z(self) -> list[Values]:
        shape = self.state.setup.graph.shape
        return [
            torch.cat([self.value(Head(layer, head)) for head in range(shape.n_heads)], dim=-1)
            for layer in range(shape.n_layers)
        ]

    def mlp(self, layer: int) -> Stream:
        """Return the patched value of a layer's MLP."""
        return self.value(MLP(layer))

    # -- the stream -----------------------------------------------------------------------------

    def stream(self, point: int) -> Stream:
        """Return this run's stream at a point."""
        return self._streams[point]

    @cached_property
    def _streams(self) -> list[Stream]:
        """Points in order: before each block, and (in a sequential block) before its MLP.

        Not the clean stream plus a change: where all is patched to nothing, nothing must be left,
        not the rounding of a large number taken from itself.
        """
        state, found = self.state, []
        stream, window = self.value(Embed()), slice(self.start, None)
        for layer in range(len(state.blocks)):
            if self.replays:
                stream = state.corrupt.layers[layer].resid[:, window]
            call = adapt_call(state.layer(layer).call, 1, state.n_prompts, state.n_pos)
            mlp = self.mlp(layer) if state.blocks.has_mlp(layer) else None
            ran = state.blocks.run_block(layer, stream, call, z=self.z(layer), mlp=mlp)
            found += [stream, ran.mid]
            stream = ran.out
        if self.replays:
            assert state.corrupt.final is not None
            stream = state.corrupt.final[:, window]
        return [*found, stream]

    # -- what nodes write that read it ----------------------------------------------------------

    def live_z(self, layer: int) -> Values:
        """Return the values of a layer's heads where they read this run's stream."""
        return self.z(layer) if self.replays else self._live_z[layer]

    def live_mlp(self, layer: int) -> Stream:
        """Return what a layer's MLP writes where it reads this run's stream."""
        return self.mlp(layer) if self.replays else self._live_mlp[layer]

    @cached_property
    def _live_z(self) -> list[Values]:
        state, start, found = self.state, self.start, []
        for layer in range(len(state.blocks)):
            record = state.layer(layer)
            queries = slice(start, None) if start else None
            keys = clean_prefix(state, layer, 1, start) if start else None
            call = adapt_call(record.call, 1, state.n_prompts, state.n_pos, queries, keys)
            found.append(state.blocks.attention_z(layer, self.stream(2 * layer), call))
        return found

    @cached_property
    def _live_mlp(self) -> dict[int, Stream]:
        state, found = self.state, {}
        for layer in range(len(state.blocks)):
            if state.blocks.has_mlp(layer):
                point = state.point(MLP(layer).port)
                found[layer] = state.mlp_output(layer, self.stream(point))
        return found


def added_by_block(
    state: State,
    layer: int,
    z: Float[Tensor, "row prompt query width"],
    mlp: Float[Tensor, "row prompt query d_model"] | None,
) -> Sequence[Float[Tensor, "row prompt query d_model"]]:
    """Return what a block adds to its input before its MLP, and in all, from its nodes' values.

    The block runs on a stream of zeros, so nothing is lost beside a large one. That what a block
    adds follows from its nodes' values alone was found out before: see `Circuits.problem`.
    """
    hidden = z.new_zeros(*z.shape[:-1], state.final.shape[-1]).flatten(0, 1)
    call = adapt_call(state.layer(layer).call, len(z), state.n_prompts, state.n_pos)
    set_mlp = None if mlp is None else mlp.flatten(0, 1)
    found = state.blocks.run_block(layer, hidden, call, z=z.flatten(0, 1), mlp=set_mlp)
    wide = state.delta_dtype
    return [part.unflatten(0, (len(z), -1)).to(wide) for part in (found.mid, found.out)]
