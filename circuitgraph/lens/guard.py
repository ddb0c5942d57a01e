"""One user of a model at a time, and nothing of anybody's left on it.

Patching replaces forwards and puts hooks on a model for a moment, so a second thread on the same
model would see them. `guarded` lets one in at a time, and takes away what an interrupt left of
ours. What is somebody else's is only found here: it would act on some runs and not on others.
"""

import functools
import threading
from collections.abc import Iterator
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules import module as torch_module

from circuitgraph.lens.fingerprint import modules_of
from circuitgraph.lens.modules import Replacement, put_back

__all__ = ["foreign_forwards", "foreign_hooks", "guarded"]

OURS = "circuitgraph"
TRUSTED = frozenset({OURS, "torch", "transformers", "transformer_lens", "accelerate", "peft"})
"""Packages whose hooks and forwards are part of the model that they made."""

_KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


class guarded:  # noqa: N801  # used as ``with guarded(model)``
    """Have a model to oneself inside the ``with`` block.

    Other threads wait; the same thread may enter again. Hooks and forwards of ours that an
    interrupt left behind are taken away on the way in, and after an error on the way out.

    Args:
        model: A bridge or a module; bridges of one module share one lock.
    """

    __slots__ = ("_lock", "_model", "_outermost")

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        inner = getattr(model, "original_model", None)
        key = inner if isinstance(inner, nn.Module) else model
        with _LOCKS_LOCK:
            self._lock = _LOCKS.setdefault(key, threading.RLock())
        self._outermost = False

    def __enter__(self) -> None:
        # The lock knows who holds it: a count of our own would be wrong for good after an
        # interrupt at the wrong moment. Only the outermost block takes it.
        self._outermost = not self._lock._is_owned()
        if not self._outermost:
            return
        entered = False
        try:
            self._lock.acquire()
            _take_away_ours(self._model)
            entered = True
        finally:
            if not entered:
                self._release()

    def __exit__(self, kind: object, *_: object) -> None:
        # Twice: whatever interrupts the one, Ctrl-C for example, the other still does it.
        try:
            self._leave(kind)
        finally:
            self._leave(kind)

    def _leave(self, kind: object) -> None:
        try:
            if self._outermost and self._lock._is_owned() and kind is not None:
                _take_away_ours(self._model)
        finally:
            self._release()

    def _release(self) -> None:
        if self._outermost and self._lock._is_owned():
            self._lock.release()


def foreign_hooks(model: nn.Module) -> list[str]:
    """Return where hooks sit that neither the model nor its library put there."""
    found = []
    for name, module in modules_of(model).items():
        hooks = [hook for kind in _KINDS for hook in vars(module)[kind].values()]
        hooks += [handle.user_hook for handle in chain(*_handles(module)) if handle.user_hook]
        own = type(module).__module__
        if any(not _trusted(hook, own) for hook in hooks):
            found.append(getattr(module, "name", None) or name or type(module).__name__)
    everywhere = chain(
        torch_module._global_forward_hooks.values(),
        torch_module._global_forward_pre_hooks.values(),
    )
    if any(not _trusted(hook, "") for hook in everywhere):
        found.append("every module (torch's register_module_forward_hook)")
    return sorted(set(found))


def foreign_forwards(model: nn.Module) -> list[str]:
    """Return the modules whose forward somebody replaced: as an attribute of the instance."""
    found = []
    for name, module in modules_of(model).items():
        forward = vars(module).get("forward")
        if forward is not None and not _trusted(forward, type(module).__module__):
            found.append(name or type(module).__name__)
    return found


def _take_away_ours(model: nn.Module) -> None:
    """Take away hooks and forwards of ours; called where nothing of ours is running."""
    for module in modules_of(model).values():
        held = vars(module)
        while isinstance(held.get("forward"), Replacement):
            put_back(held, held["forward"])
        for kind in _KINDS:
            for number in [n for n, hook in held[kind].items() if _is_ours(hook)]:
                held[kind].pop(number, None)
        for handles in _handles(module):
            handles[:] = [handle for handle in handles if not _is_ours(handle.user_hook)]


def _handles(module: nn.Module) -> Iterator[list[Any]]:
    """Yield what a hook point of TransformerLens knows of its hooks, forward and backward."""
    held = vars(module)
    for kind in ("fwd_hooks", "bwd_hooks"):
        if isinstance(held.get(kind), list):
            yield held[kind]


def _is_ours(hook: Any) -> bool:
    return hook is not None and _origin(hook).partition(".")[0] == OURS


def _trusted(function: Any, own: str) -> bool:
    """Return whether a hook or forward belongs to the model: by the module that defines it.

    Args:
        function: The hook or forward.
        own: Where the class is defined on which it sits; a notebook's classes vouch for nothing.
    """
    if isinstance(function, Replacement):
        return False
    origin = _origin(function)
    return origin.partition(".")[0] in TRUSTED or (origin == own and own != "__main__")


def _origin(function: Any) -> str:
    """Return the name of the module that defines a function, a bound method's or a partial's too.

    A hook of TransformerLens calls another one; that one counts.
    """
    while True:
        if isinstance(function, functools.partial):
            function = function.func
            continue
        code = getattr(function, "__code__", None)
        cells = getattr(function, "__closure__", None) or ()
        inner = dict(zip(getattr(code, "co_freevars", ()), cells, strict=True))
        wrapped = inner.get("full_hook") or inner.get("hook")
        if wrapped is None or not str(function.__module__).startswith("transformer_lens"):
            break
        function = wrapped.cell_contents
    origin = getattr(function, "__module__", None)
    return str(origin if isinstance(origin, str) else type(function).__module__)
