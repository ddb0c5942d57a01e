"""Requests from their text: ``5.5 -> {8.6, 8.10}.v@S2 => logits``."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn, TypeVar

from circuitgraph.errors import NodeError, RequestError
from circuitgraph.nodes import Head, Logits, Port, parse_node, receiver_port
from circuitgraph.request.terms import (
    EachPosition,
    EdgesRequest,
    Every,
    Joint,
    Kind,
    KVPort,
    PathRequest,
    Positions,
    Request,
    Site,
    SiteEdge,
    Sweep,
    Term,
)

__all__ = ["parse"]

Member = TypeVar("Member")

_TOKEN = re.compile(
    r"\s*(?:(?P<arrow>->|=>|→|⇒)|(?P<mark>[{}\[\],@])|(?P<suffix>(?<=[}\]])\.[A-Za-z]+)"
    r"|(?P<word>(?:[A-Za-z0-9_.+]|-(?!>))+))"
)
_KV_PORT = re.compile(r"(\d+)\.kv(\d+)\.([kv])")
_KINDS: tuple[Kind, ...] = ("head", "mlp", "node", "port", "kv")


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
    try:
        return _Parser(text).request()
    except RequestError as error:
        raise RequestError(f"cannot read the request {text!r}: {error}") from None
    except NodeError as error:
        raise RequestError(f"cannot read the request {text!r}: {error}") from None


class _Parser:
    """Recursive descent over the tokens of one request."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise RequestError(f"a request is text, got {type(text).__name__}")
        self.text = text
        self.tokens: list[tuple[str, int]] = []
        self.next = 0
        start, end = 0, len(text.rstrip())
        while start < end:
            found = _TOKEN.match(text, start)
            if found is None:
                at = start + len(text[start:]) - len(text[start:].lstrip())
                raise RequestError(f"unexpected {text[at]!r} at character {at + 1}")
            token = found.group(found.lastgroup or 0).strip()
            self.tokens.append(({"→": "->", "⇒": "=>"}.get(token, token), found.end() - len(token)))
            start = found.end()

    # tokens

    def peek(self) -> str:
        return self.tokens[self.next][0] if self.next < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.next += 1
        return token

    def accept(self, token: str) -> bool:
        if self.peek() == token:
            self.next += 1
            return True
        return False

    def fail(self, expected: str) -> NoReturn:
        if self.next >= len(self.tokens):
            raise RequestError(f"expected {expected}, but the text ends there")
        token, at = self.tokens[self.next]
        raise RequestError(f"expected {expected} at character {at + 1}, got {token!r}")

    # grammar

    def request(self) -> Request:
        if not self.tokens:
            raise RequestError("it is empty; write for instance 'head -> logits'")
        chains = [self.chain()]
        while self.accept(","):
            chains.append(self.chain())
        recompute = False
        if self.accept("=>"):
            if self.take().lower() != "logits":
                self.next -= 1
                self.fail("`logits` after `=>` (everything downstream is recomputed up to there)")
            recompute = True
        if self.next < len(self.tokens):
            self.fail("`->`, `=> logits` or the end")
        if len(chains) == 1:
            return PathRequest(tuple(chains[0]), recompute)
        if not recompute:
            raise RequestError("edges patched together end in `=> logits`")
        return EdgesRequest(tuple(self.as_edge(chain) for chain in chains))

    def chain(self) -> list[Term]:
        steps = [self.term(receives=False)]
        while self.accept("->"):
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
        if self.accept("{"):
            joint = self.joint_rest(receives)
            return joint
        if self.accept("["):
            return self.list_rest(receives)
        return self.simple(receives)

    def joint_rest(self, receives: bool) -> Joint:
        members = self.members("}", lambda: self.site(receives))
        port, at = self.suffix()
        return Joint(tuple(self.finish(site, port, at, receives) for site in members))

    def list_rest(self, receives: bool) -> Sweep:
        def member() -> list[Site]:
            return self.joint_in_list(receives) if self.accept("{") else [self.site(receives)]

        members = self.members("]", member)
        port, at = self.suffix()
        return Sweep(
            tuple(
                Joint(tuple(self.finish(site, port, at, receives) for site in sites))
                for sites in members
            )
        )

    def joint_in_list(self, receives: bool) -> list[Site]:
        """Read a joint set inside a list, whose port may follow the list's closing bracket."""
        members = self.members("}", lambda: self.site(receives))
        port, at = self.suffix()
        if port is None and at is None:
            return members
        return [self.finish(site, port, at, receives) for site in members]

    def members(self, close: str, read: Callable[[], Member]) -> list[Member]:
        found = [read()]
        while self.accept(","):
            found.append(read())
        if not self.accept(close):
            self.fail(f"`,` or `{close}`")
        return found

    def simple(self, receives: bool) -> Term:
        kind, _, port = self.peek().partition(".")
        if kind in _KINDS:
            return self.every(kind, port, receives)
        site = self.site(receives)
        return Joint((self.finish(site, None, None, receives),))

    def every(self, kind: Kind, port: str, receives: bool) -> Every:
        allowed: dict[Kind, tuple[str, ...]]
        if receives:
            allowed = {"head": ("q", "k", "v"), "mlp": ("",), "port": ("",), "kv": ("k", "v")}
        else:
            allowed = {"head": ("",), "mlp": ("",), "node": ("",)}
        if port not in allowed.get(kind, ()):
            choices = [f"{k}.{p}".rstrip(".") for k, ports in allowed.items() for p in ports]
            self.fail(f"as {'receivers' if receives else 'senders'} one of {', '.join(choices)}")
        self.take()
        return Every(kind, port or None, self.position())  # type: ignore[arg-type]

    def site(self, receives: bool) -> Site:
        """Read one node or port; a head may still wait for the port of its brackets."""
        word = self.peek()
        if not word or word in "{}[],@" or word in ("->", "=>"):
            self.fail("a node such as 9.9, mlp3, embed, or a port such as 8.6.v")
        if word.partition(".")[0] in _KINDS:
            self.fail("a single node (head, mlp, node and port stand alone, outside brackets)")
        self.take()
        what: object
        if found := _KV_PORT.fullmatch(word):
            layer, kv_head, name = found.groups()
            what = KVPort(int(layer), int(kv_head), name)  # type: ignore[arg-type]
        else:
            head, dot, port = word.rpartition(".")
            if dot and port in ("q", "k", "v"):
                what = Port(parse_node(head), port)  # type: ignore[arg-type]
            else:
                what = parse_node(word)
        if isinstance(what, Port | KVPort) and not receives:
            raise RequestError(f"the sender {word} has a port: a path starts with a node")
        return Site(what, self.position())  # type: ignore[arg-type]

    def suffix(self) -> tuple[str | None, Positions]:
        port = None
        if self.peek() in (".q", ".k", ".v"):
            port = self.take()[1:]
        elif self.peek().startswith("."):
            self.fail("the port .q, .k or .v")
        return port, self.position()

    def finish(self, site: Site, port: str | None, at: Positions, receives: bool) -> Site:
        """Give a site the port and positions that stand behind its brackets."""
        what: object = site.what
        if port is not None:
            if not receives:
                raise RequestError(f"senders have no port, but .{port} stands behind them")
            if not isinstance(what, Head):
                raise RequestError(f".{port} behind brackets belongs to heads, not to {what}")
            what = Port(what, port)  # type: ignore[arg-type]
        if receives:
            what = what if isinstance(what, KVPort) else receiver_port(what)  # type: ignore[arg-type]
        elif isinstance(what, Logits):
            raise RequestError("the logits send nothing, so they cannot be a sender")
        if at is not None and site.at is not None:
            raise RequestError(f"{site} has a position inside and outside its brackets")
        return replace(site, what=what, at=site.at if at is None else at)  # type: ignore[arg-type]

    def position(self) -> Positions:
        if not self.accept("@"):
            return None
        if self.accept("{"):
            names = self.members("}", self.position_name)
            if len(set(names)) != len(names):
                raise RequestError("a position stands twice in @{...}")
            return tuple(names)
        if self.peek() == "each":
            self.take()
            return EachPosition()
        return (self.position_name(),)

    def position_name(self) -> str | int:
        word = self.peek()
        if not word or word in "{}[],@" or word in ("->", "=>"):
            self.fail("a position: a name such as end or S2, or an index")
        self.take()
        if word.isdecimal():
            return int(word)
        if word.startswith("-") and word[1:].isdecimal():
            raise RequestError(
                f"position {word}: positions count from 0 at the start, since prompts may be "
                "padded at the end; name the position (positions={'end': ...}) instead"
            )
        return word
