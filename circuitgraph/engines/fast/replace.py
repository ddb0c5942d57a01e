"""Mode ``replace``: what senders write live, so that it can be replaced by what they are to write.

For a port that reads senders S, the change is ``live + sum over S of (patched - live write)``. The
sums of all ports of a layer are one matrix product: which port reads which sender, times what each
sender's write would change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.state import Outputs, State
from circuitgraph.nodes import MLP, Head
from circuitgraph.plan import PatchWrite, ReplaceSenders
from circuitgraph.schedule import Job

__all__ = ["LiveWrites"]


@dataclass
class LiveWrites:
    """For each row, by how much replacing each sender's live write changes the residual stream.

    Args:
        state: The experiment.
        patched: Per row, what each sender adds to the clean stream, ``[prompt query d_model]``.
        start: The first position that is run.
    """

    state: State
    patched: list[dict[PatchWrite, Tensor]]
    start: int
    stacks: list[Tensor | None] = field(default_factory=list)
    index: list[dict[PatchWrite, int]] = field(default_factory=list)

    @classmethod
    def for_jobs(
        cls, state: State, jobs: Sequence[Job], outputs: Mapping[int, Outputs], start: int
    ) -> "LiveWrites":
        """Return the senders that the jobs' ports replace, before anything has run."""
        patched: list[dict[PatchWrite, Tensor]] = []
        for job in jobs:
            senders = {
                sender: None
                for op in job.run.ports
                if isinstance(op, ReplaceSenders)
                for sender in op.senders
            }
            patched.append(
                {
                    sender: state.write_change(
                        sender.node, state.delta(sender, job, outputs)[:, start:]
                    )
                    for sender in senders
                }
            )
        live = cls(state, patched, start)
        for row in patched:
            live.stacks.append(torch.stack(list(row.values())) if row else None)
            live.index.append({sender: at for at, sender in enumerate(row)})
        return live

    @property
    def empty(self) -> bool:
        """Whether no row replaces anything."""
        return not any(self.patched)

    def saw_heads(self, layer: int, z_change: Float[Tensor, "row prompt query width"]) -> None:
        """Take note of what a layer's heads write live."""
        if self.empty:
            return
        split = self.state.blocks.split(z_change)
        for row in range(len(z_change)):
            for sender, at in self.index[row].items():
                if isinstance(sender.node, Head) and sender.node.layer == layer:
                    live = self.state.write_change(sender.node, split[row, :, :, sender.node.head])
                    self._saw(row, at, sender, live)

    def saw_mlp(self, layer: int, change: Float[Tensor, "row prompt query d_model"]) -> None:
        """Take note of what a layer's MLP writes live."""
        if self.empty:
            return
        for row in range(len(change)):
            for sender, at in self.index[row].items():
                if sender.node == MLP(layer):
                    self._saw(row, at, sender, change[row])

    def _saw(self, row: int, at: int, sender: PatchWrite, live: Tensor) -> None:
        stack = self.stacks[row]
        assert stack is not None
        mask = self.state.setup.positions.mask(sender.at)
        if mask is not None:
            live = live * mask[:, self.start :, None]
        stack[at] -= live

    def replacement(self, row: int, op: ReplaceSenders) -> Float[Tensor, "prompt query d_model"]:
        """Return by how much replacing a port's senders changes what it reads."""
        stack = self.stacks[row]
        assert stack is not None
        chosen = [self.index[row][sender] for sender in op.senders]
        if len(chosen) == len(stack):
            return stack.sum(dim=0)
        if 2 * len(chosen) < len(stack):
            return stack[chosen].sum(dim=0)
        picks = torch.zeros(len(stack), dtype=stack.dtype, device=stack.device)
        picks[chosen] = 1
        return torch.tensordot(picks, stack, dims=1)
