"""What a check compares, and what comes of it: plain data."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["Differs", "Fact", "Found", "LeftOut", "Result", "Same", "Status"]

Status = Literal["passed", "failed", "refused", "left out"]
"""``refused``: the package says by name that it cannot do this exactly on this model. ``left out``:
the model has not what the check is about, or it would take too long."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check.

    Args:
        name: The check.
        about: What it says of the model, in a sentence.
        status: Whether it holds; see `Status`.
        deviation: The largest difference between two numbers that should be equal, in units of the
            difference between clean and corrupt run; None where no numbers were compared.
        allowed: The largest difference that passes.
        effect: The largest change that a compared patch made, in the same units: what is compared
            should be far larger than what is allowed.
        compared: What deviated most, or all that was compared where nothing did.
        reason: Why it failed, was refused or left out; empty where it passed.

    Example:
        >>> Result("batching", "a batch is its prompts", "passed", 2e-7, 1e-4, 0.5, "0.1 -> logits")
        Result(name='batching', about='a batch is its prompts', status='passed', ...)
    """

    name: str
    about: str
    status: Status
    deviation: float | None = None
    allowed: float = 0.0
    effect: float = 0.0
    compared: str = ""
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Same:
    """Two results that should be equal.

    Args:
        what: The request or runs they come from.
        found: One of them.
        expected: The other.
        clean: What it would be without any patch.
        scale: The unit; None for the difference between clean and corrupt run.
    """

    what: str
    found: Tensor
    expected: Tensor
    clean: Tensor
    scale: float | None = None


@dataclass(frozen=True, eq=False)
class Differs:
    """Two results that must not be equal, or the comparison beside them says nothing."""

    what: str
    found: Tensor
    expected: Tensor


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that holds or does not; ``what`` says it where it does not."""

    what: str
    holds: bool


Found = Same | Differs | Fact


class LeftOut(Exception):  # noqa: N818  # no error: it carries a reason out of a check
    """Ends a check that says nothing of this model, carrying the reason."""
