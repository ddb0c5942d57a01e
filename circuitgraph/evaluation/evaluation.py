"""Is this circuit enough, is it necessary, and would any circuit of its size do?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitgraph.arguments import number
from circuitgraph.circuit import Circuit
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.judge import NEAR, Judge
from circuitgraph.evaluation.random_circuits import random_circuit
from circuitgraph.evaluation.ratios import Ratio, faithfulness, ratio_of_means
from circuitgraph.nodes import MLP, Head
from circuitgraph.plan import Source

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment

__all__ = ["Evaluation", "evaluate", "whole_number"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How far a circuit alone does what the model does, and all that is needed to read that.

    Args:
        circuit: What was judged.
        ratio: Faithfulness f with its paired bootstrap interval: 1, the circuit alone gives what
            the model gives; 0, what the empty circuit gives. Never clipped.
        complement_ratio: The same of all edges but the circuit's: near 0 if it is necessary.
        values: The metric of each prompt with the circuit alone, ``[prompt]``.
        clean: With the whole model, ``[prompt]``.
        empty: With no edge in the circuit, ``[prompt]``.
        baselines: f of each random connected circuit of the same size, ``[baseline]``.
        n_pruned: Edges left once what is on no way from embedding to logits is dropped.
        heads: Heads that the pruned circuit touches, and all heads of the model.
        mlps: MLPs, likewise.
        helps_against: Edges of the circuit whose own score says that they work against the answer,
            and edges of that kind left out of it; None where the circuit knows no scores.
        found_here: Whether the circuit was found on these prompts; None where it does not say.
        about: What was measured: source, mode, metric, model, dtype, number of prompts, confidence.
        warnings: What a reader must know before believing f.
    """

    circuit: Circuit
    ratio: Ratio
    complement_ratio: Ratio
    values: Floats
    clean: Floats
    empty: Floats
    baselines: Floats
    n_pruned: int
    heads: tuple[int, int]
    mlps: tuple[int, int]
    helps_against: tuple[int, int] | None
    found_here: bool | None
    about: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def faithfulness(self) -> float:
        """The circuit's f: a ratio of means over prompts."""
        return self.ratio.value

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end of f's interval."""
        return self.ratio.interval

    @property
    def complement(self) -> float:
        """The f of all edges but the circuit's."""
        return self.complement_ratio.value

    @property
    def rank(self) -> float:
        """Share of the random circuits whose f is further from 1 than this one's; NaN if none."""
        if not len(self.baselines):
            return float("nan")
        return float((np.abs(1 - self.baselines) > abs(1 - self.faithfulness)).mean())

    @property
    def per_prompt(self) -> Floats:
        """Each prompt's change over the mean span, ``[prompt]``: their mean is f."""
        found: Floats = (self.values - self.empty) / (self.clean.mean() - self.empty.mean())
        return found

    def to_dataframe(self) -> pd.DataFrame:
        """Return all single numbers as a table: ``quantity value low high``."""
        rows = [
            ("faithfulness", self.faithfulness, *self.interval),
            ("complement", self.complement, *self.complement_ratio.interval),
            ("edges", len(self.circuit), np.nan, np.nan),
            ("edges after pruning", self.n_pruned, np.nan, np.nan),
            ("share of heads", self.heads[0] / max(self.heads[1], 1), np.nan, np.nan),
            ("share of mlps", self.mlps[0] / max(self.mlps[1], 1), np.nan, np.nan),
            ("per-prompt standard deviation", float(self.per_prompt.std()), np.nan, np.nan),
        ]
        if len(self.baselines):
            low, median, high = np.quantile(self.baselines, [0.025, 0.5, 0.975])
            rows.append(("random circuits", median, low, high))
            rows.append(("random circuits further from 1", self.rank, np.nan, np.nan))
        return pd.DataFrame(rows, columns=["quantity", "value", "low", "high"])

    def save(self, path: str | Path) -> Path:
        """Write all of it to one JSON file that `circuitgraph.evaluation.load` gives back."""
        from circuitgraph.evaluation.storage import save_judgement

        return save_judgement(self, path)

    def __repr__(self) -> str:
        from circuitgraph.evaluation.display import evaluation_text

        return evaluation_text(self)

    def _repr_html_(self) -> str:
        from circuitgraph.evaluation.display import evaluation_html

        return evaluation_html(self)


