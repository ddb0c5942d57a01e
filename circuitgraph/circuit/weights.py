"""What a circuit knows of one edge: how strong it is, and how sure that is."""

import math
from dataclasses import dataclass

from circuitgraph.errors import CircuitError

__all__ = ["Weight", "as_weight", "finite", "signed"]


def finite(owner: str, name: str, number: object) -> float | None:
    """Return a number as a float, None as None, and refuse everything else.

    Raises:
        CircuitError: Not a number, NaN or infinite.

    Example:
        >>> finite("9.9 -> logits", "weight", 1)
        1.0
    """
    if number is None:
        return None
    try:
        value = float(number)  # type: ignore[arg-type]  # anything with __float__ will do
        if isinstance(number, str | bytes | bool):
            raise TypeError  # noqa: TRY301
    except (TypeError, ValueError):
        raise CircuitError(
            f"{owner}: {name} must be a finite number or None, got {number!r}"
        ) from None
    if not math.isfinite(value):
        raise CircuitError(f"{owner}: {name} must be a finite number or None, got {value}")
    return value


def signed(value: float, digits: int = 2) -> str:
    """Return a number with a true minus sign, to so many significant digits.

    Example:
        >>> signed(-0.5312), signed(0.0412), signed(-12.5, 3), signed(0.0000123)
        ('−0.53', '0.041', '−12.5', '1.2e−05')
    """
    return f"{value:.{digits}g}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class Weight:
    """A signed number on an edge, with an interval where one is known.

    Args:
        value: The weight; None where the edge is only declared.
        low: Lower end of the interval; None where there is none.
        high: Upper end of the interval.

    Raises:
        CircuitError: A number that is not finite, or half an interval, or one upside down.

    Example:
        >>> str(Weight(-0.53, -0.58, -0.48))
        '−0.53 [−0.58, −0.48]'
        >>> Weight(float("nan"))
        Traceback (most recent call last):
        ...
        circuitgraph.errors.CircuitError: weight: value must be a finite number or None, got nan
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if type(number) is not float or not math.isfinite(number):
                object.__setattr__(self, name, finite("weight", name, number))
        if (self.low is None) != (self.high is None):
            raise CircuitError(
                "weight: an interval has two ends: give both low and high, or neither"
            )
        if self.low is not None and self.high is not None:
            if self.value is None:
                raise CircuitError("weight: an interval without a value")
            if self.low > self.high:
                raise CircuitError(f"weight: the interval [{self.low}, {self.high}] is upside down")

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the interval, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def size(self) -> float:
        """The weight without its sign; 0 where there is none."""
        return 0.0 if self.value is None else abs(self.value)

    def __str__(self) -> str:
        if self.value is None:
            return "no weight"
        ends = "" if self.interval is None else f" [{', '.join(map(signed, self.interval))}]"
        return signed(self.value) + ends


def as_weight(given: object, owner: str) -> Weight:
    """Return the weight that a number, None, ``(value, low, high)`` or a `Weight` means.

    Args:
        given: What the caller gave.
        owner: The edge it belongs to, for errors.

    Raises:
        CircuitError: It is none of these, or not finite.

    Example:
        >>> as_weight((-0.5, -0.6, -0.4), "9.9 -> logits")
        Weight(value=-0.5, low=-0.6, high=-0.4)
    """
    if isinstance(given, Weight):
        return given
    if isinstance(given, tuple | list):
        if len(given) != 3:
            raise CircuitError(
                f"{owner}: a weight is a number, None or (value, low, high), got {given!r}"
            )
        value, low, high = (
            finite(owner, name, number)
            for name, number in zip(("weight", "low", "high"), given, strict=True)
        )
    else:
        value, low, high = finite(owner, "weight", given), None, None
    try:
        return Weight(value, low, high)
    except CircuitError as error:
        raise CircuitError(f"{owner}: {error}") from None
