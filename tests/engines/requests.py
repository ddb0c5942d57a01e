"""Random requests that fit a graph, with a variant and a mode, for hypothesis."""

import os
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, assume, settings

from circuitgraph.compiler import compile as compile_request
from circuitgraph.errors import NodeError, UnsupportedError
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Head, Logits, Port, Writer
from circuitgraph.plan import Plan
from circuitgraph.request import (
    MODES,
    EachPosition,
    EdgesRequest,
    Every,
    Joint,
    KVPort,
    PathRequest,
    Request,
    Site,
    SiteEdge,
    Sweep,
    Term,
    Through,
    Variant,
)

__all__ = ["Asked", "asked", "examples", "sweeps"]

NAMES = ("end", "S2")
MORE = int(os.environ.get("CIRCUITGRAPH_EXAMPLES", "1"))
SHRINK = os.environ.get("CIRCUITGRAPH_SHRINK", "1") == "1"


def examples(number: int) -> settings:
    """Settings for that many examples: the same in every run, so that a suite is stable.

    With CIRCUITGRAPH_EXAMPLES=20 there are 20 times as many, and other ones in every run. With
    CIRCUITGRAPH_SHRINK=0 the first failure is shown as it was found, without minutes of shrinking.
    """
    return settings(
        max_examples=number * MORE,
        derandomize=MORE == 1,
        deadline=None,
        print_blob=True,
        phases=[Phase.generate, *([Phase.shrink] if SHRINK else [])],
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


class Asked:
    """A request with all that it is compiled with. No dataclass, for then hypothesis shows more."""

    def __init__(self, request: Request, variant: Variant, mode: Any) -> None:
        self.request, self.variant, self.mode = request, variant, mode

    def plan(self, graph: ModelGraph, n_positions: int) -> Plan:
        return compile_request(
            graph, self.request, self.variant, mode=self.mode, n_positions=n_positions
        ).lint()

    def __repr__(self) -> str:
        return f"{str(self.request)!r}, variant={self.variant}, mode={self.mode}"


@st.composite
def asked(draw: st.DrawFn, graph: ModelGraph, n_pos: int, **limits: Any) -> Asked:
    """A request without sweeps."""
    request = draw(st.one_of(paths(graph, n_pos, **limits), edge_lists(graph, n_pos)))
    return _with_variant(draw, graph, n_pos, request)


@st.composite
def sweeps(draw: st.DrawFn, graph: ModelGraph, n_pos: int) -> Asked:
    """A request with one or two swept steps."""
    at = draw(st.sampled_from([None, None, None, ("end",), ("S2",), (1,), EachPosition()]))
    swept = draw(swept_steps(graph, n_pos, at))
    return _with_variant(draw, graph, n_pos, swept)


def _with_variant(draw: st.DrawFn, graph: ModelGraph, n_pos: int, request: Request) -> Asked:
    found = Asked(request, draw(variants(graph)), draw(st.sampled_from(MODES)))
    try:
        found.plan(graph, n_pos)
    except (NodeError, UnsupportedError):
        assume(False)
    return found


def variants(graph: ModelGraph) -> st.SearchStrategy[Variant]:
    """The variants by name, and random sets of heads and MLPs."""
    nodes = st.sampled_from((*graph.heads, *graph.mlps))
    sets = st.lists(nodes, max_size=5).map(Through)
    return st.one_of(st.just("mlps"), st.just("single-pass"), sets)


def positions(n_pos: int) -> st.SearchStrategy[Any]:
    """All positions (often), names, indices, or several of them.

    Indices do not stand beside S2, which takes its values from elsewhere in the corrupt prompt:
    where both meant one position, it would be patched twice with different values.
    """
    index = st.integers(0, n_pos - 1)
    several = (
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True),
        st.lists(st.one_of(st.just("end"), index), min_size=1, max_size=3, unique=True),
    )
    return st.one_of(st.none(), st.none(), *(found.map(tuple) for found in several))


# -- paths -----------------------------------------------------------------------------------------


@st.composite
def paths(draw: st.DrawFn, graph: ModelGraph, n_pos: int, max_hops: int = 3) -> PathRequest:
    """Activation patching, or a path of one to three hops of joint senders and receivers."""
    senders: list[Writer] = draw(_some(graph.writers))
    n_hops = draw(st.integers(0, max_hops))
    hops: list[list[Port]] = []
    before: Sequence[Any] = senders
    for _ in range(n_hops):
        reached = [port for port in graph.ports if any(graph.precedes(s, port) for s in before)]
        inner = [port for port in reached if not isinstance(port.node, Logits)]
        if not inner:
            break
        hops.append(draw(_some(inner)))
        before = [port.node for port in hops[-1]]
    end = draw(st.sampled_from(["->", "=>", "among"])) if hops else "=>"
    if end == "among" and len(hops) == 1:
        hops[-1].append(Logits().port)  # the logits as one of several receivers
    if end == "->":
        hops.append([Logits().port])
    steps = _connected(graph, senders, hops)
    assume(steps is not None)
    assert steps is not None
    where = positions(n_pos)
    terms = [Joint(tuple(Site(what, draw(where)) for what in step)) for step in steps]
    if len(terms) == 2 and steps[-1] == [Logits().port]:
        end = "->"
    return PathRequest(tuple(terms), recompute=end != "->")


