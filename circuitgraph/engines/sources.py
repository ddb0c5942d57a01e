"""Where patched values come from: the corrupt run, zero, a mean, or tensors of one's own."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuitgraph.engines.setup import Setup
from circuitgraph.engines.splitting import in_stacks
from circuitgraph.errors import RequestError
from circuitgraph.nodes import Writer
from circuitgraph.plan import Source

__all__ = ["SourceValues"]

Writes = Mapping[Writer, Tensor]
WritesOf = Callable[[Int[Tensor, "sample pos"]], Writes]


class SourceValues:
    """The value that each node has in each source, ``[prompt pos width]``.

    Args:
        setup: The experiment.
        corrupt_writes: Returns every node's value on the corrupt prompts.
        writes_of: Records every node's value on some tokens; called only for what is asked.
    """

    def __init__(
        self, setup: Setup, corrupt_writes: Callable[[], Writes], writes_of: WritesOf
    ) -> None:
        """Ask for nothing yet."""
        self._setup = setup
        self._corrupt_writes = corrupt_writes
        self._writes_of = writes_of

    @cached_property
    def corrupt(self) -> Writes:
        """Values on the corrupt prompts."""
        return self._corrupt_writes()

    @cached_property
    def sums(self) -> Writes:
        """Sums over the samples of a data set, ``[pos width]`` by node.

        The data set is recorded in parts where memory is short.
        """
        dataset = self._setup.dataset
        assert dataset is not None

        def add_up(samples: Sequence[int]) -> Writes:
            part = slice(samples[0], samples[-1] + 1)
            writes = self._writes_of(dataset[part])
            return {node: _sum(value, self.weights[part]) for node, value in writes.items()}

        found: dict[Writer, Tensor] = {}
        for _, sums in in_stacks(range(len(dataset)), len(dataset), add_up):
            found = {node: found[node] + value if found else value for node, value in sums.items()}
        return found

    @cached_property
    def weights(self) -> Bool[Tensor, "sample sample_pos 1"]:
        """1 where a sample has a token of its own, 0 where it is padded."""
        tokens, lengths = self._setup.samples
        n_pos = tokens.shape[1]
        ends = torch.full((len(tokens),), n_pos) if lengths is None else lengths.cpu()
        real = torch.arange(n_pos) < ends[:, None]
        return real[..., None].to(tokens.device)

    def value(self, source: Source, node: Writer) -> Tensor:
        """Return a node's value in a source.

        ``mean`` averages over samples and positions, ``mean-position`` over samples alone; padding
        is left out of both.
        """
        match source:
            case "corrupt":
                return self.corrupt[node]
            case "zero":
                return torch.zeros_like(self.corrupt[node])
            case "mean":
                return self._mean(node, at_positions=False).expand_as(self.corrupt[node])
            case "mean-position":
                mean = self._mean(node, at_positions=True)
                like = self.corrupt[node]
                if mean.shape[0] < like.shape[1]:
                    raise RequestError(
                        f"the data set has {mean.shape[0]} positions, the prompts {like.shape[1]}: "
                        "a mean per position needs at least as many"
                    )
                return mean[: like.shape[1]].expand_as(like)
            case "given":
                return self.given(node)

    def _mean(self, node: Writer, *, at_positions: bool) -> Tensor:
        like = self.corrupt[node]
        weights = self.weights.to(like.device)
        total = _sum(like, weights) if self._setup.dataset is None else self.sums[node]
        count = weights.sum(dim=0)
        if not at_positions:
            total, count = total.sum(dim=0), count.sum(dim=0)
        # Where no sample has a token there is nothing to average, and nothing is patched either.
        return (total / count.clamp_min(1)).to(like.dtype)

    def given(self, node: Writer) -> Tensor:
        """Return the user's own value of a node, shaped like the recorded one."""
        like = self.corrupt[node]
        if node not in self._setup.given:
            raise RequestError(
                f"no value given for {node}: source='given' needs values={{{node}: tensor}}"
            )
        value = self._setup.given[node].to(like)
        try:
            return value.expand_as(like)
        except RuntimeError:
            raise RequestError(
                f"the value given for {node} has shape {tuple(value.shape)}: it must broadcast to "
                f"{tuple(like.shape)} [prompt, pos, width]"
            ) from None


def _sum(values: Tensor, weights: Tensor) -> Tensor:
    """Return the sum over samples of what is no padding, in float32 at least."""
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    return (wide * weights.to(values.device)).sum(dim=0)
