"""The page: sections in order, style, script and data put into one HTML text."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

from circuitgraph.circuit import Circuit
from circuitgraph.evaluation.storage import Judgement
from circuitgraph.plan import Plan
from circuitgraph.report.circuits import circuit_section
from circuitgraph.report.judgements import judgements_section
from circuitgraph.report.results import Result
from circuitgraph.report.sections import (
    Section,
    answer_section,
    plan_section,
    prompts_section,
    reproduce_section,
    result_section,
)

__all__ = ["SCRIPTS", "Page", "page_html"]

SCRIPTS = ("tips.js", "table.js", "circuit.js", "start.js")
"""The script's files, in the order in which they are joined."""


@dataclass(frozen=True)
class Page:
    """What a page shows; see `Report`, which makes it."""

    title: str
    question: str
    results: tuple[Result, ...]
    prompts: tuple[tuple[str, str], ...]
    answers: tuple[tuple[str, str], ...]
    plans: Sequence[Plan] | Mapping[str, Plan]
    cell: int | str | None
    circuit: Circuit | None
    judgements: tuple[Judgement, ...]
    command: str
    code: str
    versions: Mapping[str, str]
    notes: tuple[str, ...]


def page_html(page: Page) -> str:
    """Return the page as one HTML text."""
    from circuitgraph import __version__

    sections = _sections(page)
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    contents = "".join(
        f'<li><a href="#{section.id}">{escape(section.name)}</a></li>' for section in sections
    )
    lead = page.question if page.question != page.title else ""
    return Template(_static("page.html")).substitute(
        title=escape(page.title),
        lead=f'<p class="lead">{escape(lead)}</p>' if lead else "",
        version=escape(__version__),
        style=_static("report.css"),
        script_hash=f"sha256-{digest}",
        script=script,
        contents=contents,
        sections=_joined(sections),
    )


def _sections(page: Page) -> list[Section]:
    """Return the sections of what there is: the answer, the circuit, then the evidence."""
    found = []
    if page.results or page.notes:
        found.append(answer_section(page.results, page.notes))
    if page.circuit is not None:
        found.append(circuit_section(page.circuit))
    if page.judgements:
        found.append(judgements_section(page.judgements))
    alone = len(page.results) == 1
    found += [result_section(result, at, alone) for at, result in enumerate(page.results)]
    if page.prompts:
        readings = next((result.readings for result in page.results if result.readings), None)
        found.append(prompts_section(page.prompts, page.answers, readings, page.results))
    if page.plans:
        found.append(plan_section(page.plans, page.cell))
    found.append(reproduce_section(page.command, page.code, page.versions, page.results))
    return found


def _joined(sections: Sequence[Section]) -> str:
    """Return all sections; the answer and the circuit stand side by side where there is room."""
    first = [section.html for section in sections if section.id in ("answer", "circuit")]
    others = [section.html for section in sections if section.id not in ("answer", "circuit")]
    return "\n".join([f'<div class="first">{"".join(first)}</div>', *others])


@cache
def _script() -> str:
    """Return all of the script as one function, so that its names stay its own."""
    joined = "\n".join(_static(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{joined}\n}})();'


@cache
def _static(name: str) -> str:
    return files("circuitgraph.report").joinpath("static", name).read_text(encoding="utf-8")