def _some(things: Sequence[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(things), min_size=1, max_size=3, unique=True)


def _connected(
    graph: ModelGraph, senders: Sequence[Writer], hops: Sequence[Sequence[Port]]
) -> list[list[Any]] | None:
    """Drop what reaches nothing or is not reached, until every step fits; None if one is empty."""
    steps: list[list[Any]] = [list(senders), *map(list, hops)]

    def node(thing: Any) -> Any:
        return thing.node if isinstance(thing, Port) else thing

    while True:
        size = sum(map(len, steps))
        for number in range(len(steps) - 1):
            sends, receives = steps[number], steps[number + 1]
            steps[number] = [
                s for s in sends if any(graph.precedes(node(s), port) for port in receives)
            ]
            steps[number + 1] = [
                port
                for port in receives
                if any(graph.precedes(node(s), port) for s in steps[number])
            ]
        if not all(steps):
            return None
        if sum(map(len, steps)) == size:
            return steps


# -- lists of edges --------------------------------------------------------------------------------


@st.composite
def edge_lists(draw: st.DrawFn, graph: ModelGraph, n_pos: int) -> EdgesRequest:
    """Up to six edges patched together; all edges into a port have the same positions there."""
    ports = draw(st.lists(st.sampled_from(graph.ports), min_size=1, max_size=3, unique=True))
    where = positions(n_pos)
    edges = []
    for port in ports:
        before = [writer for writer in graph.writers if graph.precedes(writer, port)]
        at = draw(where)
        for sender in draw(st.lists(st.sampled_from(before), min_size=1, max_size=3, unique=True)):
            edges.append(SiteEdge(Site(sender, draw(where)), Site(port, at)))
    assume(len(edges) > 1)  # a single one is written as a path
    return EdgesRequest(tuple(edges))


# -- sweeps ----------------------------------------------------------------------------------------


@st.composite
def swept_steps(draw: st.DrawFn, graph: ModelGraph, n_pos: int, at: Any) -> PathRequest:
    """Swept senders, swept receivers, or a short list of each."""
    logits = Joint((Site(Logits().port),))
    last_head = graph.heads[-1]
    which = draw(st.sampled_from(["senders", "receivers", "both"]))
    if which == "senders":
        swept = draw(
            st.one_of(st.sampled_from(_every_sender(graph, at)), _lists(graph.writers, at))
        )
        ends: list[tuple[tuple[Term, ...], bool]] = [
            ((logits,), False),
            (
                (Joint((Site(draw(st.sampled_from((last_head.q, last_head.k, last_head.v)))),)),),
                True,
            ),
            ((Joint((Site(last_head.v, draw(positions(n_pos))),)), logits), False),
        ]
        ends.append(((), True))
        rest, recompute = draw(st.sampled_from(ends))
        return PathRequest((swept, *rest), recompute)
    if which == "receivers":
        sender = draw(st.sampled_from([w for w in graph.writers if _is_early(graph, w)]))
        first = Joint((Site(sender, draw(positions(n_pos))),))
        receivers = draw(st.sampled_from(_every_receiver(graph, at)))
        tail = draw(st.booleans()) and not (
            isinstance(receivers, Every) and receivers.kind == "port"
        )
        steps = (first, receivers, logits) if tail else (first, receivers)
        return PathRequest(steps, recompute=not tail)
    early = [writer for writer in graph.writers if _is_early(graph, writer)]
    late = [port for port in graph.ports if graph.reads_at(port) >= 2]
    one = draw(_lists(early, at))
    other = draw(_lists(late, None))
    assume(any(site.what != Logits().port for joint in other.items for site in joint.sites))
    return PathRequest((one, other), recompute=True)


def _is_early(graph: ModelGraph, writer: Writer) -> bool:
    return graph.writes_at(writer) <= 2


def _every_sender(graph: ModelGraph, at: Any) -> list[Term]:
    kinds = ["head", "node", *(["mlp"] if graph.mlps else [])]
    return [Every(kind, None, at) for kind in kinds]  # type: ignore[arg-type]


def _every_receiver(graph: ModelGraph, at: Any) -> list[Term]:
    found: list[Term] = [Every("head", name, at) for name in ("q", "k", "v")]  # type: ignore[arg-type]
    found += [Every("kv", "k", at), Every("kv", "v", at), Every("port", None, at)]
    if graph.mlps:
        found.append(Every("mlp", None, at))
    last = graph.shape.n_layers - 1
    found.append(
        Sweep(
            tuple(Joint((Site(KVPort(last, kv, "v"), at),)) for kv in range(graph.shape.kv_heads))
        )
    )
    groups = [graph.shape.heads_of_group(kv) for kv in range(graph.shape.kv_heads)]
    joint = tuple(Joint(tuple(Site(Head(last, head).q, at) for head in group)) for group in groups)
    found.append(Sweep(joint))
    return found


def _lists(things: Sequence[Any], at: Any) -> st.SearchStrategy[Sweep]:
    """A list of joint sets, one patched at a time."""
    joint = st.lists(st.sampled_from(things), min_size=1, max_size=2, unique=True).map(
        lambda members: Joint(tuple(Site(member, at) for member in members))
    )
    return st.lists(joint, min_size=1, max_size=3, unique=True).map(lambda j: Sweep(tuple(j)))
