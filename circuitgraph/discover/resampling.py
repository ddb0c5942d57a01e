"""How far a cut hangs on the prompts: cut again and again from prompts drawn anew."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitgraph.circuit import Circuit
from circuitgraph.circuit.cutting import How, check_cut, chosen, cut
from circuitgraph.circuit.from_effects import cells_of_edges
from circuitgraph.circuit.scores import EdgeScores, Sign, scores_of
from circuitgraph.effects import Effects
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.evaluation import MOST

__all__ = ["Stability", "stability"]

ENOUGH_RESAMPLES, ENOUGH_JACCARD = 100, 0.8
"""What Meloux et al. 2025 (arXiv:2510.00845) ask of a circuit that is to be called stable."""


@dataclass(frozen=True, eq=False)
class Stability:
    """How often each edge is in the circuit when prompts are drawn anew.

    Args:
        circuit: The circuit cut from all prompts.
        frequency: For every edge that was in any of the circuits, the share of resamples in whose
            circuit it was; columns ``edge``, ``frequency``, ``in_circuit``, most frequent first.
        jaccard: Mean Jaccard index (shared edges over edges of either) over pairs of resamples.
        jaccard_to_circuit: The Jaccard index of each resample's circuit with `circuit`.
        resamples: How often prompts were drawn.
        n_prompts: How many prompts there are.
    """

    circuit: Circuit
    frequency: pd.DataFrame
    jaccard: float
    jaccard_to_circuit: NDArray[np.float64]
    resamples: int
    n_prompts: int

    @property
    def stable(self) -> bool:
        """Whether the mean Jaccard index is at least .8 over at least 100 resamples."""
        return self.resamples >= ENOUGH_RESAMPLES and self.jaccard >= ENOUGH_JACCARD

    def core(self, frequency: float = 0.95) -> Circuit:
        """Return the edges of the circuit that are in at least this share of the resamples.

        Raises:
            CircuitError: A share outside 0 to 1.
        """
        if not 0 <= frequency <= 1:
            raise CircuitError(f"frequency is a share of the resamples, 0 to 1, got {frequency!r}")
        table = self.frequency
        often = set(table["edge"][table["frequency"] >= frequency])
        members = frozenset(edge for edge in self.circuit.members if str(edge) in often)
        circuit = self.circuit
        return Circuit(circuit.shape, circuit.known, members, circuit.groups, circuit.attrs)

    def __repr__(self) -> str:
        n_edges = len(self.circuit)
        often = self.frequency["frequency"].to_numpy()
        inside = self.frequency["in_circuit"].to_numpy(dtype=bool)
        sure = int(((often >= 0.95) & inside).sum())
        return (
            f"Stability of {n_edges} edges over {self.resamples} resamples of {self.n_prompts} "
            f"prompts\n  mean pairwise Jaccard {self.jaccard:.2f}; {sure} of {n_edges} edges are "
            f"in 95% of the circuits\n  {len(often)} edges were in any of them"
            + ("" if self.stable else f"\n  not stable: {self._why()}")
        )

    def _why(self) -> str:
        if self.resamples < ENOUGH_RESAMPLES:
            return f"{ENOUGH_RESAMPLES} resamples are the least that can tell"
        return f"a mean Jaccard index of {ENOUGH_JACCARD} is the least to call a circuit stable"


def stability(
    effects: Effects,
    n_edges: int,
    how: How = "top",
    sign: Sign = "absolute",
    *,
    resamples: int = 200,
    seed: int = 0,
) -> Stability:
    """Return how stable a cut is when prompts are resampled; runs no model.

    Prompts are drawn with replacement, as many as there are; each draw's effects (a ratio of means,
    as everywhere) are cut the same way.

    Args:
        effects: Effects of a sweep over edges, with their prompts.
        n_edges: How many edges, as for `cut`.
        how: As for `cut`.
        sign: As for `cut`.
        resamples: How often prompts are drawn; Meloux et al. 2025 (arXiv:2510.00845) ask for at
            least 100.
        seed: Of the drawing.

    Raises:
        CircuitError: Effects without several prompts, or settings that are not allowed.
    """
    check_cut(n_edges, how, sign)
    if not isinstance(effects, Effects):
        raise CircuitError(
            "stability needs Effects, whose prompts can be drawn anew, got "
            + type(effects).__name__
        )
    for name, number, least in (("resamples", resamples, 2), ("seed", seed, 0)):
        whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not whole or number < least:
            raise CircuitError(f"{name} must be a whole number of {least} or more, got {number!r}")
    if resamples > MOST:
        raise CircuitError(f"resamples must be {MOST:,} at most, got {resamples!r}")
    if effects.n_prompts < 2:
        raise CircuitError("these effects have one prompt: there is nothing to draw anew")
    circuit, scores = cut(effects, n_edges, how, sign), scores_of(effects)
    inside = np.zeros((resamples, len(scores.edges)), dtype=bool)
    for number, importance in enumerate(_resampled(effects, scores, resamples, seed)):
        strength = importance if sign == "signed" else np.abs(importance)
        inside[number, chosen(scores, strength, int(n_edges), how)] = True
    members = np.array([edge in circuit.members for edge in scores.edges])
    return Stability(
        circuit,
        _table(scores, inside, members),
        _mean_jaccard(inside),
        _jaccard(inside, members),
        resamples,
        effects.n_prompts,
    )


def _resampled(
    effects: Effects, scores: EdgeScores, resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return importances from prompts drawn anew, ``[resample edge]``."""
    _, cells = cells_of_edges(effects)
    data, n_prompts = effects.data, effects.n_prompts
    change = effects.difference().to_numpy().reshape(-1, n_prompts)
    change = change[[cells[edge] for edge in scores.edges]]
    span = (data["clean"] - data["corrupt"]).to_numpy()
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=resamples)
    spans = counts @ span
    if (spans == 0).any():
        raise CircuitError(
            "clean and corrupt measure the same on some resamples, so effects have no scale there: "
            "use more prompts"
        )
    importance: NDArray[np.float64] = -(counts @ change.T) / spans[:, None]
    return importance


def _table(
    scores: EdgeScores, inside: NDArray[np.bool_], members: NDArray[np.bool_]
) -> pd.DataFrame:
    frequency = inside.mean(axis=0)
    there = np.flatnonzero((frequency > 0) | members)
    order = there[np.argsort(-frequency[there], kind="stable")]
    return pd.DataFrame(
        {
            "edge": [str(scores.edges[at]) for at in order],
            "frequency": frequency[order],
            "in_circuit": members[order],
        }
    )


def _jaccard(inside: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64]:
    shared = (inside & other).sum(axis=-1)
    either = (inside | other).sum(axis=-1)
    return np.where(either > 0, shared / np.maximum(either, 1), 1.0)


def _mean_jaccard(inside: NDArray[np.bool_]) -> float:
    """Return the mean Jaccard index over pairs of rows; two empty circuits agree."""
    used = inside[:, inside.any(axis=0)].astype(np.float64)
    shared = used @ used.T
    size = np.diag(shared)
    either = size[:, None] + size[None] - shared
    index = np.where(either > 0, shared / np.maximum(either, 1), 1.0)
    rows, columns = np.triu_indices(len(index), k=1)
    return float(index[rows, columns].mean())
