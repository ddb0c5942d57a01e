"""The two kinds of request: a path of hops, and a list of edges patched together."""

from dataclasses import dataclass
from functools import cache
from typing import get_args

from circuitgraph.errors import RequestError
from circuitgraph.nodes import Logits
from circuitgraph.request.sites import EachPosition, Positions, Site, as_receiver, as_sender
from circuitgraph.request.terms import (
    RECEIVING,
    SENDING,
    Every,
    Term,
    every_text,
    has_logits,
    is_logits,
    map_sites,
    sites_of,
)

__all__ = [
    "EdgesRequest",
    "PathRequest",
    "Request",
    "SiteEdge",
    "has_positions",
    "positions_in",
    "sites_in",
]


class Request:
    """What to patch: a `PathRequest` or an `EdgesRequest`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class PathRequest(Request):
    """A path of hops: senders, then receivers, then (for longer paths) further receivers.

    Args:
        steps: The senders, then the receivers of each hop. The last step is the logits where the
            request ends in ``-> logits``.
        recompute: Whether the request ends in ``=> logits``: everything downstream of the last
            step is recomputed.

    Raises:
        RequestError: Steps that are no path.
        NodeError: Something in the place of a receiver that reads nothing.

    Example:
        >>> from circuitgraph.nodes import Head, Logits
        >>> from circuitgraph.request import Joint
        >>> str(PathRequest((Joint((Site(Head(9, 9)),)), Joint((Site(Logits()),))), False))
        '9.9 -> logits'
    """

    steps: tuple[Term, ...]
    recompute: bool

    def __post_init__(self) -> None:
        if wrong := [step for step in self.steps if not isinstance(step, get_args(Term))]:
            raise RequestError(f"a path is made of joint sets, lists and sweeps, got {wrong[0]!r}")
        if len(self.steps) < (1 if self.recompute else 2):
            raise RequestError("a request has at least a sender and a receiver: 9.9 -> logits")
        sender, *receivers = self.steps
        steps = (_sending(sender), *map(_receiving, receivers))
        object.__setattr__(self, "steps", steps)
        ends_in_logits = is_logits(steps[-1])
        if not self.recompute and not ends_in_logits:
            raise RequestError(
                f"{str(self)!r} stops at {steps[-1]}: end it in `=> logits` "
                "(everything downstream recomputed) or `-> logits` (straight into the logits)"
            )
        if self.recompute and ends_in_logits:
            raise RequestError(
                "nothing is downstream of the logits: write `-> logits` without `=> logits`"
            )
        if any(has_logits(step) for step in steps[:-1]):
            raise RequestError("the logits can only stand at the end of a path")

    def __str__(self) -> str:
        text = " -> ".join(map(str, self.steps))
        return f"{text} => logits" if self.recompute else text


def _sending(term: Term) -> Term:
    if isinstance(term, Every) and term.port not in SENDING.get(term.kind, ()):
        raise RequestError(
            f"{term} sends nothing: sweep over one of {', '.join(every_text(SENDING))}"
        )
    return map_sites(as_sender, term)


def _receiving(term: Term) -> Term:
    if isinstance(term, Every) and term.port not in RECEIVING.get(term.kind, ()):
        raise RequestError(
            f"{term} cannot receive: sweep over one of {', '.join(every_text(RECEIVING))}"
        )
    return map_sites(as_receiver, term)


@dataclass(frozen=True, slots=True)
class SiteEdge:
    """One edge of an `EdgesRequest`: an `Edge` with positions at either end."""

    sender: Site
    receiver: Site

    def __post_init__(self) -> None:
        object.__setattr__(self, "sender", as_sender(self.sender))
        object.__setattr__(self, "receiver", as_receiver(self.receiver))
        if any(isinstance(site.at, EachPosition) for site in (self.sender, self.receiver)):
            raise RequestError(f"{self}: @each cannot stand in a list of edges")

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver}"


@dataclass(frozen=True, slots=True)
class EdgesRequest(Request):
    """Edges patched together, each receiver with its own senders, all downstream recomputed.

    Example:
        >>> from circuitgraph.nodes import Head
        >>> edges = (
        ...     SiteEdge(Site(Head(5, 5)), Site(Head(8, 6).v)),
        ...     SiteEdge(Site(Head(3, 0)), Site(Head(9, 9).q)),
        ... )
        >>> str(EdgesRequest(edges))
        '5.5 -> 8.6.v, 3.0 -> 9.9.q => logits'
    """

    edges: tuple[SiteEdge, ...]

    def __post_init__(self) -> None:
        if not self.edges:
            raise RequestError("no edges to patch: the list is empty")
        if wrong := [edge for edge in self.edges if not isinstance(edge, SiteEdge)]:
            raise RequestError(f"a list of edges to patch holds {wrong[0]!r}: write SiteEdge(...)")
        if len(set(self.edges)) != len(self.edges):
            twice = next(edge for edge in self.edges if self.edges.count(edge) > 1)
            raise RequestError(f"the edge {twice} stands twice in the list")

    def __str__(self) -> str:
        named = cache(str)  # the same few nodes and ports stand in edge after edge
        text = ", ".join(f"{named(edge.sender)} -> {named(edge.receiver)}" for edge in self.edges)
        nothing_downstream = all(edge.receiver.what == Logits().port for edge in self.edges)
        return text if nothing_downstream and len(self.edges) == 1 else f"{text} => logits"


def sites_in(request: Request) -> tuple[Site, ...]:
    """Return every site that a request names, in order.

    Raises:
        RequestError: It is no request.
    """
    match request:
        case PathRequest(steps=steps):
            return tuple(site for step in steps for site in sites_of(step))
        case EdgesRequest(edges=edges):
            return tuple(site for edge in edges for site in (edge.sender, edge.receiver))
        case Request():
            return ()  # sets of edges are whole: see `EdgeSets`
        case _:
            raise RequestError(f"{request!r} is no request")


def positions_in(request: Request) -> tuple[str | int, ...]:
    """Return every position that a request names, in the order of first mention.

    Example:
        >>> from circuitgraph.request import parse
        >>> positions_in(parse("[5.5@S2, 6.9@{S1, S2}] -> head.v@3 => logits"))
        ('S2', 'S1', 3)
    """
    found = _places(request)
    return tuple(dict.fromkeys(place for at in found if isinstance(at, tuple) for place in at))


def has_positions(request: Request) -> bool:
    """Return whether a request says of anything where it is patched."""
    return any(at is not None for at in _places(request))


def _places(request: Request) -> list[Positions]:
    match request:
        case PathRequest(steps=steps):
            found: list[Positions] = []
            for step in steps:
                found += [step.at] if isinstance(step, Every) else [s.at for s in sites_of(step)]
            return found
        case _:
            return [site.at for site in sites_in(request)]
