"""Workers of a sweep on Ray: each an actor with a model of its own, on this machine or a cluster.

Ray schedules the parts, restarts an actor that died and runs its part again; nothing of that is
made here. Ray is imported only when it is asked for (the extra ``ray``). Its usage statistics and
its dashboard are off, and on one machine it listens on 127.0.0.1 only.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from circuitgraph.errors import CircuitGraphError, Problems, SweepError
from circuitgraph.sweeps.executor import (
    Advance,
    Answering,
    Answers,
    Asked,
    Cut,
    Description,
    Finished,
    Sizes,
)
from circuitgraph.sweeps.manifest import Manifest, Part
from circuitgraph.sweeps.question import Question

__all__ = ["Cluster", "Recipe"]

Recipe = Callable[[], Answers]
"""Makes an experiment in a worker; it travels there by pickle."""

RETRIES = 3
"""How often a part is run again where its worker died under it."""

_OBJECT_STORE = 512 * 2**20
"""Bytes of shared memory for what workers send back; it is taken when it is used."""

_HERE = "127.0.0.1"


class _Worker:
    """What an actor holds: an experiment, with the last question prepared."""

    def __init__(self, recipe: Recipe, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.experiment = recipe()
        self.prepared: tuple[int, Answering] | None = None

    def answering(self, number: int, question: Question) -> Answering:
        """Return a question prepared; the number says whether it is the last one again."""
        if self.prepared is None or self.prepared[0] != number:
            self.prepared = number, self.experiment.answering(question)
        return self.prepared[1]

    def describe(self, number: int, question: Question) -> Description:
        return self.answering(number, question).describe()

    def cut(self, number: int, question: Question, sizes: Sizes) -> Cut:
        return self.answering(number, question).cut(sizes)

    def measure(self, number: int, question: Question, part: Part, manifest: Manifest) -> Finished:
        """Run a part, if what this worker has is what the sweep is about.

        Raises:
            SweepError: Its model, prompts or versions are others, and which field says so.
        """
        asked = self.answering(number, question)
        problems = Problems()
        for name, first, mine in manifest.differences(asked.manifest):
            problems.add(SweepError(f"{name} is {first!r} there and {mine!r} here"))
        problems.raise_if_any("a worker's experiment is another one than what it is asked about")
        return asked.measure(part, lambda _: None)


@dataclass(eq=False)
class Cluster:
    """Runs parts on Ray actors, inside a ``with`` block.

    Args:
        recipe: Makes the experiment in each worker.
        workers: How many there are.
        address: Of a running Ray cluster; None or ``local`` to start Ray on this machine.
        gpus: What share of a GPU each worker takes; None for a whole one, or an equal share where
            there are fewer GPUs than workers.
        threads: How many threads each worker computes with on a CPU.

    Example:
        >>> def recipe(executor=None):
        ...     model = cg.load_model("gpt2")
        ...     task = cg.tasks.ioi(model.tokenizer, n=25, seed=1)
        ...     return cg.Experiment(model, task, executor=executor)
        >>> with Cluster(recipe, workers=2) as cluster:  # doctest: +SKIP
        ...     exp = recipe(cluster)
        ...     found = exp.evaluate(circuit)  # random circuits are run by the workers
    """

    recipe: Recipe
    workers: int
    address: str | None = None
    gpus: float | None = None
    threads: int = 1
    _ray: Any = field(default=None, repr=False)
    _actors: list[Any] = field(default_factory=list, repr=False)
    _number: int = field(default=0, repr=False)
    _sent: list[tuple[Question, Any]] = field(default_factory=list, repr=False)

    def __enter__(self) -> Self:
        """Start the workers; they make their experiments at once.

        Raises:
            SweepError: There is no Ray here, or no cluster at the address.
        """
        self._ray = ray = import_ray(alone=self._is_here)
        try:
            if self._is_here:
                options = {
                    "address": "local",
                    "num_cpus": self.workers,
                    "include_dashboard": False,
                    "object_store_memory": _OBJECT_STORE,
                    "_node_ip_address": _HERE,
                }
            else:
                options = {"address": self.address}
            ray.init(logging_level="ERROR", log_to_driver=False, **options)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise SweepError(f"Ray does not start: {error}") from error
        try:
            self._check_alone()
            share = self._gpus_each()
        except SweepError:
            ray.shutdown()
            raise
        actor = ray.remote(_Worker).options(
            num_cpus=1,
            num_gpus=share,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
        self._actors = [actor.remote(self.recipe, self.threads) for _ in range(self.workers)]
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers, and Ray where it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._ray.shutdown()

    @property
    def _is_here(self) -> bool:
        """Whether Ray is started on this machine, for this sweep."""
        return self.address in (None, "local")

    def _check_alone(self) -> None:
        """Refuse a Ray that was started for this sweep and that other machines can reach.

        Raises:
            SweepError: How to mend it.
        """
        found = {node["NodeManagerAddress"] for node in self._ray.nodes()}
        if self._is_here and found != {_HERE}:
            raise SweepError(
                f"this version of Ray listens on {', '.join(sorted(found))}, not on {_HERE} alone: "
                "start a Ray of your own and pass its address"
            )

    def _gpus_each(self) -> float:
        """Return what share of a GPU each worker takes.

        Raises:
            SweepError: There are too few on this machine; workers would wait for them for ever.
        """
        there = float(self._ray.cluster_resources().get("GPU", 0))
        if self.gpus is None:
            # Ray counts in ten thousandths; rounded up, the last worker would find no room.
            return min(1.0, math.floor(1e4 * there / self.workers) / 1e4)
        if self._is_here and self.gpus * self.workers > there:
            raise SweepError(
                f"{self.workers} workers that take {self.gpus:g} GPU each need "
                f"{self.gpus * self.workers:g}, and there are {there:g} here"
            )
        return self.gpus

    def answering(self, question: Question) -> "OnWorkers":
        """Return a question that the workers answer, checked by the first of them."""
        return OnWorkers(self, question)

    def run(self, asked: Asked, parts: Sequence[Part], advance: Advance) -> Iterator[Finished]:
        """Yield each part with its numbers as it is finished; each worker has one at a time.

        Raises:
            SweepError: A worker's experiment is another one than what is asked about, or failed.
        """
        waiting, busy = iter(parts), dict[Any, Any]()
        manifest, sent, n_prompts = asked.manifest, self.sent(asked.question), asked.n_prompts

        def give(actor: Any) -> None:
            part = next(waiting, None)
            if part is not None:
                busy[actor.measure.remote(*sent, part, manifest)] = actor

        for actor in self._actors:
            give(actor)
        while busy:
            (done,), _ = self._ray.wait(list(busy), num_returns=1)
            actor = busy.pop(done)
            finished: Finished = self._get(done)
            give(actor)
            yield finished
            advance(len(finished.part.cells) * finished.values.shape[-1] / n_prompts)

    def sent(self, question: Question) -> tuple[int, Any]:
        """Return what workers know a question by, and where they find it."""
        if not self._sent or self._sent[-1][0] != question:
            self._number += 1
            self._sent[:] = [(question, self._ray.put(question))]
        return self._number, self._sent[-1][1]

    def first(self, verb: str, question: Question, *rest: Any) -> Any:
        """Return what the first worker answers."""
        method = getattr(self._actors[0], verb)
        return self._get(method.remote(*self.sent(question), *rest))

    def _get(self, reference: Any) -> Any:
        """Return what a worker answered, or raise what went wrong there as an error of ours."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, CircuitGraphError):
                raise type(cause)(str(cause)) from error
            raise SweepError(f"a worker failed: {cause!r}") from error
        except errors.RayError as error:
            raise SweepError(
                f"the workers ended: {error}; what is finished is kept, and the same call goes on"
            ) from error


