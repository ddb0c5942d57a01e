"""``circuitgraph draw``: a picture of saved effects or of a saved circuit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuitgraph.cli.telling import say
from circuitgraph.errors import CircuitError, EffectsError
from circuitgraph.files import read_json

if TYPE_CHECKING:
    from circuitgraph.circuit import Circuit

__all__ = ["EXAMPLES", "draw"]

EXAMPLES = (
    "circuitgraph draw demo-output/circuit.json -o circuit.png",
    "circuitgraph draw demo-output/head_to_logits.mlps.json --threshold 0.05",
    "circuitgraph draw results/effects.json --top 10 --labels -o top10.pdf",
    "circuitgraph draw demo-output/head_to_logits.json --heatmap -o heads.svg",
)

_USUAL_TOP = 20


def draw(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Effects, a comparison or a circuit, as saved (JSON)."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="What to write: .svg, .png, .pdf, .html; of circuits .dot, of heatmaps .json too.",
            show_default="FILE with the suffix .svg",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="EFFECT",
            help="Draw edges whose effect is at least this large, either sign.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Draw this many edges, the largest effects first.",
            show_default=f"{_USUAL_TOP} of effects, all of a circuit",
        ),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The line above the picture.", show_default=False),
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Write every effect beside its line.")
    ] = False,
    heatmap: Annotated[
        bool, typer.Option("--heatmap", help="Draw effects, or a comparison, as heatmaps.")
    ] = False,
) -> None:
    """Draw saved effects or a saved circuit with Graphviz, or effects as heatmaps."""
    if heatmap:
        _draw_heatmap(file, out, title, threshold=threshold, top=top, labels=labels)
        return
    circuit = _read(file, threshold, top)
    drawing = circuit.draw(title=title, labels=labels)
    target = drawing.save(out if out is not None else file.with_suffix(".svg"))
    say(repr(circuit), "", f"Drawn: {target}")


def _draw_heatmap(file: Path, out: Path | None, title: str | None, **others: object) -> None:
    """Draw what a file holds as heatmaps.

    Raises:
        EffectsError: A circuit, or an option that only pictures of circuits have.
    """
    from circuitgraph.effects import Comparison, Effects

    if given := [f"--{name}" for name, value in others.items() if value]:
        raise EffectsError(f"heatmaps show all cells: leave out {', '.join(given)}")
    results: Effects | Comparison
    match _document(file).get("format"):
        case "circuitgraph effects":
            results = Effects.load(file)
        case "circuitgraph comparison":
            results = Comparison.load(file)
        case _:
            raise EffectsError(f"no heatmap of {str(file)!r}: it holds a circuit, not effects")
    target = results.heatmap(title=title).save(out or file.with_suffix(".svg"))
    say(repr(results), "", f"Drawn: {target}")


def _read(file: Path, threshold: float | None, top: int | None) -> "Circuit":
    """Return the circuit in a file, made from effects if it holds those, and narrowed as asked."""
    from circuitgraph.circuit import Circuit

    document = _document(file)
    if document.get("format") == "circuitgraph effects":
        from circuitgraph.effects import Effects

        if threshold is None and top is None:
            top = _USUAL_TOP
        return Circuit.from_effects(Effects.load(file), threshold=threshold, top=top)
    if document.get("format") == "circuitgraph comparison":
        raise CircuitError(
            f"{str(file)!r} holds a comparison, and a circuit has one effect per edge: "
            "draw it with --heatmap, or the effects of one variant"
        )
    circuit = Circuit.load(file) if "format" in document else Circuit.from_mib(file)
    if threshold is not None:
        circuit = circuit.threshold(threshold)
    return circuit if top is None else circuit.top(top)


def _document(file: Path) -> dict[str, object]:
    """Return what a JSON file holds.

    Raises:
        CircuitError: There is no such file, or it is none of ours.
    """
    wanted = "wanted is a JSON file that Effects.save or Circuit.save wrote, or one in MIB's format"
    document = read_json(file, CircuitError, wanted)
    if not isinstance(document, dict) or not ({"format", "edges"} & document.keys()):
        raise CircuitError(f"cannot draw {str(file)!r}: {wanted}")
    return document
