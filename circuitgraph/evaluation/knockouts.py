"""What breaks when parts of a circuit go: completeness, minimality (Wang et al. 2022, section 4).

A node that is knocked out keeps its place, but every edge into and out of it is patched.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitgraph.arguments import collection
from circuitgraph.arguments import number as finite
from circuitgraph.circuit import Circuit
from circuitgraph.circuit.reading import read_node
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.evaluation import MOST, whole_number
from circuitgraph.evaluation.judge import Judge
from circuitgraph.nodes import MLP, Head, Node
from circuitgraph.plan import Source

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment

__all__ = ["Completeness", "Minimality", "completeness", "minimality"]

Floats = NDArray[np.float64]
Sets = Mapping[str, Iterable[Node | str]]


@dataclass(frozen=True, eq=False)
class Completeness:
    """Whether a circuit and the model break alike when the same nodes are knocked out.

    Args:
        table: A row for each set K: ``set`` (its name), ``nodes``, ``n_nodes``, ``circuit`` and
            ``model`` (mean metric of ``C without K`` and ``model without K``), ``incompleteness``
            (their distance), ``share`` (the distance over clean minus empty), the worst first.
        about: What was measured.
    """

    table: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        """The largest distance over all sets, as a share of clean minus empty."""
        return float(self.table["share"].max())

    def save(self, path: str | Path) -> Path:
        """Write all of it to one JSON file that `circuitgraph.evaluation.load` gives back."""
        from circuitgraph.evaluation.storage import save_judgement

        return save_judgement(self, path)

    def __repr__(self) -> str:
        shown = self.table[["set", "n_nodes", "circuit", "model", "share"]].head(8)
        return (
            f"Completeness over {len(self.table)} sets of nodes: worst {self.worst:.2f} of the "
            f"span between clean and empty\n{shown.round(3).to_string(index=False)}"
        )

    def _repr_html_(self) -> str:
        return str(self.table.round(3).to_html(index=False, escape=True))


def completeness(
    experiment: "Experiment",
    circuit: Circuit,
    sets: Sets | None = None,
    *,
    random_sets: int = 20,
    greedy_steps: int = 8,
    source: Source = "corrupt",
    seed: int = 0,
) -> Completeness:
    """Compare circuit and model under knock-outs; see `Experiment.completeness`."""
    judge = Judge(experiment, source)
    mask = judge.masks.of_circuit(circuit)
    whole_number("random_sets", random_sets, 0, MOST)
    whole_number("greedy_steps", greedy_steps, 0)
    candidates = _candidates(judge.masks.nodes_of(mask))
    if not candidates:
        raise CircuitError("the circuit has no heads and no MLPs that could be knocked out")
    span = abs(judge.span)
    named = {"nothing": ()} | _named(circuit, sets)
    generator = np.random.default_rng(whole_number("seed", seed, 0))
    for number in range(random_sets):
        inside = generator.random(len(candidates)) < 0.5
        named[f"random {number + 1}"] = tuple(
            node for node, chosen in zip(candidates, inside, strict=True) if chosen
        )
    rows = _distances(judge, mask, list(named.values()))
    found = [
        _row(name, nodes, *pair, span)
        for (name, nodes), pair in zip(named.items(), rows, strict=True)
    ]
    if greedy_steps:
        found.append(_greedy_worst(judge, mask, candidates, greedy_steps, span))
    table = pd.DataFrame(found).sort_values("share", ascending=False, kind="stable")
    about = {"source": str(source), "metric": experiment.metric_name, "seed": seed}
    return Completeness(table.reset_index(drop=True), about)


def _named(circuit: Circuit, sets: Sets | None) -> dict[str, tuple[Node, ...]]:
    """Return the sets that were asked for; by default the circuit's named groups."""
    given: Sets = circuit.groups if sets is None else sets
    if not isinstance(given, Mapping):
        raise CircuitError(
            f"sets are given by name, {{'name movers': ['9.9', '9.6']}}, got {type(given).__name__}"
        )
    return {
        str(name): tuple(
            sorted(map(read_node, collection(f"sets[{name!r}]", nodes, "nodes", CircuitError)))
        )
        for name, nodes in given.items()
    }


def _candidates(nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if isinstance(node, Head | MLP)]


def _distances(
    judge: Judge, mask: NDArray[np.bool_], sets: Sequence[Sequence[Node]]
) -> list[tuple[float, float]]:
    """Return the mean metric of circuit and model without each set of nodes."""
    masks, everything = judge.masks, np.ones_like(mask)
    rows = [masks.without(whole, nodes) for nodes in sets for whole in (mask, everything)]
    means = judge.values(rows).mean(axis=-1).reshape(-1, 2)
    return [(float(of_circuit), float(of_model)) for of_circuit, of_model in means]


def _row(
    name: str, nodes: Sequence[Node], of_circuit: float, of_model: float, span: float
) -> dict[str, Any]:
    distance = abs(of_circuit - of_model)
    return {
        "set": name,
        "nodes": ", ".join(map(str, nodes)),
        "n_nodes": len(nodes),
        "circuit": of_circuit,
        "model": of_model,
        "incompleteness": distance,
        "share": distance / span,
    }


