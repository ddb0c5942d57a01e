"""``circuitgraph patch``: one request, one variant."""

from collections.abc import Hashable, Mapping
from math import isnan
from typing import TYPE_CHECKING, Any, Literal, assert_never

import circuitgraph as cg
from circuitgraph.cli.findings import circuit_notes, shown_circuit
from circuitgraph.cli.keeping import Folder
from circuitgraph.cli.options import (
    Answering,
    Device,
    Dtype,
    DtypeName,
    EstimatorName,
    MaybeOut,
    MaybePrompts,
    Mode,
    Model,
    ModeName,
    RequestText,
    Rules,
    RulesName,
    Seed,
    Steps,
    TaskName,
    Top,
    VariantText,
)
from circuitgraph.cli.setting import Setting, known_graph, read_variant
from circuitgraph.cli.telling import interval, say, say_table, say_title, signed, step
from circuitgraph.errors import RequestError
from circuitgraph.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from circuitgraph.effects import Effects
    from circuitgraph.engines.choice import EngineGiven

__all__ = ["EXAMPLES", "patch", "say_effects"]

EXAMPLES = (
    "circuitgraph patch 'head -> logits'",
    "circuitgraph patch 'head -> {23.3, 29.1}.q@end => logits' --out results",
    "circuitgraph patch '20.0 -> 23.3.q -> logits' --variant single-pass",
    "circuitgraph patch 'head -> logits' --model gpt2 --prompts 100",
    "circuitgraph patch 'node -> port => logits' --engine eap-ig --steps 5",
)


def patch(
    request: RequestText,
    model: Model = DEFAULT_MODEL,
    task: TaskName = "ioi",
    prompts: MaybePrompts = None,
    seed: Seed = 1,
    variant: VariantText = "mlps",
    mode: Mode = ModeName.SET,
    engine: Answering = EstimatorName.FAST,
    steps: Steps = 5,
    rules: Rules = None,
    out: MaybeOut = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = DtypeName.FLOAT32,
) -> None:
    """Patch a request on a model and show the strongest effects.

    An effect of 0 harmed nothing; at −1 all of what tells clean from corrupt prompts was lost.
    """
    cg.parse(request)  # what is wrong shows before loading
    chosen, answering = read_variant(variant), read_engine(engine, steps, rules)
    if (graph := known_graph(model)) is not None:
        cg.compile(graph, request, chosen, mode=mode.value)
    folder = Folder(out) if out is not None else None
    setting = Setting(model, task, prompts, seed, device, dtype)
    experiment, asked = setting.make()
    with step(f"{request} patched ({variant})", spinner=False):
        effects = experiment.patch(request, chosen, mode.value, answering)
    say_effects(effects, top)
    if folder is not None:
        folder.keep_effects(effects)
        how = ["--variant", variant, "--mode", mode.value, "--engine", engine.value]
        how += ["--steps", str(steps)] if "ig" in engine.value else []
        how += ["--rules", rules.value] if rules else []
        circuit = shown_circuit(effects)
        folder.keep_report(
            title=request,
            question=asked.question,
            results=effects,
            prompts=zip(asked.clean_text, asked.corrupt_text, strict=True),
            answers=asked.answer_texts,
            circuit=circuit,
            notes=circuit_notes(circuit, request),
            plans=experiment.plan(request, chosen, mode.value),
            command=["circuitgraph", "patch", request, *setting.options(), *how, "--out", str(out)],
        )
        folder.finish()


def read_engine(engine: EstimatorName, steps: int, rules: RulesName | None) -> "EngineGiven":
    """Return what ``engine=`` takes for the options of the command.

    Raises:
        RequestError: Rules for an engine that takes no gradient.
    """
    by: Literal["relp", "gim"] | None = None
    if rules is not None:
        by = "relp" if rules is RulesName.RELP else "gim"
    match engine:
        case EstimatorName.EAP:
            return cg.EAP(rules=by)
        case EstimatorName.CLEAN_CORRUPT:
            return cg.CleanCorrupt(rules=by)
        case EstimatorName.EAP_IG:
            return cg.EAPIG(steps, rules=by)
        case EstimatorName.EAP_IG_ACTIVATIONS:
            return cg.EAPIG(steps, path="activations", rules=by)
        case EstimatorName.FAST | EstimatorName.REFERENCE:
            if by is not None:
                raise RequestError(
                    f"--rules {by} changes gradients, and --engine {engine.value} takes none: "
                    "estimate with --engine eap or eap-ig"
                )
            return "fast" if engine is EstimatorName.FAST else "reference"
        case _:
            assert_never(engine)


def _verdict(row: Mapping[Hashable, Any]) -> str:
    """Return what can be said against chance: nothing where one prompt allows no test."""
    return "" if row["significant"] or isnan(row["p"]) else "within chance"


def say_effects(effects: "Effects", top: int) -> None:
    """Print what was asked, and the strongest effects with their intervals."""
    first, *rest = repr(effects).splitlines()
    say_title(first)
    say(rest[0], "")
    table = effects.top(top)
    say_table(
        ("edge" if "->" in "".join(table["name"]) else "node", "effect#", "95% interval#", ""),
        [
            (
                str(row["name"]),
                signed(row["effect"]),
                interval(row["ci_low"], row["ci_high"]),
                _verdict(row),
            )
            for row in table.to_dict("records")
        ],
    )
