"""Telling that memory ran out from every other error, on every device.

PyTorch has a type of its own for accelerators; the CPU and MPS say it in a RuntimeError's text.
"""

import torch

from circuitgraph.errors import OutOfMemoryError

__all__ = ["is_shortage"]

_TEXTS = ("can't allocate memory", "not enough memory", "out of memory")


def is_shortage(error: BaseException) -> bool:
    """Return whether an error says that memory ran out.

    Example:
        >>> is_shortage(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
        True
        >>> is_shortage(RuntimeError("shapes do not fit"))
        False
    """
    if isinstance(error, OutOfMemoryError):  # ours: everything was tried
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
