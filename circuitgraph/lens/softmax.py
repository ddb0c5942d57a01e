"""Seeing every softmax that attention takes, whoever calls it: no module of its own does."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["SoftmaxMode"]


class SoftmaxMode(TorchFunctionMode):
    """Sees every softmax that is taken while one of some modules runs."""

    def __init__(self, inside: tuple[Any, ...]) -> None:
        """Look into some modules."""
        super().__init__()
        self.inside = inside
        self.depth = 0
        self._handles: list[Any] = []

    def __enter__(self) -> Any:
        def into(*_: Any) -> None:
            self.depth += 1

        def out_of(*_: Any) -> None:
            self.depth -= 1

        for module in self.inside:
            self._handles.append(module.register_forward_pre_hook(into))
            self._handles.append(module.register_forward_hook(out_of, always_call=True))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        if self.depth and func in SOFTMAXES:
            return self.seen(args, kwargs or {}, value)
        return value

    def seen(self, args: Any, kwargs: Mapping[str, Any], value: Tensor) -> Tensor:
        """Return what the run goes on with."""
        del args, kwargs
        return value


SOFTMAXES = (torch.softmax, torch.Tensor.softmax, torch.nn.functional.softmax)
