"""`Report`: everything worth showing of a question, as one HTML file."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuitgraph.circuit import Circuit
from circuitgraph.effects import Comparison, Effects
from circuitgraph.errors import EffectsError
from circuitgraph.evaluation.storage import Judgement
from circuitgraph.files import write_file
from circuitgraph.plan import Plan
from circuitgraph.report.page import Page, page_html
from circuitgraph.report.results import Result, read_results
from circuitgraph.report.versions import installed_versions

__all__ = ["Report", "write_report"]

Shown = Effects | Comparison
Results = Shown | Sequence[Shown] | Mapping[str, Shown]


@dataclass(frozen=True, kw_only=True)
class Report:
    """One self-contained HTML page about a question.

    Everything but the question may be left out; only what is there gets a section. Whatever texts
    come in (prompts, names, commands) are shown as text: nothing in them can become markup.

    Args:
        question: What was asked, in words: ``"Which heads write the answer?"``.
        results: `Effects`, a `Comparison`, or several of them in order; a mapping names them,
            otherwise the request does.
        prompts: Pairs of clean and corrupt prompt, as text.
        answers: For each prompt, the correct and the incorrect answer.
        plans: The plan of the request, or those of all variants; they are shown side by side.
        cell: Which cell of a swept plan to show, by number or name; the first by default.
        circuit: The circuit that came out of it.
        judgements: What was measured of the circuit: an `Evaluation`, a `Curve` and the like.
        command: The exact command that makes this report again; words are quoted for a shell.
        code: Python that does the same, shown below the command.
        versions: Packages and their versions; those installed by default.
        notes: What else to know before believing it, a sentence each.
        title: The title of the page; the question by default.
        statistics: Settings of `Effects.statistics` for intervals and significance; None leaves
            them out, which is quicker for many thousands of cells.

    Example:
        >>> effects = Effects.from_arrays(
        ...     [[[3.0, 1.0], [4.0, 2.0]]],
        ...     clean=[4.0, 2.0],
        ...     corrupt=[0.0, -2.0],
        ...     sweep={"layer": [9], "head": [6, 9]},
        ...     request="head -> logits",
        ... )
        >>> report = Report(
        ...     question="Which heads write the answer?",
        ...     results=effects,
        ...     prompts=[("When John and Mary went", "When Tom and Ann went")],
        ...     command="circuitgraph patch 'head -> logits'",
        ... )
        >>> "<title>Which heads write the answer?</title>" in report.html
        True
    """

    question: str
    results: Results = ()
    prompts: Iterable[tuple[str, str]] = ()
    answers: Iterable[tuple[str, str]] = ()
    plans: Plan | Sequence[Plan] | Mapping[str, Plan] = ()
    cell: int | str | None = None
    circuit: Circuit | None = None
    judgements: Sequence[Judgement] = ()
    command: str | Sequence[str] = ""
    code: str = ""
    versions: Mapping[str, str] | None = None
    notes: Sequence[str] = ()
    title: str = ""
    statistics: Mapping[str, Any] | None = field(default_factory=dict)

    @property
    def html(self) -> str:
        """The page as text.

        Raises:
            EffectsError: A metric that cannot tell clean from corrupt.
            PlanError: Plans for different models, or without the cell asked for.
        """
        plans: Sequence[Plan] | Mapping[str, Plan]
        plans = (self.plans,) if isinstance(self.plans, Plan) else self.plans
        command = self.command if isinstance(self.command, str) else shlex.join(self.command)
        return page_html(
            Page(
                title=self.title or self.question,
                question=self.question,
                results=self._results(),
                prompts=tuple(self.prompts),
                answers=tuple(self.answers),
                plans=plans,
                cell=self.cell,
                circuit=self.circuit,
                judgements=tuple(self.judgements),
                command=command,
                code=self.code,
                versions=installed_versions() if self.versions is None else dict(self.versions),
                notes=tuple(self.notes),
            )
        )

    def save(self, path: str | Path) -> Path:
        """Write the page to a file and return its path.

        Args:
            path: Usually ends in ``.html``; the folder it is in must exist.

        Raises:
            EffectsError: There is no such folder, or something else under that name.
        """
        return write_file(path, self.html, EffectsError)

    def _results(self) -> tuple[Result, ...]:
        match self.results:
            case Effects() | Comparison():
                named: list[tuple[str, Shown]] = [("", self.results)]
            case Mapping():
                named = list(self.results.items())
            case _:
                named = [("", shown) for shown in self.results]
        for name, shown in named:
            if not isinstance(shown, Effects | Comparison):
                raise EffectsError(
                    f"a report shows Effects and Comparisons, got {type(shown).__name__}"
                    + (f" for {name!r}" if name else "")
                )
        return read_results(named, self.statistics)

    def __repr__(self) -> str:
        parts = [f"{len(self._results())} results"] if self.results else []
        parts += ["a circuit"] if self.circuit is not None else []
        return f"Report: {self.title or self.question}" + f" ({', '.join(parts)})" * bool(parts)


def write_report(path: str | Path, **parts: Any) -> Path:
    """Write a report and return its path; ``parts`` are the arguments of `Report`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> page = write_report(Path(folder.name) / "report.html", question="What does 9.9 do?")
        >>> page.read_text(encoding="utf-8")[:15]
        '<!doctype html>'
        >>> folder.cleanup()
    """
    return Report(**parts).save(path)
