"""What the dimensions of a sweep are called, and what a coordinate along them stands for.

The one place that knows it: the compiler lays out grids by it, and results are read by it again,
cell names and circuits among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from circuitgraph.errors import RequestError
from circuitgraph.nodes import MLP, Head, Port, parse_node, parse_port
from circuitgraph.request.sites import KVPort, Site
from circuitgraph.request.terms import Every, Joint, Sweep, Term

__all__ = ["SweptStep", "swept_steps"]

Value = int | str


@dataclass(frozen=True)
class SweptStep:
    """One step of a path, and the dimensions that it is swept over.

    Args:
        term: The step.
        prefix: What its dimensions begin with; nothing for the senders.
    """

    term: Term
    prefix: str

    @cached_property
    def dims(self) -> tuple[str, ...]:
        """The dimensions; none where nothing is swept but, perhaps, positions."""
        start = f"{self.prefix}_" if self.prefix else ""
        match self.term:
            case Joint():
                return ()
            case Sweep() | Every(kind="node" | "port"):
                return (self.prefix or "sender",)
            case Every(kind="head"):
                return (f"{start}layer", f"{start}head")
            case Every(kind="kv"):
                return (f"{start}layer", f"{start}kv_head")
            case _:
                return (f"{start}layer",)

    def sites(self, at: Sequence[Value]) -> tuple[Site, ...]:
        """Return what stands at some coordinates, one for each dimension.

        Raises:
            RequestError: A list that does not hold what is asked for.
            NodeError: A name that is none.

        Example:
            >>> from circuitgraph.request import parse
            >>> sender, receiver = swept_steps(parse("head -> mlp => logits").steps)
            >>> sender.dims, receiver.dims
            (('layer', 'head'), ('receiver_layer',))
            >>> [str(site) for step in (sender, receiver) for site in step.sites((5, 1))]
            ['5.1', 'mlp5']
        """
        term = self.term
        match term:
            case Joint(sites=sites):
                return sites
            case Sweep():
                if at[0] not in self.listed:
                    raise RequestError(f"no {at[0]!r} in the list {', '.join(self.listed)}")
                return self.listed[str(at[0])]
            case Every(kind="head", port=None):
                return (Site(Head(int(at[0]), int(at[1])), term.at),)
            case Every(kind="head", port="q" | "k" | "v" as name):
                return (Site(Port(Head(int(at[0]), int(at[1])), name), term.at),)
            case Every(kind="kv"):
                port = KVPort(int(at[0]), int(at[1]), "k" if term.port == "k" else "v")
                return (Site(port, term.at),)
            case Every(kind="mlp"):
                mlp = MLP(int(at[0]))
                return (Site(mlp.port if self.prefix else mlp, term.at),)
            case Every(kind="node"):
                return (Site(parse_node(str(at[0])), term.at),)
            case Every(kind="port"):
                return (Site(parse_port(str(at[0])), term.at),)
            case _:
                raise AssertionError(f"{term} is a step of another kind")

    @cached_property
    def listed(self) -> dict[str, tuple[Site, ...]]:
        """What a list holds, by its text."""
        items = self.term.items if isinstance(self.term, Sweep) else ()
        return {str(item): item.sites for item in items}


def swept_steps(steps: Sequence[Term]) -> tuple[SweptStep, ...]:
    """Return the steps of a path with their dimensions.

    Those of a single swept receiver begin with ``receiver``, those of several with ``receiver1``,
    ``receiver2`` and so on.
    """
    swept = [number for number, step in enumerate(steps) if number and not isinstance(step, Joint)]
    return tuple(
        SweptStep(step, "" if not number else f"receiver{number}" if len(swept) > 1 else "receiver")
        for number, step in enumerate(steps)
    )
