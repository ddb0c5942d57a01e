"""Options that several commands have, declared once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Answering",
    "Backend",
    "BackendName",
    "Baselines",
    "Device",
    "Dtype",
    "DtypeName",
    "Engine",
    "EngineName",
    "Engines",
    "EstimatorName",
    "MaybeOut",
    "MaybePrompts",
    "Mode",
    "ModeName",
    "Model",
    "Modes",
    "Prompts",
    "RequestText",
    "Rules",
    "RulesName",
    "Seed",
    "SourceName",
    "Sources",
    "Steps",
    "TaskName",
    "Top",
    "VariantText",
    "Variants",
    "named_folder",
]


def named_folder(given: str | Path) -> Path:
    """Return a folder as a path; an empty text would mean the one that the shell stands in."""
    if not str(given).strip():
        raise typer.BadParameter("an empty text names no folder: write --out results, for instance")
    return Path(given)


class BackendName(StrEnum):
    """Which library holds the model."""

    TRANSFORMERLENS = "transformerlens"
    HUGGINGFACE = "huggingface"


class ModeName(StrEnum):
    """What patching several receivers means."""

    SET = "set"
    ADD = "add"
    REPLACE = "replace"


class EngineName(StrEnum):
    """What runs the plan."""

    FAST = "fast"
    REFERENCE = "reference"


class EstimatorName(StrEnum):
    """What answers a request: an engine that measures, or one that estimates."""

    FAST = "fast"
    REFERENCE = "reference"
    EAP = "eap"
    CLEAN_CORRUPT = "clean-corrupt"
    EAP_IG = "eap-ig"
    EAP_IG_ACTIVATIONS = "eap-ig-activations"


class RulesName(StrEnum):
    """How gradients of an estimate pass the model."""

    RELP = "relp"
    GIM = "gim"


class SourceName(StrEnum):
    """Where patched values come from."""

    CORRUPT = "corrupt"
    ZERO = "zero"
    MEAN = "mean"
    MEAN_POSITION = "mean-position"


class DtypeName(StrEnum):
    """What the weights are held in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT64 = "float64"


RequestText = Annotated[
    str,
    typer.Argument(
        metavar="REQUEST",
        help="What to patch, such as 'head -> logits' or '5.5 -> 8.6.v => logits'.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        help="One that `circuitgraph models` lists, any of the Hugging Face hub, or a folder.",
    ),
]
TaskName = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="NAME|FILE",
        help="Which prompts: one that `circuitgraph tasks` lists, or a file of pairs of your own: "
        ".jsonl or .csv with clean, corrupt, answer, wrong (see circuitgraph.tasks.load).",
    ),
]
Prompts = Annotated[int, typer.Option("--prompts", "-n", metavar="N", help="How many prompts.")]
MaybePrompts = Annotated[
    int | None,
    typer.Option(
        "--prompts",
        "-n",
        metavar="N",
        help="How many prompts; of a file the first.",
        show_default="25, of a file all",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Which prompts are drawn.")]
VariantText = Annotated[
    str,
    typer.Option(
        "--variant",
        metavar="NAME",
        help="What direct paths may pass through: mlps, single-pass (nothing), "
        "or nodes as in 'through {mlp0, 4.11}'.",
    ),
]
Mode = Annotated[ModeName, typer.Option(help="What patching several receivers means.")]
Engine = Annotated[
    EngineName,
    typer.Option(help="What runs it; reference goes hook by hook, slow and obvious."),
]
Answering = Annotated[
    EstimatorName,
    typer.Option(
        "--engine",
        help="What answers: fast and reference measure, the others estimate with gradients.",
    ),
]
Steps = Annotated[
    int, typer.Option("--steps", metavar="N", min=1, help="Runs of eap-ig, from corrupt to clean.")
]
Rules = Annotated[
    RulesName | None,
    typer.Option("--rules", help="How gradients of an estimate pass norms and activations."),
]
Variants = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        metavar="NAME",
        help="A variant to compare, as for `patch`. This and what follows may be given several "
        "times.",
        show_default="both, or mlps where others are compared",
    ),
]
Modes = Annotated[
    list[ModeName] | None,
    typer.Option(
        "--mode",
        metavar="NAME",
        help=f"What patching several receivers means: {', '.join(ModeName)}.",
        show_default=ModeName.SET.value,
    ),
]
Sources = Annotated[
    list[SourceName] | None,
    typer.Option(
        "--source",
        metavar="NAME",
        help=f"Where patched values come from: {', '.join(SourceName)}; means are over the corrupt "
        "prompts.",
        show_default=SourceName.CORRUPT.value,
    ),
]
Engines = Annotated[
    list[EngineName] | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help=f"What runs it: {', '.join(EngineName)}.",
        show_default=EngineName.FAST.value,
    ),
]
Backend = Annotated[
    BackendName,
    typer.Option(metavar="NAME", help=f"Which library holds the model: {', '.join(BackendName)}."),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Where it runs: cpu, cuda, mps.", show_default="cuda if there is one"
    ),
]
Dtype = Annotated[
    DtypeName,
    typer.Option(metavar="NAME", help=f"What weights are held in: {', '.join(DtypeName)}."),
]
Baselines = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="How many random circuits of the same size to run."),
]
Top = Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many effects to print.")]
MaybeOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        parser=named_folder,
        help="Also write the effects, their table and heatmap to this folder.",
        show_default=False,
    ),
]
