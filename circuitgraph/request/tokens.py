"""The words of the notation: a request's text, cut into tokens that know where they stand."""

import re
from typing import NamedTuple, NoReturn

from circuitgraph.errors import RequestError

__all__ = ["MARKS", "Token", "Tokens"]

MARKS = ("->", "=>", "{", "}", "[", "]", ",", "@")
"""Every token that is not a word."""

_TOKEN = re.compile(r"\s*(->|=>|→|⇒|[{}\[\],@]|(?:[A-Za-z0-9_.+]|-(?!>))+)")
_PLAIN = {"→": "->", "⇒": "=>"}


class Token(NamedTuple):
    """One token and where it stands, counted from 1 for people."""

    text: str
    at: int

    @property
    def is_word(self) -> bool:
        """Whether it is a name or a number."""
        return bool(self.text) and self.text not in MARKS


class Tokens:
    """The tokens of one request, read one by one.

    Raises:
        RequestError: A character that the notation does not know.

    Example:
        >>> tokens = Tokens("9.9 -> logits")
        >>> tokens.take()
        Token(text='9.9', at=1)
        >>> tokens.accept("=>"), tokens.accept("->")
        (False, True)
    """

    def __init__(self, text: str) -> None:
        """Cut ``text`` into tokens."""
        self._found: list[Token] = []
        self._next = 0
        start, end = 0, len(text.rstrip())
        while start < end:
            found = _TOKEN.match(text, start)
            if found is None:
                at = start + len(text[start:]) - len(text[start:].lstrip())
                raise RequestError(f"unexpected {text[at]!r} at character {at + 1}")
            token = found.group(1)
            self._found.append(Token(_PLAIN.get(token, token), found.start(1) + 1))
            start = found.end()

    def peek(self) -> Token:
        """Return the next token; after the last one, an empty one."""
        return self._found[self._next] if self._next < len(self._found) else Token("", 0)

    def take(self) -> Token:
        """Return the next token and go on."""
        token = self.peek()
        self._next += 1
        return token

    def accept(self, text: str) -> bool:
        """Go on if the next token is this one; return whether it was."""
        if self.peek().text != text:
            return False
        self._next += 1
        return True

    def fail(self, expected: str) -> NoReturn:
        """Raise, saying what was expected in the place of the next token."""
        token = self.peek()
        if not token.text:
            raise RequestError(f"expected {expected}, but the text ends there")
        raise RequestError(f"expected {expected} at character {token.at}, got {token.text!r}")
