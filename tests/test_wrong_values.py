"""Wrong values in every place of the public face: an error of ours, or an answer; never else.

`test_wrong_uses` does the same for what patches.
"""

import functools
import inspect
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import circuitgraph as cg
from circuitgraph import metrics
from circuitgraph.circuit.weights import Weight
from circuitgraph.cli import app
from circuitgraph.errors import CircuitGraphError

Call = Callable[[Any], Any]

SHAPE = cg.ModelShape(2, 2)
GRAPH = cg.ModelGraph(SHAPE)
PLAN = cg.compile(GRAPH, "0.1 -> 1.0.q => logits")
SCHEDULE = cg.schedule(PLAN)
EFFECTS = cg.Effects.from_arrays(
    [[3.0, 1.0], [3.5, 1.5]],
    [4.0, 2.0],
    [0.0, -2.0],
    {"sender": ["0.1", "1.0"]},
    request="[0.1 1.0] -> logits",
    variant="mlps",
)
BOTH = cg.Comparison({"a": EFFECTS, "b": EFFECTS})
CIRCUIT = cg.Circuit.from_edges(
    SHAPE,
    {"embed -> 0.1.v": 0.4, "0.1 -> 1.0.q": 0.1, "0.1 -> logits": 0.5, "1.0 -> logits": -0.3},
    {"a": ["0.1"]},
)
LOGITS = torch.zeros(2, 4, 9)
PROMPTS = metrics.Prompts(2, 4, 9, {}, torch.tensor([4, 4]))


class Something:
    """Nothing that anybody could mean."""


def wrong_values() -> Iterator[Any]:
    yield from (None, True, 0, -1, 1.5, math.nan, math.inf, -math.inf, 2**70, 1e300, 1j)
    yield from ("", "zzz", "\x00", "->", "a" * 300, b"bytes", "0.1 -> 9.9.q => logits")
    yield from ([], (), {}, set(), [None], [1, 2], ["a", None], {"a": None}, {1: 2}, {None: 0})
    yield from ([[1, 2], [3]], {"a": [1, 2]}, {"a": "b"}, [()], {"0.1 -> logits": "x"}, [math.nan])
    yield from (
        Something(),
        Something,
        len,
        Exception("x"),
        slice(3),
        iter([1]),
        ...,
        NotImplemented,
    )
    yield from (torch.zeros(3), torch.zeros(0), torch.tensor(1), np.zeros((2, 3)), np.array(["a"]))
    yield from (SHAPE, cg.ModelShape, CIRCUIT, cg.Circuit, EFFECTS, cg.Effects, BOTH, PLAN, cg.Plan)
    yield from (cg.Head(0, 1), cg.Head, cg.Head(9, 9), cg.Logits, cg.Logits(), cg.LogitDiff)
    yield from (cg.Head(0, 1).q, cg.Edge, cg.Edge(cg.Head(9, 9), cg.Logits()), Weight, Weight(0.1))


def arguments(
    owner: str, function: Callable[..., Any], /, **right: Any
) -> Iterator[tuple[str, Call]]:
    """Each argument that is named, in turn, with the others right."""
    for name in right:

        def call(value: Any, name: str = name) -> Any:
            return function(**{**right, name: value})

        yield f"{owner}({name})", call


