"""The parts of a request, as plain values: sites, joint sets, sweeps, and the two kinds of request.

``str`` of each writes the notation that `circuitgraph.request.notation` reads.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

from circuitgraph.errors import RequestError
from circuitgraph.nodes import Head, Logits, Port, Writer

__all__ = [
    "EachPosition",
    "EdgesRequest",
    "Every",
    "HeadPort",
    "Joint",
    "KVPort",
    "Kind",
    "PathRequest",
    "Positions",
    "Request",
    "Site",
    "SiteEdge",
    "Sweep",
    "Term",
    "is_logits",
    "positions_in",
]

Kind = Literal["head", "mlp", "node", "port", "kv"]
HeadPort = Literal["q", "k", "v"]


@dataclass(frozen=True, slots=True)
class EachPosition:
    """``@each``: every position, one at a time."""

    def __str__(self) -> str:
        return "each"


Positions = tuple[str | int, ...] | EachPosition | None
"""Where: names or indices of positions, every position one at a time, or None for all together."""


def _positions_text(at: Positions) -> str:
    match at:
        case None:
            return ""
        case EachPosition():
            return "@each"
        case (one,):
            return f"@{one}"
        case _:
            return "@{" + ", ".join(str(position) for position in at) + "}"


@dataclass(frozen=True, slots=True)
class KVPort:
    """The keys or values of a whole key-value head: that port of every query head of its group.

    Example:
        >>> str(KVPort(8, 2, "k"))
        '8.kv2.k'
    """

    layer: int
    kv_head: int
    name: Literal["k", "v"]

    def __str__(self) -> str:
        return f"{self.layer}.kv{self.kv_head}.{self.name}"


@dataclass(frozen=True, slots=True)
class Site:
    """A sender node or a receiver port, at some positions.

    Args:
        what: `Embed`, `Head`, `MLP`, a `Port`, or a `KVPort`; an `MLP` or `Logits` in the place of
            a receiver stands for its only port.
        at: Position names or indices; None for all positions.
    """

    what: Writer | Port | KVPort
    at: Positions = None

    def __str__(self) -> str:
        return f"{self.what}{_positions_text(self.at)}"


@dataclass(frozen=True, slots=True)
class Joint:
    """Sites that are patched together; a single site is a joint set of one."""

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if not self.sites:
            raise RequestError("a joint set {...} needs at least one member")
        if len(set(self.sites)) != len(self.sites):
            twice = next(site for site in self.sites if self.sites.count(site) > 1)
            raise RequestError(f"{twice} stands twice in one joint set")

    def __str__(self) -> str:
        if len(self.sites) == 1:
            return str(self.sites[0])
        whats = [site.what for site in self.sites]
        at = self.sites[0].at
        if all(site.at == at for site in self.sites):
            suffix = _positions_text(at)
            ports = {what.name for what in whats if isinstance(what, Port)}
            if len(ports) == 1 and all(
                isinstance(what, Port) and isinstance(what.node, Head) for what in whats
            ):
                names = ", ".join(str(what.node) for what in whats if isinstance(what, Port))
                return f"{{{names}}}.{ports.pop()}{suffix}"
            return "{" + ", ".join(map(str, whats)) + "}" + suffix
        return "{" + ", ".join(map(str, self.sites)) + "}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Joint sets (often of one member) that are patched one at a time."""

    items: tuple[Joint, ...]

    def __post_init__(self) -> None:
        if not self.items:
            raise RequestError("a list [...] needs at least one member")
        if len(set(self.items)) != len(self.items):
            twice = next(item for item in self.items if self.items.count(item) > 1)
            raise RequestError(f"{twice} stands twice in one list")

    def __str__(self) -> str:
        return "[" + ", ".join(map(str, self.items)) + "]"


@dataclass(frozen=True, slots=True)
class Every:
    """Everything of a kind, one at a time; what that is, the graph knows.

    ``head``, ``mlp`` and ``node`` (all writers) as senders; ``head.q``, ``head.k``, ``head.v``,
    ``mlp``, ``kv.k``, ``kv.v`` and ``port`` (all ports) as receivers.
    """

    kind: Kind
    port: HeadPort | None = None
    at: Positions = None

    def __str__(self) -> str:
        port = f".{self.port}" if self.port else ""
        return f"{self.kind}{port}{_positions_text(self.at)}"


