"""Nodes and ports from their names, and their names in words."""

import re
from typing import assert_never

from circuitgraph.errors import NodeError
from circuitgraph.nodes.kinds import MLP, Embed, Head, Logits, Node, Port, receiver_port

__all__ = ["describe", "parse_node", "parse_port"]

_NUMBER = r"([0-9]{1,9})"
_HEAD = re.compile(rf"{_NUMBER}\.{_NUMBER}|[Ll]{_NUMBER}[Hh]{_NUMBER}|[Aa]{_NUMBER}\.[Hh]{_NUMBER}")
_MLP = re.compile(rf"(?:mlp|m){_NUMBER}", re.IGNORECASE)


def parse_node(text: str) -> Node:
    """Read a node from its name: ``embed 9.9 L9H9 a9.h9 mlp3 m3 logits``.

    Raises:
        NodeError: The text names no node.

    Example:
        >>> parse_node("L9H6"), parse_node("m3")
        (Head(layer=9, head=6), MLP(layer=3))
    """
    name = text.strip()
    if name.lower() == "embed":
        return Embed()
    if name.lower() == "logits":
        return Logits()
    if found := _HEAD.fullmatch(name):
        layer, head = (int(group) for group in found.groups() if group is not None)
        return Head(layer, head)
    if found := _MLP.fullmatch(name):
        return MLP(int(found.group(1)))
    raise NodeError(
        f"{text!r} is no node: write embed, logits, a head as 9.6 (or L9H6, a9.h6) "
        "or an MLP as mlp3 (or m3)"
    )


def parse_port(text: str) -> Port:
    """Read a port from its name: ``8.6.q``, ``mlp3``, ``logits``.

    Raises:
        NodeError: The text names no port.

    Example:
        >>> parse_port("8.6.v") == Head(8, 6).v
        True
    """
    name = text.strip()
    head, dot, port = name.rpartition(".")
    if dot and port in ("q", "k", "v", "in"):
        node = parse_node(head)
        return Port(node, port)  # type: ignore[arg-type]  # Port says what is wrong with a node
    return receiver_port(parse_node(name))  # type: ignore[arg-type]  # same


def describe(thing: Node | Port) -> str:
    """Return a node or port in words, for messages and hover texts.

    Example:
        >>> describe(Head(9, 6).q), describe(MLP(0))
        ('queries of head 9.6', 'MLP 0')
    """
    match thing:
        case Port(node=Head() as head, name=name):
            words = {"q": "queries", "k": "keys", "v": "values"}
            return f"{words[name]} of head {head}"
        case Port(node=node):
            return describe(node)
        case Embed():
            return "the embedding"
        case Head():
            return f"head {thing}"
        case MLP(layer=layer):
            return f"MLP {layer}"
        case Logits():
            return "the logits"
        case _:
            assert_never(thing)
