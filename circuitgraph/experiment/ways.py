"""The ways of patching that a comparison sets side by side, and what each is called."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from circuitgraph.engines.choice import EngineGiven, choose_engine
from circuitgraph.engines.engine import EngineChoice
from circuitgraph.errors import Problems, RequestError
from circuitgraph.experiment.method import MethodGiven, method_parts
from circuitgraph.experiment.source import SourceGiven
from circuitgraph.request import Mode, Through, Variant

__all__ = ["Way", "ways_of"]


@dataclass(frozen=True, slots=True)
class Way:
    """One way of patching a request."""

    variant: Variant
    mode: Mode
    source: SourceGiven
    engine: EngineGiven


def ways_of(
    variants: MethodGiven | Sequence[MethodGiven] | None = None,
    mode: Mode = "set",
    modes: Mode | Sequence[Mode] | None = None,
    sources: SourceGiven | Sequence[SourceGiven] | None = None,
    engines: EngineGiven | Sequence[EngineGiven] | None = None,
) -> dict[str, Way]:
    """Return every combination of what was asked for, by name.

    A name says only what differs: ``mlps``; ``mlps, add`` where modes are compared as well.

    Args:
        variants: One or several; by default both, or ``mlps`` where something else is compared.
        mode: The mode of all, where ``modes`` says nothing.
        modes: One or several.
        sources: One or several; by default ``corrupt``.
        engines: One or several; by default ``fast``.

    Raises:
        RequestError: A list that is empty or names something twice, both ``mode`` and ``modes``,
            or a single way, which leaves nothing to compare.

    Example:
        >>> list(ways_of())
        ['mlps', 'single-pass']
        >>> list(ways_of(modes=("set", "add")))
        ['set', 'add']
        >>> list(ways_of(("mlps", "single-pass"), sources=("zero", "mean")))
        ['mlps, zero', 'mlps, mean', 'single-pass, zero', 'single-pass, mean']
    """
    problems = Problems()
    if modes is not None and mode != "set":
        problems.add(RequestError(f"give mode={mode!r} or modes, not both"))
    others = [
        _several("modes", modes, mode, problems),
        _several("sources", sources, "corrupt", problems),
        _several("engines", engines, "fast", problems),
    ]
    if variants is None:
        alone = any(len(values) > 1 for values in others)
        variants = ("mlps",) if alone else ("mlps", "single-pass")
    for given in others[-1]:
        try:
            choose_engine(given)
        except RequestError as error:
            problems.add(error)
    lists = [_several("variants", variants, "mlps", problems), *others]
    if all(len(values) == 1 for values in lists) and not problems.found:
        problems.add(
            RequestError(
                "one way of patching leaves nothing to compare: give two or more variants, modes, "
                "sources or engines"
            )
        )
    problems.raise_if_any("cannot compare")
    found = {}
    for values in product(*lists):
        said = [_word(value) for value, all_ in zip(values, lists, strict=True) if len(all_) > 1]
        variant, of_mode, source, engine = values
        found[", ".join(said)] = Way(*method_parts(variant, of_mode, source), engine)
    return found


def _several(what: str, given: Any, default: Any, problems: Problems) -> list[Any]:
    """Return what was given as a list, or note what is wrong with it."""
    if given is None:
        return [default]
    values = [given] if isinstance(given, str | Through) or not isinstance(given, Iterable) else []
    try:
        values = values or list(given)
    except TypeError:  # such as a tensor of one number
        values = [given]
    names = [_word(value) for value in values]
    if not values:
        problems.add(RequestError(f"{what} is empty: leave it out, or name one or more"))
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        problems.add(RequestError(f"{what} names {name} twice"))
    return values


def _word(value: Any) -> str:
    """Return what a setting is called."""
    return str(value.name if isinstance(value, EngineChoice) else value)
