"""A task for people: its question and its pairs, as text and as a table of a notebook."""

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuitgraph.tasks.task import Task

__all__ = ["as_html", "as_text"]

_SHOWN = 3
_ROWS = 10


def as_text(task: "Task") -> str:
    """Return the question and the first pairs."""
    lines = [f"{task.name}: {task.question} ({len(task)} prompt pairs)"]
    pairs = zip(task.clean_text, task.corrupt_text, task.answer_texts, strict=True)
    for number, (clean, corrupt, (correct, incorrect)) in enumerate(pairs):
        if number == _SHOWN:
            lines.append(f"  ... and {len(task) - _SHOWN} more")
            break
        lines.append(f"  clean    {clean} ->{correct}{f', not{incorrect}' if incorrect else ''}")
        lines.append(f"  corrupt  {corrupt}")
    return "\n".join(lines)


def as_html(task: "Task") -> str:
    """Return the question and the first pairs as a table."""
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in _COLUMNS)
    rows = []
    pairs = zip(task.clean_text, task.corrupt_text, task.answer_texts, strict=True)
    for number, (clean, corrupt, answers) in enumerate(list(pairs)[:_ROWS]):
        cells = (str(number), clean, corrupt, *answers)
        rows.append("".join(f"<td style='text-align:left'>{escape(text)}</td>" for text in cells))
    more = f"<p>... and {len(task) - _ROWS} more</p>" if len(task) > _ROWS else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    title = f"<b>{escape(task.name)}</b>: {escape(task.question)} ({len(task)} prompt pairs)"
    return f"<p>{title}</p><table><tr>{head}</tr>{body}</table>{more}"


_COLUMNS = ("", "clean", "corrupt", "answer", "wrong")
