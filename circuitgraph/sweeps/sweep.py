"""Running a sweep in parts, stopping it anywhere, and going on: what `circuitgraph.sweep` does."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitgraph.arguments import whole
from circuitgraph.effects import Effects
from circuitgraph.engines.choice import EngineGiven, choose_engine
from circuitgraph.errors import Problems, RequestError, SweepError
from circuitgraph.files import path_of, remove_unfinished
from circuitgraph.plan import Source
from circuitgraph.request import Mode, Variant, as_request
from circuitgraph.sweeps.cluster import Cluster, Recipe
from circuitgraph.sweeps.executor import Advance, Answering, Cut, Executor, InProcess, Sizes
from circuitgraph.sweeps.lock import holder, only_driver
from circuitgraph.sweeps.manifest import Manifest
from circuitgraph.sweeps.question import Question
from circuitgraph.sweeps.store import ABOUT, PARTS, Sweep, begin, open_sweep

__all__ = ["Estimate", "Status", "estimate_sweep", "load_sweep", "sweep", "sweep_status"]

Watch = Callable[[Sweep], AbstractContextManager[Advance]]
"""Shows progress: told what is run, it gives what is told how many cells more are done."""


def sweep(
    recipe: Recipe,
    request: Any,
    variant: Variant = "mlps",
    mode: Mode = "set",
    engine: EngineGiven = "fast",
    *,
    into: str | Path,
    workers: int = 1,
    ray: str | None = None,
    gpus: float | None = None,
    source: Source = "corrupt",
    values: Mapping[Any, Any] | None = None,
    dataset: Any = None,
    metrics: Mapping[str, Any] | None = None,
    only: Any = None,
    seconds: float = 20.0,
    cells: int | None = None,
    watch: Watch | None = None,
) -> Effects:
    """Patch a request in parts that are kept in a folder; a second call goes on where one ended.

    Each part is written when it is finished, whole or not at all, so a killed sweep loses what was
    in flight: at most one part for each worker. Joined, the parts are what one process measures;
    the same parts give the same bits on a CPU with one thread, however many workers there are and
    however often they died.

    Args:
        recipe: Makes the experiment, once in each worker: a function without arguments. Ray sends
            it there by pickle, so it names a model rather than holding one.
        request: As for `Experiment.patch`, and so are ``variant``, ``mode``, ``engine``,
            ``source``, ``values``, ``dataset``, ``metrics`` and ``only``.
        variant: What direct paths may pass through.
        mode: What patching several receivers means.
        engine: What answers; estimates are cut by prompts, all else by cells.
        into: The folder; made if it is not there.
        workers: How many processes, each with a model of its own. With one the sweep runs in this
            process; more need the extra ``ray``.
        ray: The address of a Ray cluster, such as ``"auto"``; ``"local"`` starts Ray here, also for
            one worker.
        gpus: What share of a GPU each worker takes; by default a whole one, or an equal share where
            there are fewer GPUs than workers.
        source: Where patched values come from.
        values: For the source ``given``.
        dataset: For the means.
        metrics: What to measure in place of the experiment's own metric, by name.
        only: Which cells of a sweep to run.
        seconds: About how long a part is to take.
        cells: How many cells a part has, in place of ``seconds``.
        watch: Shows progress.

    Returns:
        The effects of all parts.

    Raises:
        SweepError: The folder is another sweep's, another driver works on it, workers ended, or the
            disk is full. What is finished is kept.
        CircuitGraphError: What `Experiment.patch` says of the request, before any part is run.

    Example:
        >>> def recipe():
        ...     model = cg.load_model("gpt2")
        ...     return cg.Experiment(model, cg.tasks.ioi(model.tokenizer, n=25, seed=1))
        >>> effects = cg.sweep(
        ...     recipe, "node -> port => logits", into="gpt2-edges", workers=2
        ... )  # doctest: +SKIP
    """
    question = _question(request, variant, mode, engine, source, values, dataset, metrics, only)
    _check(recipe, workers, gpus, seconds, cells)
    folder = Path(into)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(f"cannot make the folder {str(folder)!r}: {error.strerror}") from error
    with ExitStack() as stack:
        stack.enter_context(only_driver(folder))
        for place in (folder, folder / PARTS):
            remove_unfinished(place)
        before = open_sweep(folder) if (folder / ABOUT).exists() else None
        asked, executor = _workers(stack, recipe, question, workers, ray, gpus)
        described = asked.describe()
        if before is None:
            found = begin(folder, described, asked.cut(Sizes(seconds, 4 * workers, cells)))
        else:
            found = before
            _check_same(folder, before.manifest, described.manifest)
        missing = found.missing
        if missing:
            advance = stack.enter_context((watch or _unwatched)(found))
            for finished in executor.run(asked, missing, advance):
                found.keep(finished)
    return found.effects()


def load_sweep(folder: str | Path, partial: bool = False) -> Effects:
    """Return what a sweep has measured, from its folder.

    Args:
        folder: Where it is kept.
        partial: Whether cells of parts that are not finished may be NaN.

    Raises:
        SweepError: No sweep there, parts are missing, or a file is damaged.
    """
    return open_sweep(path_of(folder, SweepError)).effects(partial=partial)


@dataclass(frozen=True)
class Status:
    """How far a sweep is.

    Args:
        manifest: What is computed.
        parts: How many parts there are.
        done: How many are finished.
        seconds: What the finished ones took, over all workers.
        left: What the others will take one worker, estimated from those.
        holder: Who works on it; empty where nobody does.
    """

    manifest: Manifest
    parts: int
    done: int
    seconds: float
    left: float
    holder: str

    def __str__(self) -> str:
        who = f"{self.holder} works on it" if self.holder else "nobody works on it"
        left = f", about {_duration(self.left)} of one worker left" if self.left else ""
        return (
            f"{self.done} of {_many(self.parts, 'part')} of {self.manifest.request!r} are finished"
            f"{left}; "
            f"{who}"
        )


def sweep_status(folder: str | Path) -> Status:
    """Return how far a sweep is, from its folder.

    Raises:
        SweepError: No sweep there, or a file is damaged.
    """
    found = open_sweep(Path(folder))
    missing = found.missing
    done = list(found.finished())
    seconds = sum(finished.seconds for finished in done)
    sizes = sum(found.size(finished.part) for finished in done)
    per_cell = seconds / sizes if sizes else found.cut.seconds / found.n_cells
    left = per_cell * sum(map(found.size, missing))
    parts = found.cut.parts
    return Status(found.manifest, len(parts), len(done), seconds, left, holder(Path(folder)))


@dataclass(frozen=True)
class Estimate:
    """What a sweep costs, from a trial of some cells.

    Args:
        cut: Its parts, forward passes and seconds.
        n_cells: How many cells it has.
        n_bytes: What its folder will take.
    """

    cut: Cut
    n_cells: int
    n_bytes: int

    def __str__(self) -> str:
        return (
            f"{_many(self.n_cells, 'cell')} in {_many(len(self.cut.parts), 'part')}: "
            f"{self.cut.passes:,.0f} forward passes, {_duration(self.cut.seconds)} on one worker "
            f"({self.cut.seconds / 3600:.3g} h over the number of GPUs), "
            f"{self.n_bytes / 1e6:,.1f} MB on disk"
        )


def estimate_sweep(
    recipe: Recipe,
    request: Any,
    variant: Variant = "mlps",
    mode: Mode = "set",
    engine: EngineGiven = "fast",
    *,
    source: Source = "corrupt",
    values: Mapping[Any, Any] | None = None,
    dataset: Any = None,
    metrics: Mapping[str, Any] | None = None,
    only: Any = None,
    seconds: float = 20.0,
    cells: int | None = None,
    workers: int = 1,
) -> Estimate:
    """Return what a sweep would cost; makes the experiment here and runs a few cells.

    Args:
        recipe: As for `sweep`, and so is all else.
        request: What is patched.
        variant: What direct paths may pass through.
        mode: What patching several receivers means.
        engine: What answers.
        source: Where patched values come from.
        values: For the source ``given``.
        dataset: For the means.
        metrics: What to measure in place of the experiment's own metric, by name.
        only: Which cells of a sweep to run.
        seconds: About how long a part is to take.
        cells: How many cells a part has.
        workers: How many workers there will be.
    """
    question = _question(request, variant, mode, engine, source, values, dataset, metrics, only)
    _check(recipe, workers, None, seconds, cells)
    asked = recipe().answering(question)
    cut, frame = asked.cut(Sizes(seconds, 4 * workers, cells)), asked.describe().frame
    n_cells = max(part.cells.stop for part in cut.parts)
    n_metrics, n_prompts = frame.clean.shape
    numbers = n_cells * (n_metrics * n_prompts + 1) * 8 * 4 / 3
    return Estimate(cut, n_cells, int(numbers) + 600 * len(cut.parts))


# -- inside ----------------------------------------------------------------------------------------


def _workers(
    stack: ExitStack,
    recipe: Recipe,
    question: Question,
    workers: int,
    address: str | None,
    gpus: float | None,
) -> tuple[Answering, Executor]:
    """Return what answers and where parts run: here, or on Ray."""
    if workers == 1 and address is None:
        return recipe().answering(question), InProcess()
    import torch

    threads = max(1, torch.get_num_threads() // workers)
    cluster = stack.enter_context(Cluster(recipe, workers, address, gpus, threads))
    return cluster.answering(question), cluster


def _question(
    request: Any,
    variant: Variant,
    mode: Mode,
    engine: EngineGiven,
    source: Source,
    values: Any,
    dataset: Any,
    metrics: Any,
    only: Any,
) -> Question:
    chosen = choose_engine(engine)
    asked = as_request(request)
    return Question(asked, variant, mode, chosen, source, values, dataset, metrics, only)


def _check(recipe: Any, workers: Any, gpus: Any, seconds: Any, cells: Any) -> None:
    """Raise where a sweep is told what it cannot do, before anything is made."""
    problems = Problems()
    if not callable(recipe):
        problems.add(
            RequestError(
                f"a recipe is a function that makes the experiment, got {type(recipe).__name__}: "
                "write `def recipe(): return cg.Experiment(...)`"
            )
        )
    whole("workers", workers, RequestError, 1)
    if cells is not None:
        whole("cells", cells, RequestError, 1)
    for name, value in (("seconds", seconds), ("gpus", gpus)):
        if value is None and name == "gpus":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            problems.add(RequestError(f"{name} is a number above 0, got {value!r}"))
    problems.raise_if_any("cannot sweep")


def _check_same(folder: Path, before: Manifest, now: Manifest) -> None:
    """Refuse to go on with a sweep that computes something else.

    Raises:
        SweepError: Which fields differ.
    """
    problems = Problems()
    for name, old, new in before.differences(now):
        problems.add(SweepError(f"{name} was {old!r} and is {new!r}"))
    problems.raise_if_any(
        f"the folder {str(folder)!r} holds another sweep: name another folder, or ask as before"
    )


def _unwatched(found: Sweep) -> AbstractContextManager[Advance]:  # noqa: ARG001
    return nullcontext(lambda _: None)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _duration(seconds: float) -> str:
    """Return a time in words.

    Example:
        >>> _duration(42.3), _duration(600), _duration(7200)
        ('42 s', '10 min', '2.0 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
