"""The sections of the page, as HTML that says everything without a script."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

import numpy as np

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.chart import Chart, with_notes
from circuitgraph.draw.effects.comparison import view_charts
from circuitgraph.draw.effects.heatmap import panels_spec
from circuitgraph.draw.effects.scatter import scatter_spec
from circuitgraph.draw.picture import Picture
from circuitgraph.draw.plans import draw_plans
from circuitgraph.draw.plans.picture import plan_notes
from circuitgraph.draw.plans.steps import find_cell
from circuitgraph.plan import Plan
from circuitgraph.report.results import Result
from circuitgraph.report.tables import table_html

__all__ = [
    "Section",
    "answer_section",
    "plan_section",
    "prompts_section",
    "reproduce_section",
    "result_section",
]

_SHOWN = 5
"""Prompts that are seen at once; the others are behind a click."""

_FEWEST = 3
"""Cells that a scatter plot has at least; fewer are read faster from the table."""

_COMPARED = 60
"""Up to so many words that are not at the same places are compared: more would take long."""

_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a heading that the contents link to."""

    id: str
    name: str
    html: str

    @classmethod
    def of(cls, ident: str, name: str, body: str, more: str = "") -> "Section":
        """Return a section with a heading around its body."""
        html = (
            f'<section id="{ident}" aria-labelledby="{ident}-title"{more}>'
            f'<h2 id="{ident}-title">{escape(name)}</h2>\n{body}\n</section>'
        )
        return cls(ident, name, html)


def answer_section(results: Sequence[Result], notes: Sequence[str]) -> Section:
    """Return what was asked and what was found, and what to know before believing it."""
    parts = []
    for result in results:
        findings = "".join(f"<li>{escape(sentence)}</li>" for sentence in result.findings)
        asked = f"<p>{escape(result.words)}</p>" if result.words else ""
        parts.append(
            f'<div><p class="request"><code>{escape(result.title)}</code></p>{asked}'
            f'<ul class="findings">{findings}</ul></div>'
        )
    body = f'<div class="answers">{"".join(parts)}</div>' if parts else ""
    if notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in notes)
        body += f'<h3>Before you believe it</h3><ul class="findings notes">{items}</ul>'
    return Section.of("answer", "What was found" if results else "Before you read on", body)


