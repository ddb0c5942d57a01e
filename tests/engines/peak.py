"""Counting what tensors take, operation by operation, on any device."""

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made inside the ``with`` block held at once.

    Counted after every operation; what a kernel needs for itself is not seen.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        super().__init__()
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}
        self.known: set[int] = set()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {
            one.untyped_storage()._cdata
            for one in tree_iter((args, kwargs))
            if isinstance(one, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        self.forget()
        for one in tree_iter(result):
            if isinstance(one, torch.Tensor):
                storage = one.untyped_storage()
                key = storage._cdata
                if key not in self.held and key not in before:
                    self.held[key] = (StorageWeakRef(storage), storage.nbytes())
                    self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        return result

    def forget(self) -> None:
        """Take off what is gone."""
        for key in [key for key, (storage, _) in self.held.items() if storage.expired()]:
            self.now -= self.held.pop(key)[1]
