r"""Pairs of prompts in a file, a pair a line: JSON lines or CSV.

::

    {
        "clean": "The capital of France is",
        "corrupt": "The capital of Spain is",
        "answer": " Paris",
        "wrong": " Madrid",
        "positions": {"country": "France"},
        "corrupt_positions": {"country": "Spain"},
    }

(on one line in the file). ``clean``, ``corrupt`` and ``answer`` are needed. ``answer`` and
``wrong`` may be lists of texts; without ``wrong`` the log-probability of the answer is measured.
A position is a word that stands once in the prompt, ``["John", 2]`` for the second place of a word,
or a token's index, counted in what the model reads, a BOS token included; a word of several tokens
means the last of them. ``corrupt_positions`` names those that stand elsewhere in the corrupt
prompt. ``metric`` may name another measure, the same in each line. A prompt may be a list of token
ids.

In CSV the first line names these columns; a list, or positions, are written as JSON in the cell.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator
from torch import Tensor

from circuitgraph.errors import Problems, PromptError
from circuitgraph.files import Strict, check_with, parse_json, path_of, read_text, write_file
from circuitgraph.metrics import as_metric
from circuitgraph.tasks.pairs import METRICS, Pair, Place, make_task
from circuitgraph.tasks.task import Answer, Task
from circuitgraph.tasks.tokens import Tokenizer

__all__ = ["load", "save"]


def _read_texts(given: object) -> tuple[str, ...]:
    """Return one text, or a list of some, as a tuple."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("must be a text or a list of texts")
    return tuple(texts)


def _read_prompt(given: object) -> str | tuple[int, ...]:
    """Return a text, or a list of token ids as a tuple."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not all(type(token) is int and token >= 0 for token in given):
        raise ValueError("must be a text or a list of token ids")
    return tuple(given)


def _read_spot(given: object) -> Place:
    match given:
        case str():
            return given
        case int() if not isinstance(given, bool):
            return given
        case [str() as word, int() as which] if not isinstance(which, bool):
            return (word, which)
        case _:
            raise ValueError('must be a word, a list such as ["word", 2], or a token\'s index')


Texts = Annotated[Any, PlainValidator(_read_texts)]
Prompt = Annotated[Any, PlainValidator(_read_prompt)]
Spot = Annotated[Any, PlainValidator(_read_spot)]


class _Line(Strict):
    clean: Prompt
    corrupt: Prompt
    answer: Texts
    wrong: Texts = ()
    positions: dict[str, Spot] = Field(default_factory=dict)
    corrupt_positions: dict[str, Spot] = Field(default_factory=dict)
    metric: (
        Literal[
            "logit difference", "log-probability", "log odds", "logit margin",
            "probability difference",
        ] | None
    ) = None  # fmt: skip


_COLUMNS = tuple(_Line.model_fields)
_TABLES = {".csv": ",", ".tsv": "\t"}


def load(
    path: str | Path,
    tokenizer: Tokenizer,
    *,
    n: int | None = None,
    name: str | None = None,
    question: str | None = None,
    prepend_bos: bool | None = None,
) -> Task:
    r"""Read pairs of prompts of your own from a file.

    `circuitgraph.tasks.files` describes the format: JSON lines, or CSV where the name ends in
    ``.csv`` (or ``.tsv``), with ``clean``, ``corrupt``, ``answer`` and, as you like, ``wrong``,
    ``positions`` and ``corrupt_positions``.

    Args:
        path: The file.
        tokenizer: The model's tokenizer.
        n: Only so many pairs, the first of the file.
        name: The task's name; the file's by default.
        question: What it asks of a model, in a sentence.
        prepend_bos: Whether prompts begin with the BOS token; None does as the tokenizer does.

    Returns:
        The task. It measures the logit difference of answer and wrong answer; the log odds where
        one has several tokens; the log-probability where there are no wrong ones.

    Raises:
        PromptError: All faults of the file, each with its line: prompts of other lengths in tokens,
            answers of several tokens, words that are not there or stand twice, unknown columns.

    Example:
        >>> import tempfile
        >>> line = {"clean": "Two and two is", "corrupt": "Two and six is", "answer": " four"}
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "sums.jsonl"
        >>> _ = path.write_text(json.dumps(line | {"wrong": " eight", "positions": {"B": "two"}}))
        >>> task = load(path, model.tokenizer)  # doctest: +SKIP
        >>> folder.cleanup()
    """
    path = path_of(path, PromptError)
    text = read_text(path, PromptError)
    table = _TABLES.get(path.suffix.lower())
    problems = Problems()
    lines = _rows_of_table(text, table) if table else _rows_of_json(text)
    found: list[tuple[Pair, str | None]] = []
    try:
        for where, row in lines:
            if isinstance(row, ValueError):
                problems.add(PromptError(f"{where}: {row}"))
                continue
            try:
                found.append(_pair(where, row))
            except ValueError as error:
                problems.add(PromptError(f"{where}: {error}"))
    except csv.Error as error:
        problems.add(PromptError(f"{error}"))
    names = {metric for _, metric in found}
    if len(names) > 1:
        problems.add(PromptError(f"its lines name different metrics: {', '.join(map(str, names))}"))
    problems.raise_if_any(f"cannot read {str(path)!r}")
    if not found:
        raise PromptError(f"cannot read {str(path)!r}: there are no pairs in it")
    if n is not None and not 1 <= n <= len(found):
        raise PromptError(f"{str(path)!r} has {len(found)} pairs, and {n} are asked for")
    try:
        return make_task(
            name or path.stem,
            question or f"Does the model give the answers of {path.name}?",
            [pair for pair, _ in found[:n]],
            tokenizer,
            prepend_bos=prepend_bos,
            metric=names.pop(),
        )
    except PromptError as error:
        raise PromptError(f"{str(path)!r}: {error}") from None


def save(task: Task, path: str | Path) -> Path:
    """Write a task to a file that `load` gives back, with the same tokenizer; return its path.

    Args:
        task: Any whose answers are read at the prompts' last token by one of the metrics that a
            file can name.
        path: Ends in ``.csv`` or ``.tsv`` for a table; JSON lines otherwise.

    Raises:
        PromptError: Another metric; no such folder, or something else under that name.
    """
    path = path_of(path, PromptError)
    table = _TABLES.get(path.suffix.lower())
    rows = list(_rows(task))
    if table is None:
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        return write_file(path, text, PromptError)
    buffer = io.StringIO()
    columns = [column for column in _COLUMNS if any(column in row for row in rows)]
    writer = csv.DictWriter(buffer, columns, delimiter=table, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: json.dumps(value, ensure_ascii=False)
                if not isinstance(value, str) or value[:1] in "[{"
                else value
                for key, value in row.items()
            }
        )
    return write_file(path, buffer.getvalue(), PromptError)


# -- reading -------------------------------------------------------------------------------------

Row = tuple[str, dict[str, Any] | ValueError]


def _rows_of_json(text: str) -> Iterator[Row]:
    """Yield each line that says something, with its number."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError(  # noqa: TRY004, TRY301  # one kind of fault for all of them
                    "it is no object such as "
                    '{"clean": "...", "corrupt": "...", "answer": "...", "wrong": "..."}'
                )
        except ValueError as error:
            fault = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            yield where, ValueError(f"no JSON object on one line: {fault}")
        else:
            yield where, row


