"""``circuitgraph discover``: find a circuit, and say at once how far it is right."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

import circuitgraph as cg
from circuitgraph.cli.keeping import Folder
from circuitgraph.cli.options import (
    Baselines,
    Device,
    Dtype,
    DtypeName,
    MaybeOut,
    Model,
    Prompts,
    Seed,
    TaskName,
    Top,
    VariantText,
)
from circuitgraph.cli.setting import Setting, known_graph, read_variant
from circuitgraph.cli.telling import say, say_table, say_title, show, signed, step
from circuitgraph.errors import RequestError
from circuitgraph.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from circuitgraph.circuit import Circuit
    from circuitgraph.circuit.scores import Sign
    from circuitgraph.discover import Search
    from circuitgraph.effects import Effects
    from circuitgraph.evaluation.storage import Judgement
    from circuitgraph.experiment import Experiment
    from circuitgraph.request import Variant
    from circuitgraph.tasks import Task

__all__ = ["EXAMPLES", "discover", "keep_judged", "say_circuit"]

EXAMPLES = (
    "circuitgraph discover 'node -> port => logits' --by eap-ig --edges 200 --out found",
    "circuitgraph discover 'head -> logits' --by exact --edges 12",
    "circuitgraph discover --acdc 0.01 --by eap-ig --edges 2000 --out found",
    "circuitgraph discover --backward 0.05 --out found",
)

ALL_EDGES = "node -> port => logits"


class By(StrEnum):
    """Where scores come from."""

    EXACT = "exact"
    EAP = "eap"
    CLEAN_CORRUPT = "clean-corrupt"
    EAP_IG = "eap-ig"


class HowName(StrEnum):
    """How a circuit is cut from scores."""

    TOP = "top"
    GREEDY = "greedy"
    ILP = "ilp"


def discover(
    request: Annotated[
        str,
        typer.Argument(metavar="REQUEST", help="Whose edges are scored; all edges by default."),
    ] = ALL_EDGES,
    by: Annotated[By, typer.Option(help="Where scores come from.")] = By.EAP_IG,
    steps: Annotated[
        int, typer.Option(metavar="N", min=1, help="Steps of integrated gradients.")
    ] = 5,
    rules: Annotated[
        str | None, typer.Option(metavar="NAME", help="Backward rules of estimates: relp or gim.")
    ] = None,
    edges: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="How many edges; with --acdc, how many to start from.",
            show_default="200; with --acdc all of them",
        ),
    ] = None,
    how: Annotated[HowName, typer.Option(help="How the circuit is cut.")] = HowName.GREEDY,
    signed_scores: Annotated[
        bool, typer.Option("--signed", help="Rank by importance rather than by size.")
    ] = False,
    acdc: Annotated[
        float | None,
        typer.Option(metavar="T", help="Search by ACDC with this threshold, in nats of KL."),
    ] = None,
    backward: Annotated[
        float | None,
        typer.Option(metavar="T", help="Search backwards from the logits; T is the least effect."),
    ] = None,
    model: Model = DEFAULT_MODEL,
    task: TaskName = "ioi",
    prompts: Prompts = 25,
    seed: Seed = 1,
    variant: VariantText = "single-pass",
    baselines: Baselines = 20,
    out: MaybeOut = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = DtypeName.FLOAT32,
) -> None:
    """Find a circuit by its edges' scores, by ACDC or backwards from the logits, and judge it.

    Scores are cut to so many edges; ACDC removes edges while the answer stays; the backward search
    follows what stands out. What is found is run alone, beside random circuits of its size.
    """
    if acdc is not None and backward is not None:
        raise RequestError("give --acdc or --backward, not both")
    chosen = read_variant(variant)
    cg.parse(request)  # what is wrong shows before loading
    if (graph := known_graph(model)) is not None:
        cg.compile(graph, request, chosen)
    folder = Folder(out) if out is not None else None
    setting = Setting(model, task, prompts, seed, device, dtype)
    experiment, asked = setting.make()
    sign: Sign = "signed" if signed_scores else "absolute"
    scored, start = None, None
    if backward is None and (acdc is None or edges is not None):
        with step(f"{request} scored by {by.value}", spinner=False):
            scored = experiment.patch(request, chosen, engine=_engine(by, steps, rules))
        start = cg.discover.cut(scored, edges or 200, how.value, sign)
    search = _search(experiment, acdc, backward, start, chosen)
    circuit = start if search is None else search.circuit
    assert circuit is not None
    say_circuit(circuit, top)
    if search is not None:
        say("", *repr(search).splitlines())
    judgements: list[Judgement] = []
    if len(circuit):
        with step(f"judged beside {baselines} random circuits", spinner=False):
            judgements.append(experiment.evaluate(circuit, baselines=baselines))
        show(f"\n{judgements[0]}")
    if folder is None:
        return
    if scored is not None:
        with step("the circuit at other sizes", spinner=False):
            judgements.append(experiment.curve(scored, how=how.value, sign=sign))
        folder.keep_effects(scored)
    if search is not None:
        folder.keep_table(search.steps, "steps.csv", "every test of the search")
    options: list[tuple[str, Any]] = [
        *(("--by", by.value), ("--steps", steps), ("--rules", rules), ("--edges", edges)),
        *(("--how", how.value), ("--acdc", acdc), ("--backward", backward)),
        *(("--baselines", baselines), ("--variant", variant)),
    ]
    command = ["circuitgraph", "discover", request, *setting.options()]
    command += [word for name, value in options if value is not None for word in (name, f"{value}")]
    command += ["--signed"] * signed_scores
    keep_judged(folder, asked, circuit, judgements, scored, command, str(out))


def _search(
    experiment: "Experiment",
    acdc: float | None,
    backward: float | None,
    start: "Circuit | None",
    variant: "Variant",
) -> "Search | None":
    """Return the search that was asked for; None where scores are only cut."""
    if acdc is not None:
        with step(f"ACDC at {acdc:g}"):
            return cg.discover.acdc(experiment, acdc, start=start)
    if backward is not None:
        with step(f"backward search at {backward:g}", spinner=False):
            return cg.discover.backward(experiment, backward, variant=variant)
    return None


def _engine(by: By, steps: int, rules: Any) -> Any:
    match by:
        case By.EXACT:
            if rules is not None:
                raise RequestError("--rules is for estimates: exact effects have no backward pass")
            return "fast"
        case By.EAP:
            return cg.EAP(rules=rules)
        case By.CLEAN_CORRUPT:
            return cg.CleanCorrupt(rules=rules)
        case By.EAP_IG:
            return cg.EAPIG(steps=steps, rules=rules)


def say_circuit(circuit: "Circuit", top: int) -> None:
    """Print what a circuit is, and its strongest edges."""
    say_title(circuit.summary)
    if len(circuit):
        rows = [
            (str(edge), signed(circuit.weight(edge) or 0.0)) for edge in circuit.strongest[:top]
        ]
        say_table(("edge", "score#"), rows)


def keep_judged(
    folder: Folder,
    asked: "Task",
    circuit: "Circuit",
    judgements: "list[Judgement]",
    scored: "Effects | None",
    command: list[str],
    out: str,
) -> None:
    """Write a circuit, its picture, its judgements and the report of them all."""
    from circuitgraph.draw.curves import plot_curves
    from circuitgraph.evaluation import Curve, Evaluation

    circuit.save(folder.add("circuit.json", "the circuit; Circuit.load reads it"))
    if len(circuit):
        circuit.draw(max_edges=80).save(folder.add("circuit.svg", "the circuit, drawn"))
    for judgement in judgements:
        match judgement:
            case Evaluation():
                what = "how far the circuit is right; circuitgraph.evaluation.load reads it"
                judgement.save(folder.add("evaluation.json", what))
                table = judgement.to_dataframe()
                folder.keep_table(table, "evaluation.csv", "the same as a table")
            case Curve():
                judgement.save(folder.add("curve.json", "faithfulness against size"))
                chart = plot_curves({f"{judgement.how}, {judgement.sign}": judgement})
                folder.keep_picture(chart, "curve.svg", "the same as a picture")
            case _:
                pass
    folder.keep_report(
        title="A circuit, and how far it is right",
        question=asked.question,
        results=[] if scored is None else scored,
        prompts=zip(asked.clean_text, asked.corrupt_text, strict=True),
        answers=asked.answers,
        circuit=circuit if len(circuit) else None,
        judgements=judgements,
        command=[*command, "--out", out],
        statistics=None,
    )
    folder.finish()