def _greedy_worst(
    judge: Judge,
    mask: NDArray[np.bool_],
    candidates: Sequence[Node],
    steps: int,
    span: float,
) -> dict[str, Any]:
    """Return the worst set that adding one node after another finds."""
    chosen: list[Node] = []
    best: dict[str, Any] | None = None
    for _ in range(min(steps, len(candidates))):
        left = [node for node in candidates if node not in chosen]
        pairs = _distances(judge, mask, [[*chosen, node] for node in left])
        at = max(range(len(left)), key=lambda at: abs(pairs[at][0] - pairs[at][1]))
        row = _row("greedy worst", sorted([*chosen, left[at]]), *pairs[at], span)
        chosen.append(left[at])
        if best is None or row["share"] > best["share"]:
            best = row
    assert best is not None
    return best


@dataclass(frozen=True, eq=False)
class Minimality:
    """What each part of a circuit is worth to it.

    Args:
        table: A row for each edge or node: ``name``, ``change`` (mean change of the metric when it
            leaves), ``share`` (over clean minus empty), ``p``, ``p_corrected`` (for the number of
            parts, Benjamini and Hochberg), ``matters``, the largest change first.
        by: ``"edge"`` or ``"node"``.
        about: What was measured.
    """

    table: pd.DataFrame
    by: str
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def idle(self) -> tuple[str, ...]:
        """Names of the parts that cannot be told from idle."""
        return tuple(self.table["name"][~self.table["matters"]])

    def save(self, path: str | Path) -> Path:
        """Write all of it to one JSON file that `circuitgraph.evaluation.load` gives back."""
        from circuitgraph.evaluation.storage import save_judgement

        return save_judgement(self, path)

    def __repr__(self) -> str:
        n_parts, n_idle = len(self.table), len(self.idle)
        shown = self.table[["name", "change", "share", "p_corrected", "matters"]].head(8)
        return (
            f"Minimality: {n_parts - n_idle} of {n_parts} {self.by}s matter on their own\n"
            f"{shown.round(4).to_string(index=False)}"
        )

    def _repr_html_(self) -> str:
        return str(self.table.round(4).to_html(index=False, escape=True))


def minimality(
    experiment: "Experiment",
    circuit: Circuit,
    *,
    by: Literal["edge", "node"] = "edge",
    beside: Sets | None = None,
    source: Source = "corrupt",
    confidence: float = 0.95,
) -> Minimality:
    """Take out one part after another; see `Experiment.minimality`."""
    from scipy import stats
    from statsmodels.stats.multitest import multipletests

    judge = Judge(experiment, source)
    mask = judge.masks.of_circuit(circuit)
    if not isinstance(by, str) or by not in ("edge", "node"):
        raise CircuitError(f"by must be 'edge' or 'node', got {by!r}")
    finite("confidence", confidence, CircuitError)
    if not 0 < confidence < 1:
        raise CircuitError(f"confidence lies between 0 and 1, such as 0.95, got {confidence!r}")
    if beside is not None and by == "edge":
        raise CircuitError("beside names nodes to knock out first: it needs by='node'")
    span = judge.span
    names, rows = [], []
    if by == "edge":
        for edge in circuit.edges:
            without = mask.copy()
            without[judge.masks.index.number(edge)] = False
            names.append(str(edge))
            rows += [mask, without]
    else:
        first = {read_node(name): nodes for name, nodes in (beside or {}).items()}
        for node in _candidates(judge.masks.nodes_of(mask)):
            others = [read_node(other) for other in first.get(node, ())]
            names.append(str(node))
            rows += [judge.masks.without(mask, set(others) - {node})]
            rows += [judge.masks.without(mask, [*others, node])]
    if not rows:
        raise CircuitError(f"the circuit has no {by}s to take out")
    values = judge.values(rows).reshape(len(names), 2, -1)
    change = values[:, 1] - values[:, 0]
    idle = np.abs(change).max(axis=-1) <= judge.rounding
    p = np.where(idle, 1.0, np.nan)
    if change.shape[1] > 1 and not idle.all():
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # Changes that are the same on every prompt have no spread: their p is 0.
            warnings.simplefilter("ignore", RuntimeWarning)
            p[~idle] = stats.ttest_1samp(change[~idle], 0.0, axis=-1).pvalue
    tested = ~np.isnan(p)
    corrected = p.copy()
    if tested.any():
        corrected[tested] = multipletests(p[tested], method="fdr_bh")[1]
    table = pd.DataFrame(
        {
            "name": names,
            "change": change.mean(axis=-1),
            "share": change.mean(axis=-1) / span,
            "p": p,
            "p_corrected": corrected,
            "matters": np.nan_to_num(corrected, nan=1.0) <= 1 - confidence,
        }
    )
    order = np.argsort(-np.abs(table["change"].to_numpy()), kind="stable")
    about = {"source": str(source), "metric": experiment.metric_name, "confidence": confidence}
    return Minimality(table.iloc[order].reset_index(drop=True), by, about)