def _rows_of_table(text: str, delimiter: str) -> Iterator[Row]:
    """Yield each row of a table, with the number of its last line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = iter(reader)
    try:
        header = _header(next(rows, []))
        for cells in rows:
            where = f"line {reader.line_num}"
            if not any(cells):
                continue
            if len(cells) != len(header):
                yield (
                    where,
                    ValueError(
                        f"it has {len(cells)} cells for {len(header)} columns; a text with "
                        f"{delimiter!r} in it stands in double quotes"
                    ),
                )
                continue
            yield (
                where,
                {
                    name: _cell(name, cell)
                    for name, cell in zip(header, cells, strict=True)
                    if cell or name in ("clean", "corrupt", "answer")
                },
            )
    except csv.Error as error:
        at = "" if str(error).startswith("line ") else f"line {reader.line_num}: quotes: "
        raise csv.Error(f"{at}{error}") from None


def _header(names: list[str]) -> list[str]:
    """Return the names of the columns, or refuse them."""
    if unknown := [name for name in names if name not in _COLUMNS]:
        raise csv.Error(
            f"line 1: no column {unknown[0]!r}; there are {', '.join(_COLUMNS)}"
            + (" (are the columns named on the first line?)" if len(unknown) > 1 else "")
        )
    if len(set(names)) < len(names):
        raise csv.Error("line 1: a column is named twice")
    return names


def _cell(name: str, cell: str) -> Any:
    """Return what a cell holds: JSON where it looks like a list or an object, text otherwise."""
    if name == "metric" or cell[:1] not in ("[", "{", '"'):
        return cell
    try:
        return parse_json(cell)
    except ValueError:
        return cell


def _pair(where: str, row: dict[str, Any]) -> tuple[Pair, str | None]:
    """Return the pair that a row describes, and the metric it names.

    Raises:
        ValueError: What is wrong with it.
    """
    line = check_with(_Line, row)
    return (
        Pair(
            where=where,
            clean=line.clean,
            corrupt=line.corrupt,
            answer=line.answer,
            wrong=line.wrong,
            positions=line.positions,
            corrupt_positions=line.corrupt_positions,
        ),
        line.metric,
    )


# -- writing -------------------------------------------------------------------------------------


def _rows(task: Task) -> Iterator[dict[str, Any]]:
    """Yield what a line says, for each pair.

    Raises:
        PromptError: The metric is not one of those that a file can name, read at the end.
    """
    names = {kind: name for name, kind in METRICS.items()}
    metric = task.metric
    kind = names.get(type(metric))
    end = task.lengths - 1
    at: Any = getattr(metric, "position", None)
    read_there = at == "end" or (isinstance(at, Tensor) and at.equal(end))
    if kind is None or not read_there:
        called = getattr(as_metric(metric), "name", type(metric).__name__)
        raise PromptError(
            f"cannot write the task {task.name!r}: a file can only name the metrics "
            f"{', '.join(METRICS)}, read at the last token, and this measures {called!r}; "
            "with_metric gives it another"
        )
    for number in range(len(task)):
        right, wrong = task.answers[number]
        row: dict[str, Any] = {
            "clean": _prompt(task, task.clean, task.clean_text, number),
            "corrupt": _prompt(task, task.corrupt, task.corrupt_text, number),
            "answer": _written(right),
        }
        if wrong:
            row["wrong"] = _written(wrong)
        places = {name: int(index[number]) for name, index in task.positions.items()}
        row["positions"] = places
        moved = {name: int(index[number]) for name, index in task.corrupt_positions.items()}
        if moved != places:
            row["corrupt_positions"] = moved
        row["metric"] = kind
        yield row


def _prompt(task: Task, tokens: Any, texts: tuple[str, ...], number: int) -> str | list[int]:
    if task.from_text:
        return texts[number]
    return list(map(int, tokens[number, : task.lengths[number]]))


def _written(answer: Answer) -> str | list[str]:
    return answer if isinstance(answer, str) else list(answer)
