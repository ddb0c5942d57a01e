"""The tests of Shi et al. 2024 (arXiv:2410.13032): what a circuit is said to be, as nulls.

Ideal tests: *equivalence* (circuit and model outdo each other equally often), *independence* (what
is left without the circuit knows nothing of the model's answers), *minimality* (no edge of it does
less than a random one would). Flexible ones, beside random circuits: *sufficiency* and *partial
necessity*. Implemented from the paper's definitions.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitgraph.arguments import number
from circuitgraph.circuit import Circuit
from circuitgraph.circuit.masks import Mask
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.evaluation import MOST, whole_number
from circuitgraph.evaluation.judge import Judge
from circuitgraph.evaluation.random_circuits import random_circuit, random_way
from circuitgraph.plan import Source

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment

__all__ = ["CircuitTests", "equivalence_p", "hsic", "independence_p", "run_tests"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CircuitTests:
    """Five tests of one circuit.

    Args:
        table: A row for each test: ``test``, ``null`` (what is tested, in words), ``statistic``,
            ``p``, ``rejected``, and ``good`` (whether the outcome speaks for the circuit).
        edges: A row for each edge of the minimality test: ``edge``, ``change``, ``beats`` (share of
            random edges that do less), ``p``, ``p_corrected``.
        about: What was measured.
    """

    table: pd.DataFrame
    edges: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)

    def p(self, test: str) -> float:
        """Return one test's p value.

        Raises:
            CircuitError: No test of that name.
        """
        row = self.table[self.table["test"] == test]
        if row.empty:
            names = ", ".join(self.table["test"])
            raise CircuitError(f"no test {test!r}: there are {names}")
        return float(row["p"].iloc[0])

    def save(self, path: str | Path) -> Path:
        """Write all of it to one JSON file that `circuitgraph.evaluation.load` gives back."""
        from circuitgraph.evaluation.storage import save_judgement

        return save_judgement(self, path)

    def __repr__(self) -> str:
        shown = self.table[["test", "statistic", "p", "rejected", "good"]]
        return f"Tests of a circuit (Shi et al. 2024)\n{shown.round(3).to_string(index=False)}"

    def _repr_html_(self) -> str:
        return str(self.table.round(3).to_html(index=False, escape=True))


def run_tests(
    experiment: "Experiment",
    circuit: Circuit,
    *,
    epsilon: float = 0.1,
    quantile: float = 0.9,
    randoms: int = 100,
    permutations: int = 1000,
    alpha: float = 0.05,
    source: Source = "corrupt",
    seed: int = 0,
) -> CircuitTests:
    """Run the five tests; see `Experiment.test_circuit`."""
    judge = Judge(experiment, source)
    whole_number("randoms", randoms, 2, MOST)
    whole_number("permutations", permutations, 1, MOST)
    whole_number("seed", seed, 0)
    for name, share in (("epsilon", epsilon), ("quantile", quantile), ("alpha", alpha)):
        number(name, share, CircuitError)
        if not 0 < share < (0.5 if name == "epsilon" else 1):
            raise CircuitError(f"{name} is a share, between 0 and 1, got {share!r}")
    mask = judge.masks.on_a_way(judge.masks.of_circuit(circuit))
    if not mask.any():
        raise CircuitError(
            "nothing is left of the circuit once what is on no way from the embedding to the "
            "logits is dropped: there is nothing to test"
        )
    _ = judge.span
    generator = np.random.default_rng(seed)
    drawn = [random_circuit(judge.masks, int(mask.sum()), generator) for _ in range(randoms)]
    inflated, shrunk = _inflated(judge, mask, randoms, generator)
    edges = np.flatnonzero(mask)
    single = [_less(mask, int(edge)) for edge in edges]
    rows = [mask, ~mask, *drawn, *(~one for one in drawn), *inflated, *shrunk, *single]
    means_at = np.cumsum([2, randoms, randoms, len(inflated), len(shrunk)])
    whole, alone, without, grown, cut_back, lone = np.split(judge.values(rows), means_at)
    of_circuit, of_rest = whole
    found = [
        _equivalence(of_circuit, judge.clean, epsilon, judge.rounding),
        _independence(of_rest, judge.clean, permutations, generator),
    ]
    changes = np.abs((lone - of_circuit).mean(axis=-1))
    chance = np.abs((cut_back - grown).mean(axis=-1))
    table = _edges(judge, edges, changes, chance, quantile)
    found.append(
        {
            "test": "minimality",
            "null": f"every edge does more than {quantile:.0%} of random edges",
            "statistic": float(table["beats"].min()) if len(table) else np.nan,
            "p": float(table["p_corrected"].min()) if len(table) else np.nan,
            "good_if_rejected": False,
        }
    )
    distance = np.abs((alone - judge.clean).mean(axis=-1))
    own = abs((of_circuit - judge.clean).mean())
    found.append(_beats("sufficiency", "nearer to the model", own < distance, quantile))
    damage = np.abs((without - judge.clean).mean(axis=-1))
    own = abs((of_rest - judge.clean).mean())
    found.append(_beats("partial necessity", "dearer to lose", own > damage, quantile))
    tests = pd.DataFrame(found)
    tests["rejected"] = tests["p"] <= alpha
    tests["good"] = tests["rejected"] == tests.pop("good_if_rejected")
    about = {
        "source": str(source),
        "metric": experiment.metric_name,
        "n_prompts": len(judge.clean),
        "epsilon": epsilon,
        "quantile": quantile,
        "randoms": randoms,
        "alpha": alpha,
        "seed": seed,
    }
    return CircuitTests(tests, table, about)


def _equivalence(values: Floats, clean: Floats, epsilon: float, rounding: float) -> dict[str, Any]:
    # Prompts on which both are the same but for rounding speak for neither.
    differ = np.abs(values - clean) > rounding
    above, n_told = int((values > clean)[differ].sum()), int(differ.sum())
    return {
        "test": "equivalence",
        "null": f"the circuit outdoes the model on {0.5 - epsilon:.0%} to {0.5 + epsilon:.0%} "
        "of prompts",
        "statistic": above / n_told if n_told else 0.5,
        "p": equivalence_p(above, n_told, epsilon) if n_told else 1.0,
        "good_if_rejected": False,
    }


def equivalence_p(above: int, n_prompts: int, epsilon: float = 0.1) -> float:
    """Return the p value of "the share of prompts where the circuit is above is near a half".

    The null is ``|P - 1/2| <= epsilon``. The p value is the chance, at the edge of the null, of a
    share at least as far from a half as the one seen.

    Args:
        above: Prompts on which the circuit's metric is above the model's.
        n_prompts: All prompts.
        epsilon: Half the width of what counts as equal.

    Example:
        >>> round(equivalence_p(10, 10, 0.1), 6)
        0.006151
    """
    from scipy import stats

    count = np.arange(n_prompts + 1)
    far = np.abs(count / n_prompts - 0.5) >= abs(above / n_prompts - 0.5) - 1e-12
    return float(stats.binom.pmf(count, n_prompts, 0.5 + epsilon)[far].sum())


def _independence(
    rest: Floats, clean: Floats, permutations: int, generator: np.random.Generator
) -> dict[str, Any]:
    return {
        "test": "independence",
        "null": "what is left without the circuit knows nothing of the model's metric",
        "statistic": hsic(rest, clean),
        "p": independence_p(rest, clean, permutations, generator),
        "good_if_rejected": False,
    }


def hsic(first: Floats, second: Floats) -> float:
    """Return the Hilbert-Schmidt independence criterion of two samples, ``[prompt]`` each.

    Gaussian kernels, each as wide as its sample's median distance (Gretton et al. 2007).
    """
    n = len(first)
    return float((_centred(first) * _centred(second)).sum() / (n - 1) ** 2)


def independence_p(
    first: Floats, second: Floats, permutations: int, generator: np.random.Generator
) -> float:
    """Return the permutation p value of `hsic`: never 0, since the samples as they are count too.

    Args:
        first: ``[prompt]``.
        second: ``[prompt]``.
        permutations: How many.
        generator: Source of randomness.
    """
    one, other = _centred(first), _centred(second)
    seen = (one * other).sum()
    tolerance = 1e-12 * max(abs(seen), 1e-300)
    above = 0
    for _ in range(permutations):
        order = generator.permutation(len(first))
        above += bool((one * other[np.ix_(order, order)]).sum() >= seen - tolerance)
    return (above + 1) / (permutations + 1)


def _centred(sample: Floats) -> Floats:
    """Return a sample's centred Gaussian kernel matrix; zero where all its values are the same."""
    distance = np.abs(sample[:, None] - sample[None])
    apart = distance[np.triu_indices(len(sample), k=1)]
    width = np.median(apart) if len(apart) else 0.0
    if width == 0:
        width = apart[apart > 0].min() if (apart > 0).any() else 1.0
    kernel = np.exp(-(distance**2) / (2 * width**2))
    found: Floats = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    return found


