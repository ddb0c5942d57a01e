"""``circuitgraph evaluate``: is a circuit that was saved enough, necessary, better than chance?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuitgraph.cli.discover import keep_judged
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
    SourceName,
    TaskName,
)
from circuitgraph.cli.setting import Setting, known_graph
from circuitgraph.cli.telling import show, step
from circuitgraph.errors import CircuitError
from circuitgraph.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from circuitgraph.circuit import Circuit
    from circuitgraph.evaluation.storage import Judgement

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = (
    "circuitgraph evaluate found/circuit.json --seed 2",
    "circuitgraph evaluate circuit.json --baselines 100 --source mean --out judged",
    "circuitgraph evaluate ioi_mib.json --model gpt2 --curve --out judged",
)


def evaluate(
    circuit: Annotated[
        Path,
        typer.Argument(
            metavar="CIRCUIT", help="A circuit's file: ours, or one of the MIB benchmark."
        ),
    ],
    model: Model = DEFAULT_MODEL,
    task: TaskName = "ioi",
    prompts: Prompts = 25,
    seed: Seed = 2,
    source: Annotated[
        SourceName, typer.Option(help="Where edges outside the circuit take their value from.")
    ] = SourceName.CORRUPT,
    baselines: Baselines = 100,
    curve: Annotated[
        bool, typer.Option("--curve", help="Also cut it at other sizes, by its own scores.")
    ] = False,
    tests: Annotated[
        bool, typer.Option("--tests", help="Also put it to the tests of Shi et al. 2024.")
    ] = False,
    out: MaybeOut = None,
    device: Device = None,
    dtype: Dtype = DtypeName.FLOAT32,
) -> None:
    """Run a circuit alone, all other edges patched, and say how far it does what the model does.

    Judge on other prompts than those it was found on: another --seed, or another --task.
    """
    found = read_circuit(circuit)
    if (graph := known_graph(model)) is not None and graph.shape != found.shape:
        raise CircuitError(f"{circuit} is a circuit of another model than {model}")
    folder = Folder(out) if out is not None else None
    setting = Setting(model, task, prompts, seed, device, dtype)
    experiment, asked = setting.make()
    judgements: list[Judgement] = []
    with step(f"judged beside {baselines} random circuits", spinner=False):
        judgements.append(experiment.evaluate(found, source=source.value, baselines=baselines))
    if curve or (folder is not None and _scored(found)):
        with step("the circuit at other sizes", spinner=False):
            judgements.append(experiment.curve(found, source=source.value))
    if tests:
        with step("tests of Shi et al. 2024", spinner=False):
            judgements.append(experiment.test_circuit(found, source=source.value))
    for judgement in judgements:
        show(f"\n{judgement}")
    if folder is not None:
        command = ["circuitgraph", "evaluate", str(circuit), *setting.options()]
        command += ["--source", source.value, "--baselines", str(baselines)]
        command += ["--curve"] * curve + ["--tests"] * tests
        keep_judged(folder, asked, found, judgements, None, command, str(out))


def read_circuit(path: Path) -> "Circuit":
    """Return the circuit of a file, in our format or the MIB benchmark's.

    Raises:
        CircuitError: It is neither.
    """
    from circuitgraph.circuit import Circuit
    from circuitgraph.circuit.mib import from_mib
    from circuitgraph.circuit.storage import from_json
    from circuitgraph.files import read_json

    data = read_json(path, CircuitError)
    if isinstance(data, dict) and {"cfg", "nodes", "edges"} <= data.keys():
        return from_mib(data, str(path))
    found: Circuit = from_json(data, str(path))
    return found


def _scored(circuit: "Circuit") -> bool:
    return all(weight.value is not None for weight in circuit.known.values())
