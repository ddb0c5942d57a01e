"""What is asked of an experiment, as one value that can travel to another process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.engines.choice import Fast
from circuitgraph.engines.engine import EngineChoice
from circuitgraph.nodes import Writer
from circuitgraph.plan import Source
from circuitgraph.request import Mode, Request, Variant

__all__ = ["Question"]


@dataclass(frozen=True, eq=False)
class Question:
    """A request, how it is to be answered, and what is measured; see `Experiment.patch`.

    Args:
        request: What is patched.
        variant: What direct paths may pass through.
        mode: What patching several receivers means.
        engine: What answers.
        source: Where patched values come from.
        values: For the source ``given``: by sender.
        dataset: For the means: tokens to average over.
        metrics: What is measured in place of the experiment's own metric, by name.
        only: Which cells of the sweep are run; None for all.
    """

    request: Request
    variant: Variant = "mlps"
    mode: Mode = "set"
    engine: EngineChoice = field(default_factory=Fast)
    source: Source = "corrupt"
    values: Mapping[Writer, Tensor] | None = None
    dataset: Int[Tensor, "sample pos"] | None = None
    metrics: Mapping[str, Any] | None = None
    only: NDArray[Any] | None = None
