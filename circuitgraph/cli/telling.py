"""How the commands speak: results on standard output, progress and complaints beside it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from time import perf_counter
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "complain",
    "interval",
    "say",
    "say_files",
    "say_table",
    "say_title",
    "show",
    "signed",
    "step",
]

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)


def say(*lines: str) -> None:
    """Print lines, each wrapped at words; brackets in a request are no markup."""
    for line in lines:
        _out.print(Text(line))


def show(text: str) -> None:
    """Print a text that has a form of its own, such as a plan, as it is."""
    _out.print(Text(text), soft_wrap=True)


def say_title(title: str) -> None:
    """Print the heading of what follows."""
    _out.print()
    _out.print(Text(title, style="bold"))


def say_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table.

    Args:
        columns: The headings; one that ends in a ``#`` heads numbers, which stand to the right.
        rows: A text per column.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        side: Literal["left", "right"] = "right" if name.endswith("#") else "left"
        first = not table.columns
        table.add_column(name.removesuffix("#"), justify=side, overflow="fold", no_wrap=first)
    for row in rows:
        table.add_row(*map(Text, row))
    _out.print(table)


def say_files(folder: Path, files: Sequence[tuple[str, str]]) -> None:
    """Print what was written where, a line per file."""
    say_title(f"In {folder}")
    width = max(len(name) for name, _ in files)
    say(*(f"  {name.ljust(width)}  {what}" for name, what in files))


def complain(problem: str) -> None:
    """Print what went wrong, in red, beside the results."""
    _err.print(Text(problem, style="bold red"))


def signed(effect: float) -> str:
    """Return an effect with its sign, to two decimals.

    Example:
        >>> signed(-0.6089), signed(0.187), signed(-0.001), signed(float("nan"))
        ('−0.61', '+0.19', '0.00', '')
    """
    if isnan(effect):
        return ""
    text = f"{effect:+.2f}".replace("-", "−")
    return text[1:] if text[1:] == "0.00" else text


def interval(low: float, high: float) -> str:
    """Return an interval, or why there is none.

    Example:
        >>> interval(-0.806, -0.482), interval(float("nan"), float("nan"))
        ('−0.81 to −0.48', 'one prompt: none')
    """
    return "one prompt: none" if isnan(low) else f"{signed(low)} to {signed(high)}"


@contextmanager
def step(what: str, *, spinner: bool = True) -> Iterator[None]:
    """Show that something is being done, and afterwards how long it took.

    Args:
        what: What is being done.
        spinner: Whether to show that it is going on; not where it has a progress bar of its own.
    """
    started = perf_counter()
    if spinner and _err.is_terminal:
        with _err.status(Text(what)):
            yield
    else:
        yield
    _err.print(Text(f"{perf_counter() - started:6.1f} s  {what}", style="dim"))