def light() -> Iterator[tuple[str, Call]]:
    """Places that need neither a model nor a file."""
    shape = {"n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "parallel": False, "attn_only": False}
    yield from arguments("ModelShape", cg.ModelShape, **shape, mlp_layers=(0,))
    yield from arguments("ModelGraph", cg.ModelGraph, shape=SHAPE)
    yield "ModelGraph.from_model", cg.ModelGraph.from_model
    for name in ("check", "problem", "edges_from", "edges_into", "reads_at", "writes_at"):
        yield f"ModelGraph.{name}", getattr(GRAPH, name)
    yield "ModelGraph.ports_of", GRAPH.ports_of
    ends = {"sender": cg.Head(0, 0), "receiver": cg.Head(1, 0).q}
    yield from arguments("precedes", GRAPH.precedes, **ends)
    yield from arguments("order_problem", GRAPH.order_problem, **ends)
    yield from arguments("Edge", cg.Edge, **ends)
    yield from arguments("Head", cg.Head, layer=0, head=0)
    yield from arguments("MLP", cg.MLP, layer=0)
    yield from arguments("Port", cg.Port, node=cg.Head(0, 0), name="q")
    yield from arguments("Through", cg.Through, nodes=[cg.MLP(0)])
    yield "parse", cg.parse
    yield "as_request", cg.as_request
    yield "path", cg.path
    yield "path, its receiver", lambda value: cg.path(cg.Head(0, 0), value)
    asked = {"graph": GRAPH, "request": "0.1 -> logits", "variant": "mlps", "mode": "set"}
    yield from arguments("compile", cg.compile, **asked, source="corrupt", n_positions=3)
    yield from arguments("schedule", cg.schedule, plan=PLAN, passes=())
    yield "Schedule.of", cg.Schedule.of
    yield from of_effects()
    yield from of_circuits()
    yield from of_metrics()
    scored: dict[str, Any] = {"n_edges": 2, "how": "top", "sign": "absolute"}
    yield from arguments("cut", cg.discover.cut, effects=EFFECTS, **scored)
    more: dict[str, Any] = {"resamples": 3, "seed": 0}
    yield from arguments("stability", cg.discover.stability, effects=EFFECTS, **scored, **more)
    yield from of_tasks()


def of_effects() -> Iterator[tuple[str, Call]]:
    arrays = {"patched": [[1.0]], "clean": [2.0], "corrupt": [0.0], "sweep": {"layer": [1]}}
    yield "Effects", cg.Effects
    yield from arguments("from_arrays", cg.Effects.from_arrays, **arrays)
    yield "from_arrays(request)", lambda value: cg.Effects.from_arrays(**arrays, request=value)
    how = {"confidence": 0.9, "correction": "holm", "seed": 0, "test": "t", "interval": "basic"}
    yield from arguments("statistics", EFFECTS.statistics, **how)
    yield from arguments("significant", EFFECTS.significant, **how)
    yield from arguments("to_dataframe", EFFECTS.to_dataframe, empty=False, **how)
    yield from arguments("Effects.top", EFFECTS.top, n=1, by="absolute")
    yield "Effects.sel", lambda value: EFFECTS.sel(sender=value)
    yield "Effects[]", lambda value: EFFECTS[value]
    yield "Effects.normalized", EFFECTS.normalized
    yield from arguments("concat", cg.Effects.concat, parts=[EFFECTS], dim="sender")
    yield "Comparison", cg.Comparison
    yield "Comparison of", lambda value: cg.Comparison({"a": EFFECTS, "b": value})
    yield "Comparison.table", BOTH.table
    yield "Comparison.agreement", BOTH.agreement
    yield "Comparison.strongest", BOTH.strongest
    yield "Comparison.sentences", BOTH.sentences
    yield from arguments("difference", BOTH.difference, a="a", b="b", confidence=0.9)


def of_circuits() -> Iterator[tuple[str, Call]]:
    parts: dict[str, Any] = {"groups": {}, "attrs": {}}
    yield from arguments("Circuit", cg.Circuit, shape=SHAPE, known={}, members=(), **parts)
    edges = ["0.1 -> logits"]
    yield from arguments("from_edges", cg.Circuit.from_edges, model=SHAPE, edges=edges, **parts)
    yield "a weight", lambda value: cg.Circuit.from_edges(SHAPE, {"0.1 -> logits": value})
    yield "a group", lambda value: cg.Circuit.from_edges(SHAPE, edges, {"a": value})
    chosen = {"threshold": 0.1, "top": 1, "significant_only": False, "shape": SHAPE}
    yield from arguments("from_effects", cg.Circuit.from_effects, effects=EFFECTS, **chosen)
    yield from arguments("Circuit.top", CIRCUIT.top, n=1, among="circuit")
    yield from arguments("Circuit.threshold", CIRCUIT.threshold, smallest=0.1, among="circuit")
    for name in ("weight", "interval", "group_of", "restrict", "with_groups", "__contains__"):
        yield f"Circuit.{name}", getattr(CIRCUIT, name)
    for name in ("__or__", "__and__", "__sub__"):
        yield f"Circuit.{name}", getattr(CIRCUIT, name)
    yield "with_attrs", lambda value: CIRCUIT.with_attrs(a=value)
    yield from arguments("Weight", Weight, value=0.1, low=0.0, high=0.2)


def of_metrics() -> Iterator[tuple[str, Call]]:
    """Metrics, as far as their prompts and, where those fit, as far as their numbers."""

    def measured(kind: Any, **given: Any) -> Any:
        bound = kind(**given).bind(PROMPTS)
        return bound.measure(LOGITS[:, -1], LOGITS[:, -1])

    for kind in (cg.LogProb, cg.Probability, cg.Rank, cg.Accuracy):
        call = functools.partial(measured, kind)
        yield from arguments(kind.__name__, call, answer=[1, 2], position="end")
    for kind in (cg.LogitDiff, cg.LogOdds, cg.LogitMargin, cg.ProbabilityDiff):
        call = functools.partial(measured, kind)
        yield from arguments(kind.__name__, call, correct=[1, 2], incorrect=[3, 4], position="end")
    yield from arguments("KLDivergence", functools.partial(measured, cg.KLDivergence), position=-1)
    for kind in (cg.LogOdds, cg.LogitMargin, cg.ProbabilityDiff):
        call = functools.partial(measured, kind, correct="a", incorrect="b")
        yield from arguments(f"{kind.__name__}, columns", call, ids=[[1, 2]], side=[[1, -1]])

    def bound(kind: Any, **given: Any) -> Any:
        return kind(**given).bind(PROMPTS)

    call = functools.partial(bound, cg.AttentionTo)
    yield from arguments("AttentionTo", call, head=cg.Head(0, 1), key=1, query="end")
    call = functools.partial(bound, cg.Activation)
    yield from arguments("Activation", call, hook="blocks.0", function=torch.sum, label="a")
    yield from arguments("HuggingFaceMap", cg.HuggingFaceMap, **hugging_face())
    yield "HuggingFaceMap.on", cg.HuggingFaceMap().on


def hugging_face() -> dict[str, Any]:
    signature = inspect.signature(cg.HuggingFaceMap)
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def of_tasks() -> Iterator[tuple[str, Call]]:
    words: dict[str, Any] = {"n": 2, "seed": 0, "order": "both", "corrupt": "ABB->XYZ, BAB->XYZ"}
    yield from arguments("ioi", cg.tasks.ioi, tokenizer=None, **words, prepend_bos=None)
    rows: dict[str, Any] = {"rows": [{"clean": "a"}], "tokenizer": None, "columns": None}
    yield from arguments("from_rows", cg.tasks.from_rows, **rows, n=None, skip=False)
    mib: dict[str, Any] = {"benchmark": "ioi", "counterfactual": None, "split": "train", "n": 2}
    for name, call in arguments("mib", cg.tasks.mib, tokenizer=None, rows=[{}], **mib):
        if name != "mib(rows)":  # without rows it asks the hub
            yield name, call
    yield (
        "mib(rows)",
        lambda value: cg.tasks.mib(tokenizer=None, rows=0 if value is None else value, **mib),
    )
    yield from arguments("load_model", cg.load_model, name="", backend="huggingface", device="zz")
    yield "load_model(dtype)", lambda value: cg.load_model("./nowhere", dtype=value)


def refusals(call: Call) -> tuple[list[str], list[str]]:
    """What wrong values end in: the texts of our errors, and whatever else there was."""
    bare, refused = [], []
    for value in wrong_values():
        try:
            call(value)
        except CircuitGraphError as error:
            refused.append(str(error))
        except Exception as error:  # noqa: BLE001  # whatever else it is
            bare.append(f"{value!r:.60}: {type(error).__name__}: {error}")
    return refused, bare


@pytest.fixture
def as_users_run_it() -> Iterator[None]:
    """Types in signatures are checked in tests alone: here what is checked for users counts."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in light()])
def test_wrong_values_end_in_an_error_of_ours(call: Call) -> None:
    refused, bare = refusals(call)
    assert not bare
    assert len(refused) > 10
    assert all(len(text) > 15 for text in refused)


def test_messages_say_what_is_allowed() -> None:
    for call, allowed in (
        (lambda: cg.compile(SHAPE, "0.1 -> logits"), r"ModelGraph \(cg.ModelGraph\(shape\)"),  # type: ignore[arg-type]
        (lambda: cg.ModelShape(100_000, 100_000), "a graph has at most 1,048,576"),
        (lambda: cg.ModelShape(1.5, 2), "n_layers must be a whole number, got 1.5"),  # type: ignore[arg-type]
        (lambda: CIRCUIT.top(1.5), "n must be a whole number of at least 0, got 1.5"),  # type: ignore[arg-type]
        (lambda: CIRCUIT.threshold(math.nan), "smallest must be a finite number, got nan"),
        (lambda: BOTH.table(1.5), "n must be a whole number of at least 1, got 1.5"),  # type: ignore[arg-type]
        (lambda: BOTH.agreement("3"), "k must be a whole number of at least 1, got '3'"),  # type: ignore[arg-type]
        (lambda: EFFECTS.statistics(correction="x"), "one of 'fdr_bh', 'fdr_by', 'holm'"),  # type: ignore[arg-type]
        (lambda: CIRCUIT | {}, "must be of the class Circuit"),  # type: ignore[operator]
        (lambda: cg.load_model("gpt2", dtype=torch.int8), "one such as torch.float32"),
    ):
        with pytest.raises(CircuitGraphError, match=allowed):
            call()


WRONG_COMMANDS = (
    ("plan", "head -> logits", "--shape", "100000x100000"),
    ("plan", "head -> logits", "--shape", "0x3"),
    ("plan", "head -> logits", "--shape", "zzz"),
    ("plan", "zzz", "--shape", "2x2"),
    ("plan", "0.1 -> logits", "--shape", "2x2", "--variant", ""),
    ("plan", "0.1 -> logits", "--shape", "2x2", "--mode", ""),
    ("patch", "zzz"),
    ("patch", "9.9 -> logits", "--out", ""),
    ("patch", "9.9 -> logits", "--prompts", "-1"),
    ("patch", "9.9 -> logits", "--top", "0"),
    ("compare", "zzz"),
    ("compare", "zzz", "--model", "not-known"),
    ("compare", "9.9 -> logits", "--out", ""),
    ("compare", "9.9 -> logits", "--variant", "zzz"),
    ("compare", "99.9 -> logits"),
    ("discover", "--out", ""),
    ("evaluate", "nothing.json"),
    ("evaluate", ""),
    ("draw", ""),
    ("draw", "nothing.json"),
    ("draw", "."),
    ("demo", "--out", ""),
    ("demo", "--prompts", "x"),
    ("models", "zzz"),
    ("tasks", "--prompts", "nan"),
    ("zzz",),
)


@pytest.mark.parametrize("words", WRONG_COMMANDS, ids=" ".join)
def test_wrong_commands_write_nothing(
    words: tuple[str, ...], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(vars(cg), "load_model", refuse)
    ran = CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert isinstance(ran.exception, SystemExit), ran.exception
    assert ran.exit_code in (1, 2), ran.output
    assert len(ran.output) > 20
    assert not list(tmp_path.iterdir())


def test_comparing_reads_the_request_before_torch_is_imported() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from circuitgraph.cli import app\n"
        "ran = CliRunner().invoke(app, ['compare', '99.9 -> logits'])\n"
        "assert ran.exit_code == 1 and '99.9' in ran.output, ran.output\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


NO_PATHS = (None, 1j, math.nan, 2**70, b"x", [], cg.Effects, torch.zeros(2))


@pytest.mark.parametrize(
    "read",
    [
        cg.load_sweep,
        cg.Effects.load,
        cg.Circuit.load,
        lambda path: cg.tasks.load(path, None),
        lambda path: cg.tasks.mib(path, None),
        cg.Comparison.load,
    ],
)
@pytest.mark.parametrize("path", NO_PATHS, ids=repr)
def test_what_is_no_path_is_refused(read: Callable[[Any], Any], path: Any) -> None:
    with pytest.raises(CircuitGraphError):
        read(path)


@pytest.mark.parametrize("value", [1j, "x", [], cg.Effects, torch.zeros(2), math.nan, -1, 2.5j])
@pytest.mark.parametrize("name", ["limit", "max_panels", "statistics", "values"])
def test_wrong_arguments_of_heatmaps(name: str, value: Any) -> None:
    effects = cg.Effects.from_arrays(
        [[[3.0, 1.0], [4.0, 2.0]]],
        clean=[4.0, 2.0],
        corrupt=[0.0, -2.0],
        sweep={"layer": [9], "head": [6, 9]},
        request="head -> logits",
    )
    with pytest.raises(CircuitGraphError):
        effects.heatmap(**{name: value})


@pytest.mark.parametrize("sets", [{None: None}, {"a": 3}, {"a": "0.0"}, {"a": [None]}, [], None])
def test_wrong_sets_of_edges(sets: Any) -> None:
    with pytest.raises(CircuitGraphError):
        cg.EdgeSets(sets)
