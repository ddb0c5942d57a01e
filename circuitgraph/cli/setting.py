"""From options to an experiment: model, prompts and metric, with what is wrong found early."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import circuitgraph as cg
from circuitgraph.cli.options import BackendName, DtypeName
from circuitgraph.cli.telling import step
from circuitgraph.errors import ModelError, PromptError, RequestError
from circuitgraph.models import known_models
from circuitgraph.nodes import parse_node

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment
    from circuitgraph.request import Variant
    from circuitgraph.tasks import Task

__all__ = ["Setting", "known_graph", "loader", "read_variant"]

TASKS = ("ioi",)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is run: the model and the prompts, as the command line names them."""

    model: str
    task: str
    prompts: int
    seed: int
    device: str | None = None
    dtype: DtypeName = DtypeName.FLOAT32

    def options(self) -> list[str]:
        """Return the options that say the same again, all of them written out."""
        device = [] if self.device is None else ["--device", self.device]
        dtype = [] if self.dtype is DtypeName.FLOAT32 else ["--dtype", self.dtype.value]
        task = [] if self.task == TASKS[0] else ["--task", self.task]
        prompts, seed = str(self.prompts), str(self.seed)
        return [
            *("--model", self.model, *task, "--prompts", prompts, "--seed", seed),
            *(*device, *dtype),
        ]

    def check(self) -> None:
        """Refuse, before anything slow, a task or number of prompts that cannot be."""
        if self.task not in TASKS:
            raise PromptError(f"no task {self.task!r}: there is {', '.join(TASKS)}")
        if self.prompts < 1:
            raise PromptError(f"--prompts must be 1 or more, got {self.prompts}")

    def make(self) -> "tuple[Experiment, Task]":
        """Load the model, write the prompts and record them, saying so.

        Raises:
            CircuitGraphError: What cannot be had.
        """
        self.check()
        with step("torch and TransformerLens imported"):
            load = loader(self.device, self.dtype)
        with step(f"{self.model} loaded"):
            model = load(self.model)
        with step(f"{self.prompts} prompt pairs written and recorded"):
            task = getattr(cg.tasks, self.task)(model.tokenizer, n=self.prompts, seed=self.seed)
            experiment = cg.Experiment(
                model,
                clean=task.clean,
                corrupt=task.corrupt,
                metric=task.metric,
                positions=task.positions,
                lengths=task.lengths,
            )
        return experiment, task


def loader(
    device: str | None,
    dtype: DtypeName,
    backend: BackendName = BackendName.TRANSFORMERLENS,
) -> Callable[[str], Any]:
    """Import what loads models, and return it with back end, device and dtype filled in.

    Raises:
        ModelError: There is no such device here.
    """
    import torch

    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"no device {device!r} here: {reason}") from error
    if backend is BackendName.TRANSFORMERLENS:
        import circuitgraph.lens.bridge.loading  # noqa: F401  # what takes time, in its own step
    load = cg.load_model
    options = {"device": device, "dtype": getattr(torch, dtype.value)}
    return lambda name: load(name, backend=backend.value, **options)


def known_graph(name: str) -> cg.ModelGraph | None:
    """Return the graph of a known model, without loading it; None for any other."""
    shapes = {model.name: model.shape for model in known_models()}
    return cg.ModelGraph(shapes[name]) if name in shapes else None


def read_variant(text: str) -> "Variant":
    """Return the variant that a text names.

    Raises:
        RequestError: It names none.

    Example:
        >>> read_variant("single-pass"), str(read_variant("through {mlp0, 4.11}"))
        ('single-pass', 'through {mlp0, 4.11}')
    """
    match text.replace(",", " ").replace("{", " ").replace("}", " ").split():
        case ["mlps"]:
            return "mlps"
        case ["single-pass"]:
            return "single-pass"
        case ["through", *names]:
            nodes: list[Any] = [parse_node(name) for name in names]
            return cg.Through(nodes)  # which refuses what no path can pass through
        case _:
            raise RequestError(
                f"no variant {text!r}: write mlps, single-pass or 'through {{mlp0, 4.11}}'"
            )
