"""Whether recordings still hold: the model as it was recorded against the model as it is."""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from circuitgraph.engines.setup import Setup
from circuitgraph.errors import ModelError, Problems
from circuitgraph.experiment.shortage import halving_prompts
from circuitgraph.lens.backend import Backend
from circuitgraph.lens.fingerprint import Fingerprint, fingerprint, marks
from circuitgraph.lens.guard import guarded

__all__ = ["ModelWatch", "on_the_model"]

P = ParamSpec("P")
Result = TypeVar("Result")


class _Recorded(Protocol):
    """What keeps recordings of a model."""

    _setup: Setup

    def _forget(self) -> None:
        """Drop what was recorded of the model as it was."""

    def _renew(self) -> None:
        """Record the model as it is now."""

    def _run_fewer(self, shortage: str) -> None:
        """Run fewer prompts at once from now on, or raise."""

    @property
    def _watch(self) -> "ModelWatch": ...


Self = TypeVar("Self", bound=_Recorded)


class ModelWatch:
    """A model as it was when it was last recorded.

    Args:
        backend: The model's back end when the experiment was made.
    """

    def __init__(self, backend: Backend) -> None:
        self._model = backend.model
        self._kind = _kind(backend)
        self._recorded: Fingerprint | None = None

    def check(self, backend: Backend) -> bool:
        """Return whether the model differs from what was recorded; what it is now counts from now.

        Raises:
            ModelError: The model is not in a state to be patched, or has become another one.
        """
        problems = Problems()
        for problem in backend.problems():
            problems.add(problem)
        problems.raise_if_any("cannot run the model")
        now = fingerprint(self._model)
        if now == self._recorded:
            return False
        changed = self._recorded is not None
        if changed:
            kind = _kind(backend.renewed())
            if kind != self._kind:
                raise ModelError(
                    f"the model was {self._kind} when the experiment was made and is {kind} now: "
                    "make a new Experiment"
                )
        self._recorded = now
        return changed

    @property
    def recorded(self) -> Fingerprint:
        """The fingerprint of the model as it was last recorded."""
        assert self._recorded is not None, "a model is checked before it is run"
        return self._recorded

    def forget(self) -> None:
        """Count nothing as recorded."""
        self._recorded = None


def _kind(backend: Backend) -> str:
    """Return what must stay as it is: type and device of the weights, and the model's shape."""
    limits = backend.limits
    return f"{limits.dtype} on {limits.device} ({backend.shape})"


def on_the_model(
    method: Callable[Concatenate[Self, P], Result],
) -> Callable[Concatenate[Self, P], Result]:
    """Let a method run the model: alone, on the model as it is now, which stays as it is.

    Recordings of a model that has changed since are dropped first, so everything is measured on
    the model as it is when the method is called. Where memory runs out, the method is called again
    and runs fewer prompts at once.
    """

    @functools.wraps(method)
    def inside(self: Self, *args: P.args, **kwargs: P.kwargs) -> Result:
        model = self._setup.backend.model

        def run() -> Result:
            if self._watch.check(self._setup.backend):
                self._renew()
            before = marks(model)
            result = method(self, *args, **kwargs)
            if marks(model) != before:
                self._watch.forget()
                self._forget()
                raise ModelError(
                    "the model's weights changed while it was being patched, so what was measured "
                    "is of no one model: change them before or after"
                )
            return result

        with guarded(model):
            return halving_prompts(self, run)

    return cast("Callable[Concatenate[Self, P], Result]", inside)
