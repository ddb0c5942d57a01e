"""A stand-in for a key-value cache: what attention attends to passes through it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["FixedKeys"]


class FixedKeys:
    """A stand-in for a key-value cache, through which the attention gets its keys and values.

    Args:
        update: Gets the keys and values of the positions that are run,
            ``[row*prompt kv_head query d_head]``, and returns those to attend to.
    """

    is_compileable = False
    is_sliding = (False,)

    def __init__(self, update: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        """Answer every update through ``update``."""
        self._update = update

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Return the keys and values to attend to."""
        return self._update(keys, values)

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """Return 0: positions come from the recorded arguments, not from the cache."""
        return 0
