"""Tasks from parts of tasks: which rows a metric keeps, and two tasks as one."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuitgraph.errors import PromptError

if TYPE_CHECKING:
    from circuitgraph.tasks.task import Task

__all__ = ["joined", "picked_metric"]


def picked_metric(metric: Any, rows: Sequence[int], n: int) -> Any:
    """Return a metric with the answers of some of the prompts.

    Raises:
        PromptError: It is a function: nobody knows what in it belongs to which prompt.
    """
    parts: dict[str, Any] = {}
    for name, value in _parts(metric).items():
        if isinstance(value, Tensor) and value.ndim and len(value) == n:
            parts[name] = value[list(rows)]
        elif isinstance(value, list | tuple) and len(value) == n:
            parts[name] = [value[row] for row in rows]
    return replace(metric, **parts) if parts else metric


def joined(one: "Task", other: "Task") -> dict[str, Any]:
    """Return the fields of a task with the prompts of both.

    Raises:
        PromptError: They name different positions or measure different things.
    """
    for what in ("positions", "corrupt_positions"):
        names = [sorted(getattr(task, what)) for task in (one, other)]
        if names[0] != names[1]:
            raise PromptError(
                f"cannot join {one.name!r} and {other.name!r}: the {what} of one are {names[0]}, "
                f"those of the other {names[1]}"
            )
    width = max(one.clean.shape[1], other.clean.shape[1])
    both = (one, other)
    return {
        "name": one.name if one.name == other.name else f"{one.name} + {other.name}",
        "question": one.question
        if one.question == other.question
        else f"{one.question} {other.question}",
        **{
            what: torch.cat([_widened(getattr(task, what), width) for task in both])
            for what in ("clean", "corrupt")
        },
        **{
            what: getattr(one, what) + getattr(other, what)
            for what in ("clean_text", "corrupt_text", "answers")
        },
        **{
            what: {
                name: torch.cat([getattr(task, what)[name] for task in both])
                for name in getattr(one, what)
            }
            for what in ("positions", "corrupt_positions")
        },
        "metric": _joined_metric(one, other),
        "lengths": torch.cat([one.lengths, other.lengths]),
        "from_text": one.from_text and other.from_text,
    }


def _joined_metric(one: "Task", other: "Task") -> Any:
    if type(one.metric) is not type(other.metric):
        raise PromptError(
            f"cannot join {one.name!r} and {other.name!r}: one measures "
            f"{type(one.metric).__name__}, the other {type(other.metric).__name__}; "
            "give both the same with with_metric"
        )
    parts: dict[str, Any] = {}
    theirs = _parts(other.metric)
    for name, value in _parts(one.metric).items():
        match value, theirs[name]:
            case Tensor(), Tensor() if value.ndim:
                parts[name] = torch.cat([value, theirs[name]])
            case list() | tuple(), list() | tuple():
                parts[name] = [*value, *theirs[name]]
            case _ if value == theirs[name]:
                continue
            case _:
                raise PromptError(
                    f"cannot join {one.name!r} and {other.name!r}: their metrics differ in {name}"
                )
    return replace(one.metric, **parts) if parts else one.metric


def _parts(metric: Any) -> dict[str, Any]:
    if not is_dataclass(metric) or isinstance(metric, type):
        raise PromptError(
            "the metric is a function, and which of its answers belong to which prompts is not "
            "known: give the task one of circuitgraph's metrics first, with with_metric"
        )
    return {field.name: getattr(metric, field.name) for field in fields(metric) if field.init}


def _widened(tokens: Tensor, width: int) -> Tensor:
    """Return tokens padded on the right; what stands there is behind every prompt's end."""
    missing = tokens.new_zeros(len(tokens), width - tokens.shape[1])
    return torch.cat([tokens, missing], dim=1)
