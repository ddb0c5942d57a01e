"""How effects and comparisons show themselves: a few lines of text, or a small HTML table."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from circuitgraph.effects.cells import cell_labels
from circuitgraph.effects.tables import ranked
from circuitgraph.errors import EffectsError
from circuitgraph.request.brief import brief

if TYPE_CHECKING:
    from circuitgraph.effects.comparison import Comparison
    from circuitgraph.effects.results import Effects

__all__ = [
    "comparison_html",
    "comparison_text",
    "effects_html",
    "effects_text",
    "estimated",
    "interval_text",
    "signed",
    "table_html",
]


def signed(value: float) -> str:
    """Return an effect as a person reads it: two decimals, or two digits where it is smaller.

    Example:
        >>> signed(-0.181), signed(0.0042), signed(0.0), signed(1e-17), signed(float("nan"))
        ('-0.18', '+0.0042', '0', '~0', 'empty')
    """
    if np.isnan(value):
        return "empty"
    if abs(value) < 1e-6:
        return "0" if value == 0 else "~0"
    return f"{value:+.2f}" if abs(value) >= 0.00995 else f"{value:+.2g}"


def interval_text(low: float, high: float) -> str:
    """Return an interval with as many digits as tell its ends apart; nothing where it has none.

    Example:
        >>> interval_text(-0.21, -0.15), interval_text(-0.0614, -0.0586)
        ('-0.21 to -0.15', '-0.061 to -0.059')
    """
    if np.isnan(low) or np.isnan(high):
        return ""
    ends = signed(low), signed(high)
    for digits in (3, 4, 5):
        if ends[0] == ends[1] and low != high:
            ends = f"{low:+.{digits}f}", f"{high:+.{digits}f}"
    return f"{ends[0]} to {ends[1]}"


def effects_text(effects: "Effects") -> str:
    """Return the request, the dimensions, clean and corrupt, and the three strongest cells."""
    lines = [f"Effects of {heading(effects)}", f"  {readings(effects)}"]
    effect, kind = _shown_effects(effects)
    labels = cell_labels(effects.data)
    best = ranked(effect, "absolute")[:3]
    if len(best) == 0:
        lines.append("  no cell is filled")
    elif effects.shape:
        strongest = ", ".join(f"{labels[cell]} {signed(float(effect[cell]))}" for cell in best)
        lines.append(f"  strongest{kind}: {strongest}")
    else:
        lines.append(f"  effect{kind}: {signed(float(effect[0]))}")
    return "\n".join(lines)


def effects_html(effects: "Effects") -> str:
    """Return the same with a table of the five strongest cells; every text is escaped."""
    try:
        table = effects.top(5)
    except EffectsError as problem:
        return _card(f"Effects of {heading(effects)}", readings(effects), escape(str(problem)))
    shown = pd.DataFrame(
        {
            "name": table["name"],
            **({"metric": table["metric"]} if "metric" in table else {}),
            "effect": [signed(value) for value in table["effect"]],
            "95% interval": [
                interval_text(low, high)
                for low, high in zip(table["ci_low"], table["ci_high"], strict=True)
            ],
            "stands out": ["yes" if found else "" for found in table["significant"]],
        }
    )
    return _card(f"Effects of {heading(effects)}", readings(effects), table_html(shown))


def comparison_text(comparison: "Comparison") -> str:
    """Return what is compared, how far it agrees, and the three strongest cells."""
    first = comparison.effects[comparison.names[0]]
    lines = [f"Comparison of {', '.join(comparison.names)}: {heading(first, among=comparison)}"]
    lines.append(f"  {readings(first)}")
    try:
        lines += [f"  {line}" for line in agreeing(comparison)]
        table = comparison.strongest(3)
    except EffectsError as problem:
        return "\n".join([*lines, f"  {problem}"])
    shown = [
        f"{row['label']} " + " / ".join(signed(row[name]) for name in comparison.names)
        for row in table.to_dict("records")
    ]
    lines.append(f"  strongest: {', '.join(shown)}" if shown else "  no cell is filled")
    return "\n".join(lines)


def comparison_html(comparison: "Comparison") -> str:
    """Return the same with a table of the five strongest cells; every text is escaped.

    Of two it has their difference, too, with its interval.
    """
    first = comparison.effects[comparison.names[0]]
    head = f"Comparison of {', '.join(comparison.names)}: {heading(first, among=comparison)}"
    try:
        said = "".join(f"<br>{escape(line)}" for line in agreeing(comparison))
        table, names = comparison.table(5), comparison.strongest(5)["label"]
    except EffectsError as problem:
        return _card(head, readings(first), f"<br>{escape(str(problem))}")
    columns: dict[str, Any] = {"name": names}
    columns |= {name: [signed(value) for value in table[name]] for name in comparison.names}
    if "difference" in table:
        columns["difference"] = [signed(value) for value in table["difference"]]
        columns["95% interval"] = [
            interval_text(low, high)
            for low, high in zip(table["ci_low"], table["ci_high"], strict=True)
        ]
        columns["differs"] = ["yes" if found else "" for found in table["differs"]]
    return _card(head, readings(first), said, table_html(pd.DataFrame(columns)))


def agreeing(comparison: "Comparison") -> list[str]:
    """Return a line for each two: correlations, and how many of the strongest they share."""
    lines = []
    among = {name for name, one in comparison.effects.items() if one.attrs.get("estimate")}
    for row in comparison.agreement().to_dict("records"):
        parts = [
            f"{name.capitalize()} {row[name]:.2f}"
            for name in ("spearman", "pearson")
            if np.isfinite(row[name])
        ]
        if among.intersection((row["a"], row["b"])):
            parts.append(f"{row['sign']:.0%} of signs alike, furthest apart at {row['at']}")
        parts.append(f"{row['shared']} of the {row['k']} strongest shared")
        said = ", ".join(parts) if row["n_cells"] else "no cell in common"
        lines.append(f"{row['a']} and {row['b']}: {said}")
    return lines


def heading(effects: "Effects", among: "Comparison | None" = None) -> str:
    """Return request, settings and size in one line; of a comparison, what all share."""
    others = among.effects.values() if among else [effects]
    attrs = effects.attrs
    shared = {
        key: value
        for key, value in attrs.items()
        if all(other.attrs.get(key) == value for other in others)
    }
    request = f"'{brief(str(shared['request']))}'" if "request" in shared else "a request"
    settings = [f"{key} {shared[key]}" for key in ("variant", "mode", "engine") if key in shared]
    if told := estimated(shared):
        settings[-1] = told
    size = " x ".join(
        f"{dim} {length}" for dim, length in zip(effects.dims, effects.shape, strict=True)
    )
    prompts = f"{effects.n_prompts} prompt{'s' * (effects.n_prompts != 1)}"
    said = f" ({', '.join(settings)})" if settings else ""
    return f"{request}{said}: {size or 'one cell'}, {prompts}"


def estimated(attrs: Mapping[str, Any]) -> str:
    """Return who estimated effects, to stand in titles; empty where they were measured.

    Example:
        >>> estimated({"estimate": True, "engine": "EAP"}), estimated({"engine": "fast"})
        ('estimated by EAP', '')
    """
    return f"estimated by {attrs.get('engine', 'a gradient')}" if attrs.get("estimate") else ""


def readings(effects: "Effects") -> str:
    """Return the mean metric on clean and on corrupt prompts."""
    data = effects.data
    clean, corrupt = (
        np.atleast_1d(data[name].mean("prompt", dtype=np.float64).to_numpy())
        for name in ("clean", "corrupt")
    )
    metric = effects.attrs.get("metric")
    names = data["metric"].to_numpy().ravel().tolist() if "metric" in data.coords else [metric]
    return "; ".join(
        f"{name or 'metric'} {one:.3g} clean, {other:.3g} corrupt"
        for name, one, other in zip(names, clean, corrupt, strict=True)
    )


def table_html(table: pd.DataFrame) -> str:
    """Return a plain HTML table; every text is escaped."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shown_effects(effects: "Effects") -> tuple[np.ndarray, str]:
    """Return normalized effects, or raw ones, saying so, where there is no normalized effect."""
    try:
        return effects.normalized().to_numpy().ravel(), ""
    except EffectsError:
        return effects.difference().mean("prompt").to_numpy().ravel(), " (raw change)"


def _card(head: str, *parts: Sequence[str] | str) -> str:
    first, *rest = map(str, parts)
    return f"<div><strong>{escape(head)}</strong><br>{escape(first)}{''.join(rest)}</div>"
