"""Requests from objects: edges, collections of edges, and paths of nodes and ports."""

from collections.abc import Iterable, Sequence
from functools import cache

from circuitgraph.errors import RequestError
from circuitgraph.nodes import MLP, Edge, Embed, Head, Receiver, Writer, receiver_port
from circuitgraph.request.notation import parse
from circuitgraph.request.requests import EdgesRequest, PathRequest, Request, SiteEdge
from circuitgraph.request.sites import Site
from circuitgraph.request.terms import Joint, is_logits

__all__ = ["as_request", "path"]


def as_request(asked: "str | Request | Edge | Iterable[Edge]") -> Request:
    """Return the request that text, an edge or a collection of edges means.

    An edge alone, or a collection of them, is patched together with everything downstream
    recomputed; an edge into the logits has nothing downstream.

    Raises:
        RequestError: Text that cannot be read, or something that is no request.

    Example:
        >>> from circuitgraph.nodes import Edge, Head, Logits
        >>> str(as_request(Edge(Head(5, 5), Head(8, 6).v)))
        '5.5 -> 8.6.v => logits'
        >>> str(as_request([Edge(Head(5, 5), Head(8, 6).v), Edge(Head(9, 9), Logits())]))
        '5.5 -> 8.6.v, 9.9 -> logits => logits'
    """
    match asked:
        case Request():
            return asked
        case str():
            return parse(asked)
        case Edge():
            return _one_edge(SiteEdge(Site(asked.sender), Site(asked.receiver)))
        case Iterable():
            try:
                edges = list(asked)
            except TypeError:  # such as a tensor of one number
                raise RequestError(_no_request(asked)) from None
            wrong = [edge for edge in edges if not isinstance(edge, Edge)]
            if wrong:
                raise RequestError(
                    f"a list of edges to patch holds {wrong[0]!r} ({type(wrong[0]).__name__}): "
                    "write cg.Edge(sender, receiver)"
                )
            ordered = sorted(edges) if isinstance(asked, set | frozenset) else edges
            site = cache(Site)  # the same few nodes and ports stand in edge after edge
            return _edges([SiteEdge(site(edge.sender), site(edge.receiver)) for edge in ordered])
        case _:
            raise RequestError(_no_request(asked))


def _no_request(asked: object) -> str:
    return (
        f"{asked!r} ({type(asked).__name__}) is no request: give text such as "
        "'9.9 -> logits', a Request, an Edge or a list of Edges"
    )


def _edges(edges: Sequence[SiteEdge]) -> Request:
    return _one_edge(edges[0]) if len(edges) == 1 else EdgesRequest(tuple(edges))


def _one_edge(edge: SiteEdge) -> Request:
    steps = (Joint((edge.sender,)), Joint((edge.receiver,)))
    return PathRequest(steps, recompute=not is_logits(steps[1]))


def path(*steps: Writer | Receiver, recompute: bool = False) -> PathRequest:
    """Return the request for one path, written with objects.

    Args:
        steps: A sender, then receivers; the logits last unless ``recompute``.
        recompute: End in ``=> logits``: everything downstream of the last receiver recomputed.

    Raises:
        RequestError: No path: it starts with no sender, or does not end in the logits.
        NodeError: A receiver that is none, such as a head without a port.

    Example:
        >>> from circuitgraph.nodes import Head, Logits
        >>> str(path(Head(5, 5), Head(8, 6).v, Head(9, 9).q, Logits()))
        '5.5 -> 8.6.v -> 9.9.q -> logits'
    """
    if not steps or not isinstance(steps[0], Embed | Head | MLP):
        raise RequestError(f"a path starts with a sender node, got {steps[0] if steps else 'none'}")
    sender, *receivers = steps
    terms = [Joint((Site(sender),))]
    terms += [Joint((Site(receiver_port(receiver)),)) for receiver in receivers]  # type: ignore[arg-type]
    return PathRequest(tuple(terms), recompute)
