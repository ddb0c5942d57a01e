"""``circuitgraph demo``: the main job from beginning to end, on a real language model.

Which heads write the answer to an indirect-object prompt, and which heads tell them what to write?
The steps are those anybody would take with the library; `findings` holds the two choices between.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from circuitgraph.cli.findings import after, feeding, in_words, joint, make_circuit, swept, writing
from circuitgraph.cli.keeping import Folder
from circuitgraph.cli.options import (
    Device,
    Dtype,
    DtypeName,
    MaybePrompts,
    Model,
    Seed,
    TaskName,
    named_folder,
)
from circuitgraph.cli.setting import Setting
from circuitgraph.cli.telling import interval, say, say_table, say_title, signed, step
from circuitgraph.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from circuitgraph.effects import Comparison, Effects
    from circuitgraph.experiment import Experiment
    from circuitgraph.tasks import Task

__all__ = ["EXAMPLES", "demo"]

EXAMPLES = (
    "circuitgraph demo",
    "circuitgraph demo --prompts 100 --seed 2 --out hundred",
    "circuitgraph demo --model gpt2",
)

TO_LOGITS = "head -> logits"
NOTES = (
    "An effect says that the answer depends on an edge on these prompts, not what the edge is for.",
    "Where heads can stand in for each other, the effect of each by itself is too small.",
    "Which heads are spoken of was chosen on these same prompts: try another --seed, too.",
)


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            parser=named_folder,
            help="Where the results are written.",
        ),
    ] = Path("demo-output"),
    prompts: MaybePrompts = None,
    seed: Seed = 1,
    model: Model = DEFAULT_MODEL,
    task: TaskName = "ioi",
    device: Device = None,
    dtype: Dtype = DtypeName.FLOAT32,
) -> None:
    """Find the heads that answer indirect-object prompts, and the heads that feed them.

    Every head is patched into the logits, under both variants of path patching; then every head
    into the queries of those that write the answer. Prints a table, and leaves the effects,
    tables, heatmaps and the drawn circuit in a folder. Takes about a minute on two cores. With
    --task, the same for other prompts.
    """
    started = perf_counter()
    folder = Folder(out)
    setting = Setting(model, task, prompts, seed, device, dtype)
    experiment, asked = setting.make()
    from circuitgraph.effects import Comparison  # pandas, after what needs seconds anyway

    say_prompts(experiment, asked)

    with step("every head -> logits, MLPs recomputed (mlps)", spinner=False):
        mlps = experiment.patch(TO_LOGITS, "mlps")
    with step("every head -> logits, MLPs frozen (single-pass)", spinner=False):
        single_pass = experiment.patch(TO_LOGITS, "single-pass")
    both = Comparison({"mlps": mlps, "single-pass": single_pass})
    writers = writing(mlps)
    say_logits(both)

    to_queries = f"head -> {joint(writers)}.q@end => logits"
    with step(f"every head -> queries of {', '.join(writers)}", spinner=False):
        queries = experiment.patch(to_queries)
    feeders = feeding(queries)
    say_queries(queries, writers)

    with step(f"each edge from {', '.join(feeders)} by itself", spinner=False):
        edges = experiment.patch(f"{swept(feeders)} -> {swept(writers)}.q@end => logits")
    circuit = make_circuit(mlps, edges, writers, feeders)

    with step("tables, heatmaps, drawings and report written"):
        folder.keep_comparison(both, "head_to_logits")
        mlps.save(folder.add("head_to_logits.mlps.json", "one variant; Effects.load reads it"))
        single_pass.save(folder.add("head_to_logits.single-pass.json", "the other"))
        folder.keep_effects(queries, "head_to_queries", "heads that feed the queries")
        circuit.save(folder.add("circuit.json", "the circuit; Circuit.load reads it"))
        title = f"{asked.name} in {model}" if task != "ioi" else f"Indirect objects in {model}"
        circuit.draw(title=title).save(folder.add("circuit.svg", "the circuit, drawn"))
        read_by = joint(after(feeders[0], writers))
        plan = experiment.plan(f"{feeders[0]} -> {read_by}.q@end => logits")
        plan.draw().save(folder.add("plan.svg", f"what was run for {feeders[0]}, step by step"))
        folder.keep_text(str(plan), "plan.txt", "the same in words")
        folder.keep_report(
            title=title,
            question=f"{asked.question} Which heads write the answer, and which heads feed them?",
            results={"Every head into the logits": both, "Every head into the queries": queries},
            prompts=zip(asked.clean_text, asked.corrupt_text, strict=True),
            answers=asked.answer_texts,
            plans=plan,
            circuit=circuit,
            command=["circuitgraph", "demo", *setting.options(), "--out", str(out)],
            notes=NOTES,
        )
    folder.finish()
    say("", f"{perf_counter() - started:.0f} s in all.")


def say_prompts(experiment: "Experiment", task: "Task") -> None:
    """Print what is asked of the model, and how well it answers."""
    correct, incorrect = task.answer_texts[0]
    clean, corrupt = experiment.clean_metric, experiment.corrupt_metric
    against = f", not{incorrect}" if incorrect else ""
    right = f"{int((clean > 0).sum())} of {len(clean)} prompts"
    say_title(task.question)
    say(
        f"  clean    {task.clean_text[0]} →{correct}{against}",
        f"  corrupt  {task.corrupt_text[0]}",
        f"  {experiment.metric_name.capitalize()}: {clean.mean():.2f} clean, {corrupt.mean():.2f} "
        "corrupt (mean).",
        *([f"  The model prefers the right answer in {right}."] if incorrect else []),
        "",
    )


def say_logits(both: "Comparison") -> None:
    """Print the strongest heads under both variants, with a few words on each."""
    first, second = both.names
    say_title("The heads that matter for the answer")
    say(
        "Effect of patching one head -> logits: −1 would lose the whole logit difference, 0 none.",
        "",
    )
    say_table(
        ("head", "MLPs recomputed#", "MLPs frozen#", "in words"),
        [
            (
                str(row["name"]),
                signed(row[first]),
                signed(row[second]),
                in_words(row[first]),
            )
            for row in both.table(8).to_dict("records")
        ],
    )
    say("", *both.sentences(2), "")


def say_queries(queries: "Effects", writers: Sequence[str]) -> None:
    """Print the heads that feed the queries."""
    say_title(f"The heads that feed the queries of {', '.join(writers)} at the last token")
    say_table(
        ("head", "effect#", "95% interval#", "in words"),
        [
            (
                str(row["name"]),
                signed(row["effect"]),
                interval(row["ci_low"], row["ci_high"]),
                in_words(row["effect"]) if row["significant"] else "within chance",
            )
            for row in queries.top(5).to_dict("records")
        ],
    )
    say("")
