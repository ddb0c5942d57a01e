"""``circuitgraph models``: the models worth naming, and whether each is here; checks of one."""

from pathlib import Path
from typing import Annotated

import typer

from circuitgraph.cli.checking import check_model
from circuitgraph.cli.options import (
    Backend,
    BackendName,
    Device,
    Dtype,
    DtypeName,
    Prompts,
    Seed,
)
from circuitgraph.cli.telling import say, say_table
from circuitgraph.models import known_models
from circuitgraph.models.available import missing

__all__ = ["EXAMPLES", "models"]

EXAMPLES = (
    "circuitgraph models",
    "circuitgraph models --check smollm2-135m",
    "circuitgraph models --check path/to/folder --dtype float64",
    "circuitgraph models --check Qwen/Qwen2.5-0.5B --backend huggingface",
    "circuitgraph models --check gpt2 --only queries --only '5 all writers'",
)


def models(
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="NAME",
            help="Check that patching is exact on this model: a name below, any of the Hugging "
            "Face hub, or a folder. Exits with 1 where it is not.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="CHECK", help="Run this check alone; may be repeated."),
    ] = None,
    prompts: Prompts = 2,
    seed: Seed = 1,
    device: Device = None,
    dtype: Dtype = DtypeName.FLOAT32,
    backend: Backend = BackendName.TRANSFORMERLENS,
    parts: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE",
            help="With --backend huggingface: a TOML file that names the parts of a model whose "
            "family is not known, a line each, such as: o = 'c_proj'.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the models worth naming, and whether each can be loaded here and now.

    They are suggestions: any model of the Hugging Face hub that TransformerLens can wrap or that
    --backend huggingface finds its way in, and any folder that save_pretrained wrote, will do. With
    --check, put one of them to the checks that every family of models is tested with, on random
    prompts: about half a minute for smollm2-135m on two free cores.
    """
    if check is None:
        if only:
            raise typer.BadParameter("name the model with --check", param_hint="--only")
        _list()
    elif parts is not None and backend is not BackendName.HUGGINGFACE:
        raise typer.BadParameter("it needs --backend huggingface", param_hint="--map")
    elif not check_model(
        check,
        only or (),
        prompts=prompts,
        seed=seed,
        device=device,
        dtype=dtype,
        backend=backend,
        parts=parts,
    ):
        raise typer.Exit(1)


def _list() -> None:
    rows, notes = [], []
    for model in known_models():
        shape = model.shape
        size = f"{shape.n_layers}x{shape.n_heads}{f':{shape.kv_heads}' if shape.grouped else ''}"
        needs = missing(model)
        if needs:
            notes.append(f"{model.name} needs {needs}")
        name = f"{model.name}\n  {model.description}"
        rows.append((name, model.size, size, "no" if needs else "yes"))
    say_table(("model", "size#", "shape#", "ready"), rows)
    say("", "shape: layers x heads; after the colon, key-value heads where heads share them.")
    say("", *notes)
