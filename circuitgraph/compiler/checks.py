"""What a request has to be before it is compiled. Every problem is added, nothing is raised."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import assert_never, get_args

from circuitgraph.compiler.grid import Path, Receiver
from circuitgraph.compiler.layout import (
    PathGrid,
    has_each,
    ports_at,
    receivers_at,
    senders_at,
    writer_at,
)
from circuitgraph.errors import NodeError, Problems, RequestError, UnsupportedError
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Head, Logits, Node, Port, Writer
from circuitgraph.plan import Source
from circuitgraph.request import (
    MODES,
    EdgesRequest,
    Every,
    Joint,
    KVPort,
    Mode,
    PathRequest,
    Positions,
    Request,
    Site,
    SiteEdge,
    Sweep,
    Term,
    Through,
    Variant,
    sites_in,
)
from circuitgraph.request.requests import has_positions
from circuitgraph.request.sites import positions_text

__all__ = [
    "check_meeting",
    "check_nodes",
    "check_order",
    "check_positions",
    "check_replace",
    "check_words",
    "nodes_passed",
]


def nodes_passed(graph: ModelGraph, variant: Variant, problems: Problems) -> frozenset[Head | MLP]:
    """Return the set of nodes that a variant lets direct paths pass through."""
    match variant if isinstance(variant, str | Through) else None:
        case "mlps":
            return frozenset(graph.mlps)
        case "single-pass":
            return frozenset()
        case Through(nodes=nodes):
            for node in sorted(nodes):
                problems.add(graph.problem(node))
            return nodes
        case _:
            problems.add(
                RequestError(
                    f"no variant {variant!r}: write 'mlps' (direct paths pass through MLPs), "
                    "'single-pass' (through nothing) or cg.Through(nodes)"
                )
            )
            return frozenset()


def check_words(mode: Mode, source: Source, problems: Problems) -> None:
    """Check the words that a request is compiled with."""
    if not isinstance(mode, str) or mode not in MODES:
        problems.add(RequestError(f"no mode {mode!r}: write one of {', '.join(MODES)}"))
    if not isinstance(source, str) or source not in get_args(Source):
        allowed = ", ".join(get_args(Source))
        problems.add(RequestError(f"no source {source!r}: write one of {allowed}"))


# -- does everything exist? ------------------------------------------------------------------------


def check_nodes(graph: ModelGraph, request: Request, problems: Problems) -> None:
    """Check that every node and port that a request names is in the graph."""
    missing = {site: _missing(graph, site) for site in dict.fromkeys(sites_in(request))}
    for problem in missing.values():
        problems.add(problem)
    match request:
        case PathRequest(steps=steps):
            swept = any(isinstance(step, Every) and step.kind == "mlp" for step in steps)
            if swept and not graph.mlps:
                problems.add(RequestError("nothing to sweep over: the model has no MLPs"))
        case EdgesRequest(edges=edges):
            # Each edge of a list is asked for by name, so each must be possible.
            if any(missing.values()):
                edges = tuple(e for e in edges if not missing[e.sender] and not missing[e.receiver])
            sends = cache(lambda site: graph.writes_at(writer_at(site)))
            heard = cache(lambda site: min(map(graph.reads_at, ports_at(graph, site))))
            for edge in edges:
                if sends(edge.sender) > heard(edge.receiver):
                    for port in ports_at(graph, edge.receiver):
                        problems.add(graph.order_problem(writer_at(edge.sender), port))


def _missing(graph: ModelGraph, site: Site) -> NodeError | None:
    if not isinstance(site.what, KVPort):
        return graph.problem(site.what)
    shape, port = graph.shape, site.what
    if port.layer < shape.n_layers and port.kv_head < shape.kv_heads:
        return None
    return NodeError(
        f"no port {str(port)!r} in this graph ({shape.n_layers} layers of {shape.kv_heads} "
        f"key-value heads): layer must be 0..{shape.n_layers - 1}, "
        f"key-value head 0..{shape.kv_heads - 1}"
    )


# -- positions -------------------------------------------------------------------------------------


def check_positions(
    graph: ModelGraph,
    request: Request,
    through: frozenset[Head | MLP],
    n_positions: int | None,
    problems: Problems,
) -> None:
    """Check that positions are swept in one place, and that each node's positions are clear."""
    if n_positions is not None and (not isinstance(n_positions, int) or n_positions < 1):
        problems.add(
            RequestError(f"n_positions must be a whole number of 1 or more, got {n_positions!r}")
        )
    match request:
        case PathRequest(steps=steps):
            _check_each(steps, n_positions, problems)
            for number, step in enumerate(steps):
                for joint in _joints(step):
                    sites = joint.sites
                    found = receivers_at(graph, sites) if number else senders_at(sites)
                    _check_clear(found, f"in {joint}", problems)
        case EdgesRequest() if has_positions(request):
            _check_edge_positions(graph, request, through, problems)


def _check_each(steps: Sequence[Term], n_positions: int | None, problems: Problems) -> None:
    swept = [step for step in steps if has_each(step)]
    if swept and n_positions is None:
        problems.add(
            RequestError("@each needs to know how many positions there are: give n_positions")
        )
    if len(swept) > 1:
        problems.add(UnsupportedError("@each can stand at one step of a path only"))
    for step in swept:
        if isinstance(step, Sweep) and not all(map(has_each, step.items)):
            problems.add(
                RequestError(f"@each stands at some members of {step}: give it to all or to none")
            )


