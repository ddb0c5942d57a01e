"""What every search returns: the circuit, and each step that led to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from circuitgraph.circuit import Circuit

__all__ = ["Search"]


@dataclass(frozen=True, eq=False)
class Search:
    """A circuit, and how it was found.

    Args:
        circuit: What was found. It knows every edge that was tested or dropped; ``attrs`` say how:
            method, threshold, order, the prompts' fingerprint, cost, versions.
        steps: A row for each test, in the order tested: ``edge``, ``before`` and ``after`` (the
            mean metric), ``kept``. Edges dropped without a test are in ``circuit.known`` alone.
        cost: What was counted: tests, circuits or requests run.
    """

    circuit: Circuit
    steps: pd.DataFrame
    cost: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        kept = int(self.steps["kept"].sum())
        attrs = self.circuit.attrs
        head = f"Search by {attrs.get('found_by', '?')}: {len(self.circuit)} edges"
        threshold = attrs.get("threshold")
        if threshold is not None:
            head += f" at threshold {threshold:g}"
        cost = ", ".join(f"{count:,} {name}" for name, count in self.cost.items())
        untested = len(self.circuit.known) - self.steps["edge"].nunique()
        return (
            f"{head}\n  {len(self.steps):,} tests, {kept:,} kept; {untested:,} edges dropped "
            f"without one\n  cost: {cost or 'not counted'}"
        )

    def _repr_html_(self) -> str:
        from html import escape

        table = self.steps.head(20).to_html(index=False, escape=True)
        return f"<div><pre>{escape(repr(self))}</pre>{table}</div>"
