"""The commands put together, and what is shown when one fails."""

from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

import circuitgraph
from circuitgraph.cli import (
    compare,
    demo,
    discover,
    draw,
    evaluate,
    models,
    patch,
    plan,
    sweep,
    tasks,
)
from circuitgraph.cli.telling import complain
from circuitgraph.errors import CircuitGraphError

__all__ = ["app", "main"]

_TRACEBACK = "--traceback"


class Commands(TyperGroup):
    """The group of commands: errors are one clear message, Ctrl-C is a short one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--traceback`` wherever it stands, before or after the command."""
        if _TRACEBACK in args:
            args = [_TRACEBACK, *(arg for arg in args if arg != _TRACEBACK)]
        return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; show what is wrong without a traceback unless one was asked for."""
        try:
            return super().invoke(ctx)
        except (CircuitGraphError, OSError) as error:
            if ctx.params.get("traceback"):
                raise
            complain(str(error))
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interrupt:
            complain("Stopped.")
            raise typer.Exit(130) from interrupt


app = typer.Typer(
    name="circuitgraph",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]circuitgraph demo[/bold]; each command has examples in its --help.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"circuitgraph {circuitgraph.__version__}")
        raise typer.Exit


@app.callback()
def options(
    traceback: Annotated[
        bool, typer.Option(_TRACEBACK, help="Show where an error came from.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Path patching for transformers, compiled: patch edges, read the plan, draw the circuit."""
    del traceback, version  # read where errors are caught, and before anything else


for _module in (demo, patch, sweep, compare, discover, evaluate, plan, draw, models, tasks):
    _name = _module.__name__.rpartition(".")[-1]
    _lines = "\n".join(f"  {escape(line)}" for line in _module.EXAMPLES)
    app.command(_name, epilog=f"\b\n[bold]Examples[/bold]\n{_lines}")(getattr(_module, _name))


def main() -> None:
    """Run the command line."""
    app()
