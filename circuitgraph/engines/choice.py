"""Which engine: the exact ones as values, and the words that stand for them."""

from dataclasses import dataclass
from typing import Any, Literal

from circuitgraph.engines.engine import EngineChoice, EngineOptions
from circuitgraph.engines.fast import ChunkedEngine, FastEngine, can_split, prompts_at_once
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.engines.setup import Setup
from circuitgraph.errors import RequestError

__all__ = ["ENGINES", "EngineGiven", "EngineName", "Fast", "Reference", "choose_engine"]

EngineName = Literal["fast", "reference"]
EngineGiven = EngineName | EngineChoice
"""What ``engine=`` takes: a word, or a value."""


@dataclass(frozen=True, slots=True)
class Fast:
    """The engine that replays what is frozen and stacks the requests of a sweep."""

    name = "fast"
    is_estimate = False

    def prepare(self, setup: Setup, options: EngineOptions) -> FastEngine | ChunkedEngine:
        """Return the engine on an experiment; where memory is short, on some prompts at a time."""
        at_once = prompts_at_once(setup, options.memory_budget, options.at_once)
        if at_once < setup.n_prompts:
            return ChunkedEngine(
                setup,
                at_once,
                memory_budget=options.memory_budget,
                self_check=options.self_check,
                at_most=options.at_once,
            )
        return FastEngine(setup, memory_budget=options.memory_budget, self_check=options.self_check)


@dataclass(frozen=True, slots=True)
class Reference:
    """The engine that runs a plan hook by hook."""

    name = "reference"
    is_estimate = False

    def prepare(self, setup: Setup, options: EngineOptions) -> ReferenceEngine | ChunkedEngine:
        """Return the engine on an experiment; it takes all prompts at once if it may."""
        if options.at_once is None or not can_split(setup):
            return ReferenceEngine(setup)
        return ChunkedEngine(setup, options.at_once, at_most=options.at_once, reference=True)


ENGINES: dict[EngineName, EngineChoice] = {"fast": Fast(), "reference": Reference()}


def choose_engine(given: Any) -> EngineChoice:
    """Return which engine is meant by a word or a value.

    Raises:
        RequestError: It is neither, or a class where a value is wanted.

    Example:
        >>> choose_engine("fast")
        Fast()
    """
    if isinstance(given, str):
        if given in ENGINES:
            return ENGINES[given]
        raise RequestError(f"no engine {given!r}: write one of {', '.join(ENGINES)}")
    if isinstance(given, type):
        raise RequestError(
            f"engine={given.__name__} is a class: make a value of it, engine=cg.{given.__name__}()"
        )
    if isinstance(given, EngineChoice):
        return given
    raise RequestError(
        f"no engine {given!r}: write one of {', '.join(ENGINES)}, or give a value such as cg.EAP()"
    )
