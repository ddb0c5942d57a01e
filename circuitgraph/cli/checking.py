"""``circuitgraph models --check``: a model of the user's put to the checks of every family."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import circuitgraph as cg
from circuitgraph.cli.options import BackendName, DtypeName
from circuitgraph.cli.setting import loader
from circuitgraph.cli.telling import complain, say, say_table, say_title, step
from circuitgraph.errors import PromptError

if TYPE_CHECKING:
    from circuitgraph.checks import Result

__all__ = ["check_model"]

TOKENS = 6
"""How long the random prompts are: enough for positions that differ, short enough to be quick."""


def check_model(
    name: str,
    only: Sequence[str],
    *,
    prompts: int,
    seed: int,
    device: str | None,
    dtype: DtypeName,
    backend: BackendName = BackendName.TRANSFORMERLENS,
    parts: Path | None = None,
) -> bool:
    """Load a model, run the checks on it, and show what came of each.

    Returns:
        Whether everything that could be checked holds.

    Raises:
        CircuitGraphError: The model cannot be had, or no check is called so.
    """
    if prompts < 1:
        raise PromptError(f"--prompts must be 1 or more, got {prompts}")
    imported = "TransformerLens" if backend is BackendName.TRANSFORMERLENS else "transformers"
    with step(f"torch and {imported} imported"):
        from circuitgraph.checks import checks_named, run_checks
        from circuitgraph.experiment.progress import progress_bar

        load = loader(device, dtype, backend)
    chosen = checks_named(only or None)
    names = None if parts is None else cg.HuggingFaceMap.read(parts)
    with step(f"{name} loaded"):
        model = load(name) if names is None else names.on(load(name))
    results: list[Result] = []
    with (
        step(f"{len(chosen)} checks on {prompts} random prompt pairs", spinner=False),
        progress_bar("checks", len(chosen)) as advance,
    ):
        for result in run_checks(
            model, only=only or None, n_prompts=prompts, n_pos=TOKENS, seed=seed
        ):
            results.append(result)
            advance(1)
    _show(name, results)
    return not any(
        result.status == "failed" or (result.name, result.status) == ("model", "refused")
        for result in results
    )


def _show(name: str, results: Sequence["Result"]) -> None:
    say_title(f"Checks of {name}")
    rows = [
        (
            result.name,
            result.about,
            "" if result.deviation is None else f"{result.effect:.0e}",
            "" if result.deviation is None else f"{result.deviation:.0e}",
            result.status,
        )
        for result in results
    ]
    say_table(("check", "what it says", "effect#", "deviation#", "result"), rows)
    for result in results:
        if result.status == "failed":
            complain(f"{result.name}: {result.reason}")
        elif result.reason:
            say(f"{result.name}, {result.status}: {result.reason}")
    say("", _verdict(results))


def _verdict(results: Sequence["Result"]) -> str:
    """Return all results in a sentence or two."""
    counts = {
        status: sum(result.status == status for result in results)
        for status in ("passed", "failed", "refused", "left out")
    }
    told = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    allowed = max((result.allowed for result in results), default=0.0)
    if not allowed:
        return f"{told}."
    return (
        f"{told}. Effect: the largest change that a patch made; deviation: the largest difference "
        "between two numbers that should be equal; both in units of the difference between clean "
        f"and corrupt run. Up to {allowed:.0e} is rounding here."
    )