def _inflated(
    judge: Judge, mask: Mask, randoms: int, generator: np.random.Generator
) -> tuple[list[Mask], list[Mask]]:
    """Return circuits with a random way added, and the same less one random edge of that way."""
    grown, cut_back = [], []
    for _ in range(randoms):
        more = random_way(judge.masks, mask, generator)
        fresh = np.flatnonzero(more & ~mask)
        if len(fresh):
            grown.append(more)
            cut_back.append(_less(more, int(generator.choice(fresh))))
    return grown, cut_back


def _less(mask: Mask, edge: int) -> Mask:
    without = mask.copy()
    without[edge] = False
    return without


def _edges(
    judge: Judge, edges: NDArray[np.intp], changes: Floats, chance: Floats, quantile: float
) -> pd.DataFrame:
    """Return each edge beside random ones: is what it does more than what most of them do?"""
    from scipy import stats
    from statsmodels.stats.multitest import multipletests

    beaten = (changes[:, None] > chance).sum(axis=1)
    n_random = len(chance)
    p = stats.binom.cdf(beaten, n_random, quantile) if n_random else np.ones(len(edges))
    table = pd.DataFrame(
        {
            "edge": [str(judge.masks.edges[at]) for at in edges],
            "change": changes,
            "beats": beaten / max(n_random, 1),
            "p": p,
            "p_corrected": multipletests(p, method="bonferroni")[1],
        }
    )
    return table.sort_values("change", ascending=False, kind="stable").reset_index(drop=True)


def _beats(test: str, better: str, wins: NDArray[np.bool_], quantile: float) -> dict[str, Any]:
    from scipy import stats

    n_wins = int(wins.sum())
    return {
        "test": test,
        "null": f"the circuit is {better} than at most {quantile:.0%} of random circuits",
        "statistic": n_wins / len(wins),
        "p": float(stats.binom.sf(n_wins - 1, len(wins), quantile)),
        "good_if_rejected": True,
    }
