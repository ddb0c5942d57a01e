"""Sites: a sender node or a receiver port, at some positions."""

import operator
import re
from dataclasses import dataclass, replace
from typing import Literal, SupportsIndex, get_args

from circuitgraph.errors import RequestError
from circuitgraph.nodes import MLP, Embed, Head, Logits, Port, Writer, receiver_port

__all__ = [
    "HEAD_PORTS",
    "POSITION_NAME",
    "EachPosition",
    "HeadPort",
    "KVPort",
    "Positions",
    "Site",
    "as_receiver",
    "as_sender",
    "checked_positions",
    "positions_text",
]

HeadPort = Literal["q", "k", "v"]
HEAD_PORTS: tuple[HeadPort, ...] = get_args(HeadPort)


@dataclass(frozen=True, slots=True)
class EachPosition:
    """``@each``: every position, one at a time."""

    def __str__(self) -> str:
        return "each"


Positions = tuple[str | int, ...] | EachPosition | None
"""Where: names or indices of positions, every position one at a time, or None for all together."""

POSITION_NAME = re.compile(r"(?!each\Z|-?[0-9]+\Z)[A-Za-z0-9_.+-]+\Z")
"""What a request can call a position."""


def checked_positions(at: object) -> Positions:
    """Return positions as plain values.

    Raises:
        RequestError: Something that is no position, or cannot be written in the notation.

    Example:
        >>> checked_positions(("S2", 3))
        ('S2', 3)
    """
    if at is None or isinstance(at, EachPosition):
        return at
    if not isinstance(at, tuple) or not at:
        hint = f": write at=({at!r},)" if isinstance(at, str | int) else ""
        raise RequestError(f"positions are a tuple of names and indices, got {at!r}{hint}")
    places = tuple(_checked_position(place) for place in at)
    if len(set(places)) != len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise RequestError(f"the position {twice} stands twice in {positions_text(places)}")
    return places


def _checked_position(place: object) -> str | int:
    if isinstance(place, SupportsIndex) and not isinstance(place, bool):
        index = operator.index(place)
        if index >= 0:
            return index
        raise RequestError(
            f"position {index}: positions count from 0 at the start, since prompts may be "
            "padded at the end; name the position (positions={'end': ...}) instead"
        )
    if isinstance(place, str) and POSITION_NAME.match(place):
        return place
    raise RequestError(
        f"{place!r} is no position: write an index, or a name of letters, digits and _ . + - "
        "(but not 'each' or a number)"
    )


def positions_text(at: Positions) -> str:
    """Return positions as they stand in the notation, with their ``@``."""
    match at:
        case None:
            return ""
        case EachPosition():
            return "@each"
        case (one,):
            return f"@{one}"
        case _:
            return "@{" + ", ".join(map(str, at)) + "}"


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

    def __post_init__(self) -> None:
        for name in ("layer", "kv_head"):
            number = getattr(self, name)
            whole = isinstance(number, SupportsIndex) and not isinstance(number, bool)
            if not whole or operator.index(number) < 0:
                raise RequestError(
                    f"KVPort: {name} must be an integer of 0 or more, got {number!r}"
                )
            object.__setattr__(self, name, operator.index(number))
        if self.name not in ("k", "v"):
            raise RequestError(
                f"no port {self.name!r} on key-value head {self.layer}.kv{self.kv_head}: "
                "its ports are k, v"
            )

    def __str__(self) -> str:
        return f"{self.layer}.kv{self.kv_head}.{self.name}"


@dataclass(frozen=True, slots=True)
class Site:
    """A sender node or a receiver port, at some positions.

    Args:
        what: `Embed`, `Head` or `MLP` where it sends; a `Port` or a `KVPort` where it receives. An
            `MLP` or the `Logits` in the place of a receiver stand for their only port.
        at: Position names or indices, `EachPosition`, or None for all positions together.

    Raises:
        RequestError: Something that can neither send nor receive, or that is no position.

    Example:
        >>> str(Site(Head(8, 6).v, at=("S2",)))
        '8.6.v@S2'
    """

    what: Writer | Port | KVPort | Logits
    at: Positions = None

    def __post_init__(self) -> None:
        if not isinstance(self.what, Embed | Head | MLP | Logits | Port | KVPort):
            raise RequestError(
                f"a site is a node or a port, got {self.what!r} ({type(self.what).__name__})"
            )
        if self.at is not None:
            object.__setattr__(self, "at", checked_positions(self.at))

    def __str__(self) -> str:
        return f"{self.what}{positions_text(self.at)}"


def as_sender(site: Site) -> Site:
    """Return a site in the place of a sender.

    Raises:
        RequestError: It is a port, or the logits, which send nothing.
    """
    match site.what:
        case Embed() | Head() | MLP():
            return site
        case Logits():
            raise RequestError("the logits send nothing, so they cannot be a sender")
        case _:
            raise RequestError(f"the sender {site.what} has a port: a path starts with a node")


def as_receiver(site: Site) -> Site:
    """Return a site in the place of a receiver, an MLP and the logits as their only port.

    Raises:
        NodeError: A head without a port, or the embedding, which reads nothing.
    """
    if isinstance(site.what, Port | KVPort):
        return site
    return replace(site, what=receiver_port(site.what))  # type: ignore[arg-type]  # it says what is wrong
