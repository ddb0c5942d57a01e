"""How judgements show themselves: in a terminal, and in a notebook."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from circuitgraph.evaluation.ratios import Ratio

if TYPE_CHECKING:
    from circuitgraph.evaluation.curve import Curve
    from circuitgraph.evaluation.evaluation import Evaluation

__all__ = ["curve_html", "curve_text", "evaluation_html", "evaluation_text"]


def evaluation_text(found: "Evaluation") -> str:
    """Return an evaluation as lines: f first, then what is needed to read it."""
    lines = [f"Evaluation of a circuit of {len(found.circuit)} edges", *_lines(found)]
    lines += [f"  ! {warning}" for warning in found.warnings]
    return "\n".join(lines)


def _lines(found: "Evaluation") -> list[str]:
    about = found.about
    sure = f"{about.get('confidence', 0.95):.0%}"
    where = {True: "found on these prompts", False: "fresh prompts", None: "not known"}
    lines = [
        f"  faithfulness f     {_percent(found.ratio, sure)}",
        f"  complement f       {_percent(found.complement_ratio, sure)}   near 0 if necessary",
    ]
    if len(found.baselines):
        low, median, high = np.quantile(found.baselines, [0.025, 0.5, 0.975])
        lines.append(
            f"  random circuits    {_number(median)} (95% of {len(found.baselines)} between "
            f"{_number(low)} and {_number(high)}); {found.rank:.0%} are further from 1"
        )
    spread = found.per_prompt
    lines.append(
        f"  per prompt         standard deviation {_number(float(spread.std()))}, from "
        f"{_number(float(spread.min()))} to {_number(float(spread.max()))}"
    )
    heads, mlps = found.heads, found.mlps
    lines.append(
        f"  size               {len(found.circuit)} edges, {found.n_pruned} after pruning; "
        f"{heads[0]} of {heads[1]} heads, {mlps[0]} of {mlps[1]} MLPs"
    )
    lines.append(
        f"  metric             {about.get('metric', 'metric')}: {_number(found.values.mean())} "
        f"with the circuit, {_number(found.clean.mean())} clean, "
        f"{_number(found.empty.mean())} empty"
    )
    if found.helps_against is not None:
        inside, outside = found.helps_against
        lines.append(
            f"  against the answer {inside} edges in the circuit, {outside} left out, by score"
        )
    lines.append(f"  prompts            {about.get('n_prompts')}, {where[found.found_here]}")
    lines.append(
        f"  patched            source {about.get('source')}, mode {about.get('mode')}, "
        f"{about.get('granularity')}, {about.get('dtype')}"
    )
    return lines


def evaluation_html(found: "Evaluation") -> str:
    """Return an evaluation as a table; every text is escaped."""
    rows = "".join(
        f"<tr><td>{escape(line[2:21].strip())}</td>"
        f"<td style='text-align:left'>{escape(line[21:].strip())}</td></tr>"
        for line in _lines(found)
    )
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in found.warnings)
    return (
        f"<div><strong>Evaluation of a circuit of {len(found.circuit)} edges</strong>"
        f"<table>{rows}</table>{f'<ul>{warnings}</ul>' if warnings else ''}</div>"
    )


def curve_text(found: "Curve") -> str:
    """Return a curve as a table with its areas."""
    table = found.table.copy()
    table["share"] = [f"{share:.1%}" for share in table["share"]]
    return f"{_curve_head(found)}\n{table.round(3).to_string(index=False)}"


def curve_html(found: "Curve") -> str:
    """Return a curve as a table; every text is escaped."""
    table = found.table.round(3).to_html(index=False, escape=True)
    return f"<div><strong>{escape(_curve_head(found))}</strong>{table}</div>"


def _curve_head(found: "Curve") -> str:
    about = found.about
    return (
        f"Faithfulness against size: cut {found.how}, {found.sign} ranking, "
        f"{about.get('n_prompts')} prompts, source {about.get('source')}; area under f (CPR) "
        f"{_number(found.cpr)}, area of |1 - f| (CMD) {_number(found.cmd)}"
    )


def _percent(ratio: Ratio, sure: str) -> str:
    ends = "no interval"
    if not np.isnan(ratio.low):
        ends = f"{sure} interval {_number(ratio.low)} to {_number(ratio.high)}"
    return f"{_number(ratio.value)}   {ends}"


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
