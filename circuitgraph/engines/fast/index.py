"""Which rows of a stack patch what, by layer, so that no layer looks through every job."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from circuitgraph.nodes import MLP, Embed, Head, Logits
from circuitgraph.plan import PatchPort, PatchWrite, ReplaceSenders
from circuitgraph.schedule import Job

__all__ = ["PatchIndex"]

Writes = list[tuple[int, Job, PatchWrite]]
Ports = list[tuple[int, PatchPort | ReplaceSenders]]


@dataclass
class PatchIndex:
    """The patches of a stack of jobs, each with its row.

    Args:
        embed: Patched embeddings.
        heads: Patched heads, by layer; likewise ``mlps``.
        head_ports: Patched ports of heads, by layer; likewise ``mlp_ports``.
        logits: Patched ports of the logits.
    """

    embed: Writes = field(default_factory=list)
    heads: dict[int, Writes] = field(default_factory=dict)
    mlps: dict[int, Writes] = field(default_factory=dict)
    head_ports: dict[int, Ports] = field(default_factory=dict)
    mlp_ports: dict[int, Ports] = field(default_factory=dict)
    logits: Ports = field(default_factory=list)

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> "PatchIndex":
        """Return the index of a stack of jobs."""
        index = cls()
        for row, job in enumerate(jobs):
            for op in job.run.ops:
                match op:
                    case PatchWrite(node=Embed()):
                        index.embed.append((row, job, op))
                    case PatchWrite(node=Head(layer=layer)):
                        index.heads.setdefault(layer, []).append((row, job, op))
                    case PatchWrite(node=MLP(layer=layer)):
                        index.mlps.setdefault(layer, []).append((row, job, op))
                    case PatchPort() | ReplaceSenders():
                        index._add_port(row, op)
                    case _:
                        pass
        return index

    def _add_port(self, row: int, op: PatchPort | ReplaceSenders) -> None:
        match op.port.node:
            case Head(layer=layer):
                self.head_ports.setdefault(layer, []).append((row, op))
            case MLP(layer=layer):
                self.mlp_ports.setdefault(layer, []).append((row, op))
            case Logits():
                self.logits.append((row, op))
