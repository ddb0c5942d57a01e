"""What becomes of the names of a prompt, in letters: ``ABB->XYZ, BAB->XYZ``.

Left of an arrow stand the names of a clean prompt in reading order, right of it those of its
corrupt twin. A letter is a name, the same on both sides of one arrow; a new letter is a new name.
"""

import re
from collections.abc import Mapping, Sequence

from circuitgraph.errors import PromptError

__all__ = ["DIFFERENT_NAMES", "PATTERNS", "Rule", "Rules", "read_corruption", "renamed"]

DIFFERENT_NAMES = "ABB->XYZ, BAB->XYZ"
"""Every name becomes another one that the clean prompt does not hold."""

Rule = tuple[str, str]
"""The letters left and right of an arrow."""
Pattern = tuple[int, ...]
"""For each name the first place where it stands: (0, 1, 1) for ABB, (0, 1, 0) for BAB."""
Rules = Mapping[Pattern, Rule]

PATTERNS: Mapping[str, Pattern] = {"ABBA": (0, 1, 1), "BABA": (0, 1, 0)}
"""The three names of a prompt in each order (the fourth is the answer)."""

_RULE = re.compile(r"\s*([A-Z]{3})\s*->\s*([A-Z]{3})\s*")


def read_corruption(text: object) -> Rules:
    """Return the rules that a text writes down, by the pattern they are for.

    Raises:
        PromptError: It cannot be read, has two rules for one pattern or one for a pattern that no
            clean prompt has, or a rule changes nothing.

    Example:
        >>> read_corruption("ABB->ACC")
        {(0, 1, 1): ('ABB', 'ACC')}
    """
    asked = f"corrupt={text!r}"
    rules: dict[Pattern, Rule] = {}
    for part in text.split(",") if isinstance(text, str) else ():
        found = _RULE.fullmatch(part)
        if found is None:
            raise PromptError(
                f"{asked}: cannot read {part.strip()!r}; write three letters on either side of an "
                f"arrow, such as {DIFFERENT_NAMES!r}"
            )
        left, right = found.groups()
        pattern = _pattern(left)
        if pattern not in PATTERNS.values():
            raise PromptError(f"{asked}: no clean prompt has the names {left}; they are ABB or BAB")
        if pattern in rules:
            raise PromptError(f"{asked}: two rules for the prompts {left}")
        if left == right:
            raise PromptError(f"{asked}: {left}->{right} changes nothing")
        rules[pattern] = (left, right)
    if not rules:
        raise PromptError(f"{asked}: write rules such as {DIFFERENT_NAMES!r}")
    return rules


def renamed(rule: Rule, names: Sequence[str], strangers: Sequence[str]) -> tuple[str, str, str]:
    """Return the names of the corrupt prompt.

    Args:
        rule: The letters left and right of the arrow.
        names: Those of the clean prompt in reading order.
        strangers: At least three others, for new letters in reading order.

    Example:
        >>> renamed(("BAB", "ABC"), ("Anna", "Peter", "Anna"), ("Leo", "Eva", "Kate"))
        ('Peter', 'Anna', 'Leo')
    """
    left, right = rule
    letters = dict(zip(left, names, strict=True))
    new = iter(strangers)
    for letter in right:
        if letter not in letters:
            letters[letter] = next(new)
    first, second, third = (letters[letter] for letter in right)
    return first, second, third


def _pattern(letters: str) -> Pattern:
    return tuple(letters.index(letter) for letter in letters)
