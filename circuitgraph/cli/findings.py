"""What the demo reads from effects: which heads matter, and what they make of the answer.

The names for what heads do are read from effects alone, so they are kept modest: a head whose loss
harms the answer "writes" it. That name movers copy the name they look at is not shown here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from circuitgraph.circuit import Circuit
    from circuitgraph.effects import Effects

__all__ = [
    "after",
    "circuit_notes",
    "feeding",
    "in_words",
    "joint",
    "make_circuit",
    "opposing",
    "shown_circuit",
    "swept",
    "writing",
]

_SHOWN = 40
"""Edges of a sweep that a report shows as a circuit, at most."""

_WRITES, _OPPOSES, _FEEDS = 0.05, 0.05, 0.01
"""The least effects, as a share of the logit difference, of heads that are spoken of."""


def writing(effects: "Effects") -> tuple[str, ...]:
    """Return the heads without which the answer loses most, six at most."""
    return _strongest(effects, "negative", _WRITES, 6) or _first(effects)


def opposing(effects: "Effects") -> tuple[str, ...]:
    """Return the heads without which the answer gains most, six at most; there may be none."""
    return _strongest(effects, "positive", _OPPOSES, 6)


def feeding(effects: "Effects") -> tuple[str, ...]:
    """Return the heads that matter most to the queries beyond chance, three at most."""
    table = effects.top(20)
    sure = table[table["significant"] & (table["effect"].abs() >= _FEEDS)]
    return tuple(map(str, sure["name"].head(3))) or _first(effects)


def _strongest(
    effects: "Effects", by: Literal["absolute", "negative", "positive"], least: float, most: int
) -> tuple[str, ...]:
    """Return the strongest cells whose interval leaves out zero (or is unknown, of one prompt)."""
    table = effects.top(20, by=by)
    unsure = (table["ci_low"] <= 0) & (table["ci_high"] >= 0)
    strong = table[(table["effect"].abs() >= least) & ~unsure]
    return tuple(map(str, strong["name"].head(most)))


def _first(effects: "Effects") -> tuple[str, ...]:
    return tuple(map(str, effects.top(1)["name"]))


def joint(heads: Sequence[str]) -> str:
    """Return heads as one joint set: ``{23.3, 29.1}``."""
    return "{" + ", ".join(heads) + "}"


def after(head: str, heads: Sequence[str]) -> tuple[str, ...]:
    """Return those of some heads that can read what a head wrote.

    Example:
        >>> after("11.3", ["11.3", "12.1", "9.0"])
        ('12.1',)
    """
    layer = {name: int(name.split(".")[0]) for name in (head, *heads)}
    return tuple(other for other in heads if layer[other] > layer[head])


def swept(heads: Sequence[str]) -> str:
    """Return heads as a list, one at a time: ``[23.3, 29.1]``."""
    return "[" + ", ".join(heads) + "]"


def in_words(effect: float) -> str:
    """Return what an effect means for the answer.

    Example:
        >>> in_words(-0.609), in_words(0.188), in_words(0.004)
        ('loses 61 % of the logit difference', 'adds 19 %', 'next to nothing')
    """
    share = f"{abs(effect):.0%}".replace("%", " %")
    if abs(effect) < 0.005:
        return "next to nothing"
    return f"loses {share} of the logit difference" if effect < 0 else f"adds {share}"


def shown_circuit(effects: "Effects") -> "Circuit | None":
    """Return the strongest edges of a sweep: those that stand out, or else the first ten.

    None where no single edges were patched (``9.9 => logits``).
    """
    from circuitgraph.circuit import Circuit
    from circuitgraph.errors import CircuitError

    try:
        sure = Circuit.from_effects(effects, top=_SHOWN, significant_only=True)
        return sure if len(sure) else Circuit.from_effects(effects, top=10)
    except CircuitError:
        return None


def circuit_notes(circuit: "Circuit | None", request: str) -> tuple[str, ...]:
    """Return what must be known of a circuit whose edges were not patched one by one.

    Example:
        >>> circuit_notes(None, "head -> {8.6, 9.9}.q => logits")
        ()
    """
    from circuitgraph.request import EdgesRequest, Joint, PathRequest, parse

    match parse(request):
        case EdgesRequest(edges=edges):
            together = len(edges) > 1
        case PathRequest(steps=steps):
            wide = any(isinstance(step, Joint) and len(step.sites) > 1 for step in steps)
            together = len(steps) > 2 or wide
        case _:
            together = False
    if circuit is None or not together:
        return ()
    said = "In the circuit, edges that were patched together each carry the effect of all of them"
    return (f"{said}, not a share of their own.",)


def make_circuit(
    to_logits: "Effects", edges: "Effects", writers: Sequence[str], feeders: Sequence[str]
) -> "Circuit":
    """Return the circuit of the heads that matter: into the logits, and into the writers' queries.

    Args:
        to_logits: Every head -> logits.
        edges: Every feeder -> every writer's queries, one at a time.
        writers: Heads that write the answer.
        feeders: Heads that feed their queries.
    """
    from circuitgraph.circuit import Circuit

    against = opposing(to_logits)
    into_logits = Circuit.from_effects(to_logits).restrict([*writers, *against, "logits"])
    circuit = into_logits | Circuit.from_effects(edges)
    groups = {
        "write the answer": set(writers),
        "speak against it": set(against),
        "feed their queries": set(feeders) - {*writers, *against},
    }
    return circuit.with_groups({name: sorted(heads) for name, heads in groups.items() if heads})
