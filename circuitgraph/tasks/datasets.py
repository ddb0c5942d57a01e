"""Pairs from Hugging Face data sets: any with a column for each part, and those of MIB.

MIB (Mueller et al. 2025, arXiv:2504.13151) keeps each prompt's counterfactuals beside it, a column
for each kind. As in the benchmark, rows that cannot be patched with a tokenizer (answers of several
tokens, prompts of other lengths) are left out; how many, the task's question says.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from circuitgraph.arguments import flag, mapping, text, whole
from circuitgraph.errors import PromptError
from circuitgraph.tasks.pairs import Pair, faults_of, make_task
from circuitgraph.tasks.task import Task
from circuitgraph.tasks.tokens import Tokenizer

__all__ = ["Benchmark", "from_rows", "mib"]

Benchmark = Literal[
    "ioi", "mcqa", "arithmetic_addition", "arithmetic_subtraction", "arc_easy", "arc_challenge"
]
Rows = Iterable[Mapping[str, Any]]


def from_rows(
    rows: Rows,
    tokenizer: Tokenizer,
    columns: Mapping[str, str] | None = None,
    *,
    n: int | None = None,
    name: str = "rows",
    question: str = "",
    skip: bool = False,
    prepend_bos: bool | None = None,
) -> Task:
    """Return the task of a data set with a row for each pair.

    Args:
        rows: A Hugging Face data set, or any rows that can be asked by column.
        tokenizer: The model's tokenizer.
        columns: Which columns hold ``clean``, ``corrupt``, ``answer`` and ``wrong``; by default
            those of these names. An answer may be a list of texts.
        n: Only so many pairs.
        name: The task's name.
        question: What it asks of a model, in a sentence.
        skip: Whether rows with a fault are left out rather than told; how many is said in the
            question.
        prepend_bos: Whether prompts begin with the BOS token; None does as the tokenizer does.

    Raises:
        PromptError: A column that is not there, or all faults of all rows, each with its row.

    Example:
        >>> rows = [{"good": "The keys", "bad": "The key", "next": " are", "other": " is"}]
        >>> columns = {"clean": "good", "corrupt": "bad", "answer": "next", "wrong": "other"}
        >>> task = from_rows(rows, model.tokenizer, columns)  # doctest: +SKIP
    """
    given = mapping("columns", {} if columns is None else columns, "parts to columns", PromptError)
    for part, column in given.items():
        text("a part in columns", part, PromptError)
        text(f"columns[{part!r}]", column, PromptError)
    named = {"clean": "clean", "corrupt": "corrupt", "answer": "answer", **given}
    if unknown := sorted(named.keys() - {"clean", "corrupt", "answer", "wrong"}):
        raise PromptError(
            f"columns names {unknown[0]!r}; a pair has clean, corrupt, answer and wrong"
        )

    def read(row: Mapping[str, Any]) -> _Parts:
        wrong = named.get("wrong", "wrong")
        return _Parts(
            _at(row, named["clean"]),
            _at(row, named["corrupt"]),
            _texts(_at(row, named["answer"])),
            _texts(row[wrong]) if wrong in row or "wrong" in named else (),
        )

    return _task(rows, read, tokenizer, n, name, question, skip=skip, prepend_bos=prepend_bos)


def mib(
    benchmark: Benchmark,
    tokenizer: Tokenizer,
    *,
    counterfactual: str | None = None,
    split: str = "train",
    n: int | None = 100,
    rows: Rows | None = None,
    prepend_bos: bool | None = None,
) -> Task:
    """Return a task of the MIB benchmark, with its own prompts and counterfactuals.

    It is read from the Hugging Face hub (``mib-bench/...``), or from rows that you have.

    Args:
        benchmark: ``"ioi"``, ``"mcqa"`` (copied colours, four choices), ``"arithmetic_addition"``,
            ``"arithmetic_subtraction"``, ``"arc_easy"`` or ``"arc_challenge"``.
        tokenizer: The model's tokenizer.
        counterfactual: The kind of corrupt prompt, with or without ``_counterfactual``: that of the
            benchmark's circuit track by default (``s2_io_flip`` for IOI, ``symbol`` for questions
            with choices, ``random`` for arithmetic).
        split: Of the data set.
        n: How many pairs at most; None for all.
        rows: The rows, where the data set is on this machine: a list, or what
            ``datasets.load_dataset`` or ``datasets.load_from_disk`` gave.
        prepend_bos: Whether prompts begin with the BOS token; None does as the tokenizer does.

    Raises:
        PromptError: An unknown benchmark or counterfactual, a data set that cannot be had, or no
            row that can be patched with this tokenizer.

    Example:
        >>> task = mib("ioi", model.tokenizer, counterfactual="abc")  # doctest: +SKIP
    """
    text("benchmark", benchmark, PromptError)
    if counterfactual is not None:
        text("counterfactual", counterfactual, PromptError)
    if n is not None:
        whole("n", n, PromptError, 1)
    if benchmark not in _BENCHMARKS:
        raise PromptError(f"no benchmark {benchmark!r} in MIB: there is {', '.join(_BENCHMARKS)}")
    source = _BENCHMARKS[benchmark]
    kind = (counterfactual or source.usual).removesuffix("_counterfactual") + "_counterfactual"
    data = source.load(split) if rows is None else _checked(rows)

    def read(row: Mapping[str, Any]) -> _Parts:
        there = sorted(key for key in row if key.endswith("_counterfactual"))
        if kind not in row:
            raise PromptError(
                f"no column {kind!r}; counterfactuals are {', '.join(there) or 'none'}"
            )
        try:
            return source.read(row, row[kind])
        except (KeyError, IndexError, TypeError) as error:
            raise PromptError(f"it is not as the benchmark's are: {error!r}") from error

    def wanted(row: Mapping[str, Any]) -> bool:
        return row.get(kind, True) is not None and source.wanted(row)

    chosen = (row for row in data if wanted(row))
    name = f"mib {benchmark}"
    return _task(
        chosen, read, tokenizer, n, name, source.question, skip=True, prepend_bos=prepend_bos
    )


# -- rows to pairs -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a row says, as texts."""

    clean: str
    corrupt: str
    answer: tuple[str, ...]
    wrong: tuple[str, ...]


