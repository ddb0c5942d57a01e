"""Random connected circuits: what a circuit of this size can be expected to do by chance."""

import numpy as np
from numpy.typing import NDArray

from circuitgraph.circuit.masks import EdgeMasks, Mask
from circuitgraph.errors import CircuitError
from circuitgraph.nodes import Embed, Logits

__all__ = ["random_circuit", "random_way"]

TRIES = 100
"""How often to start again where a small circuit was grown into a corner."""


class _Growing:
    """A circuit that grows, way by way, every edge of it on a way from embedding to logits."""

    def __init__(
        self, masks: EdgeMasks, generator: np.random.Generator, allowed: Mask, mask: Mask
    ) -> None:
        self.masks, self.generator, self.allowed = masks, generator, allowed
        self.mask = mask.copy()
        self.inside = np.zeros(len(masks.node_number), dtype=bool)
        ends = [masks.node_number[Embed()], masks.node_number[Logits()]]
        self.inside[[*ends, *masks.senders[mask], *masks.receivers[mask]]] = True
        edges = np.flatnonzero(allowed)
        self.into = _grouped(edges, masks.receivers[edges], len(self.inside))
        self.out_of = _grouped(edges, masks.senders[edges], len(self.inside))

    def way_through(self, edge: int) -> list[int] | None:
        """Return an edge and what joins it to the circuit at both ends; None where nothing does."""
        found = [edge]
        for ends, step in ((self.masks.senders, self.into), (self.masks.receivers, self.out_of)):
            node = int(ends[edge])
            while not self.inside[node]:
                choice = step[node]
                if not len(choice):
                    return None
                found.append(int(self.generator.choice(choice)))
                node = int(ends[found[-1]])
        return found

    def add(self, way: list[int]) -> None:
        self.mask[way] = True
        self.inside[self.masks.senders[way]] = True
        self.inside[self.masks.receivers[way]] = True


def random_circuit(
    masks: EdgeMasks,
    n_edges: int,
    generator: np.random.Generator,
    allowed: Mask | None = None,
) -> Mask:
    """Return a random circuit of exactly ``n_edges`` edges, each on a way to the logits.

    It grows by random edges: an edge is drawn from all that are left, and joined to the circuit by
    random steps backwards to a node that is in (the embedding is) and forwards to one that is in
    (the logits are). Near the end, edges whose way would be too long are passed over.

    Args:
        masks: The graph's edges.
        n_edges: How many edges.
        generator: Source of randomness.
        allowed: Edges that may be used, ``[edge]``; all by default.

    Raises:
        CircuitError: Fewer edges than that lie on a way from the embedding to the logits.
    """
    everything = np.ones(len(masks.edges), dtype=bool) if allowed is None else allowed
    usable = masks.on_a_way(everything)
    if usable.sum() < n_edges:
        raise CircuitError(
            f"a random circuit of {n_edges} edges cannot be drawn from {int(usable.sum())}"
        )
    if usable.sum() == n_edges:
        return usable
    for _ in range(TRIES):
        grown = _grow(masks, n_edges, generator, usable)
        if grown is not None:
            return grown
    raise CircuitError(f"no circuit of exactly {n_edges} edges could be drawn")


def _grow(
    masks: EdgeMasks, n_edges: int, generator: np.random.Generator, usable: Mask
) -> Mask | None:
    """Return a circuit grown from nothing; None where it cannot be filled to its size."""
    growing = _Growing(masks, generator, usable, np.zeros_like(usable))
    left = n_edges
    while left:
        before = left
        for edge in generator.permutation(np.flatnonzero(usable & ~growing.mask)):
            if left == 0:
                break
            if growing.mask[edge]:
                continue
            way = growing.way_through(int(edge)) or []
            fresh = [step for step in dict.fromkeys(way) if not growing.mask[step]]
            if fresh and len(fresh) <= left:
                growing.add(fresh)
                left -= len(fresh)
        if left == before:
            return None
    return growing.mask


def random_way(masks: EdgeMasks, mask: Mask, generator: np.random.Generator) -> Mask:
    """Return a circuit with one random way added that it does not have; itself if it has all.

    Args:
        masks: The graph's edges.
        mask: The circuit, ``[edge]``.
        generator: Source of randomness.
    """
    usable = masks.on_a_way(np.ones_like(mask))
    growing = _Growing(masks, generator, usable, mask)
    left = np.flatnonzero(usable & ~mask)
    if len(left):
        way = growing.way_through(int(generator.choice(left)))
        assert way is not None, "every edge lies on a way"
        growing.add(way)
    return growing.mask


def _grouped(
    edges: NDArray[np.intp], keys: NDArray[np.intp], n_groups: int
) -> list[NDArray[np.intp]]:
    order = np.argsort(keys, kind="stable")
    return np.split(edges[order], np.searchsorted(keys[order], np.arange(1, n_groups)))
