"""`Circuit`: a weighted subgraph of a model's graph, as an immutable value.

Two things are kept apart. A circuit *knows* edges, each with its weight, interval or neither; and
some of those are *in* the circuit. So one can score every edge of a model, look at the strongest
ten, and widen that to fifty without scoring again. What an edge is and which exist, the graph says.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx

from circuitgraph.arguments import collection, instance, mapping, number, whole, word
from circuitgraph.circuit.attrs import PROVENANCE, frozen_attrs, plain_attrs
from circuitgraph.circuit.choosing import by_strength, joined_groups, weighted
from circuitgraph.circuit.display import as_text, summary
from circuitgraph.circuit.reading import (
    check_edges,
    check_groups,
    check_same_shape,
    read_edge,
    read_edges,
    read_groups,
    read_node,
)
from circuitgraph.circuit.weights import Weight
from circuitgraph.errors import CircuitError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits, Node

if TYPE_CHECKING:
    from circuitgraph.draw import Drawing
    from circuitgraph.effects import Effects

__all__ = ["Circuit"]

Among = Literal["circuit", "known"]


@dataclass(frozen=True, repr=False)
class Circuit:
    """A weighted subgraph of a model's graph.

    Usually made by `from_effects` or `from_edges`, `load` or `from_mib`. Never changes: what joins,
    narrows or widens circuits returns a new one. ``len``, ``in`` and iteration are over the edges
    in the circuit. Two circuits are equal if shape, edges, weights, groups and attrs are, in
    whatever order they were given.

    Args:
        shape: The model's shape; says which nodes and edges there are.
        known: Every edge the circuit has something to say about, with its weight.
        members: The edges that are in the circuit, all of them known.
        groups: Named groups of nodes, such as ``{"name movers": {Head(9, 9), Head(9, 6)}}``. A node
            is in one group at most; nodes of a group need not be in the circuit.
        attrs: Anything worth keeping that JSON can hold: request, variant, source.

    Raises:
        CircuitError: Edges or nodes that the shape does not have, all of them listed.

    Example:
        >>> shape = ModelShape(n_layers=12, n_heads=12)
        >>> circuit = Circuit.from_edges(
        ...     shape, {"9.9 -> logits": -0.53, "8.6 -> 9.9.q": -0.2, "10.7 -> logits": 0.3}
        ... )
        >>> circuit
        Circuit: 3 edges, 4 nodes on 12 layers of 12 heads
          9.9 -> logits    −0.53
          10.7 -> logits   0.3
          8.6 -> 9.9.q     −0.2
        >>> [str(edge) for edge in circuit.top(1)], "9.9 -> logits" in circuit
        (['9.9 -> logits'], True)
    """

    shape: ModelShape
    known: Mapping[Edge, Weight]
    members: frozenset[Edge]
    groups: Mapping[str, frozenset[Node]] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        how = "cg.ModelShape(12, 12)"
        graph = ModelGraph(instance("shape", self.shape, ModelShape, how, CircuitError))
        members = frozenset(
            read_edge(edge) for edge in collection("members", self.members, "edges", CircuitError)
        )
        known = MappingProxyType(mapping("known", self.known, "edges to weights", CircuitError))
        check_edges(graph, known, members)
        groups = read_groups(self.groups)
        check_groups(graph, groups)
        object.__setattr__(self, "known", known)
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "groups", MappingProxyType(groups))
        object.__setattr__(self, "attrs", frozen_attrs(self.attrs))

    # -- making one -----------------------------------------------------------------------------

    @classmethod
    def from_edges(
        cls,
        model: ModelShape | ModelGraph,
        edges: "Iterable[Edge | str] | Mapping[Edge, object] | Mapping[str, object]",
        groups: Mapping[str, Iterable[Node | str]] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> "Circuit":
        """Return the circuit of declared edges.

        Args:
            model: The model's shape or graph.
            edges: `Edge` objects or their text (``"5.5 -> 8.6.v"``); or a mapping from them to a
                weight, to ``(weight, low, high)``, to a `Weight` or to None.
            groups: Named groups of nodes, given as objects or names (``"9.9"``).
            attrs: What else to keep with it; anything JSON can hold.

        Raises:
            CircuitError: Edges that cannot be read or that the model does not have (all listed),
                or weights that are not finite.

        Example:
            >>> shape = ModelShape(n_layers=12, n_heads=12)
            >>> Circuit.from_edges(shape, ["5.5 -> 8.6.v"], {"induction": ["5.5", "6.9"]})
            Circuit: 1 edge, 2 nodes on 12 layers of 12 heads; groups: induction
              5.5 -> 8.6.v
        """
        shape = model.shape if isinstance(model, ModelGraph) else model
        known = read_edges(edges)
        named = read_groups({} if groups is None else groups)
        return cls(shape, known, frozenset(known), named, {} if attrs is None else attrs)

    @classmethod
    def from_effects(
        cls,
        effects: "Effects",
        *,
        threshold: float | None = None,
        top: int | None = None,
        significant_only: bool = False,
        shape: ModelShape | ModelGraph | None = None,
    ) -> "Circuit":
        """Return the circuit of the edges whose patching changes the metric most.

        The weight of an edge is the normalised effect of patching it: 0 unharmed, −1 all lost. A
        cell that patches several edges together (a joint set, a longer path) gives its effect to
        each of them; an edge in several cells keeps the strongest. Positions are not kept. All
        edges of the sweep are known afterwards, so ``circuit.top(50, among="known")`` widens it.

        Args:
            effects: The result of a sweep.
            threshold: Keep edges whose effect is at least this large, either sign.
            top: Keep this many edges, the largest effects first. Without ``threshold`` and ``top``
                every edge of the sweep is in the circuit.
            significant_only: Keep only edges whose interval leaves out zero and that are
                significant after the correction for the number of cells (`Effects.significant`).
            shape: The model's shape, where the effects do not carry it.

        Raises:
            CircuitError: Effects that patch no single edges (``9.9 => logits``), or without shape
                or request.
        """
        from circuitgraph.circuit.from_effects import circuit_from_effects

        return circuit_from_effects(
            effects,
            threshold=threshold,
            top=top,
            significant_only=significant_only,
            shape=shape.shape if isinstance(shape, ModelGraph) else shape,
        )

    @classmethod
    def load(cls, path: str | Path) -> "Circuit":
        """Return a circuit that `save` wrote.

        Raises:
            CircuitError: The file is no circuit, or was written by a newer version.
        """
        from circuitgraph.circuit.storage import load

        return load(path)

    @classmethod
    def from_mib(cls, path: str | Path) -> "Circuit":
        """Return the circuit of a file in the format of the MIB benchmark (arXiv:2504.13151).

        All edges of the file are known, with their scores; those with ``in_graph`` are in the
        circuit. What else the file says is kept in ``attrs["mib"]``, so that `to_mib` writes it
        back.

        Raises:
            CircuitError: The file is not in that format, or names nodes its model does not have.
        """
        from circuitgraph.circuit.mib import load_mib

        return load_mib(path)

    # -- keeping it -----------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write all the circuit holds to a JSON file (see `circuitgraph.circuit.storage`)."""
        from circuitgraph.circuit.storage import save

        save(self, path)

    def to_mib(self, path: str | Path, missing: float | None = None) -> None:
        """Write the circuit in the format of the MIB benchmark (arXiv:2504.13151).

        The format holds scores, membership and the model's layers and heads; it has no room for
        intervals, groups and attrs.

        Args:
            path: The file to write.
            missing: The score to write for edges without a weight; the format requires one.

        Raises:
            CircuitError: An edge without weight, and no ``missing``; or a model that the format
                cannot describe.
        """
        from circuitgraph.circuit.mib import save_mib

        save_mib(self, path, missing)

    # -- looking at it --------------------------------------------------------------------------

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """The edges in the circuit, in the order of the residual stream."""
        return tuple(sorted(self.members))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes at the ends of the circuit's edges, in the order of the residual stream."""
        ends: set[Node] = {edge.sender for edge in self.members}
        ends |= {edge.receiver.node for edge in self.members}
        return tuple(sorted(ends))

    def weight(self, edge: Edge | str) -> float | None:
        """Return the weight of a known edge; None where it was declared without one.

        Raises:
            CircuitError: The circuit does not know the edge.
        """
        return self._known(edge).value

    def interval(self, edge: Edge | str) -> tuple[float, float] | None:
        """Return both ends of a known edge's interval, or None where there is none.

        Raises:
            CircuitError: The circuit does not know the edge.
        """
        return self._known(edge).interval

    def group_of(self, node: Node | str) -> str | None:
        """Return the name of the group that a node is in, or None."""
        wanted = read_node(node)
        return next((name for name, nodes in self.groups.items() if wanted in nodes), None)

    @cached_property
    def strongest(self) -> tuple[Edge, ...]:
        """The edges in the circuit, the largest weights first, either sign; without weight last."""
        return tuple(by_strength(self.known, self.members))

    @cached_property
    def graph(self) -> "nx.MultiDiGraph[Node]":
        """The circuit as a frozen networkx graph, like `ModelGraph.dag`.

        Nodes are node objects and carry ``group``; edges are keyed by port name and carry ``edge``,
        ``weight``, ``ci_low`` and ``ci_high``.
        """
        graph: nx.MultiDiGraph[Node] = nx.MultiDiGraph()
        graph.add_nodes_from((node, {"group": self.group_of(node)}) for node in self.nodes)
        for edge in self.edges:
            weight = self.known[edge]
            graph.add_edge(
                edge.sender,
                edge.receiver.node,
                key=edge.receiver.name,
                edge=edge,
                weight=weight.value,
                ci_low=weight.low,
                ci_high=weight.high,
            )
        frozen: nx.MultiDiGraph[Node] = nx.freeze(graph)
        return frozen

    def __contains__(self, thing: object) -> bool:
        match thing:
            case Edge():
                return thing in self.members
            case str() if "->" in thing:
                return read_edge(thing) in self.members
            case str():
                return read_node(thing) in self.nodes
            case Embed() | Head() | MLP() | Logits():
                return thing in self.nodes
            case _:
                raise CircuitError(f"a circuit holds edges and nodes, not {thing!r}")

    def __iter__(self) -> Iterator[Edge]:
        return iter(self.edges)

    def __len__(self) -> int:
        return len(self.members)

    def __hash__(self) -> int:
        return hash((self.shape, self.members, frozenset(self.known.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        groups, attrs = dict(self.groups), plain_attrs(self.attrs)
        return Circuit, (self.shape, dict(self.known), self.members, groups, attrs)

    # -- set algebra ----------------------------------------------------------------------------

    def __or__(self, other: "Circuit") -> "Circuit":
        """Edges of either. Where both know an edge or group a node, the left one's word counts.

        Of attrs that say where weights come from (request, variant, metric, ...) only those stay
        that both agree on.
        """
        self._check_same_shape(other)
        members = self.members | other.members
        attrs = {
            key: value
            for key, value in self._attrs_for(members).items()
            if key not in PROVENANCE or other.attrs.get(key, value) == value
        }
        return Circuit(
            self.shape,
            {**other.known, **self.known},
            members,
            joined_groups(self.groups, other.groups),
            attrs,
        )

    def __and__(self, other: "Circuit") -> "Circuit":
        """Edges of both, with the weights, groups and attrs of the left one."""
        self._check_same_shape(other)
        return self._with_members(self.members & other.members)

    def __sub__(self, other: "Circuit") -> "Circuit":
        """Edges that are not in the other one."""
        self._check_same_shape(other)
        return self._with_members(self.members - other.members)

    # -- narrowing and widening -----------------------------------------------------------------

    def restrict(self, nodes: Iterable[Node | str]) -> "Circuit":
        """Return the circuit with only the edges between these nodes."""
        kept = {read_node(node) for node in collection("nodes", nodes, "nodes", CircuitError)}
        return self._keep(lambda edge: edge.sender in kept and edge.receiver.node in kept)

    def threshold(self, smallest: float, among: Among = "circuit") -> "Circuit":
        """Return the circuit with only the edges whose weight is at least so large, either sign.

        Args:
            smallest: The smallest absolute weight to keep.
            among: Choose among the edges in the ``circuit``, or among all ``known`` ones.

        Raises:
            CircuitError: Some of these edges have no weight.
        """
        smallest = number("threshold: smallest", smallest, CircuitError)
        choice = weighted(self.known, self._choice(among), "threshold")
        return self._with_members(
            frozenset(edge for edge in choice if self.known[edge].size >= smallest)
        )

    def top(self, n: int, among: Among = "circuit") -> "Circuit":
        """Return the circuit with only the ``n`` edges of largest weight, either sign.

        Of equal weights the one earlier in the residual stream comes first.

        Args:
            n: How many edges to keep.
            among: Choose among the edges in the ``circuit``, or among all ``known`` ones.

        Raises:
            CircuitError: Some of these edges have no weight.
        """
        n = whole("top: n", n, CircuitError, 0)
        choice = weighted(self.known, self._choice(among), "top")
        return self._with_members(frozenset(by_strength(self.known, choice)[:n]))

    def prune(self) -> "Circuit":
        """Return the circuit without what is on no way from the embedding to the logits.

        Both ends count: an edge stays if its sender can be reached from the embedding and the
        logits from its receiver, along edges of the circuit. The queries, keys and values of a head
        are all ways into it.
        """
        graph, ends = self.graph, (Embed(), Logits())
        if any(end not in graph for end in ends):
            return self._with_members(frozenset())
        reached = nx.descendants(graph, Embed()) | {Embed()}
        alive = nx.ancestors(graph, Logits()) | {Logits()}
        return self._keep(lambda edge: edge.sender in reached and edge.receiver.node in alive)

    def with_groups(self, groups: Mapping[str, Iterable[Node | str]]) -> "Circuit":
        """Return the circuit with these named groups of nodes instead of its own."""
        return Circuit(self.shape, self.known, self.members, read_groups(groups), self.attrs)

    def with_attrs(self, **attrs: Any) -> "Circuit":
        """Return the circuit with these attrs added to its own."""
        merged = {**self.attrs, **attrs}
        return Circuit(self.shape, self.known, self.members, self.groups, merged)

    # -- drawing --------------------------------------------------------------------------------

    def draw(
        self,
        *,
        title: str | None = None,
        rankdir: Literal["TB", "BT", "LR"] = "TB",
        labels: bool = False,
        bundle: bool = False,
        max_edges: int = 200,
        legend: bool = True,
    ) -> "Drawing":
        """Return the circuit as a picture: ``circuit.draw().save("circuit.svg")``.

        Args:
            title: The line above the picture; the request where the circuit carries one.
            rankdir: Where the residual stream runs: ``TB`` down, ``BT`` up, ``LR`` to the right.
            labels: Write every weight beside its line.
            bundle: Draw each group as one box, and all edges between two groups as one line.
            max_edges: Draw at most this many edges, the largest weights first.
            legend: Explain lines and widths below the picture.

        Raises:
            CircuitError: Nothing to draw, or an option out of range.
        """
        from circuitgraph.draw import draw_circuit

        return draw_circuit(
            self,
            title=title,
            rankdir=rankdir,
            labels=labels,
            bundle=bundle,
            max_edges=max_edges,
            legend=legend,
        )

    @property
    def summary(self) -> str:
        """One line: how many edges and nodes, of which model, in which groups."""
        return summary(self)

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        from circuitgraph.draw import circuit_html

        return circuit_html(self)

    # -- inside ---------------------------------------------------------------------------------

    def _known(self, edge: Edge | str) -> Weight:
        wanted = read_edge(edge)
        if wanted not in self.known:
            raise CircuitError(
                f"the circuit does not know the edge {str(wanted)!r}: "
                f"it knows {len(self.known):,} edges, see circuit.known"
            )
        return self.known[wanted]

    def _choice(self, among: Among) -> Iterable[Edge]:
        word("among", among, Among, CircuitError)
        return self.members if among == "circuit" else self.known

    def _keep(self, wanted: Callable[[Edge], bool]) -> "Circuit":
        return self._with_members(frozenset(edge for edge in self.members if wanted(edge)))

    def _with_members(self, members: frozenset[Edge]) -> "Circuit":
        attrs = self._attrs_for(members)
        return Circuit(self.shape, self.known, members, self.groups, attrs)

    def _attrs_for(self, members: frozenset[Edge]) -> Mapping[str, Any]:
        """Return attrs without what a MIB file said of nodes, once the edges are others."""
        mib = self.attrs.get("mib")
        if members == self.members or not isinstance(mib, Mapping) or "nodes" not in mib:
            return self.attrs
        return {**self.attrs, "mib": {key: mib[key] for key in mib if key != "nodes"}}

    def _check_same_shape(self, other: "Circuit") -> None:
        instance("the other circuit", other, Circuit, "see Circuit.from_edges", CircuitError)
        check_same_shape(self.shape, other.shape)
