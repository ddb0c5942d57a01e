"""``circuitgraph sweep``: one request in parts that are kept, by one worker or many."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import circuitgraph as cg
from circuitgraph.cli.options import (
    Answering,
    Device,
    Dtype,
    DtypeName,
    EstimatorName,
    MaybePrompts,
    Mode,
    Model,
    ModeName,
    Rules,
    Seed,
    Steps,
    TaskName,
    Top,
    VariantText,
    named_folder,
)
from circuitgraph.cli.patch import read_engine, say_effects
from circuitgraph.cli.setting import Setting, known_graph, read_variant
from circuitgraph.cli.telling import say
from circuitgraph.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment
    from circuitgraph.sweeps.executor import Advance
    from circuitgraph.sweeps.store import Sweep

__all__ = ["EXAMPLES", "sweep"]

EXAMPLES = (
    "circuitgraph sweep 'node -> port => logits' --model gpt2 --task ioi --into edges",
    "circuitgraph sweep 'node -> port => logits' --model gpt2 --into edges --workers 2",
    "circuitgraph sweep 'node -> port => logits' --into edges --dry-run",
    "circuitgraph sweep --status edges",
)

Request = Annotated[
    str | None,
    typer.Argument(metavar="REQUEST", help="What to patch.", show_default=False),
]
Into = Annotated[
    Path | None,
    typer.Option(
        "--into",
        metavar="FOLDER",
        parser=named_folder,
        help="Where parts are kept; the same command again goes on there.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="How many processes, each with a model of its own; more than one need Ray.",
        show_default="1",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="A Ray cluster to run on, such as auto or ray://head:10001.",
        show_default="one is started on this machine",
    ),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus",
        metavar="SHARE",
        help="What share of a GPU each worker takes, such as 0.5.",
        show_default="1, or an equal share of fewer",
    ),
]
Seconds = Annotated[
    float, typer.Option("--seconds", metavar="S", help="About how long a part is to take.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what it would cost, from a trial of some cells.")
]
StatusOf = Annotated[
    Path | None,
    typer.Option("--status", metavar="FOLDER", help="Only say how far a sweep is."),
]


@dataclass(frozen=True)
class ByName:
    """A recipe: the model and the prompts as the command line names them."""

    setting: Setting

    def __call__(self) -> "Experiment":
        """Load the model, and write and record the prompts."""
        return self.setting.make()[0]


def sweep(
    request: Request = None,
    model: Model = DEFAULT_MODEL,
    task: TaskName = "ioi",
    prompts: MaybePrompts = None,
    seed: Seed = 1,
    into: Into = None,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = None,
    variant: VariantText = "mlps",
    mode: Mode = ModeName.SET,
    engine: Answering = EstimatorName.FAST,
    steps: Steps = 5,
    rules: Rules = None,
    seconds: Seconds = 20.0,
    dry_run: DryRun = False,
    status: StatusOf = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = DtypeName.FLOAT32,
) -> None:
    """Patch a request in parts that are kept in a folder, with any number of workers.

    Whatever ends it, the same command again goes on where it ended: what is lost is at most the
    part that each worker was at. circuitgraph.load_sweep(FOLDER) gives the effects.
    """
    from circuitgraph.sweeps import estimate_sweep, sweep_status

    if status is not None:
        say(str(sweep_status(status)))
        return
    if request is None:
        raise typer.BadParameter("write what to patch, such as 'node -> port => logits'")
    if into is None and not dry_run:
        raise typer.BadParameter("name the folder for the parts: --into edges, for instance")
    cg.parse(request)  # what is wrong shows before loading
    chosen, answering = read_variant(variant), read_engine(engine, steps, rules)
    if (graph := known_graph(model)) is not None:
        cg.compile(graph, request, chosen, mode=mode.value)
    setting = Setting(model, task, prompts, seed, device, dtype)
    setting.check()
    recipe, many = ByName(setting), workers or 1
    if dry_run:
        cost = estimate_sweep(
            recipe, request, chosen, mode.value, answering, seconds=seconds, workers=many
        )
        say(str(cost))
        return
    assert into is not None
    effects = cg.sweep(
        recipe,
        request,
        chosen,
        mode.value,
        answering,
        into=into,
        workers=many,
        ray=ray,
        gpus=gpus,
        seconds=seconds,
        watch=shown,
    )
    say_effects(effects, top)


@contextmanager
def shown(found: "Sweep") -> "Iterator[Advance]":
    """Show how far a sweep is, over all workers, and how long it will take."""
    from circuitgraph.experiment.progress import progress_bar

    missing = found.missing
    before = found.n_cells - sum(map(found.size, missing))
    if before:
        say(f"{len(found.cut.parts) - len(missing)} of {len(found.cut.parts)} parts are there")
    with progress_bar(found.manifest.request, round(found.n_cells)) as advance:
        advance(before)
        yield advance