Term = Joint | Sweep | Every


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

    Example:
        >>> str(PathRequest((Joint((Site(Head(9, 9)),)), Joint((Site(Logits().port),))), False))
        '9.9 -> logits'
    """

    steps: tuple[Term, ...]
    recompute: bool

    def __post_init__(self) -> None:
        if len(self.steps) < (1 if self.recompute else 2):
            raise RequestError("a request has at least a sender and a receiver: 9.9 -> logits")
        ends_in_logits = is_logits(self.steps[-1])
        if not self.recompute and not ends_in_logits:
            raise RequestError(
                f"{_join(self)!r} stops at {self.steps[-1]}: end it in `=> logits` "
                "(everything downstream recomputed) or `-> logits` (straight into the logits)"
            )
        if self.recompute and ends_in_logits:
            raise RequestError(
                "nothing is downstream of the logits: write `-> logits` without `=> logits`"
            )
        inner = [step for step in self.steps[:-1] if is_logits(step)]
        if inner:
            raise RequestError("the logits can only stand at the end of a path")

    def __str__(self) -> str:
        return _join(self)


@dataclass(frozen=True, slots=True)
class SiteEdge:
    """One edge of an `EdgesRequest`: an `Edge` with positions at either end."""

    sender: Site
    receiver: Site

    def __str__(self) -> str:
        return f"{self.sender} -> {self.receiver}"


@dataclass(frozen=True, slots=True)
class EdgesRequest(Request):
    """Edges patched together, each receiver with its own senders, all downstream recomputed.

    Example:
        >>> edge = SiteEdge(Site(Head(5, 5)), Site(Head(8, 6).v))
        >>> str(EdgesRequest((edge,)))
        '5.5 -> 8.6.v => logits'
    """

    edges: tuple[SiteEdge, ...]

    def __post_init__(self) -> None:
        if not self.edges:
            raise RequestError("no edges to patch: the list is empty")
        for edge in self.edges:
            for site in (edge.sender, edge.receiver):
                if isinstance(site.at, EachPosition):
                    raise RequestError(f"{edge}: @each cannot stand in a list of edges")
        if len(set(self.edges)) != len(self.edges):
            twice = next(edge for edge in self.edges if self.edges.count(edge) > 1)
            raise RequestError(f"the edge {twice} stands twice in the list")

    def __str__(self) -> str:
        return ", ".join(map(str, self.edges)) + " => logits"


def is_logits(term: Term) -> bool:
    """Return whether a step of a path is the logits."""
    return isinstance(term, Joint) and all(
        isinstance(site.what, Port) and isinstance(site.what.node, Logits) for site in term.sites
    )


def _join(request: PathRequest) -> str:
    text = " -> ".join(map(str, request.steps))
    return f"{text} => logits" if request.recompute else text


def positions_in(request: Request) -> tuple[str | int, ...]:
    """Return every position that a request names, in the order of first mention.

    Example:
        >>> sender, logits = Site(Head(9, 9), ("end",)), Site(Logits().port)
        >>> positions_in(PathRequest((Joint((sender,)), Joint((logits,))), recompute=False))
        ('end',)
    """
    sites: list[Positions] = []
    match request:
        case PathRequest(steps=steps):
            for step in steps:
                match step:
                    case Joint(sites=members):
                        sites += [site.at for site in members]
                    case Sweep(items=items):
                        sites += [site.at for item in items for site in item.sites]
                    case Every(at=at):
                        sites.append(at)
                    case _:
                        assert_never(step)
        case EdgesRequest(edges=edges):
            sites += [site.at for edge in edges for site in (edge.sender, edge.receiver)]
        case _:
            raise RequestError(f"{request!r} is no request")
    names = [name for at in sites if isinstance(at, tuple) for name in at]
    return tuple(dict.fromkeys(names))
