"""The runs of an estimate: where the gradient is taken, and what is added up."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.readout import clean_logits
from circuitgraph.engines.fast.state import State
from circuitgraph.engines.gradient.asked import HeldPlaces
from circuitgraph.engines.gradient.attention import known_attention
from circuitgraph.engines.gradient.backward import Held, run_backward
from circuitgraph.engines.gradient.estimators import Estimator, Spot
from circuitgraph.engines.gradient.ports import PortGradients
from circuitgraph.errors import UnsupportedError
from circuitgraph.lens.rules import Rule
from circuitgraph.lens.segments import Edit, Segments

__all__ = ["mean_gradients"]

Gradients = Mapping[HeldPlaces, Sequence[PortGradients]]


def mean_gradients(
    state: State, estimator: Estimator, held: Sequence[HeldPlaces], *, points: bool = False
) -> Gradients:
    """Return the gradients of every metric at every port, for each set of things held.

    Args:
        state: The recorded experiment.
        estimator: Where gradients are taken.
        held: What no gradient flows through, each a backward pass of its own.
        points: Whether gradients at the stream itself are wanted.

    Raises:
        UnsupportedError: The metric has no gradient.
    """
    graph = state.setup.graph
    n_metrics = len(state.setup.metric.metrics)
    layers = tuple(mlp.layer for mlp in graph.mlps)
    rule = state.blocks.rule(estimator.rules, state.setup.clean[:1])
    found: dict[HeldPlaces, list[PortGradients]] = {}
    for spot in estimator.spots(layers, graph.shape.n_layers):
        with rule.applied():
            segments = _run(state, spot)
        measured = _measured(state, segments)
        if not found:
            known = known_attention(
                state.blocks,
                state.clean,
                segments,
                graph.shape,
                heads_apart=state.traits.heads_apart,
            )
            found = {
                places: [
                    PortGradients(
                        graph, known, state.delta_dtype, points=points, frozen=rule.freezes_norms
                    )
                    for _ in range(n_metrics)
                ]
                for places in held
            }
        _add_run(state, found, segments, measured, spot.share, rule)
    return found


def _run(state: State, spot: Spot) -> Segments:
    """Run the clean prompts with one thing moved between clean and corrupt."""
    clean, corrupt = state.clean.layers[spot.layer], state.corrupt.layers[spot.layer]
    field = {"embed": "resid", "z": "z", "mlp": "mlp"}[spot.what]
    ours, theirs = getattr(clean, field), getattr(corrupt, field)

    def moved(value: Tensor) -> Tensor:
        wide = torch.promote_types(value.dtype, torch.float32)
        between = theirs.to(wide) + spot.clean * (ours.to(wide) - theirs.to(wide))
        return between.to(value.dtype).reshape(value.shape)

    edits: dict[tuple[str, int], Edit] = {}
    if spot.clean != 1.0:
        edits[spot.what, spot.layer] = moved
    return state.blocks.run_in_segments(
        state.setup.clean, read=state.setup.metric.read, edits=edits
    )


def _measured(state: State, segments: Segments) -> Float[Tensor, "metric prompt"]:
    """Return every metric of a run, with its graph."""
    metric = state.setup.metric
    with torch.enable_grad():
        logits = segments.logits.to(state.delta_dtype)
        if metric.read is not None:
            logits = logits[:, 0]
            if metric.tokens is not None:
                logits = logits.gather(-1, metric.tokens)
        values = metric.measure(logits[None], clean_logits(state))[0]
    if not values.requires_grad:
        raise UnsupportedError(
            f"{metric.name} has no gradient, so it cannot be estimated: measure it exactly, with "
            "engine='fast', or estimate a metric that varies smoothly, such as cg.LogitDiff"
        )
    return values.unflatten(0, (len(metric.metrics), -1))


def _add_run(
    state: State,
    found: Mapping[HeldPlaces, Sequence[PortGradients]],
    segments: Segments,
    measured: Float[Tensor, "metric prompt"],
    share: float,
    rule: Rule,
) -> None:
    jobs = [(places, at) for places in found for at in range(len(measured))]
    for number, (places, at) in enumerate(jobs):
        run = run_backward(
            segments,
            measured[at],
            state.setup.graph,
            heads_apart=state.traits.heads_apart,
            factors=rule.factors,
            held=_held(state, places),
            keep=number < len(jobs) - 1,
        )
        found[places][at].add(run, segments, share)


def _held(state: State, places: HeldPlaces) -> Held:
    mask = state.setup.positions.mask
    return Held(
        {port: mask(at) for port, at in places.ports},
        {node: mask(at) for node, at in places.writes},
    )
