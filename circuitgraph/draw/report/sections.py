"""The sections of the page, as HTML that says everything without a script."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.picture import Picture
from circuitgraph.draw.plans import draw_plans
from circuitgraph.draw.plans.picture import plan_notes
from circuitgraph.draw.plans.steps import find_cell
from circuitgraph.draw.report.results import Result
from circuitgraph.draw.report.tables import table_html
from circuitgraph.plan import Plan

__all__ = [
    "Section",
    "notes_section",
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


def notes_section(notes: Sequence[str]) -> Section:
    """Return what to know before believing the rest."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return Section.of("notes", "Before you read on", f'<ul class="findings">{items}</ul>')


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
    """Return one result: what was asked, what was found, room for pictures, and the table."""
    name = result.name or (result.kind if alone else f"{result.kind}: {result.title}")
    findings = "".join(f"<li>{escape(sentence)}</li>" for sentence in result.findings)
    asked = f"<p>{escape(result.words)}</p>" if result.words else ""
    pictures = f'<div class="heatmaps" data-draw="heatmaps" data-result="{at}"></div>'
    cells = sum(panel.values.size for panel in result.views[0].grid.panels)
    others = range(1, sum(not view.difference for view in result.views))
    if cells >= _FEWEST:
        pictures += "".join(
            f'<div class="scatter" data-draw="scatter" data-result="{at}" data-other="{other}">'
            "</div>"
            for other in others
        )
    left = ""
    if result.left_out:
        left = f'<p class="small">{result.left_out} panels with smaller effects are not shown.</p>'
    body = (
        f'<p class="request"><code>{escape(result.title)}</code></p>{asked}'
        f'<p class="small">{escape(result.line)}</p>'
        f'<ul class="findings">{findings}</ul>{pictures}{left}'
        f'<p class="small">An effect is a share of the difference between clean and corrupt in '
        f"{escape(result.unit)}: 0 harmed nothing, −1 lost all of it, above 0 raised it."
        f"</p>{table_html(result, at)}"
    )
    return Section.of(f"result-{at + 1}", name, body)


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
    return f'<div class="picture scroll" tabindex="0">{picture.svg}</div>'


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
