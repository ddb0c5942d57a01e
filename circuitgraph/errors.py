"""Every exception this package raises on purpose.

    CircuitGraphError
    +-- NodeError         a node, port or edge that cannot be written down or is not in the graph
    +-- RequestError      a request that cannot be read or makes no sense on this graph
    +-- UnsupportedError  a request that is well formed but cannot be answered exactly here
    +-- PlanError         a plan or schedule that is not well formed (a bug of ours)
    +-- PromptError       clean and corrupt prompts that cannot be compared
    +-- MetricError       a metric that does not give one number per prompt
    +-- ModelError        a model that cannot be loaded or is not in the state patching needs
    +-- HookError         a planned hook that did not fire as often as planned
    +-- EffectsError      results that cannot be read the way they were asked for
    +-- CircuitError      a circuit that cannot be made, read or drawn
    +-- SweepError        a folder of a sweep, or workers, that cannot go on
    +-- OutOfMemoryError  memory ran out, and what was run cannot be split further

All derive from `CircuitGraphError` and from `ValueError` where the caller's input is at fault, so
`except ValueError` works too. Knows nothing of any other room.
"""

from collections.abc import Sequence

__all__ = [
    "CircuitError",
    "CircuitGraphError",
    "EffectsError",
    "HookError",
    "MetricError",
    "ModelError",
    "NodeError",
    "OutOfMemoryError",
    "PlanError",
    "Problems",
    "PromptError",
    "RequestError",
    "SweepError",
    "UnsupportedError",
]


class CircuitGraphError(Exception):
    """The root of every exception that this package raises on purpose."""


class NodeError(CircuitGraphError, ValueError):
    """A node, port or edge that cannot be written down or is not in the graph."""


class RequestError(CircuitGraphError, ValueError):
    """A request that cannot be read, or that makes no sense on this graph."""


class UnsupportedError(RequestError):
    """A well-formed request that cannot be answered exactly on this model."""


class PlanError(CircuitGraphError):
    """A plan or a schedule that is not well formed: a bug of this package, please report it."""


class PromptError(CircuitGraphError, ValueError):
    """Clean and corrupt prompts, or positions in them, that do not fit together."""


class MetricError(CircuitGraphError, ValueError):
    """A metric that gives no finite number per prompt, or cannot tell clean from corrupt."""


class ModelError(CircuitGraphError, ValueError):
    """A model that cannot be loaded, or is not in the state that patching needs."""


class HookError(CircuitGraphError, RuntimeError):
    """A planned hook that did not fire exactly as often as planned."""


class EffectsError(CircuitGraphError, ValueError):
    """Results that cannot be read the way they were asked for."""


class CircuitError(CircuitGraphError, ValueError):
    """A circuit that cannot be made, read or drawn."""


class SweepError(CircuitGraphError):
    """A sweep that cannot go on: another one's folder, missing parts, or workers that ended."""


class OutOfMemoryError(CircuitGraphError, MemoryError):
    """Memory ran out, and what was run cannot be split further."""


LISTED = 20
"""How many problems one error lists; after that it says how many more there are."""


class Problems:
    """Collects every problem of an input, then raises them together, once.

    Example:
        >>> problems = Problems()
        >>> problems.raise_if_any("cannot patch '9.9 -> logits'")
        >>> problems.add(RequestError("a"))
        >>> problems.add(RequestError("b"))
        >>> problems.raise_if_any("cannot patch '9.9 -> logits'")
        Traceback (most recent call last):
        ...
        circuitgraph.errors.RequestError: cannot patch '9.9 -> logits': 2 problems
          1. a
          2. b
    """

    def __init__(self) -> None:
        """Start with no problems."""
        self._found: dict[str, CircuitGraphError] = {}

    def add(self, problem: CircuitGraphError | None) -> None:
        """Remember a problem; None and repeats are passed over."""
        if problem is not None:
            self._found.setdefault(str(problem), problem)

    @property
    def found(self) -> Sequence[CircuitGraphError]:
        """What was added so far, in order."""
        return tuple(self._found.values())

    def raise_if_any(self, what: str) -> None:
        """Raise the one problem, or one error of the first one's class that lists them.

        Args:
            what: The head line of the error, such as ``cannot patch 'head -> logits'``.
        """
        if not self._found:
            return
        first, texts = type(self.found[0]), list(self._found)
        if len(texts) == 1:
            raise first(f"{what}: {texts[0]}")
        lines = [f"{what}: {len(texts)} problems"]
        lines += [f"  {number}. {text}" for number, text in enumerate(texts[:LISTED], start=1)]
        if len(texts) > LISTED:
            lines.append(f"  and {len(texts) - LISTED} more")
        raise first("\n".join(lines))