@dataclass(frozen=True, eq=False)
class OnWorkers:
    """A question that is answered by workers alone; there need be no model here.

    Args:
        cluster: The workers.
        question: What is asked.
    """

    cluster: Cluster
    question: Question

    @cached_property
    def described(self) -> Description:
        """What the first worker understands."""
        found: Description = self.cluster.first("describe", self.question)
        return found

    @property
    def manifest(self) -> Manifest:
        """What is computed."""
        return self.described.manifest

    @property
    def n_prompts(self) -> int:
        """How many prompts there are."""
        return int(self.described.frame.clean.shape[1])

    def describe(self) -> Description:
        """Return what the first worker understands."""
        return self.described

    def cut(self, sizes: Sizes) -> Cut:
        """Return what the first worker cuts the sweep into."""
        found: Cut = self.cluster.first("cut", self.question, sizes)
        return found

    def measure(self, part: Part, advance: Advance) -> Finished:
        """Run one part."""
        return next(iter(self.cluster.run(self, [part], advance)))


def import_ray(*, alone: bool) -> Any:
    """Import Ray, silent and private.

    Args:
        alone: Whether it is to stay on this machine.

    Raises:
        SweepError: It is not installed.
    """
    # All of these are read when Ray is imported. No statistics leave the machine.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray would hide all GPUs from a worker that asks for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # An address of 127.0.0.1 is replaced by one that others can reach, unless Ray is told there
    # are no others; that is what this switch says, on every system.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0" if alone else "1"
    try:
        import ray
        from ray._private import ray_constants
    except ImportError:
        raise SweepError(
            "several workers need Ray, which is not installed: pip install 'circuitgraph-lens[ray]'"
            "; with workers=1 the sweep runs in this process"
        ) from None
    ray_constants.ENABLE_RAY_CLUSTER = not alone  # where somebody imported it before
    return ray
