"""How a request is patched, as one value: variant, mode and source, checked when it is made.

The words of ``patch(request, variant, mode, source=...)`` stand for the same.
"""

from dataclasses import dataclass
from typing import NamedTuple, get_args

from circuitgraph.errors import Problems, RequestError
from circuitgraph.experiment.source import Given, Mean, SourceGiven
from circuitgraph.plan import Source
from circuitgraph.request import MODES, Mode, Through, Variant

__all__ = ["Method", "MethodGiven", "MethodParts", "method_parts"]


@dataclass(frozen=True, slots=True)
class Method:
    """What direct paths may pass through, what patching several receivers means, and the source.

    It stands where a variant may stand: ``exp.patch(request, method)``, ``exp.plan``,
    ``exp.schedule``, and ``exp.compare(request, [method, other])``.

    Args:
        variant: ``mlps``, ``single-pass`` or `Through`.
        mode: ``set``, ``add`` or ``replace``.
        source: ``corrupt``, ``zero``, ``mean``, ``mean-position``, `Mean` or `Given`.

    Raises:
        RequestError: A word that is none, or the source ``given`` without its values.

    Example:
        >>> str(Method()), str(Method("single-pass", "replace", Mean(per_position=True)))
        ('mlps, set, corrupt', 'single-pass, replace, Mean(per_position=True)')
    """

    variant: Variant = "mlps"
    mode: Mode = "set"
    source: SourceGiven = "corrupt"

    def __post_init__(self) -> None:
        problems = Problems()
        words = ("mlps", "single-pass")
        if not isinstance(self.variant, Through) and self.variant not in words:
            problems.add(
                RequestError(
                    f"no variant {self.variant!r}: write 'mlps', 'single-pass' or cg.Through(nodes)"
                )
            )
        if self.mode not in MODES:
            problems.add(RequestError(f"no mode {self.mode!r}: write one of {', '.join(MODES)}"))
        if self.source == "given":
            problems.add(RequestError("source='given' brings no values: write cg.Given(values)"))
        elif not isinstance(self.source, Mean | Given) and self.source not in get_args(Source):
            allowed = ", ".join(word for word in get_args(Source) if word != "given")
            problems.add(
                RequestError(
                    f"no source {self.source!r}: write one of {allowed}, cg.Mean or cg.Given"
                )
            )
        problems.raise_if_any("cannot make a method")

    def __str__(self) -> str:
        return f"{self.variant}, {self.mode}, {self.source}"


MethodGiven = Variant | Method
"""What stands in the place of a variant."""


class MethodParts(NamedTuple):
    """A method in its parts, as they are asked for one by one."""

    variant: Variant
    mode: Mode
    source: SourceGiven


def method_parts(
    variant: MethodGiven, mode: Mode = "set", source: SourceGiven = "corrupt"
) -> MethodParts:
    """Return a method in its parts, whichever way it was given.

    Raises:
        RequestError: A method, and beside it a mode or a source of another kind.
    """
    if not isinstance(variant, Method):
        return MethodParts(variant, mode, source)
    if mode != "set" or source != "corrupt":
        raise RequestError(
            f"cg.Method({variant}) brings its own mode and source: leave mode and source out"
        )
    return MethodParts(variant.variant, variant.mode, variant.source)
