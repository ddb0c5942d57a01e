"""What a picture of a circuit shows, before anything has a place: boxes and the lines between them.

A sketch is plain data. `sketch_nodes` makes a box of every node, `sketch_groups` one box of every
named group, with the edges between two groups drawn as one line per port.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuitgraph.circuit import Circuit
from circuitgraph.circuit.weights import signed
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits, Node, PortName, describe

__all__ = ["BARS", "Box", "Line", "Sketch", "sketch_groups", "sketch_nodes"]

BARS = ("embed", "logits")
"""Both ends of the residual stream are drawn as bars across the whole picture."""


@dataclass(frozen=True, slots=True)
class Box:
    """A node, or a group of nodes drawn as one.

    Args:
        name: Its name in the DOT text: the node's own, or ``group 1``.
        kind: What it is drawn as.
        rows: Text, row by row; a group's heads are cells of a row.
        rank: Its place along the residual stream; boxes of one rank share a row of the picture.
        layer: The layer it is in, where it is in one.
        group: The group it belongs to, or that it is.
    """

    name: str
    kind: str
    rows: tuple[tuple[str, ...], ...]
    rank: int
    layer: int | None
    group: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """An edge, or all edges between two groups into the same kind of port.

    Args:
        sender: Name of the box it leaves, or ``embed``.
        receiver: Name of the box it enters, or ``logits``.
        port: The kind of port it enters.
        value: Signed weight; of several edges their sum. None without weights.
        words: What it says when pointed at.
        count: How many edges it stands for.
    """

    sender: str
    receiver: str
    port: PortName
    value: float | None
    words: str
    count: int = 1

    @property
    def size(self) -> float:
        """The weight without its sign."""
        return 0.0 if self.value is None else abs(self.value)


@dataclass(frozen=True, slots=True)
class Sketch:
    """Boxes in the order of the residual stream, the lines between them, and the groups shown."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    groups: tuple[str, ...]
    has_embed: bool
    has_logits: bool

    @property
    def largest(self) -> float:
        """The largest weight without its sign; 0 where there are none."""
        return max((line.size for line in self.lines), default=0.0)

    def strongest(self, n: int) -> "Sketch":
        """Return the sketch with its ``n`` strongest lines only, and the boxes that they touch.

        Of equal ones, those that stand for more edges come first.
        """
        chosen = sorted(self.lines, key=lambda line: (-line.size, -line.count))[:n]
        kept = {(line.sender, line.receiver, line.port) for line in chosen}
        lines = tuple(
            line for line in self.lines if (line.sender, line.receiver, line.port) in kept
        )
        ends = {end for line in lines for end in (line.sender, line.receiver)}
        boxes = tuple(box for box in self.boxes if box.name in ends)
        shown = {box.group for box in boxes}
        groups = tuple(group for group in self.groups if group in shown)
        return Sketch(boxes, lines, groups, BARS[0] in ends, BARS[1] in ends)


def sketch_nodes(circuit: Circuit, edges: Sequence[Edge]) -> Sketch:
    """Return a sketch with a box for every node that some of these edges touch."""
    nodes = sorted({edge.sender for edge in edges} | {edge.receiver.node for edge in edges})
    group_of = {node: name for name, nodes in circuit.groups.items() for node in nodes}
    boxes = tuple(
        Box(str(node), _kind(node), ((str(node),),), _rank(node), _layer(node), group_of.get(node))
        for node in nodes
        if not isinstance(node, Embed | Logits)
    )
    lines = tuple(
        Line(
            str(edge.sender),
            str(edge.receiver.node),
            edge.receiver.name,
            circuit.known[edge].value,
            _words(circuit, edge),
        )
        for edge in sorted(edges)
    )
    shown = {box.group for box in boxes}
    groups = tuple(name for name in circuit.groups if name in shown)
    return Sketch(boxes, lines, groups, Embed() in nodes, Logits() in nodes)


def sketch_groups(circuit: Circuit, edges: Sequence[Edge]) -> Sketch:
    """Return a sketch with one box per group; nodes outside groups keep their own."""
    nodes = sorted({edge.sender for edge in edges} | {edge.receiver.node for edge in edges})
    group_of = {node: name for name, nodes in circuit.groups.items() for node in nodes}
    names = {group: f"group {number}" for number, group in enumerate(circuit.groups, 1)}
    box_of = {
        node: names[group_of[node]] if node in group_of and not _is_end(node) else str(node)
        for node in nodes
    }
    inside: dict[str, list[Node]] = {}
    for node in nodes:
        if not isinstance(node, Embed | Logits):
            inside.setdefault(box_of[node], []).append(node)
    boxes = tuple(_group_box(name, nodes, group_of) for name, nodes in inside.items())
    bundles: dict[tuple[str, str, PortName], list[Edge]] = {}
    for edge in sorted(edges):
        sender, receiver = box_of[edge.sender], box_of[edge.receiver.node]
        if sender != receiver:
            bundles.setdefault((sender, receiver, edge.receiver.name), []).append(edge)
    said = {names[group]: group for group in names}
    lines = tuple(_bundle(circuit, ends, bundled, said) for ends, bundled in bundles.items())
    groups = tuple(group for group in circuit.groups if names[group] in inside)
    return Sketch(boxes, lines, groups, Embed() in nodes, Logits() in nodes)


def _is_end(node: Node) -> bool:
    return isinstance(node, Embed | Logits)


def _group_box(name: str, nodes: Sequence[Node], group_of: Mapping[Node, str]) -> Box:
    first = nodes[0]
    if name == str(first):
        return Box(name, _kind(first), ((name,),), _rank(first), _layer(first), None)
    high = math.ceil(len(nodes) / math.ceil(math.sqrt(len(nodes) * 1.5)))
    wide = math.ceil(len(nodes) / high)
    texts = [str(node) for node in nodes]
    rows = tuple(tuple(texts[at : at + wide]) for at in range(0, len(texts), wide))
    return Box(name, "group", rows, _rank(first), None, group_of[first])


def _bundle(
    circuit: Circuit,
    ends: tuple[str, str, PortName],
    edges: Sequence[Edge],
    said: Mapping[str, str],
) -> Line:
    sender, receiver, port = ends
    values = [circuit.known[edge].value for edge in edges]
    known = [value for value in values if value is not None]
    total = math.fsum(known) if known else None
    if len(edges) == 1:
        words = _words(circuit, edges[0])
    else:
        names = [said.get(name, name) for name in (sender, receiver)]
        into = "" if port == "in" else f", {port}"
        summed = "" if total is None else f", together {signed(total)}"
        words = f"{names[0]} → {names[1]}{into}: {len(edges)} edges{summed}"
    return Line(sender, receiver, port, total, words, len(edges))


def _words(circuit: Circuit, edge: Edge) -> str:
    weight = circuit.known[edge]
    known = "" if weight.value is None else f": {weight}"
    return f"{edge.sender} → {edge.receiver}{known} ({describe(edge.receiver)})"


def _kind(node: Node) -> str:
    return "mlp" if isinstance(node, MLP) else "head"


def _rank(node: Node) -> int:
    match node:
        case Head(layer=layer):
            return 2 * layer
        case MLP(layer=layer):
            return 2 * layer + 1
        case _:
            return -1


def _layer(node: Node) -> int | None:
    return node.layer if isinstance(node, Head | MLP) else None
