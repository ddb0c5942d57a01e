"""The steps of a path: joint sets, lists and sweeps. ``str`` of each writes the notation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, assert_never

from circuitgraph.errors import RequestError
from circuitgraph.nodes import Head, Logits, Port
from circuitgraph.request.sites import (
    HEAD_PORTS,
    HeadPort,
    Positions,
    Site,
    checked_positions,
    positions_text,
)

__all__ = [
    "RECEIVING",
    "SENDING",
    "Every",
    "Joint",
    "Kind",
    "Sweep",
    "Term",
    "every_text",
    "has_logits",
    "is_logits",
    "map_sites",
    "sites_of",
]

Kind = Literal["head", "mlp", "node", "port", "kv"]

SENDING: dict[Kind, tuple[HeadPort | None, ...]] = {
    "head": (None,),
    "mlp": (None,),
    "node": (None,),
}
"""What can be swept over as senders, and with which port behind it."""

RECEIVING: dict[Kind, tuple[HeadPort | None, ...]] = {
    "head": HEAD_PORTS,
    "mlp": (None,),
    "port": (None,),
    "kv": ("k", "v"),
}
"""What can be swept over as receivers, and with which port behind it."""


@dataclass(frozen=True, slots=True)
class Joint:
    """Sites that are patched together; a single site is a joint set of one."""

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if not self.sites:
            raise RequestError("a joint set {...} needs at least one member")
        if wrong := [site for site in self.sites if not isinstance(site, Site)]:
            raise RequestError(f"a joint set is made of sites, got {wrong[0]!r}")
        if len(set(self.sites)) != len(self.sites):
            twice = next(site for site in self.sites if self.sites.count(site) > 1)
            raise RequestError(f"{twice} stands twice in one joint set")

    def __str__(self) -> str:
        if len(self.sites) == 1:
            return str(self.sites[0])
        at = self.sites[0].at
        if any(site.at != at for site in self.sites):
            return "{" + ", ".join(map(str, self.sites)) + "}"
        whats = [site.what for site in self.sites]
        suffix = positions_text(at)
        ports = [what for what in whats if isinstance(what, Port) and isinstance(what.node, Head)]
        if len(ports) == len(whats) and len({port.name for port in ports}) == 1:
            names = ", ".join(str(port.node) for port in ports)
            return f"{{{names}}}.{ports[0].name}{suffix}"
        return "{" + ", ".join(map(str, whats)) + "}" + suffix


@dataclass(frozen=True, slots=True)
class Sweep:
    """Joint sets (often of one member) that are patched one at a time."""

    items: tuple[Joint, ...]

    def __post_init__(self) -> None:
        if not self.items:
            raise RequestError("a list [...] needs at least one member")
        if wrong := [item for item in self.items if not isinstance(item, Joint)]:
            raise RequestError(f"a list is made of joint sets, got {wrong[0]!r}")
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

    def __post_init__(self) -> None:
        allowed = (*SENDING.get(self.kind, ()), *RECEIVING.get(self.kind, ()))
        if self.port not in allowed:
            known = dict.fromkeys((*every_text(SENDING), *every_text(RECEIVING)))
            raise RequestError(
                f"no sweep over {self.kind}{'.' * bool(self.port)}{self.port or ''}: "
                f"write one of {', '.join(known)}"
            )
        object.__setattr__(self, "at", checked_positions(self.at))

    def __str__(self) -> str:
        port = f".{self.port}" if self.port else ""
        return f"{self.kind}{port}{positions_text(self.at)}"


Term = Joint | Sweep | Every


def every_text(allowed: dict[Kind, tuple[HeadPort | None, ...]]) -> list[str]:
    """Return the names of the sweeps in a table, such as ``head.q``.

    Example:
        >>> every_text(SENDING)
        ['head', 'mlp', 'node']
    """
    return [f"{kind}.{port}" if port else kind for kind, ports in allowed.items() for port in ports]


def sites_of(term: Term) -> tuple[Site, ...]:
    """Return the sites that a step names; a sweep over everything of a kind names none."""
    match term:
        case Joint(sites=sites):
            return sites
        case Sweep(items=items):
            return tuple(site for item in items for site in item.sites)
        case Every():
            return ()
        case _:
            assert_never(term)


def map_sites(change: Callable[[Site], Site], term: Term) -> Term:
    """Return a step with each of its sites replaced."""
    match term:
        case Joint(sites=sites):
            return Joint(tuple(change(site) for site in sites))
        case Sweep(items=items):
            return Sweep(tuple(Joint(tuple(map(change, item.sites))) for item in items))
        case Every():
            return term
        case _:
            assert_never(term)


def is_logits(term: Term) -> bool:
    """Return whether a step of a path is the logits and nothing else."""
    sites = sites_of(term)
    return bool(sites) and all(map(_at_logits, sites))


def has_logits(term: Term) -> bool:
    """Return whether a step of a path names the logits."""
    return any(map(_at_logits, sites_of(term)))


def _at_logits(site: Site) -> bool:
    return site.what in (Logits(), Logits().port)
