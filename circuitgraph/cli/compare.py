"""``circuitgraph compare``: one request under both variants, side by side."""

from typing import TYPE_CHECKING

import circuitgraph as cg
from circuitgraph.cli.keeping import Folder
from circuitgraph.cli.options import (
    Device,
    Dtype,
    DtypeName,
    MaybeOut,
    Mode,
    Model,
    ModeName,
    Prompts,
    RequestText,
    Seed,
    TaskName,
    Top,
)
from circuitgraph.cli.setting import Setting, known_graph, read_variant
from circuitgraph.cli.telling import say, say_table, say_title, signed, step
from circuitgraph.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from circuitgraph.effects import Comparison

__all__ = ["EXAMPLES", "compare", "say_comparison"]

EXAMPLES = (
    "circuitgraph compare 'head -> logits'",
    "circuitgraph compare 'head -> {23.3, 29.1}.q@end => logits' --out results",
)


def compare(
    request: RequestText,
    model: Model = DEFAULT_MODEL,
    task: TaskName = "ioi",
    prompts: Prompts = 25,
    seed: Seed = 1,
    mode: Mode = ModeName.SET,
    out: MaybeOut = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = DtypeName.FLOAT32,
) -> None:
    """Patch a request under both variants of path patching and say where they differ.

    Under mlps a direct path may pass through MLPs, which are recomputed; under single-pass it
    passes through nothing.
    """
    if (graph := known_graph(model)) is not None:
        cg.compile(graph, request, "mlps", mode=mode.value)  # what is wrong shows before loading
    folder = Folder(out) if out is not None else None
    setting = Setting(model, task, prompts, seed, device, dtype)
    experiment, asked = setting.make()
    with step(f"{request} patched under both variants", spinner=False):
        comparison = experiment.compare(request, mode=mode.value)
    say_comparison(comparison, top)
    if folder is not None:
        folder.keep_comparison(comparison)
        how = ["--mode", mode.value, "--out", str(out)]
        folder.keep_report(
            title=request,
            question=asked.question,
            results=comparison,
            prompts=zip(asked.clean_text, asked.corrupt_text, strict=True),
            answers=asked.answers,
            plans={
                name: experiment.plan(request, read_variant(name), mode.value)
                for name in comparison.names
            },
            command=["circuitgraph", "compare", request, *setting.options(), *how],
        )
        folder.say()


def say_comparison(comparison: "Comparison", top: int) -> None:
    """Print the strongest effects side by side, and what the comparison says in words."""
    first, second = comparison.names
    heading, readings = repr(comparison).splitlines()[:2]
    say_title(heading)
    say(readings, "")
    say_table(
        ("", f"{first}#", f"{second}#", "difference#", "95% interval#", ""),
        [
            (
                str(row["name"]),
                signed(row[first]),
                signed(row[second]),
                signed(row["difference"]),
                f"{signed(row['ci_low'])} to {signed(row['ci_high'])}",
                "differs" if row["differs"] else "",
            )
            for row in comparison.table(top).to_dict("records")
        ],
    )
    say("", *comparison.sentences())
