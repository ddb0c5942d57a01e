"""Which metrics can be estimated, found on random logits before any run."""

import torch

from circuitgraph.engines.gradient.estimators import EAP, Estimator
from circuitgraph.engines.setup import Setup
from circuitgraph.errors import CircuitGraphError, UnsupportedError

__all__ = ["check_gradient"]


def check_gradient(setup: Setup, estimator: Estimator) -> CircuitGraphError | None:
    """Return why a metric cannot be estimated, or None.

    Args:
        setup: The experiment.
        estimator: Where the gradient would be taken.
    """
    metric = setup.metric
    if metric.activations:
        return UnsupportedError(
            f"{metric.activations[0].name!r} is no metric of logits, and only those are "
            "estimated: measure it exactly, with engine='fast'"
        )
    d_vocab = setup.backend.limits.d_vocab_out
    width = d_vocab if metric.tokens is None else metric.tokens.shape[1]
    shape = [setup.n_prompts, *([setup.n_pos] if metric.read is None else []), width]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator, dtype=torch.float32)
    logits = logits.to(setup.clean.device).requires_grad_()
    with torch.enable_grad():
        values = metric.measure(logits[None], logits.detach())[0]
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), [logits], allow_unused=True)
    if gradient is None:
        return UnsupportedError(
            f"{metric.name} has no gradient, so it cannot be estimated: measure it exactly, with "
            "engine='fast', or estimate a metric that varies smoothly, such as cg.LogitDiff"
        )
    largest = float(gradient.abs().amax())
    if largest < 1e-5 and isinstance(estimator, EAP):
        return UnsupportedError(
            f"{metric.name} is smallest on the clean run, so its gradient there is 0 and says "
            "nothing: take cg.EAPIG() or cg.CleanCorrupt(), which look elsewhere too"
        )
    return None
