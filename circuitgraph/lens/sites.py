"""Places in a model where an activation can be read, and what a hook there saw."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from circuitgraph.errors import HookError

__all__ = ["NO_HOOKS", "Caught", "Hook", "HookNames", "HookSite", "Part", "unseen"]

Part = Literal["pattern", "attention", "z", "mid", "mlp", "mlp out", "in", "out", "block", "end"]

Hook = Callable[..., Tensor | None]
"""Called as ``hook(value, hook=site)``; what it returns takes the value's place, None leaves it."""


@dataclass(frozen=True, slots=True)
class HookSite:
    """Where a hook sits.

    Args:
        name: The back end's own name of the place, not an alias.
        layer: The layer whose block holds it; None after the last block.
        part: Which part of the block: ``pattern`` for attention patterns and scores, which have a
            head axis; ``attention`` and ``mlp`` for what else is computed inside of those, before
            the heads' values and the MLP's output; ``in``, ``mid``, ``out``, ``z`` and ``mlp out``
            for the block's input, residual stream between, output, heads' values and MLP's output;
            ``block`` for anything after them; ``end`` after the last block.
    """

    name: str
    layer: int | None
    part: Part


@dataclass(frozen=True, slots=True)
class HookNames:
    """Which activations can be read, by name.

    Args:
        names: Of the first block or after it.
        early: Before the first block, where no patch changes anything.
        patterns: Of each layer's attention pattern, ``[prompt head query key]``.
        told: Where a user finds them all.
        pattern_kind: What names of patterns have in common, for people.
    """

    names: frozenset[str] = frozenset()
    early: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    told: str = "the model has none"
    pattern_kind: str = "an attention pattern"

    def __contains__(self, name: object) -> bool:
        """Return whether there is such an activation at all."""
        return name in self.names or name in self.early


NO_HOOKS = HookNames()
"""Where nothing is known of a model's activations."""


@dataclass(slots=True)
class Caught:
    """What a hook saw, the last time it fired."""

    name: str
    values: list[Tensor] = field(default_factory=list)

    @property
    def value(self) -> Tensor:
        """The activation.

        Raises:
            HookError: The hook never fired.
        """
        if not self.values:
            raise HookError(
                f"the hook at {self.name} never fired: this model does not compute it, "
                "or only when told to; choose another hook"
            )
        return self.values[-1]

    def see(self, value: Tensor, hook: Any) -> None:  # noqa: ARG002  # hooks are called by name
        """Keep a copy: hooks hand out tensors that the model goes on using."""
        self.values[:] = [value.detach().clone()]


def unseen(name: str) -> str:
    """Return what is wrong where a patched head's own pattern does not show."""
    return (
        f"the hook at {name} does not show the pattern of a head whose port is patched: this "
        "model's attention hands its patterns out only when it is done; patch another port, or "
        "measure what comes after"
    )
