"""What the stages share: recordings of the prompts, positions, and the deltas to patch in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from circuitgraph.engines.setup import Setup
from circuitgraph.engines.sources import SourceValues
from circuitgraph.lens.backend import Backend
from circuitgraph.lens.record import LayerRecord, Recording
from circuitgraph.lens.sites import HookSite
from circuitgraph.lens.traits import Traits
from circuitgraph.nodes import MLP, Embed, Head, Port, Writer
from circuitgraph.plan import FromRun, FromSource, PatchWrite, Source
from circuitgraph.request import EachPosition, Positions
from circuitgraph.schedule import Where
from circuitgraph.schedule.schedule import METRIC, Job

__all__ = ["Arrived", "Outputs", "State"]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A change of the residual stream, at some positions of every prompt.

    Args:
        change: ``[prompt place d_model]``.
        places: The position of each place, ``[prompt place]``; None where places are all positions.
        where: What the places are: named positions, or all from one position on.
    """

    change: Float[Tensor, "prompt place d_model"]
    places: Int[Tensor, "prompt place"] | None = None
    where: Where | int = None

    @property
    def is_only_where_metric_reads(self) -> bool:
        """Whether the change was kept at the metric's one position and nowhere else."""
        return self.where == frozenset({METRIC})

    def everywhere(self, n_pos: int) -> Float[Tensor, "prompt pos d_model"]:
        """Return the change at every position: zero where it was not kept."""
        if self.places is None:
            return self.change
        full = self.change.new_zeros(self.change.shape[0], n_pos, self.change.shape[2])
        index = self.places[..., None].expand_as(self.change)
        return full.scatter(1, index, self.change)


