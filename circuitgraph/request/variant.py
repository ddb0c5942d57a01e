"""What a direct path may pass through (the variant), and what patching several receivers means."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from circuitgraph.errors import RequestError
from circuitgraph.nodes import MLP, Head, Writer

__all__ = ["MODES", "Mode", "Through", "Variant"]

Mode = Literal["set", "add", "replace"]
"""What a patched port reads, where receivers can reach each other: its clean value plus the change
(``set``), its live value plus the change (``add``), or its live value with each sender's live write
replaced (``replace``)."""

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True, init=False)
class Through:
    """A variant by name of its nodes: a direct path may pass through these and no others.

    Args:
        nodes: Heads and MLPs that are recomputed between sender and receiver; all else is frozen.

    Raises:
        RequestError: Something that no path can pass through.

    Example:
        >>> str(Through([MLP(0), Head(4, 11)]))
        'through {mlp0, 4.11}'
    """

    nodes: frozenset[Head | MLP]

    def __init__(self, nodes: Iterable[Head | MLP]) -> None:
        """Allow direct paths to pass through ``nodes``."""
        if not isinstance(nodes, Iterable) or isinstance(nodes, type):
            raise RequestError(f"Through takes a collection of nodes: write Through([{nodes}])")
        try:
            found: list[Writer] = list(nodes)
        except TypeError:  # such as a tensor of one number
            raise RequestError(f"Through takes a collection of nodes, got {nodes!r}") from None
        wrong = [node for node in found if not isinstance(node, Head | MLP)]
        if wrong:
            raise RequestError(f"a path can pass through heads and MLPs, not through {wrong[0]!r}")
        object.__setattr__(self, "nodes", frozenset(found))

    def __str__(self) -> str:
        return "through {" + ", ".join(map(str, sorted(self.nodes))) + "}"


Variant = Literal["mlps", "single-pass"] | Through
"""``mlps`` (all MLPs, Wang et al. 2022), ``single-pass`` (nothing), or `Through` any nodes."""
