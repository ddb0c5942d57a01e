"""``circuitgraph tasks``: what can be asked of a model, and how well it does."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

import circuitgraph as cg
from circuitgraph.cli.options import Device, Dtype, DtypeName, Prompts, Seed
from circuitgraph.cli.questions import QUESTIONS
from circuitgraph.cli.setting import loader
from circuitgraph.cli.telling import say, say_table, say_title, step
from circuitgraph.errors import CircuitGraphError, PromptError

if TYPE_CHECKING:
    from circuitgraph.tasks import Task

__all__ = ["EXAMPLES", "tasks"]

EXAMPLES = (
    "circuitgraph tasks",
    "circuitgraph tasks --model smollm2-135m",
    "circuitgraph tasks --model gpt2 --prompts 100",
)


def tasks(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Also show how well this model does each.",
            show_default=False,
        ),
    ] = None,
    prompts: Prompts = 25,
    seed: Seed = 1,
    device: Device = None,
    dtype: Dtype = DtypeName.FLOAT32,
) -> None:
    """List the questions that --task knows, with an example of each.

    With --model: in how many prompts the model prefers the right answers, and what is measured on
    clean and on corrupt prompts. A file of pairs of your own is a task, too (--task FILE).
    """
    if prompts < 1:
        raise PromptError(f"--prompts must be 1 or more, got {prompts}")
    say_table(
        ("task", "example", "goes on with"),
        [(f"{q.name}\n  {q.source}", q.example, q.answer) for q in QUESTIONS],
    )
    if model is None:
        return
    with step("torch and TransformerLens imported"):
        load = loader(device, dtype)
    with step(f"{model} loaded"):
        loaded = load(model)
    rows = []
    for question in QUESTIONS:
        with step(f"{question.name}: {prompts} prompts"):
            rows.append((question.name, *how_well(loaded, question.name, prompts, seed)))
    say_title(f"How well {model} does each, on {prompts} prompts")
    say_table(("task", "right#", "clean#", "corrupt#", "measured"), rows)
    say(
        "",
        "right: prompts where the right answers are preferred to the wrong ones, or, where there "
        "are no wrong ones, the right answer is the most likely token.",
    )


def how_well(model: Any, name: str, n: int, seed: int) -> tuple[str, str, str, str]:
    """Return how many prompts a model answers, its metric on clean and corrupt, and which."""
    try:
        task: Task = getattr(cg.tasks, name.replace("-", "_"))(model.tokenizer, n=n, seed=seed)
    except CircuitGraphError as error:
        return "", "", "", str(error).splitlines()[0]
    measured = _measured(model, task, task.metric)
    no_wrong = not any(wrong for _, wrong in task.answers)
    asked = cg.Accuracy(task.metric.answer, "end") if no_wrong else task.metric
    right = (_measured(model, task, asked).clean_metric > 0).sum()
    return (
        f"{int(right)} of {n}",
        f"{measured.clean_metric.mean():.2f}",
        f"{measured.corrupt_metric.mean():.2f}",
        measured.metric_name,
    )


def _measured(model: Any, task: "Task", metric: Any) -> Any:
    asked = task.with_metric(metric)
    return cg.Experiment(model, asked, self_check=False, allow_no_difference=True)
