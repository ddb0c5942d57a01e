"""The page: sections in order, style, script and data put into one HTML text."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from circuitgraph.circuit import Circuit
from circuitgraph.draw.report.circuits import circuit_data, circuit_section
from circuitgraph.draw.report.data import result_data
from circuitgraph.draw.report.judgements import judgements_section
from circuitgraph.draw.report.results import Result
from circuitgraph.draw.report.sections import (
    Section,
    notes_section,
    plan_section,
    prompts_section,
    reproduce_section,
    result_section,
)
from circuitgraph.evaluation.storage import Judgement
from circuitgraph.plan import Plan

__all__ = ["SCRIPTS", "Page", "page_html"]

SCRIPTS = (
    "core.js",
    "tips.js",
    "heatmap.js",
    "bars.js",
    "scatter.js",
    "table.js",
    "placing.js",
    "circuit.js",
    "start.js",
)
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
    data = {
        "results": [result_data(result) for result in page.results],
        "circuit": None if page.circuit is None else circuit_data(page.circuit),
    }
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
        data=_json(data),
        contents=contents,
        sections="\n".join(section.html for section in sections),
    )


def _sections(page: Page) -> list[Section]:
    """Return the sections of what there is, in order."""
    found = []
    readings = next((result.readings for result in page.results if result.readings), None)
    if page.notes:
        found.append(notes_section(page.notes))
    if page.prompts:
        found.append(prompts_section(page.prompts, page.answers, readings, page.results))
    if page.plans:
        found.append(plan_section(page.plans, page.cell))
    alone = len(page.results) == 1
    found += [result_section(result, at, alone) for at, result in enumerate(page.results)]
    if page.circuit is not None:
        found.append(circuit_section(page.circuit))
    if page.judgements:
        found.append(judgements_section(page.judgements))
    found.append(reproduce_section(page.command, page.code, page.versions, page.results))
    return found


def _json(data: Any) -> str:
    """Return data as JSON in which nothing can end the element that holds it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _script() -> str:
    """Return all of the script as one function, so that its names stay its own."""
    joined = "\n".join(_static(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{joined}\n}})();'


@cache
def _static(name: str) -> str:
    return files("circuitgraph.draw.report").joinpath("static", name).read_text(encoding="utf-8")
