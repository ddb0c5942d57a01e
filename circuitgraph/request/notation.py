"""Requests from their text: ``5.5 -> {8.6, 8.10}.v@S2 => logits``."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple, TypeVar, cast

from circuitgraph.errors import NodeError, RequestError
from circuitgraph.nodes import Head, Node, Port, parse_node
from circuitgraph.request.requests import EdgesRequest, PathRequest, Request, SiteEdge
from circuitgraph.request.sites import (
    HEAD_PORTS,
    EachPosition,
    HeadPort,
    KVPort,
    Positions,
    Site,
    as_receiver,
    as_sender,
    checked_positions,
)
from circuitgraph.request.terms import (
    RECEIVING,
    SENDING,
    Every,
    Joint,
    Kind,
    Sweep,
    Term,
    every_text,
)
from circuitgraph.request.tokens import Token, Tokens

__all__ = ["parse"]

Member = TypeVar("Member")

_KV_PORT = re.compile(r"([0-9]{1,9})\.kv([0-9]{1,9})\.([a-z]+)")
_INDEX = re.compile(r"-?[0-9]{1,9}")


def parse(text: str) -> Request:
    """Read a request from its text.

    Raises:
        RequestError: The text is no request; the message shows where and what is allowed there.

    Example:
        >>> parse("5.5 -> {8.6, 8.10}.v => logits").steps[1].sites[0].what
        Port(node=Head(layer=8, head=6), name='v')
        >>> parse("9.9 -> ")
        Traceback (most recent call last):
        ...
        circuitgraph.errors.RequestError: cannot read the request '9.9 -> ': ...
    """
    if not isinstance(text, str):
        raise RequestError(f"a request is text, got {type(text).__name__}")
    try:
        return _Parser(text).request()
    except (NodeError, RequestError) as error:
        raise RequestError(f"cannot read the request {text!r}: {error}") from None


class _Named(NamedTuple):
    """A site and where in the text it stands; whether it sends or receives is not settled yet."""

    site: Site
    token: Token


@contextmanager
def at_character(token: Token) -> Iterator[None]:
    """Say where in the text a problem lies."""
    try:
        yield
    except (NodeError, RequestError) as error:
        raise RequestError(f"at character {token.at}: {error}") from None


def node_or_port(name: str) -> Node | Port | KVPort:
    """Return what one word names."""
    if found := _KV_PORT.fullmatch(name):
        layer, kv_head, port = found.groups()
        return KVPort(int(layer), int(kv_head), port)  # type: ignore[arg-type]  # likewise
    head, dot, port = name.rpartition(".")
    if dot and port.isalpha():
        return Port(parse_node(head), port)  # type: ignore[arg-type]  # Port says what is wrong
    return parse_node(name)


def with_suffix(site: Site, port: HeadPort | None, at: Positions) -> Site:
    """Return a site with the port and the positions that stand behind its brackets."""
    what = site.what
    if port is not None:
        if not isinstance(what, Head):
            raise RequestError(f".{port} behind brackets belongs to heads, not to {what}")
        what = Port(what, port)
    if at is not None and site.at is not None:
        raise RequestError(f"{site} has a position inside and outside its brackets")
    return Site(what, site.at if at is None else at)


def joint(members: Iterable[_Named], receives: bool) -> Joint:
    """Return sites as senders or as receivers, patched together."""
    sites = []
    for site, token in members:
        with at_character(token):
            sites.append(as_receiver(site) if receives else as_sender(site))
    return Joint(tuple(sites))


class _Parser:
    """Recursive descent over the tokens of one request: a method for each part of the notation."""

    def __init__(self, text: str) -> None:
        self.tokens = Tokens(text)

    def request(self) -> Request:
        """Read a path, or edges joined by commas, and how it ends."""
        tokens = self.tokens
        if not tokens.peek().text:
            raise RequestError("it is empty; write for instance 'head -> logits'")
        chains = [self.chain()]
        while tokens.accept(","):
            chains.append(self.chain())
        recompute = tokens.accept("=>")
        if recompute and not tokens.accept("logits"):
            tokens.fail("`logits` after `=>` (everything downstream is recomputed up to there)")
        if tokens.peek().text:
            tokens.fail("the end" if recompute else "`->`, `=> logits` or the end")
        if len(chains) == 1:
            return PathRequest(tuple(chains[0]), recompute)
        if not recompute:
            raise RequestError("edges patched together end in `=> logits`")
        return EdgesRequest(tuple(self.as_edge(chain) for chain in chains))

    def chain(self) -> list[Term]:
        """Read steps joined by arrows."""
        steps = [self.term(receives=False)]
        while self.tokens.accept("->"):
            steps.append(self.term(receives=True))
        return steps

    @staticmethod
    def as_edge(chain: list[Term]) -> SiteEdge:
        match chain:
            case [Joint(sites=(sender,)), Joint(sites=(receiver,))]:
                return SiteEdge(sender, receiver)
            case _:
                text = " -> ".join(map(str, chain))
                raise RequestError(
                    f"{text!r} is not one edge: commas join single edges "
                    "such as 5.5 -> 8.6.v, 3.0 -> 9.9.q => logits"
                )

    def term(self, receives: bool) -> Term:
        """Read one step: a joint set, a list, a sweep or a single node or port."""
        if self.tokens.accept("{"):
            return joint(self.joint_rest(), receives)
        if self.tokens.accept("["):
            return self.list_rest(receives)
        kind, _, port = self.tokens.peek().text.partition(".")
        if kind in (*SENDING, *RECEIVING):
            return self.every(kind, port, receives)
        return joint([self.named()], receives)

    def joint_rest(self) -> list[_Named]:
        """Read a joint set after its opening bracket, and what follows it."""
        return self.behind_brackets(self.members("}", self.named))

    def list_rest(self, receives: bool) -> Sweep:
        """Read a list after its opening bracket; a port behind it belongs to every member."""

        def member() -> list[_Named]:
            return self.joint_rest() if self.tokens.accept("{") else [self.named()]

        items = self.members("]", member)
        lengths = [len(item) for item in items]
        named = iter(self.behind_brackets([named for item in items for named in item]))
        return Sweep(tuple(joint(list(islice(named, length)), receives) for length in lengths))

    def members(self, close: str, read: Callable[[], Member]) -> list[Member]:
        """Read what stands between brackets."""
        found = [read()]
        while self.tokens.accept(","):
            found.append(read())
        if not self.tokens.accept(close):
            self.tokens.fail(f"`,` or `{close}`")
        return found

    def every(self, kind: Kind, port: str, receives: bool) -> Every:
        """Read a sweep over everything of a kind."""
        allowed = RECEIVING if receives else SENDING
        if (port or None) not in allowed.get(kind, ()):
            place = "receivers" if receives else "senders"
            self.tokens.fail(f"as {place} one of {', '.join(every_text(allowed))}")
        self.tokens.take()
        return Every(kind, cast(HeadPort, port) or None, self.positions())

    def named(self) -> _Named:
        """Read one node or port by its name; a head may still wait for the port of its brackets."""
        token = self.tokens.peek()
        if not token.is_word:
            self.tokens.fail("a node such as 9.9, mlp3, embed, or a port such as 8.6.v")
        if token.text.partition(".")[0] in (*SENDING, *RECEIVING):
            self.tokens.fail("a single node (head, mlp, node and port stand alone)")
        self.tokens.take()
        with at_character(token):
            what = node_or_port(token.text)
        return _Named(Site(what, self.positions()), token)

    def behind_brackets(self, members: list[_Named]) -> list[_Named]:
        """Read the port and the positions that follow a closing bracket, and give them to all."""
        token = self.tokens.peek()
        port = None
        if token.text.startswith("."):
            if token.text[1:] not in HEAD_PORTS:
                self.tokens.fail("the port .q, .k or .v")
            port = cast(HeadPort, self.tokens.take().text[1:])
        at = self.positions()
        with at_character(token):
            return [named._replace(site=with_suffix(named.site, port, at)) for named in members]

    def positions(self) -> Positions:
        """Read the positions behind an ``@``, if there are any."""
        if not self.tokens.accept("@"):
            return None
        token = self.tokens.peek()
        if self.tokens.accept("{"):
            places = self.members("}", self.position)
        elif self.tokens.accept("each"):
            return EachPosition()
        else:
            places = [self.position()]
        with at_character(token):
            return checked_positions(tuple(places))

    def position(self) -> str | int:
        token = self.tokens.peek()
        if not token.is_word:
            self.tokens.fail("a position: a name such as end or S2, or an index")
        self.tokens.take()
        return int(token.text) if _INDEX.fullmatch(token.text) else token.text
