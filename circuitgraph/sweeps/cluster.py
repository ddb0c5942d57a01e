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
    """What an actor holds: an experiment, with one question prepared."""

    def __init__(self, recipe: Recipe, question: Question, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.asked: Answering = recipe().answering(question)

    def describe(self) -> Description:
        return self.asked.describe()

    def cut(self, sizes: Sizes) -> Cut:
        return self.asked.cut(sizes)

    def measure(self, part: Part, manifest: Manifest) -> Finished:
        """Run a part, if what this worker has is what the sweep is about.

        Raises:
            SweepError: Its model, prompts or versions are others, and which field says so.
        """
        problems = Problems()
        for name, first, mine in manifest.differences(self.asked.manifest):
            problems.add(SweepError(f"{name} is {first!r} there and {mine!r} here"))
        problems.raise_if_any("a worker's experiment is another one than the first worker's")
        return self.asked.measure(part, lambda _: None)


@dataclass(eq=False)
class Cluster:
    """Runs parts on Ray actors.

    Args:
        recipe: Makes the experiment in each worker.
        question: What each worker prepares.
        workers: How many there are.
        address: Of a running Ray cluster; None or ``local`` to start Ray on this machine.
        gpus: What share of a GPU each worker takes; None for a whole one, or an equal share where
            there are fewer GPUs than workers.
        threads: How many threads each worker computes with on a CPU.
    """

    recipe: Recipe
    question: Question
    workers: int
    address: str | None = None
    gpus: float | None = None
    threads: int = 1
    _ray: Any = field(default=None, repr=False)
    _actors: list[Any] = field(default_factory=list, repr=False)

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
        made = (self.recipe, self.question, self.threads)
        self._actors = [actor.remote(*made) for _ in range(self.workers)]
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

    @cached_property
    def described(self) -> Description:
        """What the first worker understands."""
        found: Description = self._get(self._actors[0].describe.remote())
        return found

    @property
    def manifest(self) -> Manifest:
        """What is computed."""
        return self.described.manifest

    def describe(self) -> Description:
        """Return what the first worker understands."""
        return self.described

    def cut(self, sizes: Sizes) -> Cut:
        """Return what the first worker cuts the sweep into."""
        found: Cut = self._get(self._actors[0].cut.remote(sizes))
        return found

    def measure(self, part: Part, advance: Advance) -> Finished:
        """Run one part."""
        return next(iter(self.run(self, [part], advance)))

    def run(self, asked: Asked, parts: Sequence[Part], advance: Advance) -> Iterator[Finished]:  # noqa: ARG002
        """Yield each part with its numbers as it is finished; each worker has one at a time."""
        waiting, busy = iter(parts), dict[Any, Any]()
        manifest, n_prompts = self.manifest, self.described.frame.clean.shape[1]

        def give(actor: Any) -> None:
            part = next(waiting, None)
            if part is not None:
                busy[actor.measure.remote(part, manifest)] = actor

        for actor in self._actors:
            give(actor)
        while busy:
            (done,), _ = self._ray.wait(list(busy), num_returns=1)
            actor = busy.pop(done)
            finished: Finished = self._get(done)
            give(actor)
            yield finished
            advance(len(finished.part.cells) * finished.values.shape[-1] / n_prompts)

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