@dataclass(slots=True)
class Outputs:
    """What a stage recorded, by job.

    Args:
        ports: Changes that arrived at points of the residual stream.
        writes: Changes of nodes' values, ``[prompt pos width]``.
    """

    ports: dict[tuple[int, int], Arrived] = field(default_factory=dict)
    writes: dict[tuple[int, Writer], Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """One experiment, recorded.

    Args:
        setup: The experiment.
        blocks: The model's blocks, runnable one by one.
        clean: The clean run.
        corrupt: The corrupt run: values only.
        traits: What is special about the model.
    """

    setup: Setup
    blocks: Backend
    clean: Recording
    corrupt: Recording
    traits: Traits

    @cached_property
    def sites(self) -> dict[str, HookSite]:
        """Where the hooks sit whose activations a metric reads, by the name it gives them."""
        find = self.blocks.find_hook
        return {one.hook: find(one.hook) for one in self.setup.metric.activations}

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return self.setup.n_prompts

    @property
    def n_pos(self) -> int:
        """Padded length of the prompts."""
        return self.setup.n_pos

    @property
    def final(self) -> Float[Tensor, "prompt pos d_model"]:
        """The clean residual stream after the last block."""
        assert self.clean.final is not None
        return self.clean.final

    @cached_property
    def delta_dtype(self) -> torch.dtype:
        """The type that changes are kept in: at least float32, so that small ones survive."""
        dtype = self.final.dtype
        return dtype if dtype == torch.float64 else torch.float32

    @cached_property
    def rows(self) -> Int[Tensor, "prompt 1"]:
        """The number of each prompt, for indexing beside positions."""
        return torch.arange(self.n_prompts, device=self.final.device)[:, None]

    # -- positions ------------------------------------------------------------------------------

    def places(self, where: Where) -> Int[Tensor, "prompt place"] | None:
        """Return the positions that a stage runs, ``[prompt place]``; None for all of them.

        No position stands twice in a prompt, since scattering must not meet one twice.
        """
        if where not in self._places:
            self._places[where] = self._find_places(where)
        return self._places[where]

    @cached_property
    def _places(self) -> dict[Where, Int[Tensor, "prompt place"] | None]:
        return {}

    def _find_places(self, where: Where) -> Int[Tensor, "prompt place"] | None:
        if where is None:
            return None
        columns: list[Tensor] = []
        if METRIC in where:
            read = self.setup.metric.read
            if read is None:
                return None
            columns.append(read[:, None])
        named = sorted((key for key in where if key != METRIC), key=str)
        if named:
            columns.append(self.setup.positions.indices(named)[0])
        if not columns:
            return self.rows[:, :0]
        if sum(column.shape[1] for column in columns) == 1:
            return columns[0]
        return _distinct(torch.cat(columns, dim=1), self.n_pos)

    def suffix(self, start: int) -> Int[Tensor, "prompt place"] | None:
        """Return all positions from one on as places; None where that is all of them."""
        if start == 0:
            return None
        if start not in self._suffixes:
            positions = torch.arange(start, self.n_pos, device=self.final.device)
            self._suffixes[start] = positions.expand(self.n_prompts, -1).contiguous()
        return self._suffixes[start]

    @cached_property
    def _suffixes(self) -> dict[int, Int[Tensor, "prompt place"]]:
        return {}

    def at(
        self, tensor: Shaped[Tensor, "prompt pos width"], places: Int[Tensor, "prompt place"] | None
    ) -> Shaped[Tensor, "prompt place width"]:
        """Return a tensor at some positions of every prompt."""
        return tensor if places is None else tensor[self.rows, places]

    @cached_property
    def first_difference(self) -> int:
        """The first position at which corrupt values can differ from clean ones.

        A causal model computes the same up to the first token that differs; 0 where values come
        from other positions or other prompts.
        """
        setup = self.setup
        if not self.traits.causal:
            return 0
        if setup.positions.corrupt or setup.given or setup.dataset is not None:
            return 0
        differs = (setup.clean != setup.corrupt).any(dim=0).nonzero().flatten().tolist()
        return int(differs[0]) if differs else 0

    # -- what is patched in ---------------------------------------------------------------------

    @cached_property
    def sources(self) -> SourceValues:
        """Values to patch in, by source and node."""
        # Without a reference to this state, so that its tensors go when it does.
        setup, blocks, corrupt = self.setup, self.blocks, self.corrupt

        def writes_of(tokens: Int[Tensor, "sample pos"]) -> Mapping[Writer, Tensor]:
            at = torch.zeros_like(tokens[:, :1])
            return Written(blocks, blocks.record(tokens, read=at, fields=("z", "mlp")))

        return SourceValues(setup, lambda: Written(blocks, corrupt), writes_of)

    def clean_value(self, node: Writer) -> Tensor:
        """Return a node's clean value."""
        return Written(self.blocks, self.clean)[node]

    def delta(
        self, op: PatchWrite, job: Job, outputs: Mapping[int, Outputs]
    ) -> Float[Tensor, "prompt pos width"]:
        """Return by how much a patched node's value differs from clean, at every position."""
        match op.value:
            case FromSource(source=source):
                return self.sent(source, op.node, op.at)
            case FromRun(run=number):
                change = outputs[number].writes[job.source(number), op.node]
                mask = self.setup.positions.mask(op.at)
                return change if mask is None else change * mask[..., None]

    def sent(
        self, source: Source, node: Writer, at: Positions
    ) -> Float[Tensor, "prompt pos width"]:
        """Return by how much a node's value in a source differs from clean, where it is patched."""
        assert not isinstance(at, EachPosition)
        clean, value = self.clean_value(node), self.sources.value(source, node)
        if at is None:
            return value.to(self.delta_dtype) - clean.to(self.delta_dtype)
        here, there = self.setup.positions.indices(at)
        if source == "given":  # one's own values stand where they are patched in
            there = here
        change = torch.zeros_like(clean, dtype=self.delta_dtype)
        new = value[self.rows, there].to(self.delta_dtype)
        change[self.rows, here] = new - clean[self.rows, here].to(self.delta_dtype)
        return change

    def write_change(self, node: Writer, delta: Tensor) -> Tensor:
        """Return the change of the residual stream that a change of a node's value makes.

        For heads this leaves out what a block does to its attention's output, so it holds only for
        blocks that add it as it is.
        """
        if isinstance(node, Head):
            weight = self.blocks.output_weights[node.layer][node.head]
            return delta @ weight.to(delta.dtype)
        return delta

    def mlp_output(self, layer: int, mid: Tensor) -> Tensor:
        """Return an MLP's output when its port reads ``mid``."""
        call = self.clean.layers[layer].call
        return self.blocks.mlp_output(layer, mid, call, direct=self.traits.direct_mlp)

    def layer(self, number: int) -> LayerRecord:
        """Return the clean recording of one block."""
        return self.clean.layers[number]

    def mid(self, number: int) -> Tensor:
        """Return the clean residual stream that a layer's MLP reads."""
        layer = self.clean.layers[number]
        return layer.resid if layer.mid is None else layer.mid

    def next_resid(self, number: int) -> Tensor:
        """Return the clean residual stream after a block."""
        layers = self.clean.layers
        return layers[number + 1].resid if number + 1 < len(layers) else self.final

    def point(self, port: Port) -> int:
        """Return the point of the residual stream that a port reads."""
        return self.setup.graph.reads_at(port)

    def clean_point(self, point: int) -> Tensor:
        """Return the clean residual stream at a point."""
        layer, mid = divmod(point, 2)
        if layer == len(self.clean.layers):
            return self.final
        return self.mid(layer) if mid else self.layer(layer).resid


def _distinct(places: Tensor, n_pos: int) -> Tensor:
    """Return places with as many distinct positions in every prompt, adding unneeded ones."""
    rows = [sorted(set(row)) for row in places.tolist()]
    width = max(map(len, rows))
    for row in rows:
        spare = (p for p in range(n_pos) if p not in row)
        row += [next(spare) for _ in range(width - len(row))]
        row.sort()
    return torch.tensor(rows, device=places.device)


class Written(Mapping[Writer, Tensor]):
    """Every node's value in a recording, looked up when asked for."""

    def __init__(self, blocks: Backend, recording: Recording) -> None:
        """Look into a recording."""
        self._blocks = blocks
        self._recording = recording

    def __getitem__(self, node: Writer) -> Tensor:
        layers = self._recording.layers
        match node:
            case Embed():
                return layers[0].resid
            case Head(layer=layer, head=head):
                z = layers[layer].z
                assert z is not None
                return self._blocks.split(z)[:, :, head]
            case MLP(layer=layer):
                mlp = layers[layer].mlp
                assert mlp is not None
                return mlp

    def __iter__(self) -> Iterator[Writer]:
        yield Embed()
        for layer, recorded in enumerate(self._recording.layers):
            yield from (Head(layer, head) for head in range(self._blocks.n_heads))
            if recorded.mlp is not None:
                yield MLP(layer)

    def __len__(self) -> int:
        return sum(1 for _ in self)