def _check_edge_positions(
    graph: ModelGraph,
    request: EdgesRequest,
    through: frozenset[Head | MLP],
    problems: Problems,
) -> None:
    heard: dict[Port, list[SiteEdge]] = {}
    for edge in request.edges:
        for port in ports_at(graph, edge.receiver):
            heard.setdefault(port, []).append(edge)
    for port, edges in heard.items():
        senders = senders_at([edge.sender for edge in edges])
        _check_clear(senders, f"among the senders to {port}", problems)
        if len({edge.receiver.at for edge in edges}) > 1:
            _check_apart(port, edges, through, problems)


def _check_apart(
    port: Port,
    edges: Sequence[SiteEdge],
    through: frozenset[Head | MLP],
    problems: Problems,
) -> None:
    """Check that edges into one port can stand at positions of their own.

    The port hears all of them wherever one of them stands. So each must send at no other position
    than it is heard at, and stay there: then nothing arrives but what was asked for.
    """
    where = f"{port} receives at different positions in one list of edges"
    if any(isinstance(node, Head) for node in through):
        problems.add(
            UnsupportedError(
                f"{where}, and paths that pass through heads do not stay at theirs: give all edges "
                "into a port the same positions"
            )
        )
        return
    for edge in edges:
        sent, at = edge.sender.at, edge.receiver.at
        if at is None or (isinstance(at, tuple) and isinstance(sent, tuple) and {*sent} <= {*at}):
            continue
        problems.add(
            UnsupportedError(
                f"{where}, so each edge sends where it is heard: write {edge.sender.what}"
                f"{positions_text(at)} -> {edge.receiver} for {edge}"
            )
        )


def _check_clear(
    found: Mapping[Writer, list[Positions]] | Mapping[Port, list[Positions]],
    where: str,
    problems: Problems,
) -> None:
    """Check that what stands at several positions stands at named ones, which can be joined."""
    for what, positions in found.items():
        if len(positions) > 1 and not all(isinstance(at, tuple) for at in positions):
            both = " and at ".join(positions_text(at)[1:] or "all positions" for at in positions)
            problems.add(RequestError(f"{what} stands both at {both} {where}: choose one"))


def _joints(step: Term) -> tuple[Joint, ...]:
    match step:
        case Joint():
            return (step,)
        case Sweep(items=items):
            return items
        case Every():
            return ()
        case _:
            assert_never(step)


def check_meeting(request: Request, through: frozenset[Head | MLP], problems: Problems) -> None:
    """Check that senders at given indices can be heard at those of their receivers.

    A direct path keeps its position, unless it may pass through heads.
    """
    if not isinstance(request, PathRequest) or any(isinstance(node, Head) for node in through):
        return
    sent, heard = (_indices(step) for step in (*request.steps, None, None)[:2])
    if sent and heard and sent.isdisjoint(heard):
        problems.add(
            RequestError(
                f"{request.steps[0]} cannot be heard at {request.steps[1]}: a direct path stays at "
                "its position; give both the same"
            )
        )


def _indices(step: Term | None) -> frozenset[int] | None:
    """Return the indices at which a step stands; None where it stands at others, or everywhere."""
    match step:
        case None:
            return None
        case Every(at=at):
            places = [at]
        case _:
            places = [site.at for joint in _joints(step) for site in joint.sites]
    found: set[int] = set()
    for at in places:
        if not isinstance(at, tuple) or not all(isinstance(place, int) for place in at):
            return None
        found |= {place for place in at if isinstance(place, int)}
    return frozenset(found)


# -- does every sender come before its receiver? ---------------------------------------------------


def check_order(grid: PathGrid, problems: Problems) -> None:
    """Check that a sweep has a possible cell, and that a single request is possible as a whole."""
    if not grid.axes or not len(grid):
        first = grid.path([0] * len(grid.steps), grid.positions[0])
        for problem in _order_problems(grid.graph, first):
            problems.add(problem)


def _order_problems(graph: ModelGraph, path: Path) -> Iterator[NodeError | None]:
    """Yield every sender that reaches no receiver, and every receiver that no sender reaches."""
    nodes: list[Node] = [sender.node for sender in path.senders]
    for receivers in path.receivers:
        ports = [receiver.port for receiver in receivers]
        senders = [node for node in nodes if not isinstance(node, Logits)]
        if len(senders) < len(nodes):
            yield NodeError("no path goes on from the logits")
        for sender in senders:
            if not any(graph.precedes(sender, port) for port in ports):
                yield graph.order_problem(sender, ports[0])
        for port in ports:
            if senders and not any(graph.precedes(sender, port) for sender in senders):
                yield graph.order_problem(senders[0], port)
        nodes = [port.node for port in ports]


def check_replace(
    hops: Iterable[Sequence[Receiver]],
    through: frozenset[Head | MLP],
    mode: Mode,
    problems: Problems,
) -> None:
    """Refuse mode ``replace`` where a receiver is also a node that direct paths pass through.

    Args:
        hops: What each cell measures.
        through: What direct paths may pass through.
        mode: The mode.
        problems: Gets what is wrong.
    """
    if mode != "replace" or not through:
        return
    for receivers in hops:
        ports = [receiver.port for receiver in receivers]
        inside = [port for port in ports if port.node in through]
        if inside and len(ports) > 1:
            problems.add(
                UnsupportedError(
                    f"mode 'replace' with {inside[0]} both a receiver and a node that direct paths "
                    "to other receivers pass through: use variant 'single-pass', or cg.Through "
                    f"without {inside[0].node}"
                )
            )
