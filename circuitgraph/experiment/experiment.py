"""The face of the package: patch a request on a model and get labelled effects back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.compiler import compile as compile_request
from circuitgraph.effects import Comparison, Effects
from circuitgraph.engines.choice import EngineGiven, Fast, choose_engine
from circuitgraph.engines.engine import Engine, EngineChoice, EngineOptions
from circuitgraph.engines.fast import ChunkedEngine, FastEngine
from circuitgraph.engines.fast.memory import parse_budget
from circuitgraph.engines.gradient.engine import GradientEngine
from circuitgraph.engines.setup import Setup
from circuitgraph.errors import (
    CircuitGraphError,
    MetricError,
    ModelError,
    Problems,
    RequestError,
)
from circuitgraph.experiment.choosing import check_size, plan_of_cells
from circuitgraph.experiment.display import experiment_html
from circuitgraph.experiment.judging import Judging
from circuitgraph.experiment.labels import attributes
from circuitgraph.experiment.meeting import keep_meeting
from circuitgraph.experiment.method import MethodGiven, method_parts
from circuitgraph.experiment.progress import progress_bar
from circuitgraph.experiment.prompts import (
    PositionsGiven,
    PromptsGiven,
    autocast_problem,
    find_backend,
    position_table,
    prompts_fingerprint,
    read_prompts,
)
from circuitgraph.experiment.readable import bind_metrics, check_readable
from circuitgraph.experiment.shortage import naming_the_budget, on_fewer_prompts
from circuitgraph.experiment.sizing import cut, shares
from circuitgraph.experiment.source import SourceGiven, source_parts
from circuitgraph.experiment.tasks import TaskGiven, TaskParts, task_parts
from circuitgraph.experiment.values import MEANS, check_values
from circuitgraph.experiment.watch import ModelWatch, on_the_model
from circuitgraph.experiment.ways import Way, ways_of
from circuitgraph.experiment.work import Work, metrics_apart
from circuitgraph.graph import ModelGraph
from circuitgraph.lens.additivity import check_additive
from circuitgraph.lens.guard import guarded
from circuitgraph.metrics import Prompts, Readout, rounding
from circuitgraph.nodes import Edge, Writer
from circuitgraph.plan import Plan
from circuitgraph.request import EdgeSets, Mode, Request, as_request, positions_in
from circuitgraph.schedule import Schedule
from circuitgraph.sweeps.executor import (
    Advance,
    Cut,
    Description,
    Executor,
    Finished,
    InProcess,
    Sizes,
)
from circuitgraph.sweeps.frame import Frame
from circuitgraph.sweeps.manifest import Manifest, Part
from circuitgraph.sweeps.question import Question

__all__ = ["Experiment"]

Asked = str | Request | Edge | Iterable[Edge]
Result = TypeVar("Result")


class _Brought(TypedDict):
    """What a user brings along to be patched in."""

    values: Mapping[Writer, Tensor] | None
    dataset: Int[Tensor, "sample pos"] | None


class Experiment(Judging):
    """A model, aligned clean and corrupt prompts, and a metric.

    Args:
        model: A TransformerLens ``TransformerBridge`` or an ``AutoModelForCausalLM`` of Hugging
            Face, in eval mode; see `circuitgraph.load_model`.
        clean: A task whole, such as `circuitgraph.tasks.ioi` makes: it brings everything up to
            ``lengths``, of which only ``metric`` may be given beside it. Or prompts that are run
            and measured: tokens ``[prompt, pos]``, padded on the right, or a list of strings.
        corrupt: Prompts that supply the patched values, aligned with ``clean`` token for token.
        metric: `LogitDiff` and the like, `AttentionTo` or any `Activation`, or any function from
            logits ``[prompt, pos, d_vocab]`` to ``[prompt]``.
        positions: Named positions, one index per prompt: ``{"S2": [10, 12, ...]}``. ``end``, each
            prompt's last token, is named already.
        corrupt_positions: The same names in the corrupt prompts, where they stand elsewhere; there
            values are taken, and there a metric reads the corrupt run.
        lengths: Real length of each prompt, where tokens are padded. Tokens that end in the
            tokenizer's padding token are refused without it.
        tokenizer: Turns text into tokens, where the model has no tokenizer of its own.
        memory_budget: What the fast engine may hold at once, such as ``"2GiB"``; by default a
            fraction of what is free on the device. Prompts whose recordings would take more than a
            quarter of it are run in parts, each recorded anew for every request. Where there turns
            out to be less, stacks are halved, then prompts.
        self_check: Whether the fast engine first proves on two prompts that it can replay this
            model exactly. Without it, nothing that saves work in most models is taken for granted.
        allow_no_difference: Whether clean and corrupt may measure the same; normalised effects are
            undefined then.
        progress: Whether to show a progress bar; by default in a terminal or notebook.
        executor: What runs the cells of `patch`, and so of `evaluate`, `curve` and whatever else
            asks it: workers that each hold this experiment too, see `circuitgraph.sweeps.Cluster`.
            By default this process.

    Tensors are copied: a buffer may be used again.

    Raises:
        ModelError: The model is in training mode, has hooks left on it, or is no bridge.
        PromptError: Prompts that are not aligned, left-padded, or positions outside them.
        MetricError: A metric of the wrong shape, or one that cannot tell clean from corrupt.
        OutOfMemoryError: Memory ran out, and nothing can be split further.

    Example:
        >>> import circuitgraph as cg
        >>> model = cg.load_model("smollm2-135m")  # doctest: +SKIP
        >>> task = cg.tasks.ioi(model.tokenizer, n=25, seed=1)  # doctest: +SKIP
        >>> exp = cg.Experiment(model, task)  # doctest: +SKIP
        >>> exp.patch("head -> logits").top(3)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        clean: PromptsGiven | TaskGiven,
        corrupt: PromptsGiven | None = None,
        metric: Any = None,
        positions: PositionsGiven | None = None,
        *,
        corrupt_positions: PositionsGiven | None = None,
        lengths: Int[Tensor, "prompt"] | Sequence[int] | None = None,
        tokenizer: Any = None,
        memory_budget: str | int | None = None,
        self_check: bool = True,
        allow_no_difference: bool = False,
        progress: bool | None = None,
        executor: Executor | None = None,
    ) -> None:
        problems = Problems()
        with naming_the_budget():
            backend = find_backend(model, problems, tokenizer)
        if backend is None:
            problems.raise_if_any("cannot make an experiment")
            raise AssertionError("unreachable")
        parts = TaskParts(clean, corrupt, metric, positions, corrupt_positions, lengths)  # type: ignore[arg-type]
        before = len(problems.found)
        parts = task_parts(parts, problems)
        if len(problems.found) > before:
            problems.raise_if_any("cannot make an experiment")
        self.graph = ModelGraph(backend.shape)
        pair = read_prompts(backend, parts.clean, parts.corrupt, parts.lengths, problems)
        if pair is None:
            problems.raise_if_any("cannot make an experiment")
            raise AssertionError("unreachable")
        table = position_table(pair, parts.positions, parts.corrupt_positions, problems)
        try:
            parse_budget(memory_budget, pair.clean.device)
        except RequestError as error:
            problems.add(error)
        for name, flag in (
            ("self_check", self_check),
            ("allow_no_difference", allow_no_difference),
            ("progress", True if progress is None else progress),
        ):
            if not isinstance(flag, bool):
                problems.add(RequestError(f"{name}={flag!r} must be True or False"))
        if executor is not None and not isinstance(executor, Executor):
            problems.add(
                RequestError(
                    f"executor={executor!r} runs no parts: write "
                    "`with circuitgraph.sweeps.Cluster(recipe, workers=2) as executor:`"
                )
            )
        prompts = Prompts(
            n_prompts=table.n_prompts,
            n_pos=table.n_pos,
            d_vocab=backend.limits.d_vocab_out,
            positions=table.clean,
            lengths=pair.lengths,
            tokenizer=backend.tokenizer,
            device=pair.clean.device,
            dtype=backend.limits.dtype,
            hooks=backend.hook_names,
            n_heads=self.graph.shape.n_heads,
        )
        self.prompts = prompts
        self._in_corrupt = replace(prompts, positions=table.in_corrupt) if table.corrupt else None
        readout, in_corrupt = self._bound(
            {"metric": parts.metric}, problems, "cannot make an experiment"
        )
        self.model = model
        self._setup = Setup(
            backend,
            self.graph,
            pair.clean,
            pair.corrupt,
            readout,
            table,
            corrupt_metric=in_corrupt,
        )
        self._options = EngineOptions(memory_budget, self_check)
        self._progress = progress
        self._allow_no_difference = allow_no_difference
        self._watch = ModelWatch(backend)
        self._engines: dict[EngineChoice, Engine] = {}
        self._plans: dict[Any, Plan] = {}
        self._known_noise: dict[str, Tensor] = {}
        self._executor: Executor = InProcess() if executor is None else executor
        with naming_the_budget(), guarded(backend.model):
            check_additive(backend)
        if not allow_no_difference:
            self._check_difference()

    # -- what is there --------------------------------------------------------------------------

    @property
    def positions(self) -> Mapping[str, Int[Tensor, "prompt"]]:
        """The named positions, ``[prompt]`` each."""
        return self._setup.positions.clean

    @property
    def metric_name(self) -> str:
        """What the metric is called."""
        return str(self._setup.metric.name)

    @property
    def metric_position(self) -> Int[Tensor, "prompt"] | None:
        """The one position per prompt whose logits the metric reads; None where it reads others."""
        read = self._setup.metric.read
        return None if read is None else read.clone()

    @property
    def dtype(self) -> str:
        """The type that the model computes in, such as ``float32``."""
        return str(self.prompts.dtype).removeprefix("torch.")

    @cached_property
    def fingerprint(self) -> str:
        """A short text that tells these prompts from others: tokens, lengths and positions."""
        return prompts_fingerprint(self._setup)

    @property
    @on_the_model
    def clean_metric(self) -> np.ndarray[Any, Any]:
        """The metric on the clean prompts, ``[prompt]``, of the model as it is now."""
        return _as_numpy(self._fast.clean_metric)

    @property
    @on_the_model
    def corrupt_metric(self) -> np.ndarray[Any, Any]:
        """The metric on the corrupt prompts, ``[prompt]``, of the model as it is now."""
        return _as_numpy(self._fast.corrupt_metric)

    @on_the_model
    def _check_difference(self) -> None:
        measured = _as_numpy(self._fast.clean_metric), _as_numpy(self._fast.corrupt_metric)
        for which, values in zip(("clean", "corrupt"), measured, strict=True):
            strange = np.flatnonzero(~np.isfinite(values))
            if len(strange):
                raise MetricError(
                    f"{self._setup.metric.name} is {values[strange[0]]} on {which} prompt "
                    f"{strange[0]}: a metric gives one finite number per prompt"
                )
        clean, corrupt = (values.mean() for values in measured)
        scale, noise = max(abs(clean), abs(corrupt), 1e-12), float(self._noise(self._fast).mean())
        if abs(clean - corrupt) <= max(1e-6 * scale, noise):
            apart = f"{clean:.6g}"
            if abs(clean - corrupt) > 1e-6 * scale:
                apart += f" and {corrupt:.6g}, where {noise:.2g} is rounding of the model's logits"
            raise MetricError(
                f"clean and corrupt prompts measure the same (mean {self._setup.metric.name} "
                f"{apart}): effects cannot be normalised; choose corrupt prompts that change "
                "the metric, or pass allow_no_difference=True to work with raw values"
            )

    def _noise(self, engine: Engine) -> Float[Tensor, "value"]:
        """Return how much of an engine's metrics is rounding, on clean or on corrupt prompts.

        All engines round alike but in half precision, where the reference engine's logits are
        coarse.
        """
        setup = engine.setup
        alike = self.prompts.dtype.itemsize > 2 or engine.name != "reference"
        key = "fast" if alike else "reference"
        own = setup.metric is self._setup.metric
        if own and key in self._known_noise:
            return self._known_noise[key]
        corrupt = None if setup.corrupt_metric is None else rounding(setup.corrupt_metric)
        asked = replace(setup, metric=rounding(setup.metric), corrupt_metric=corrupt)
        rough = (self._fast if alike else engine).with_setup(asked)
        found = torch.maximum(rough.clean_metric, rough.corrupt_metric)
        if own:
            self._known_noise[key] = found
        return found

    # -- asking ---------------------------------------------------------------------------------

    def plan(
        self,
        request: Asked,
        variant: MethodGiven = "mlps",
        mode: Mode = "set",
        *,
        source: SourceGiven = "corrupt",
    ) -> Plan:
        """Return the ordered runs that `patch` would run; costs no forward pass.

        Args:
            request: Text such as ``5.5 -> 8.6.v => logits``, a `Request`, an `Edge`, or a
                collection of edges.
            variant: What direct paths may pass through: ``mlps``, ``single-pass`` or `Through`. Or
                variant, mode and source as one value: `Method`.
            mode: What patching several receivers means: ``set``, ``add`` or ``replace``.
            source: Where patched values come from.

        Raises:
            RequestError: The request cannot be read, or names a position that is not known.
            NodeError: A node is not in the model, or a sender does not come before its receiver.
        """
        asked = as_request(request)
        variant, mode, source = method_parts(variant, mode, source)
        source = source_parts(source).word
        key = (asked, str(variant), str(mode), str(source))
        if key in self._plans:
            return self._plans[key]
        table = self._setup.positions
        plan = compile_request(
            self.graph, asked, variant, mode=mode, source=source, n_positions=table.shortest
        )
        problems = Problems()
        for name in positions_in(plan.request):
            problems.add(table.problem(name))
        problems.raise_if_any(f"cannot patch {plan.title!r}")
        if table.corrupt and source != "given":
            for at in {write.at for write in plan.sweep.sent()}:
                if isinstance(at, tuple):
                    problems.add(table.clash(at))
            problems.raise_if_any(f"cannot patch {plan.title!r}")
        plan = keep_meeting(plan, table, lambda: self._fast.is_causal)
        if not isinstance(asked, EdgeSets):
            self._plans[key] = plan
        return plan

    @on_the_model
    def patch(
        self,
        request: Asked,
        variant: MethodGiven = "mlps",
        mode: Mode = "set",
        engine: EngineGiven = "fast",
        *,
        source: SourceGiven = "corrupt",
        values: Mapping[Writer, Tensor] | None = None,
        dataset: Int[Tensor, "sample pos"] | None = None,
        metrics: Mapping[str, Any] | None = None,
        only: NDArray[np.bool_] | None = None,
    ) -> Effects:
        """Patch a request and measure.

        Args:
            request: Text such as ``head -> logits``, a `Request`, an `Edge`, or a collection of
                edges that are patched together.
            variant: What direct paths may pass through: ``mlps``, ``single-pass`` or `Through`. Or
                variant, mode and source as one value: `Method`.
            mode: What patching several receivers means: ``set``, ``add`` or ``replace``.
            engine: ``fast``, ``reference`` to run the plan hook by hook, or a value that prepares
                an engine. Clean, corrupt and patched values all come from the engine that answers,
                which ``attrs["engine"]`` names; where it estimates, ``attrs["estimate"]`` is True.
            source: Where patched values come from: ``corrupt``, ``zero``, ``mean``,
                ``mean-position`` or ``given``, or a value that brings what it needs: `Mean`,
                `Given`.
            values: For ``given``: each sender's value, broadcast to ``[prompt, pos, width]``. A
                head's is its ``z`` (before ``W_O``).
            dataset: For the means: tokens ``[sample, pos]`` to average over, none of them padding;
                by default the corrupt prompts, without theirs.
            metrics: What to measure in place of the experiment's own metric, by name: any that an
                experiment takes, of logits and of activations, all on the same runs.
            only: Which cells of a sweep to run, truth values over its dimensions, such as
                ``abs(estimates.normalized()) > 0.1``; the others are NaN.

        Returns:
            The metric of every patched run per prompt, with clean and corrupt beside it. An effect
            of 0 harmed nothing, -1 lost all. ``print(exp.plan(request))`` shows what it costs. With
            ``metrics`` they have a dimension ``metric``, and ``effects["answer"]`` selects.

        Raises:
            RequestError: See `plan`.
            MetricError: No metric at all, or one that does not fit the prompts or the model.
            UnsupportedError: The request cannot be answered exactly on this model.

        Example:
            >>> effects = exp.patch(
            ...     "head -> 23.3.q@end => logits",
            ...     metrics={"answer": task.metric, "looks at IO": cg.AttentionTo("23.3", "IO")},
            ... )  # doctest: +SKIP
            >>> effects["answer"].top(3)  # doctest: +SKIP
        """
        variant, mode, source = method_parts(variant, mode, source)
        source, values, dataset = source_parts(source, values, dataset)
        question = Question(
            as_request(request),
            variant,
            mode,
            choose_engine(engine),
            source,
            values,
            dataset,
            metrics,
            only,
        )
        work = self._prepared(question)
        check_size(work.plan, is_estimate=question.engine.is_estimate)
        return self._answered(work)

    @on_the_model
    def schedule(
        self, request: Asked, variant: MethodGiven = "mlps", mode: Mode = "set"
    ) -> Schedule:
        """Return what the fast engine would really run for a request, and in how many stacks.

        Costs no forward pass beyond the recordings.
        """
        plan = self.plan(request, variant, mode)
        return self._fast.described(plan)

    @on_the_model
    def compare(
        self,
        request: Asked,
        variants: MethodGiven | Sequence[MethodGiven] | None = None,
        mode: Mode = "set",
        *,
        modes: Mode | Sequence[Mode] | None = None,
        sources: SourceGiven | Sequence[SourceGiven] | None = None,
        engines: EngineGiven | Sequence[EngineGiven] | None = None,
        values: Mapping[Writer, Tensor] | None = None,
        dataset: Int[Tensor, "sample pos"] | None = None,
    ) -> Comparison:
        """Patch one request in several ways and compare the effects, cell by cell.

        What is listed is combined: two variants under two modes make four ways, named ``mlps, set``
        and so on. A name says only what differs.

        Args:
            request: As for `patch`.
            variants: The variants, or methods, to compare; by default both variants, or ``mlps``
                alone where modes, sources or engines are compared.
            mode: The mode, the same for all.
            modes: The modes to compare.
            sources: The sources of the patched value to compare.
            engines: The engines to compare.
            values: For the source ``given``: as for `patch`.
            dataset: For the means: as for `patch`.

        Raises:
            RequestError: Nothing to compare, something named twice, or what `patch` says of any of
                the ways; before any of them is run.

        Example:
            >>> exp.compare("head -> logits", sources=("corrupt", "zero", "mean"))  # doctest: +SKIP
        """
        ways = ways_of(variants, mode, modes, sources, engines)
        problems, asked = Problems(), {str(way.source) for way in ways.values()}
        if values is not None and "given" not in asked:
            problems.add(RequestError("values are given, but 'given' is not among the sources"))
        if dataset is not None and asked.isdisjoint(MEANS):
            problems.add(RequestError("a data set is given, but no mean is among the sources"))
        problems.raise_if_any("cannot compare")

        def what_it_takes(way: Way) -> _Brought:
            return {
                "values": values if way.source == "given" else None,
                "dataset": dataset if way.source in MEANS else None,
            }

        for way in ways.values():
            plan = self.plan(request, way.variant, way.mode, source=way.source)
            _, own, samples = source_parts(way.source, **what_it_takes(way))
            self._check(plan, self._setup.metric, own, samples)
        return Comparison(
            {
                name: self.patch(
                    request,
                    way.variant,
                    way.mode,
                    way.engine,
                    source=way.source,
                    **what_it_takes(way),
                )
                for name, way in ways.items()
            }
        )

    # -- inside ---------------------------------------------------------------------------------

    @on_the_model
    def _with_fast(self, metric: Any, work: Callable[[FastEngine | None], Result]) -> Result:
        """Return what some work gives that runs the model many times, held still meanwhile.

        The work is given the fast engine with another metric; None where prompts come in parts.
        """
        readout, in_corrupt = self._named({"m": metric}, "cannot measure")
        setup = replace(self._setup, metric=readout, corrupt_metric=in_corrupt)
        engine = self._fast.with_setup(setup)
        return work(engine if isinstance(engine, FastEngine) else None)

    def _forget(self) -> None:
        """Drop what was recorded of the model as it was; plans hold for any weights."""
        self._engines.clear()
        self._known_noise.clear()
        self._setup = replace(self._setup, model=self._setup.backend.renewed())

    def _run_fewer(self, shortage: str) -> None:
        """Run half as many prompts at once from now on, and record them anew.

        Raises:
            OutOfMemoryError: There is nothing more to split.
        """
        self._options = on_fewer_prompts(self._setup, self._options, shortage)
        self._engines.clear()

    def _renew(self) -> None:
        """Record the model as it is now, and check that its metric still says something."""
        self._forget()
        if not self._allow_no_difference:
            self._check_difference()

    @property
    def _fast(self) -> FastEngine | ChunkedEngine:
        """The fast engine on this experiment, with its recordings."""
        engine = self._engine(Fast())
        assert isinstance(engine, FastEngine | ChunkedEngine)
        return engine

    def _bound(
        self, metrics: Mapping[str, Any], problems: Problems, wrong: str
    ) -> tuple[Readout, Readout | None]:
        """Return metrics fitted to the clean prompts and, where positions differ, the corrupt."""
        readout = bind_metrics(metrics, self.prompts, problems)
        problems.raise_if_any(wrong)
        assert readout is not None
        if self._in_corrupt is None:
            return readout, None
        in_corrupt = bind_metrics(metrics, self._in_corrupt, problems)
        problems.raise_if_any(wrong)
        return readout, in_corrupt

    def _named(self, metrics: Mapping[str, Any], wrong: str) -> tuple[Readout, Readout | None]:
        """Return metrics that were given by name, fitted to the prompts."""
        if not isinstance(metrics, Mapping):
            raise MetricError(
                f"{wrong}: metrics are given by name, {{'answer': metric}}, got "
                f"{type(metrics).__name__}"
            )
        unnamed = [name for name in metrics if not isinstance(name, str) or not name]
        if unnamed:
            raise MetricError(f"{wrong}: a metric's name is a text, got {unnamed[0]!r}")
        return self._bound(metrics, Problems(), wrong)

    def _check(
        self,
        plan: Plan,
        readout: Readout,
        values: Mapping[Writer, Tensor] | None,
        dataset: Int[Tensor, "sample pos"] | None,
    ) -> None:
        """Raise where a plan, what is measured and what is patched in do not fit together."""
        n_pos, backend = self._setup.n_pos, self._setup.backend
        limits = backend.limits
        check_values(plan, values, dataset, n_pos=n_pos, d_vocab=limits.d_vocab, n_ctx=limits.n_ctx)
        check_readable(plan, readout, backend)

    def _engine(self, choice: EngineChoice) -> Engine:
        """Return an engine on this experiment; it is kept with its recordings."""
        if choice not in self._engines:
            engine = choice.prepare(self._setup, self._options)
            if isinstance(engine, GradientEngine) and isinstance(self._fast, FastEngine):
                engine = engine.beside(self._fast)
            self._engines[choice] = engine
        return self._engines[choice]

    def answering(self, question: Question) -> "OnModel":
        """Return a question prepared to be answered in parts, all of it checked.

        Args:
            question: What `patch` would be asked.

        Raises:
            CircuitGraphError: See `patch`.
        """
        if not isinstance(question, Question):
            raise RequestError(
                f"a question is a circuitgraph.sweeps.Question, got {question!r:.60}"
            )
        return OnModel(self, self._work(question))

    @on_the_model
    def _work(self, question: Question) -> Work:
        return self._prepared(question)

    @on_the_model
    def _with_work(self, work: Work, use: Callable[[], Result]) -> Result:
        """Return what is done with work on this model, as long as it is the model it was."""
        if self._watch.recorded != work.model:
            raise ModelError(
                f"the model has changed since {work.plan.title!r} was begun, so its parts would be "
                "of two models: begin anew with the model as it is"
            )
        return use()

    def _prepared(self, question: Question) -> Work:
        """Return a question with its plan and what answers it, all of it checked.

        Raises:
            CircuitGraphError: See `patch`.
        """
        plan = self.plan(question.request, question.variant, question.mode, source=question.source)
        if question.only is not None:
            plan = plan_of_cells(plan, question.only)
        metrics, values, dataset = question.metrics, question.values, question.dataset
        readout, in_corrupt = self._setup.metric, self._setup.corrupt_metric
        if metrics is not None:
            readout, in_corrupt = self._named(metrics, f"cannot measure {plan.title!r}")
        self._check(plan, readout, values, dataset)
        chosen = self._engine(question.engine)
        if metrics is not None or values is not None or dataset is not None:
            setup = replace(
                self._setup,
                metric=readout,
                corrupt_metric=in_corrupt,
                given={node: value.detach().clone() for node, value in (values or {}).items()},
                dataset=None if dataset is None else dataset.detach().clone(),
            )
            chosen = chosen.with_setup(setup)
        problems = Problems()
        problems.add(autocast_problem(self._setup.clean.device))
        problems.raise_if_any(f"cannot patch {plan.title!r}")
        engine = chosen.answering(plan)
        return Work(question, plan, engine, self._options, self._watch.recorded)

    def _answered(self, work: Work) -> Effects:
        """Hand the parts of a question to the executor, and label what comes back."""
        plan, parts = work.plan, shares(work, self._executor.workers)
        executor = self._executor if len(parts) > 1 else InProcess()
        with progress_bar(plan.title, len(plan.cells), self._progress) as advance:
            finished = list(executor.run(work, parts, advance))
        frame = self._frame(work)
        grid = frame.empty()
        for found in finished:
            grid[:, found.places] = found.values
        return frame.effects(grid)

    def _frame(self, work: Work) -> Frame:
        """Return what makes effects of a question's numbers; clean and corrupt are measured."""
        engine, metrics = work.engine, work.question.metrics
        clean, corrupt, noise = (
            metrics_apart(engine.setup.metric, values)
            for values in (engine.clean_metric, engine.corrupt_metric, self._noise(engine))
        )
        names = None if metrics is None else tuple(metrics)
        attrs = attributes(
            work.plan,
            engine=engine.name,
            estimate=work.question.engine.is_estimate,
            metrics=tuple(part.name for part in engine.setup.metric.parts),
            names=names,
            backend=self._setup.backend,
            prompts=self.fingerprint,
            n_prompts=clean.shape[-1],
        )
        return Frame(work.plan.axes, attrs, names, clean, corrupt, noise)

    def __repr__(self) -> str:
        setup = self._setup
        try:
            clean, corrupt = self.clean_metric.mean(), self.corrupt_metric.mean()
            measured = f"{clean:.3f} clean, {corrupt:.3f} corrupt"
        except CircuitGraphError as error:  # the model may be in no state to be run now
            measured = f"not to be measured: {error}"
        return (
            f"Experiment: {setup.n_prompts} prompt pairs of {setup.n_pos} tokens, "
            f"{setup.metric.name} {measured}\n  {self.graph}"
        )

    def _repr_html_(self) -> str:
        metrics = {"clean": self.clean_metric, "corrupt": self.corrupt_metric}
        return experiment_html(repr(self), self._setup, self.prompts, metrics)


