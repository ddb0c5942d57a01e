"""Random nodes, ports and requests for hypothesis: well formed, but of no certain model."""

import os

import hypothesis.strategies as st
from hypothesis import settings

from circuitgraph.nodes import MLP, Embed, Head, Logits, Port
from circuitgraph.request import (
    EachPosition,
    EdgesRequest,
    Every,
    Joint,
    KVPort,
    PathRequest,
    Site,
    SiteEdge,
    Sweep,
)
from circuitgraph.request.terms import RECEIVING, SENDING

__all__ = ["edge_lists", "examples", "heads", "nodes", "paths", "ports", "requests", "writers"]

names = st.sampled_from(["end", "S2", "S1+1", "IO", "a-b", ".x", "q", "8.6", "head", "logits", "-"])
some_places = st.lists(st.one_of(names, st.integers(0, 12)), min_size=1, max_size=3, unique=True)
positions = st.one_of(st.none(), st.none(), some_places.map(tuple))
positions_or_each = st.one_of(positions, positions, positions, st.just(EachPosition()))


MORE = int(os.environ.get("CIRCUITGRAPH_EXAMPLES", "1"))


def examples(number):
    """Settings for that many examples, the same in every run.

    With CIRCUITGRAPH_EXAMPLES=20 there are 20 times as many, and other ones in every run.
    """
    return settings(max_examples=number * MORE, derandomize=MORE == 1, deadline=None)


# -- nodes and ports, with layers and heads up to a number ---------------------------------------


def heads(most=12):
    return st.builds(Head, st.integers(0, most), st.integers(0, most))


def mlps(most=12):
    return st.builds(MLP, st.integers(0, most))


def writers(most=12):
    return st.one_of(st.just(Embed()), heads(most), mlps(most))


def nodes(most=12):
    return st.one_of(writers(most), st.just(Logits()))


def inner_ports(most=12):
    """Ports from which a path can go on."""
    head_ports = st.builds(Port, heads(most), st.sampled_from(["q", "k", "v"]))
    return st.one_of(head_ports, head_ports, mlps(most).map(lambda mlp: mlp.port))


def ports(most=12):
    return st.one_of(inner_ports(most), st.just(Logits().port))


def receivers(most=12):
    numbers = st.integers(0, most)
    key_value_heads = st.builds(KVPort, numbers, numbers, st.sampled_from(["k", "v"]))
    return st.one_of(inner_ports(most), inner_ports(most), key_value_heads)


# -- steps ---------------------------------------------------------------------------------------


@st.composite
def joints(draw, whats, at=positions):
    """Distinct nodes or ports, often all at the same positions."""
    found = draw(st.lists(whats, min_size=1, max_size=3, unique=True))
    alike = draw(st.booleans())
    together = draw(at)
    return Joint(tuple(Site(what, together if alike else draw(at)) for what in found))


@st.composite
def terms(draw, whats, kinds, at=positions):
    """A joint set, a list of them, or a sweep over everything of a kind."""
    match draw(st.sampled_from(["joint", "joint", "list", "every"])):
        case "joint":
            return draw(joints(whats, at))
        case "list":
            found = st.lists(joints(whats, at), min_size=1, max_size=3, unique=True)
            return Sweep(tuple(draw(found)))
        case _:
            every = [(kind, port) for kind, allowed in kinds.items() for port in allowed]
            return Every(*draw(st.sampled_from(every)), draw(at))


# -- requests ------------------------------------------------------------------------------------


@st.composite
def paths(draw, most=12, at=positions_or_each):
    """Paths of up to four steps, ending in either arrow."""
    steps = [draw(terms(writers(most), SENDING, at))]
    steps += draw(st.lists(terms(receivers(most), RECEIVING, at), max_size=3))
    recompute = draw(st.booleans())
    if not recompute:
        steps.append(Joint((Site(Logits(), draw(positions)),)))
    return PathRequest(tuple(steps), recompute)


def edge_lists(most=12):
    sender = st.builds(Site, writers(most), positions)
    receiver = st.builds(Site, st.one_of(receivers(most), st.just(Logits())), positions)
    edges = st.builds(SiteEdge, sender, receiver)
    return st.lists(edges, min_size=2, max_size=5, unique=True).map(tuple).map(EdgesRequest)


def requests(most=12):
    return st.one_of(paths(most), paths(most), edge_lists(most))