def evaluate(
    experiment: "Experiment",
    circuit: Circuit,
    *,
    source: Source = "corrupt",
    baselines: int = 100,
    seed: int = 0,
    confidence: float = 0.95,
) -> Evaluation:
    """Judge one circuit; see `Experiment.evaluate`."""
    judge = Judge(experiment, source)
    mask = judge.masks.of_circuit(circuit)
    n_random = whole_number("baselines", baselines, 0, MOST)
    whole_number("seed", seed, 0)
    number("confidence", confidence, CircuitError)
    if not 0 < confidence < 1:
        raise CircuitError(f"confidence lies between 0 and 1, such as 0.95, got {confidence!r}")
    if not mask.any():
        raise CircuitError("the circuit has no edges: there is nothing to judge")
    span = judge.span
    pruned = judge.masks.on_a_way(mask)
    generator = np.random.default_rng(seed)
    randoms = [
        random_circuit(judge.masks, int(pruned.sum()), generator)
        for _ in range(n_random if pruned.any() else 0)
    ]
    values = judge.values([mask, ~mask, *randoms])
    ratios = ratio_of_means(values[:2], judge.clean, judge.empty, confidence=confidence, seed=seed)
    found_here = _found_here(circuit, experiment)
    nodes = judge.masks.nodes_of(pruned)
    graph = experiment.graph
    return Evaluation(
        circuit,
        ratios[0],
        ratios[1],
        values[0],
        judge.clean,
        judge.empty,
        faithfulness(values[2:], judge.clean, judge.empty),
        int(pruned.sum()),
        (sum(isinstance(node, Head) for node in nodes), len(graph.heads)),
        (sum(isinstance(node, MLP) for node in nodes), len(graph.mlps)),
        _against(circuit),
        found_here,
        _about(experiment, judge, confidence, seed),
        _warnings(ratios[0], judge, span, found_here),
    )


MOST = 1_000_000
"""The largest number of circuits, sets or permutations that anybody can mean."""


def whole_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return a whole number, or say what is wrong with it.

    Raises:
        CircuitError: It is no whole number, too small or too large.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise CircuitError(f"{name} must be a whole number of {least} or more, got {value!r}")
    if most is not None and value > most:
        raise CircuitError(f"{name} must be {most:,} at most, got {value!r}")
    return int(value)


def _against(circuit: Circuit) -> tuple[int, int] | None:
    """Return how many edges in and out of a circuit work against the answer, by their scores."""
    helps = circuit.attrs.get("helps")
    weights = {edge: weight.value for edge, weight in circuit.known.items()}
    if any(value is None for value in weights.values()) or not (helps or "mib" in circuit.attrs):
        return None
    sign = 1 if helps == "positive" or (helps is None and "mib" in circuit.attrs) else -1
    against = {edge for edge, value in weights.items() if value is not None and sign * value < 0}
    inside = len(against & circuit.members)
    return inside, len(against) - inside


def _found_here(circuit: Circuit, experiment: "Experiment") -> bool | None:
    fingerprint = circuit.attrs.get("prompts")
    return None if fingerprint is None else fingerprint == experiment.fingerprint


def _about(experiment: "Experiment", judge: Judge, confidence: float, seed: int) -> dict[str, Any]:
    return {
        "source": str(judge.source),
        "mode": "replace",
        "variant": "single-pass",
        "granularity": "edges, all positions together",
        "metric": experiment.metric_name,
        "dtype": experiment.dtype,
        "n_prompts": len(judge.clean),
        "confidence": confidence,
        "seed": seed,
    }


def _warnings(ratio: Ratio, judge: Judge, span: float, found_here: bool | None) -> tuple[str, ...]:
    found = []
    if ratio.value > 1:
        found.append(
            "f is above 1: the circuit answers more strongly than the model. That is a finding "
            "about what was left out (edges that work against the answer), not a success"
        )
    if ratio.value < 0:
        found.append("f is below 0: the circuit does worse than nothing at all in it")
    scale = max(abs(judge.clean.mean()), abs(judge.empty.mean()))
    if abs(span) < NEAR * scale:
        found.append(
            f"clean and empty differ by {abs(span):.3g}, {abs(span) / scale:.1%} of the metric's "
            "size: f divides by that, so small changes look large"
        )
    if np.isnan(ratio.low):
        found.append("there is no interval: prompts are too few, or clean and empty too near")
    if found_here:
        found.append("found on these prompts: judge it on fresh ones before you believe f")
    return tuple(found)
