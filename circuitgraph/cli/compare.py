"""``circuitgraph compare``: one request in several ways, side by side."""

from typing import TYPE_CHECKING, Any

import circuitgraph as cg
from circuitgraph.cli.findings import circuit_notes, shown_circuit
from circuitgraph.cli.keeping import Folder
from circuitgraph.cli.options import (
    Device,
    Dtype,
    DtypeName,
    Engines,
    MaybeOut,
    MaybePrompts,
    Model,
    Modes,
    RequestText,
    Seed,
    Sources,
    TaskName,
    Top,
    Variants,
)
from circuitgraph.cli.setting import Setting, known_graph, read_variant
from circuitgraph.cli.telling import interval, say, say_table, say_title, signed, step
from circuitgraph.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from circuitgraph.effects import Comparison

__all__ = ["EXAMPLES", "compare", "say_comparison"]

EXAMPLES = (
    "circuitgraph compare 'head -> logits'",
    "circuitgraph compare 'head -> {23.3, 29.1}.q@end => logits' --out results",
    "circuitgraph compare 'head -> logits' --source corrupt --source zero --source mean",
)


def compare(
    request: RequestText,
    model: Model = DEFAULT_MODEL,
    task: TaskName = "ioi",
    prompts: MaybePrompts = None,
    seed: Seed = 1,
    variant: Variants = None,
    mode: Modes = None,
    source: Sources = None,
    engine: Engines = None,
    out: MaybeOut = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = DtypeName.FLOAT32,
) -> None:
    """Patch a request in several ways and say where they differ: under both variants, or as asked.

    Under mlps a direct path may pass through MLPs, which are recomputed; under single-pass it
    passes through nothing.
    """
    cg.parse(request)
    several: dict[str, Any] = {
        name: [given.value for given in values] if values else None
        for name, values in (("modes", mode), ("sources", source), ("engines", engine))
    }
    several["variants"] = [read_variant(name) for name in variant] if variant else None
    graph = known_graph(model)
    if graph is not None:
        cg.compile(graph, request)  # what is wrong shows before torch is imported
    from circuitgraph.experiment.source import source_parts
    from circuitgraph.experiment.ways import ways_of

    ways = ways_of(**several)
    if graph is not None:
        for way in ways.values():  # what is wrong shows before loading
            cg.compile(
                graph, request, way.variant, mode=way.mode, source=source_parts(way.source).word
            )
    folder = Folder(out) if out is not None else None
    setting = Setting(model, task, prompts, seed, device, dtype)
    experiment, asked = setting.make()
    with step(f"{request} patched: {', '.join(ways)}", spinner=False):
        comparison = experiment.compare(request, **several)
    say_comparison(comparison, top)
    if folder is not None:
        folder.keep_comparison(comparison)
        how = [
            word
            for name, values in (
                *(("--variant", variant), ("--mode", mode)),
                *(("--source", source), ("--engine", engine)),
            )
            for value in values or ()
            for word in (name, str(value))
        ]
        circuit = shown_circuit(comparison.effects[comparison.names[0]])
        folder.keep_report(
            title=request,
            question=asked.question,
            results=comparison,
            prompts=zip(asked.clean_text, asked.corrupt_text, strict=True),
            answers=asked.answer_texts,
            circuit=circuit,
            notes=circuit_notes(circuit, request),
            plans={
                name: experiment.plan(request, way.variant, way.mode, source=way.source)
                for name, way in ways.items()
            },
            command=[
                *("circuitgraph", "compare", request),
                *(*setting.options(), *how, "--out", str(out)),
            ],
        )
        folder.finish()


def say_comparison(comparison: "Comparison", top: int) -> None:
    """Print the strongest effects side by side, and what the comparison says in words."""
    names = comparison.names
    heading, readings = repr(comparison).splitlines()[:2]
    say_title(heading)
    say(readings, "")
    table = comparison.table(top).to_dict("records")
    heads: tuple[str, ...] = ("range#",)
    rest: list[tuple[str, ...]] = [(signed(row.get("range", 0.0)),) for row in table]
    if len(names) == 2:
        heads = ("difference#", "95% interval#", "")
        rest = [
            (
                signed(row["difference"]),
                interval(row["ci_low"], row["ci_high"]),
                "differs" if row["differs"] else "",
            )
            for row in table
        ]
    say_table(
        ("", *(f"{name}#" for name in names), *heads),
        [
            (str(row["name"]), *(signed(row[name]) for name in names), *more)
            for row, more in zip(table, rest, strict=True)
        ],
    )
    say("", *comparison.sentences())
