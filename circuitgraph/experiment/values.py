"""Checking what a user brings along to be patched in, before any forward pass."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from circuitgraph.errors import NodeError, Problems, RequestError
from circuitgraph.experiment.prompts import is_plain
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import Writer
from circuitgraph.plan import Plan, Source

__all__ = ["MEANS", "check_values"]

MEANS: tuple[Source, ...] = ("mean", "mean-position")


def check_values(
    plan: Plan,
    values: Mapping[Writer, Tensor] | None,
    dataset: Any,
    *,
    n_pos: int,
    d_vocab: int,
    n_ctx: int = 0,
) -> None:
    """Raise where values or a data set do not fit a plan, or would not be used by it.

    Args:
        plan: What is to be run.
        values: Patched values of one's own, by node.
        dataset: Tokens to average over.
        n_pos: Length of the prompts.
        d_vocab: Number of tokens in the vocabulary.
        n_ctx: How many tokens the model can read; 0 where it does not say.
    """
    problems = Problems()
    if values is not None and not isinstance(values, Mapping):
        raise RequestError(
            "values are given by sender, {cg.Head(9, 9): tensor}, got " + type(values).__name__
        )
    if values is not None and plan.source != "given":
        problems.add(
            RequestError(
                f"values are given, but source={plan.source!r} would not use them: "
                "pass source='given'"
            )
        )
    if plan.source == "given":
        senders = _senders(plan)
        for node in senders:
            if node not in (values or {}):
                problems.add(
                    RequestError(
                        f"no value given for {node}: source='given' needs values={{{node}: tensor}}"
                    )
                )
        for node, value in (values or {}).items():
            problems.add(_node_problem(plan.graph, node) or _value_problem(node, value))
            if isinstance(node, Writer) and node not in senders:
                problems.add(
                    RequestError(f"a value is given for {node}, which this request does not patch")
                )
    if dataset is not None:
        problems.add(_dataset_problem(plan.source, dataset, n_pos, d_vocab))
        if isinstance(dataset, Tensor) and dataset.ndim == 2 and 0 < n_ctx < dataset.shape[1]:
            problems.add(
                RequestError(
                    f"the data set has {dataset.shape[1]} positions, but the model reads {n_ctx}"
                )
            )
    problems.raise_if_any(f"cannot patch {plan.title!r}")


def _senders(plan: Plan) -> list[Writer]:
    """Return the nodes whose values come from the plan's source."""
    return sorted({write.node for write in plan.sweep.sent()})


def _node_problem(graph: ModelGraph, node: Any) -> NodeError | RequestError | None:
    if not isinstance(node, Writer):
        return RequestError(
            f"values holds {node!r} ({type(node).__name__}): its keys are senders such as "
            "cg.Head(9, 9)"
        )
    return graph.problem(node)


def _value_problem(node: Writer, value: Any) -> RequestError | None:
    if not isinstance(value, Tensor):
        return RequestError(
            f"the value given for {node} must be a tensor that broadcasts to [prompt, pos, width], "
            f"got {type(value).__name__}"
        )
    if value.is_complex():
        return RequestError(f"the value given for {node} is complex: activations are real numbers")
    if not is_plain(value):
        return RequestError(f"the value given for {node} must be a plain tensor that holds numbers")
    if not value.isfinite().all():
        return RequestError(f"the value given for {node} holds numbers that are not finite")
    return None


def _dataset_problem(source: Source, dataset: Any, n_pos: int, d_vocab: int) -> RequestError | None:
    if source not in MEANS:
        return RequestError(
            f"a data set is given, but source={source!r} would not use it: "
            "pass source='mean' or source='mean-position'"
        )
    if not isinstance(dataset, Tensor) or dataset.ndim != 2 or 0 in dataset.shape:
        got = tuple(dataset.shape) if isinstance(dataset, Tensor) else type(dataset).__name__
        return RequestError(f"the data set must be tokens [sample, pos], got {got}")
    if not is_plain(dataset):
        return RequestError("the data set must be a plain tensor that holds numbers")
    if dataset.is_floating_point() or dataset.is_complex() or dataset.dtype.itemsize < 4:
        return RequestError(f"the data set holds {dataset.dtype} values: token ids are integers")
    if ((dataset < 0) | (dataset >= d_vocab)).any():
        return RequestError(f"the data set holds ids outside the vocabulary of {d_vocab} tokens")
    if source == "mean-position" and dataset.shape[1] < n_pos:
        return RequestError(
            f"the data set has {dataset.shape[1]} positions, the prompts {n_pos}: "
            "a mean per position needs at least as many"
        )
    return None