def _task(
    rows: Rows,
    read: Callable[[Mapping[str, Any]], _Parts],
    tokenizer: Tokenizer,
    n: int | None,
    name: str,
    question: str,
    *,
    skip: bool,
    prepend_bos: bool | None,
) -> Task:
    """Return the task of rows, as many as are asked for."""
    if n is not None:
        whole("n", n, PromptError, 1)
    flag("skip", skip, PromptError)
    pairs: list[Pair] = []
    faults: list[str] = []
    for number, row in enumerate(_checked(rows)):
        if n is not None and len(pairs) == n:
            break
        try:
            parts = read(row)
        except PromptError as error:
            raise PromptError(f"{name}, row {number}: {error}") from None
        pair = Pair(f"row {number}", parts.clean, parts.corrupt, parts.answer, parts.wrong)
        if skip and (found := faults_of(pair, tokenizer, prepend_bos).found):
            faults.append(str(found[0]))
            continue
        pairs.append(pair)
    if faults and not pairs:
        raise PromptError(
            f"none of the {len(faults)} rows of {name} can be patched with this tokenizer, the "
            f"first because: {faults[0]}"
        )
    if faults:
        seen = len(pairs) + len(faults)
        question += f" ({len(faults)} of {seen} rows left out; {faults[0]})"
    return make_task(name, question.strip(), pairs, tokenizer, prepend_bos=prepend_bos)


def _checked(rows: Rows) -> Iterator[Mapping[str, Any]]:
    """Yield rows as they come; a data set may be larger than memory."""
    if not isinstance(rows, Iterable) or isinstance(rows, str | bytes | type):
        raise PromptError(f"rows must be a data set or a collection of rows, got {rows!r}")
    try:
        each = iter(rows)
    except TypeError as error:  # such as a tensor of one number
        raise PromptError(f"rows must be a collection of rows, got {rows!r}") from error
    for number, row in enumerate(each):
        if not isinstance(row, Mapping):
            raise PromptError(f"row {number} must be asked by column, got {row!r}")
        yield row


def _at(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise PromptError(f"no column {column!r}; there are {', '.join(row)}")
    value = row[column]
    if not isinstance(value, str | list | tuple) or not value:
        raise PromptError(f"column {column!r} holds {value!r}, not a text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


# -- MIB -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a benchmark lies and how its rows are read."""

    path: str
    question: str
    usual: str
    read: Callable[[Mapping[str, Any], Mapping[str, Any]], _Parts]
    config: str | None = None
    wanted: Callable[[Mapping[str, Any]], bool] = lambda _: True

    def load(self, split: str) -> Rows:
        """Read the data set from the hub, or from its cache.

        Raises:
            PromptError: It cannot be had.
        """
        from datasets import load_dataset

        try:
            data: Rows = load_dataset(self.path, self.config, split=split)
        except (OSError, ValueError, RuntimeError) as error:
            raise PromptError(
                f"cannot load the data set {self.path!r} (split {split!r}) from the Hugging Face "
                f"hub: {str(error).splitlines()[0]}; give its rows with rows=, if you have them"
            ) from error
        return data


def _names(row: Mapping[str, Any], other: Mapping[str, Any]) -> _Parts:
    said = row["metadata"]
    return _Parts(
        row["prompt"], other["prompt"], (f" {said['indirect_object']}",), (f" {said['subject']}",)
    )


def _choices(row: Mapping[str, Any], other: Mapping[str, Any]) -> _Parts:
    def answer(of: Mapping[str, Any]) -> str:
        return str(of["choices"]["label"][of["answerKey"]])

    return _Parts(row["prompt"], other["prompt"], (answer(row),), (answer(other),))


def _sums(row: Mapping[str, Any], other: Mapping[str, Any]) -> _Parts:
    return _Parts(row["prompt"], other["prompt"], (str(row["label"]),), (str(other["label"]),))


def _operator(sign: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: (
        row.get("operator") == sign
        and (row.get("random_counterfactual") or {}).get("prompt") is not None
    )


_CHOICE = "Does the model give the letter of the right choice?"
_SUM = "Does the model give the right result rather than that of the other sum?"
_BENCHMARKS: Mapping[str, _Source] = {
    "ioi": _Source(
        "mib-bench/ioi",
        "Does the model name the indirect object rather than the subject?",
        "s2_io_flip",
        _names,
    ),
    "mcqa": _Source("mib-bench/copycolors_mcqa", _CHOICE, "symbol", _choices, "4_answer_choices"),
    "arithmetic_addition": _Source(
        "mib-bench/arithmetic_addition", _SUM, "random", _sums, wanted=_operator("+")
    ),
    "arithmetic_subtraction": _Source(
        "mib-bench/arithmetic_subtraction", _SUM, "random", _sums, wanted=_operator("-")
    ),
    "arc_easy": _Source("mib-bench/arc_easy", _CHOICE, "symbol", _choices),
    "arc_challenge": _Source("mib-bench/arc_challenge", _CHOICE, "symbol", _choices),
}