def prompts_section(
    prompts: Sequence[tuple[str, str]],
    answers: Sequence[tuple[str, str]],
    readings: tuple[tuple[float, ...], tuple[float, ...]] | None,
    results: Sequence[Result],
) -> Section:
    """Return the prompts in pairs, with what differs marked, and what the metric says of each."""
    metric = results[0].unit.removeprefix("the ") if results else "metric"
    measured = readings if readings and len(readings[0]) == len(prompts) else None
    asked = answers if len(answers) == len(prompts) else ()
    head = ["", "prompts"] + ["answers"] * bool(asked) + [metric] * bool(measured)
    rows = []
    for at, (clean, corrupt) in enumerate(prompts):
        first, second = marked(clean, corrupt)
        cells = [
            f'<th scope="row">{at + 1}</th>',
            f'<td class="pair"><p><b>clean</b> {first}</p><p><b>corrupt</b> {second}</p></td>',
        ]
        if asked:
            right, wrong = (escape(word.strip() or repr(word)) for word in asked[at])
            cells.append(f'<td class="answers"><b>{right}</b>, not {wrong}</td>')
        if measured:
            values = zip(("clean", "corrupt"), measured, strict=True)
            said = (f"<p><b>{which}</b> {signed(each[at], 3)}</p>" for which, each in values)
            cells.append(f'<td class="number">{"".join(said)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    count = f"{len(prompts)} pair{'s' * (len(prompts) != 1)}"
    body = (
        f"<p>{count}. The clean prompt is run and measured; the corrupt one supplies the values "
        f"that are patched in. Words that differ are marked.</p>{_rows(head, rows[:_SHOWN])}"
    )
    if rest := rows[_SHOWN:]:
        body += f"<details><summary>{len(rest)} more</summary>{_rows(head, rest)}</details>"
    return Section.of("prompts", "Prompts", body)


def marked(clean: str, corrupt: str) -> tuple[str, str]:
    """Return two prompts as HTML with the words marked in which they differ.

    Example:
        >>> marked("Then John left", "Then <b> left")
        ('Then <mark>John</mark> left', 'Then <mark>&lt;b&gt;</mark> left')
    """
    one, other = (_WORD.findall(text) for text in (clean, corrupt))
    parts: tuple[list[str], list[str]] = ([], [])
    for a, b, c, d, same in _aligned(one, other):
        for side, text in enumerate(("".join(one[a:b]), "".join(other[c:d]))):
            words = escape(text)
            parts[side].append(words if same or not text else f"<mark>{words}</mark>")
    return "".join(parts[0]), "".join(parts[1])


def _aligned(one: Sequence[str], other: Sequence[str]) -> Iterator[tuple[int, int, int, int, bool]]:
    """Yield stretches of words, from and to in each prompt, and whether they are the same.

    Prompts are aligned token for token, so words stand at the same places; where a word has become
    two, what lies between the first and the last difference is compared, if it is short.
    """
    if len(one) == len(other):
        at = 0
        for same, words in groupby(zip(one, other, strict=True), lambda pair: pair[0] == pair[1]):
            end = at + len(list(words))
            yield at, end, at, end, same
            at = end
        return
    shorter = min(len(one), len(other))
    start = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    most = shorter - start
    tail = next((at for at in range(most) if one[-1 - at] != other[-1 - at]), most)
    inner, counter = one[start : len(one) - tail], other[start : len(other) - tail]
    yield 0, start, 0, start, True
    if max(len(inner), len(counter)) <= _COMPARED:
        matcher = difflib.SequenceMatcher(a=inner, b=counter, autojunk=False)
        for kind, a, b, c, d in matcher.get_opcodes():
            yield a + start, b + start, c + start, d + start, kind == "equal"
    else:
        yield start, len(one) - tail, start, len(other) - tail, False
    yield len(one) - tail, len(one), len(other) - tail, len(other), True


def plan_section(plans: Sequence[Plan] | Mapping[str, Plan], cell: int | str | None) -> Section:
    """Return what happens to every node, run by run, and the same as a table."""
    every = list(plans.values()) if isinstance(plans, Mapping) else list(plans)
    notes = dict.fromkeys(
        note for plan in every for note in plan_notes(plan, find_cell(plan, cell))
    )
    said = "".join(f"<p>{escape(note)}.</p>" for note in notes)
    tables = "".join(f"<pre>{escape(str(plan))}</pre>" for plan in every)
    picture = _picture(draw_plans(plans, cell=cell, title=""))
    body = (
        "<p>Each board is one run: layers from below to above, heads to the right, the MLP beside "
        f"them. Point at a cell to read what happens to it.</p>{said}{picture}"
        f"<details><summary>The plan as a table, with its cost</summary>{tables}</details>"
    )
    return Section.of("plan", "What is run", body)


def result_section(result: Result, at: int, alone: bool) -> Section:
    """Return the evidence of one result: its pictures beside its table."""
    name = result.name or (result.kind if alone else f"{result.kind}: {result.title}")
    left = ""
    if result.left_out:
        left = f'<p class="small">{result.left_out} panels with smaller effects are not shown.</p>'
    pictures = "".join(map(_picture, result_pictures(result)))
    body = (
        f'<p class="small"><code>{escape(result.title)}</code> · {escape(result.line)}</p>'
        f'<div class="evidence"><div>{pictures}{left}'
        f'<p class="small">An effect is a share of the difference between clean and corrupt in '
        f"{escape(result.unit)}: 0 harmed nothing, −1 lost all of it, above 0 raised it."
        f"</p></div><div>{table_html(result, at)}</div></div>"
    )
    return Section.of(f"result-{at + 1}", name, body)


def result_pictures(result: Result) -> list[Chart]:
    """Return the charts of a result: all its views, and each other one against the first."""
    unit, first = result.unit, result.views[0]
    if len(result.views) == 1:
        spec, _ = panels_spec(first.grid, unit, first.limit)
        return [Chart(with_notes(spec, {"text": ""}, _marks(result)), f"Effects of {result.title}")]
    plain = [view for view in result.views if not view.difference]
    views = [(view.name, view.grid) for view in result.views]
    spec = view_charts(views, unit, differences=len(views) - len(plain))
    names = ", ".join(view.name for view in plain)
    charts = [Chart(with_notes(spec, {"text": ""}, _marks(result)), f"Effects: {names}")]
    if sum(panel.values.size for panel in first.grid.panels) >= _FEWEST:
        labels, x, *others = (
            np.concatenate([getattr(panel, part).ravel() for panel in grid.panels])
            for part, grid in [
                ("names", first.grid),
                *(("values", view.grid) for view in plain),
            ]
        )
        for view, y in zip(plain[1:], others, strict=True):
            both = (first.name, view.name)
            charts.append(Chart(scatter_spec(labels, x, y, both), f"{both[1]} against {both[0]}"))
    return charts


def _marks(result: Result) -> list[str]:
    """Return what the marks of a result's pictures mean."""
    panels = [panel for view in result.views for panel in view.grid.panels]
    found = []
    if any(panel.significant.any() for panel in panels) and result.confidence:
        apart = any(
            panel.significant.any()
            for view in result.views
            if view.difference
            for panel in view.grid.panels
        )
        also = "; in a difference: differs by more than chance" if apart else ""
        share = f"{100 * result.confidence:g} %"
        dots = f"• stands out from zero ({share}, corrected){also}"
        found.append(f"whiskers: {share} interval" if result.views[0].grid.bars else dots)
    if any(not panel.filled.all() for panel in panels):
        found.append("× no such request" if result.views[0].grid.bars else "grey: no such request")
    return found


def reproduce_section(
    command: str, code: str, versions: Mapping[str, str], results: Sequence[Result]
) -> Section:
    """Return the command, the code, the settings and the versions."""
    body = ""
    for number, (words, text) in enumerate((("The command", command), ("The code", code))):
        if text:
            body += (
                f'<h3>{words}</h3><div class="copy"><pre id="copy-{number}"><code>{escape(text)}'
                '</code></pre><button type="button" class="quiet" '
                f'data-copy="copy-{number}" hidden>Copy</button></div>'
            )
    abouts = [{k: v for k, v in result.about.items() if k != "shape"} for result in results]
    if shared := _shared(abouts):
        body += f"<h3>Settings</h3>{_facts(shared)}"
    for result, about in zip(results, abouts, strict=True):
        if own := {key: value for key, value in about.items() if key not in shared}:
            body += f"<h3>Settings of {escape(result.name or result.title)}</h3>{_facts(own)}"
    if versions:
        body += f"<h3>Versions</h3>{_facts(versions)}"
    return Section.of("reproduce", "Make it again", body)


def _picture(picture: Picture) -> str:
    label = escape(picture.caption)
    return (
        f'<div class="picture scroll" tabindex="0" role="region" aria-label="{label}">'
        f"{picture.inline}</div>"
    )


def _shared(abouts: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return the settings that all results have in common."""
    first = dict(abouts[0]) if abouts else {}
    return {k: v for k, v in first.items() if all(about.get(k) == v for about in abouts)}


def _facts(facts: Mapping[str, object]) -> str:
    rows = "".join(
        f"<div><dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(str(value))}</dd></div>"
        for key, value in facts.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def _rows(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(words)}</th>' for words in head)
    return (
        f'<div class="scroll"><table class="prompts"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