@dataclass(frozen=True, eq=False)
class OnModel:
    """A question on an experiment, whose parts are each run alone on a model that stays as it is.

    Args:
        experiment: Has the model.
        work: What is asked of it.
    """

    experiment: Experiment
    work: Work

    @property
    def question(self) -> Question:
        """What was asked."""
        return self.work.question

    @property
    def manifest(self) -> Manifest:
        """What is computed."""
        return self.work.manifest

    @property
    def n_prompts(self) -> int:
        """How many prompts there are."""
        return self.work.n_prompts

    def describe(self) -> Description:
        """Measure clean and corrupt prompts, and say what is computed."""
        exp, work = self.experiment, self.work
        return exp._with_work(work, lambda: Description(work.manifest, exp._frame(work)))

    def cut(self, sizes: Sizes) -> Cut:
        """Cut the sweep into parts, after a trial of some cells."""
        return self.experiment._with_work(self.work, lambda: cut(self.work, sizes))

    def measure(self, part: Part, advance: Advance) -> Finished:
        """Run one part."""
        return self.experiment._with_work(self.work, lambda: self.work.measure(part, advance))


def _as_numpy(values: Tensor) -> np.ndarray[Any, Any]:
    """Return measured values as float64 on the CPU."""
    return values.double().cpu().numpy()
