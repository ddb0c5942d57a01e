"""The half of `Experiment` that judges circuits; the work is done in the room `evaluation`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

from circuitgraph.nodes import Node
from circuitgraph.plan import Source

if TYPE_CHECKING:
    from circuitgraph.circuit import Circuit
    from circuitgraph.circuit.cutting import How
    from circuitgraph.circuit.scores import Sign
    from circuitgraph.effects import Effects
    from circuitgraph.evaluation import (
        CircuitTests,
        Completeness,
        Curve,
        Evaluation,
        Minimality,
    )
    from circuitgraph.experiment.experiment import Experiment

__all__ = ["Judging"]


class Judging:
    """What an experiment says of circuits: each is run alone, all other edges patched."""

    def evaluate(
        self,
        circuit: "Circuit",
        *,
        source: Source = "corrupt",
        baselines: int = 100,
        seed: int = 0,
        confidence: float = 0.95,
    ) -> "Evaluation":
        """Judge one circuit on this experiment's prompts.

        Args:
            circuit: Whose edges stay live; every other edge of the model is patched, mode
                ``replace``, variant ``single-pass``.
            source: Where patched values come from: ``corrupt``, ``zero``, ``mean`` or
                ``mean-position``.
            baselines: How many random connected circuits of the same size to run beside it.
            seed: Of baselines and resampling.
            confidence: Of the intervals.

        Returns:
            Faithfulness ``f = (m(C) - m(empty)) / (m(clean) - m(empty))``, m the mean over prompts,
            with a paired bootstrap interval; f of all edges but the circuit's; f of random
            circuits; sizes, spread and warnings. One forward pass or so for each circuit.

        Raises:
            CircuitError: A circuit of another model, or with no edges.
            MetricError: Clean and empty measure the same, so that f is undefined.

        Example:
            >>> circuit = cg.discover.cut(effects, 500)  # doctest: +SKIP
            >>> exp.evaluate(circuit).faithfulness  # doctest: +SKIP
        """
        from circuitgraph.evaluation import evaluate

        return evaluate(
            cast("Experiment", self),
            circuit,
            source=source,
            baselines=baselines,
            seed=seed,
            confidence=confidence,
        )

    def curve(
        self,
        effects: "Effects | Circuit",
        *,
        sizes: Sequence[float] | None = None,
        how: "How" = "top",
        sign: "Sign" = "signed",
        source: Source = "corrupt",
        confidence: float = 0.95,
        seed: int = 0,
    ) -> "Curve":
        """Cut circuits of several sizes from scores, prune and judge them.

        Args:
            effects: Effects of a sweep over edges, or a circuit that knows a weight for every edge,
                such as one read from a MIB file.
            sizes: Whole numbers are edges, fractions shares of all edges; by default MIB's: .001
                .002 .005 .01 .02 .05 .1 .2 .5 1.
            how: As for `circuitgraph.discover.cut`.
            sign: ``signed`` ranks by importance (MIB's CPR), ``absolute`` by size (its CMD).
            source: Where patched values come from.
            confidence: Of the intervals.
            seed: Of the resampling.

        Returns:
            f at each size with its interval, and the areas ``cpr`` and ``cmd`` over the share of
            edges.

        Raises:
            CircuitError: Sizes or settings that are not allowed, or scores of another model.
        """
        from circuitgraph.evaluation import curve

        return curve(
            cast("Experiment", self),
            effects,
            sizes=sizes,
            how=how,
            sign=sign,
            source=source,
            confidence=confidence,
            seed=seed,
        )

    def completeness(
        self,
        circuit: "Circuit",
        sets: Mapping[str, Iterable[Node | str]] | None = None,
        *,
        random_sets: int = 20,
        greedy_steps: int = 8,
        source: Source = "corrupt",
        seed: int = 0,
    ) -> "Completeness":
        """Knock the same nodes out of circuit and model: do both break alike?

        Wang et al. 2022 (arXiv:2211.00593, section 4): a circuit is complete if ``m(C without K)``
        and ``m(model without K)`` agree for every set K of nodes.

        Args:
            circuit: The circuit.
            sets: Named sets of nodes to knock out; by default the circuit's groups.
            random_sets: How many random sets of the circuit's nodes to add.
            greedy_steps: How many nodes a greedily chosen worst set may grow to; 0 for none.
            source: Where patched values come from.
            seed: Of the random sets.
        """
        from circuitgraph.evaluation import completeness

        return completeness(
            cast("Experiment", self),
            circuit,
            sets,
            random_sets=random_sets,
            greedy_steps=greedy_steps,
            source=source,
            seed=seed,
        )

    def minimality(
        self,
        circuit: "Circuit",
        *,
        by: Literal["edge", "node"] = "edge",
        beside: Mapping[str, Iterable[Node | str]] | None = None,
        source: Source = "corrupt",
        confidence: float = 0.95,
    ) -> "Minimality":
        """Take one part after another out of a circuit: does each matter?

        Args:
            circuit: The circuit.
            by: Whether parts are edges, or heads and MLPs.
            beside: For nodes: what to knock out first, by node, as Wang et al. 2022 do with the
                rest of a head's class, where its like would stand in for it.
            source: Where patched values come from.
            confidence: One minus the level at which a part is said to matter, after correction for
                their number.
        """
        from circuitgraph.evaluation import minimality

        return minimality(
            cast("Experiment", self),
            circuit,
            by=by,
            beside=beside,
            source=source,
            confidence=confidence,
        )

    def test_circuit(
        self,
        circuit: "Circuit",
        *,
        epsilon: float = 0.1,
        quantile: float = 0.9,
        randoms: int = 100,
        permutations: int = 1000,
        alpha: float = 0.05,
        source: Source = "corrupt",
        seed: int = 0,
    ) -> "CircuitTests":
        """Put a circuit to the hypothesis tests of Shi et al. 2024 (arXiv:2410.13032).

        Args:
            circuit: The circuit; it is pruned first.
            epsilon: How far from a half the share of prompts may be on which the circuit outdoes
                the model, to count as equivalent.
            quantile: The share of random circuits, or edges, to outdo.
            randoms: How many random circuits and inflated circuits.
            permutations: Of the independence test.
            alpha: The level at which a null hypothesis is rejected.
            source: Where patched values come from.
            seed: Of all randomness.
        """
        from circuitgraph.evaluation import run_tests

        return run_tests(
            cast("Experiment", self),
            circuit,
            epsilon=epsilon,
            quantile=quantile,
            randoms=randoms,
            permutations=permutations,
            alpha=alpha,
            source=source,
            seed=seed,
        )
