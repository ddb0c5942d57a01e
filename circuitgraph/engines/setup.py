"""What an engine needs to know of an experiment: prompts, positions, metric, patched values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuitgraph.errors import RequestError
from circuitgraph.graph import ModelGraph
from circuitgraph.lens.backend import Backend, backend_of
from circuitgraph.metrics import Readout
from circuitgraph.nodes import Writer
from circuitgraph.request import EachPosition, Positions

__all__ = ["PositionTable", "Setup"]


@dataclass(frozen=True)
class PositionTable:
    """Named positions, per prompt, in the clean and in the corrupt prompts.

    Args:
        n_prompts: Number of prompt pairs.
        n_pos: Their padded length.
        clean: Index of each named position in every clean prompt.
        corrupt: Likewise in the corrupt prompts; names that are missing stand at the clean index.
        device: Where indices are wanted.
        lengths: Real length of each prompt; None where none is padded.
    """

    n_prompts: int
    n_pos: int
    clean: Mapping[str, Int[Tensor, "prompt"]]
    corrupt: Mapping[str, Int[Tensor, "prompt"]] = field(default_factory=dict)
    device: Any = "cpu"
    lengths: Int[Tensor, "prompt"] | None = None

    @property
    def shortest(self) -> int:
        """How many positions all prompts have: a position beyond is padding in some of them."""
        return self.n_pos if self.lengths is None else int(self.lengths.min())

    @property
    def in_corrupt(self) -> Mapping[str, Int[Tensor, "prompt"]]:
        """Index of each named position in every corrupt prompt."""
        return {**self.clean, **self.corrupt}

    def problem(self, name: str | int) -> RequestError | None:
        """Return what is wrong with a position that a request names, or None."""
        if isinstance(name, int):
            if name >= self.n_pos:
                return RequestError(
                    f"position {name} is outside the prompts, which have {self.n_pos} positions "
                    f"(0..{self.n_pos - 1})"
                )
            if name >= self.shortest:
                assert self.lengths is not None
                return RequestError(
                    f"position {name} is padding in prompt {int(self.lengths.argmin())}, which has "
                    f"{self.shortest} tokens (0..{self.shortest - 1}): name a position that each "
                    "prompt has, with Experiment(..., positions={'name': indices})"
                )
            return None
        if name not in self.clean:
            known = ", ".join(self.clean) or "none are named"
            return RequestError(
                f"no position named {name!r}: known are {known}; "
                "name positions with Experiment(..., positions={'end': indices})"
            )
        return None

    def clash(self, at: Sequence[str | int]) -> RequestError | None:
        """Return what is wrong with positions taken together, or None."""
        clean, corrupt = self.indices(at)
        for one in range(len(at)):
            for other in range(one):
                same = (clean[:, one] == clean[:, other]) & (corrupt[:, one] != corrupt[:, other])
                if same.any():
                    return RequestError(
                        f"positions {at[other]} and {at[one]} are the same in clean prompt "
                        f"{int(same.nonzero()[0])} but not in its corrupt one: which value is to "
                        "be patched there? Patch them one at a time"
                    )
        return None

    def indices(
        self, at: Sequence[str | int]
    ) -> tuple[Int[Tensor, "prompt place"], Int[Tensor, "prompt place"]]:
        """Return clean and corrupt indices of positions, one column each."""
        columns = []
        for source in (self.clean, self.in_corrupt):
            found = [
                torch.full((self.n_prompts,), name, device=self.device)
                if isinstance(name, int)
                else source[name].to(self.device)
                for name in at
            ]
            columns.append(torch.stack(found, dim=1))
        return columns[0], columns[1]

    def mask(self, at: Positions) -> Bool[Tensor, "prompt pos"] | None:
        """Return which clean positions are meant; None where all are."""
        assert not isinstance(at, EachPosition)
        if at is None:
            return None
        mask = torch.zeros(self.n_prompts, self.n_pos, dtype=torch.bool, device=self.device)
        return mask.scatter(1, self.indices(at)[0], True)


@dataclass(frozen=True)
class Setup:
    """One experiment, as the engines see it.

    Args:
        model: The model, or its back end.
        graph: Its graph.
        clean: Clean tokens, right-padded.
        corrupt: Corrupt tokens of the same shape.
        metric: What is measured, of logits and of activations.
        positions: Named positions.
        given: Patched values of one's own, for the source ``given``, by node.
        dataset: Tokens over which the sources ``mean`` and ``mean-position`` average; None for the
            corrupt prompts.
        dataset_lengths: Real length of each sample; None where none is padded.
        corrupt_metric: The metric at the corrupt prompts' own positions; None where they are the
            clean ones.
    """

    model: Any
    graph: ModelGraph
    clean: Int[Tensor, "prompt pos"]
    corrupt: Int[Tensor, "prompt pos"]
    metric: Readout
    positions: PositionTable
    given: Mapping[Writer, Tensor] = field(default_factory=dict)
    dataset: Int[Tensor, "sample sample_pos"] | None = None
    dataset_lengths: Int[Tensor, "sample"] | None = None
    corrupt_metric: Readout | None = None

    @cached_property
    def backend(self) -> Backend:
        """The model as engines see it."""
        found: Backend = backend_of(self.model)
        return found

    @property
    def samples(self) -> tuple[Int[Tensor, "sample sample_pos"], Int[Tensor, "sample"] | None]:
        """What means are taken over, and the real length of each sample."""
        if self.dataset is None:
            return self.corrupt, self.positions.lengths
        return self.dataset, self.dataset_lengths

    def of_prompts(self, rows: slice) -> "Setup":
        """Return the same experiment on some of its prompts.

        Only where `Readout.of_prompts` can cut up the metric.
        """
        metric = self.metric.of_prompts(rows)
        assert metric is not None
        table = self.positions
        given = {
            node: value[rows] if value.ndim > 2 and len(value) == self.n_prompts else value
            for node, value in self.given.items()
        }
        positions = PositionTable(
            n_prompts=len(self.clean[rows]),
            n_pos=table.n_pos,
            clean={name: index[rows] for name, index in table.clean.items()},
            corrupt={name: index[rows] for name, index in table.corrupt.items()},
            device=table.device,
            lengths=None if table.lengths is None else table.lengths[rows],
        )
        corrupt_metric = self.corrupt_metric and self.corrupt_metric.of_prompts(rows)
        return replace(
            self,
            clean=self.clean[rows],
            corrupt=self.corrupt[rows],
            metric=metric,
            corrupt_metric=corrupt_metric,
            positions=positions,
            given=given,
        )

    @property
    def n_prompts(self) -> int:
        """Number of prompt pairs."""
        return int(self.clean.shape[0])

    @property
    def n_pos(self) -> int:
        """Padded length of the prompts."""
        return int(self.clean.shape[1])
