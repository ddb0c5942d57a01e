"""From options to an experiment: model, prompts and metric, with what is wrong found early."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import circuitgraph as cg
from circuitgraph.cli.options import BackendName, DtypeName
from circuitgraph.cli.questions import QUESTIONS
from circuitgraph.cli.telling import step
from circuitgraph.errors import ModelError, PromptError, RequestError
from circuitgraph.models import known_models
from circuitgraph.nodes import parse_node

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment
    from circuitgraph.request import Variant
    from circuitgraph.tasks import Task

__all__ = ["Setting", "known_graph", "loader", "read_variant"]

TASKS = tuple(question.name for question in QUESTIONS)
"""Known without torch, so that a wrong name shows at once."""

_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_USUAL = 25


@dataclass(frozen=True, slots=True)
class Setting:
    """What is run: the model and the prompts, as the command line names them."""

    model: str
    task: str
    prompts: int | None
    seed: int
    device: str | None = None
    dtype: DtypeName = DtypeName.FLOAT32

    def options(self) -> list[str]:
        """Return the options that say the same again, all of them written out."""
        device = [] if self.device is None else ["--device", self.device]
        dtype = [] if self.dtype is DtypeName.FLOAT32 else ["--dtype", self.dtype.value]
        task = [] if self.task == TASKS[0] else ["--task", self.task]
        many = None if self.from_file and self.prompts is None else self.prompts or _USUAL
        prompts = [] if many is None else ["--prompts", str(many)]
        seed = [] if self.from_file else ["--seed", str(self.seed)]
        return ["--model", self.model, *task, *prompts, *seed, *device, *dtype]

    @property
    def from_file(self) -> bool:
        """Whether the pairs are in a file."""
        return self.task not in TASKS

    def check(self) -> None:
        """Refuse, before anything slow, a task or number of prompts that cannot be."""
        file = Path(self.task)
        if self.from_file and not file.is_file():
            if file.suffix.lower() in _FILES:
                raise PromptError(f"no file {self.task!r} with pairs of prompts")
            raise PromptError(
                f"no task {self.task!r}: there is {', '.join(TASKS)}; or name a file of pairs "
                f"({', '.join(_FILES[:1] + _FILES[3:4])})"
            )
        if self.prompts is not None and self.prompts < 1:
            raise PromptError(f"--prompts must be 1 or more, got {self.prompts}")

    def pairs(self, tokenizer: Any) -> "Task":
        """Write the prompts, or read them."""
        if self.from_file:
            return cg.tasks.load(self.task, tokenizer, n=self.prompts)
        write: Callable[..., Task] = getattr(cg.tasks, self.task.replace("-", "_"))
        return write(tokenizer, n=self.prompts or _USUAL, seed=self.seed)

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
        how = "read" if self.from_file else "written"
        with step(f"prompt pairs {how} and recorded"):
            task = self.pairs(model.tokenizer)
            experiment = cg.Experiment(model, task)
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
