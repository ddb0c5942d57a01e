"""A progress bar for long sweeps, only where somebody looks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(
    what: str, total: int, show: bool | None = None
) -> Iterator[Callable[[float], None]]:
    """Show progress while the body runs; it says how many steps more are done.

    Args:
        what: What is being done.
        total: Number of steps.
        show: Whether to show it; None shows it in a terminal or notebook, for more than one step.
    """
    if show is None:
        show = total > 1 and (sys.stderr.isatty() or _in_live_notebook())
    if not show:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.advance(task, steps)


def _in_live_notebook() -> bool:
    """Return whether this is a notebook with what rich needs to redraw a line in it."""
    return "ipykernel" in sys.modules and find_spec("ipywidgets") is not None
