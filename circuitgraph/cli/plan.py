"""``circuitgraph plan``: what a request compiles to, without running it."""

import re
from pathlib import Path
from typing import Annotated

import typer

import circuitgraph as cg
from circuitgraph.cli.options import Mode, ModeName, RequestText, VariantText
from circuitgraph.cli.setting import known_graph, read_variant
from circuitgraph.cli.telling import say, show, step
from circuitgraph.errors import ModelError
from circuitgraph.models import DEFAULT_MODEL
from circuitgraph.schedule import schedule as make_schedule

__all__ = ["EXAMPLES", "plan"]

EXAMPLES = (
    "circuitgraph plan '5.5 -> 8.6.v => logits' --shape 12x12",
    "circuitgraph plan 'head -> logits' --model gpt2 --variant single-pass",
    "circuitgraph plan 'head -> {23.3, 29.1}.q@end => logits' --schedule",
    "circuitgraph plan '5.5@S2 -> 8.6.v => logits' --shape 12x12 --svg plan.svg",
)


def plan(
    request: RequestText,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model; one that `circuitgraph models` lists is not loaded for this.",
            show_default=DEFAULT_MODEL,
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="LAYERSxHEADS",
            help="A shape instead of a model: 12x12, or 30x9:3 with 3 key-value heads per layer.",
            show_default=False,
        ),
    ] = None,
    variant: VariantText = "mlps",
    mode: Mode = ModeName.SET,
    schedule: Annotated[
        bool, typer.Option("--schedule", help="Also show what the fast engine would really run.")
    ] = False,
    svg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw the plan to this file.", show_default=False),
    ] = None,
) -> None:
    """Show the ordered runs that answer a request: what is patched, frozen, recorded and read.

    Nothing is run and no weights are loaded.
    """
    if model is not None and shape is not None:
        raise typer.BadParameter("give --model or --shape, not both")
    graph = _shape_graph(shape) if shape is not None else _model_graph(model or DEFAULT_MODEL)
    compiled = cg.compile(graph, request, read_variant(variant), mode=mode.value)
    show(str(compiled))
    if schedule:
        show(f"\n{make_schedule(compiled)}")
    if svg is not None:
        say("", f"Drawn: {compiled.draw().save(svg)}")


def _shape_graph(text: str) -> cg.ModelGraph:
    """Return the graph of a shape such as ``30x9:3``."""
    found = re.fullmatch(r"(\d+)x(\d+)(?::(\d+))?", text.strip())
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is no shape: write layers x heads, such as 12x12, or 30x9:3 with 3 "
            "key-value heads per layer",
            param_hint="--shape",
        )
    layers, heads, kv_heads = found.groups()
    return cg.ModelGraph(
        cg.ModelShape(int(layers), int(heads), None if kv_heads is None else int(kv_heads))
    )


def _model_graph(name: str) -> cg.ModelGraph:
    """Return the graph of a known model as it is listed, of any other after loading it."""
    graph = known_graph(name)
    if graph is not None:
        return graph
    with step(f"{name} loaded, since its shape is not known here (or give --shape)"):
        try:
            return cg.ModelGraph.from_model(cg.load_model(name))
        except ModelError as error:
            raise ModelError(
                f"{error}\n  - --shape 12x12 makes a plan without any model"
            ) from error
