"""Which nodes stand for a model in the checks: early, middle and late ones of every kind."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from circuitgraph.checks.results import LeftOut
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Embed, Head, Port, Writer
from circuitgraph.request import KVPort

__all__ = ["Chosen", "joint"]


@dataclass(frozen=True)
class Chosen:
    """Nodes of a graph by the part they play.

    Args:
        graph: The model's graph.

    Example:
        >>> from circuitgraph.graph import ModelShape
        >>> chosen = Chosen(ModelGraph(ModelShape(n_layers=12, n_heads=12)))
        >>> str(chosen.early), str(chosen.middle), str(chosen.late)
        ('0.1', '6.11', '11.6')
        >>> str(chosen.path("k"))
        '0.1 -> 6.11.v -> 11.6.k'
    """

    graph: ModelGraph

    @property
    def _n_layers(self) -> int:
        return self.graph.shape.n_layers

    @property
    def early(self) -> Head:
        """A head of the first layer."""
        return Head(0, min(1, self.graph.shape.n_heads - 1))

    @property
    def middle(self) -> Head:
        """A head of a layer between, where there is one; else of the first."""
        return Head(min(self._n_layers // 2, self._n_layers - 1), self.graph.shape.n_heads - 1)

    @property
    def late(self) -> Head:
        """A head of the last layer."""
        return Head(self._n_layers - 1, self.graph.shape.n_heads // 2)

    @property
    def mlps(self) -> tuple[MLP, ...]:
        """The first, a middle and the last MLP; fewer where there are fewer."""
        mlps = self.graph.mlps
        return tuple(dict.fromkeys((mlps[0], mlps[len(mlps) // 2], mlps[-1]))) if mlps else ()

    @cached_property
    def senders(self) -> tuple[Writer, ...]:
        """One sender of every kind first, then more."""
        found: list[Writer] = [self.early, *self.mlps[:1], Embed(), self.middle, self.late]
        return tuple(dict.fromkeys((*found, *self.mlps[1:])))

    def before(
        self, receivers: Iterable[Port], senders: Iterable[Writer] = ()
    ) -> tuple[Writer, ...]:
        """Return those senders, by default of `senders`, that come before all receivers."""
        ports = list(receivers)
        return tuple(
            sender
            for sender in senders or self.senders
            if all(self.graph.precedes(sender, port) for port in ports)
        )

    def heads(self, port: str) -> tuple[Port, ...]:
        """Return that port of a late and of a middle head."""
        return tuple(dict.fromkeys((_port(self.late, port), _port(self.middle, port))))

    def path(self, last: str) -> str:
        """Return the longest path over one head of each layer chosen, ending in a head's port."""
        heads = list({head.layer: head for head in (self.middle, self.early, self.late)}.values())
        heads.sort()
        first = heads.pop(0) if len(heads) > 2 else Embed()
        *inner, end = heads
        ports = [*(_port(head, "v") for head in inner), _port(end, last)]
        return " -> ".join(map(str, (first, *ports)))

    def key_value_head(self, port: str) -> tuple[KVPort, tuple[Port, ...]]:
        """Return a port of a late key-value head, and the same of each query head that reads it.

        Raises:
            LeftOut: Every query head has keys and values of its own.
        """
        if not self.graph.shape.grouped:
            raise LeftOut("every query head has keys and values of its own")
        layer, kv = self.late.layer, self.graph.shape.kv_heads - 1
        heads = self.graph.shape.heads_of_group(kv)
        return KVPort(layer, kv, port), tuple(_port(Head(layer, head), port) for head in heads)  # type: ignore[arg-type]


def _port(head: Head, name: str) -> Port:
    return {"q": head.q, "k": head.k, "v": head.v}[name]


def joint(things: Sequence[object], brackets: str = "{}") -> str:
    """Return the text of a joint set, or with ``[]`` of a list.

    Example:
        >>> joint([Embed(), Head(0, 1)]), joint([MLP(0)], "[]")
        ('{embed, 0.1}', '[mlp0]')
    """
    return brackets[0] + ", ".join(map(str, things)) + brackets[1]
