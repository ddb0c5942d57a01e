"""Plans as pictures: a grid of heads and MLPs per run, coloured by what happens to each node."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import zip_longest

from circuitgraph.draw.chart import Chart, Spec, heading, with_notes
from circuitgraph.draw.plans.boards import board_spec, recording_spec
from circuitgraph.draw.plans.looks import LOOKS, Look
from circuitgraph.draw.plans.phrases import listed, some
from circuitgraph.draw.plans.steps import (
    Board,
    boards_of,
    differing,
    find_cell,
    with_differences,
)
from circuitgraph.errors import PlanError
from circuitgraph.nodes import Node
from circuitgraph.plan import Cell, Plan

__all__ = ["draw_plan", "draw_plans", "plan_html", "plan_notes"]

_WIDEST = 1100.0
KEPT = "thick border: recorded, or read by the metric"
DIFFERENT = "dashed frame: differs between the plans"


def draw_plan(
    plan: Plan,
    *,
    cell: int | str | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Chart:
    """Return a picture of a plan: what happens to every node, run by run.

    Every run is a grid, layers from below to above, heads to the right, the MLP beside them; the
    clean and corrupt recordings stand at the left, small. Colours, symbols and the words below say
    who is set, frozen, recomputed, patched and recorded.

    Args:
        plan: What to draw.
        cell: Which cell of a sweep, by number or by name (``"9.9 -> logits"``); the first by
            default.
        title: The line above the picture; None takes the request. An empty text leaves it out.
        legend: Explain colours and symbols below the picture.

    Raises:
        PlanError: A plan without cells, or no such cell.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> graph = ModelGraph(ModelShape(n_layers=12, n_heads=12))
        >>> draw_plan(compile(graph, "5.5 -> 8.6.v => logits"))
        Chart: 5.5 -> 8.6.v => logits, variant mlps: 1 send: 5.5 speaks as in the corrupt run; ...
    """
    chosen = find_cell(plan, cell)
    boards = boards_of(plan, chosen)
    heading = plan_title(plan) if title is None else title
    return _chart([(plan, "", boards)], heading, plan_notes(plan, chosen), legend)


def draw_plans(
    plans: Sequence[Plan] | Mapping[str, Plan],
    *,
    cell: int | str | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Chart:
    """Return a picture of several plans, one row each, with frames around what differs.

    Args:
        plans: Plans for one model, such as those of two variants; a mapping names them, otherwise
            they are named by what sets them apart (variant, mode, source or request).
        cell: Which cell of a sweep, as for `draw_plan`.
        title: The line above the picture; None takes the requests.
        legend: Explain colours and symbols below the picture.

    Raises:
        PlanError: No plans, plans for different models, or no such cell.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> graph = ModelGraph(ModelShape(n_layers=12, n_heads=12))
        >>> both = [compile(graph, "5.5 -> 8.6.v => logits", v) for v in ("mlps", "single-pass")]
        >>> draw_plans(both)
        Chart: 5.5 -> 8.6.v => logits: mlps and single-pass differ in 1 send at MLPs 5–7
    """
    rows, said = compared_boards(plans, cell)
    requests = dict.fromkeys(str(plan.request) for plan, _, _ in rows)
    heading = "; ".join(requests) if title is None else title
    return _chart(rows, heading, said, legend)


def compared_boards(
    plans: Sequence[Plan] | Mapping[str, Plan], cell: int | str | None = None
) -> tuple[list[tuple[Plan, str, tuple[Board, ...]]], list[str]]:
    """Return the boards of several plans with what differs framed, and that in words.

    Raises:
        PlanError: No plans, plans for different models, or no such cell.
    """
    named = (
        dict(plans) if isinstance(plans, Mapping) else dict(zip(_names(plans), plans, strict=True))
    )
    if not named:
        raise PlanError("nothing to draw: there are no plans")
    first = next(iter(named.values()))
    if any(plan.graph != first.graph for plan in named.values()):
        raise PlanError("plans for different models cannot be drawn side by side")
    marked, said = _marked(named, cell)
    if len({plan.source for plan in named.values()}) > 1:
        said.insert(0, f"{listed(named)} differ in what senders are set to")
    if not said and len(named) > 1:
        said = [f"{listed(named)} do the same"]
    return [(plan, name, marked[name]) for name, plan in named.items()], said


def _marked(
    named: Mapping[str, Plan], cell: int | str | None
) -> tuple[dict[str, tuple[Board, ...]], list[str]]:
    """Return the boards of every plan, compared run by run, and what sets them apart.

    Recordings are not compared: not every source of patched values needs the same ones.
    """
    rows = {name: boards_of(plan, find_cell(plan, cell)) for name, plan in named.items()}
    marked = {name: [board for board in row if board.recording] for name, row in rows.items()}
    runs = {name: [board for board in row if not board.recording] for name, row in rows.items()}
    # The last runs measure, so it is from the end that runs belong together.
    backwards = zip_longest(*(reversed(row) for row in runs.values()))
    said, worded = [], []
    for step in reversed(list(backwards)):
        there = [board for board in step if board is not None]
        frames: frozenset[Node] = frozenset()
        for other in there[1:]:
            frames |= differing(there[0], other)
        for name, board in zip(named, step, strict=True):
            if board is not None:
                marked[name].append(with_differences(board, frames))
        if len(there) < len(step):
            lone = [name for name, board in zip(named, step, strict=True) if board]
            has = "has" if len(lone) == 1 else "have"
            said.append(f"only {listed(lone)} {has} {there[0].title}")
        if frames:
            said.append(f"{listed(named)} differ in {there[0].title} at {_nodes(frames)}")
        elif any(board.words != there[0].words for board in there):
            worded.append(there[0].title)
    if worded and len({plan.mode for plan in named.values()}) > 1 and not said:
        said = [f"{listed(named)} differ in what is said below {listed(worded)}"]
    return {name: tuple(boards) for name, boards in marked.items()}, said


def plan_title(plan: Plan) -> str:
    """Return request and variant."""
    return f"{plan.title}, variant {plan.variant}"


def plan_notes(plan: Plan, cell: Cell) -> list[str]:
    """Return what to say of a plan beside its runs: which cell this is, and what all cost."""
    notes = []
    if plan.axes:
        swept = " × ".join(f"{axis.dim} {len(axis.values)}" for axis in plan.axes)
        notes.append(f"{cell.name}, one of {len(plan.cells)} cells over {swept}")
    if plan.mode != "set":
        notes.append(f"mode {plan.mode}")
    return notes


def _looks(plans: Sequence[Plan], boards: Sequence[Board]) -> dict[Look, str]:
    """Return the looks that some boards have, each with what the legend says of it."""
    plan = plans[0]
    there = {spot.look for board in boards for spot in board.spots.values()}
    source = "corrupt" if plan.source == "given" else plan.source
    words = {look: paint.words.format(source) for look, paint in LOOKS.items()}
    if plan.source in ("zero", "given"):
        words["corrupt"] = f"sender: set to {'zero' if plan.source == 'zero' else 'what was given'}"
    if any(other.source != plan.source for other in plans):
        words["corrupt"] = "sender: set to what is patched in"
    return {look: f"{LOOKS[look].mark} {words[look]}".strip() for look in LOOKS if look in there}


# -- the picture -----------------------------------------------------------------------------------


def _chart(
    rows: Sequence[tuple[Plan, str, tuple[Board, ...]]],
    title: str,
    said: Sequence[str],
    legend: bool,
) -> Chart:
    """Return one row of boards per plan, with its recordings at the left."""
    every = [board for _, _, boards in rows for board in boards]
    looks = _looks([plan for plan, _, _ in rows], every)
    parts: list[Spec] = []
    width = _WIDEST / 2
    for plan, name, boards in rows:
        runs = [
            board_spec(plan.graph, board, looks, legend) for board in boards if not board.recording
        ]
        small = [
            recording_spec(plan.graph, board, looks, legend) for board in boards if board.recording
        ]
        row: Spec = {"concat": runs, "columns": max(1, int(_WIDEST // (runs[0]["width"] + 30)))}
        row["spacing"] = 34
        row = {"hconcat": [{"vconcat": small, "spacing": 30}, row], "spacing": 26}
        if name:
            words = {"subtitle": variant_words(plan), "subtitleFontSize": 11}
            row["title"] = {"text": name, "anchor": "start", "fontSize": 15, "offset": 14} | words
        parts.append(row)
        width = max(width, sum(spec["width"] + 34 for spec in runs))
    spots = [spot for board in every for spot in board.spots.values()]
    notes = [KEPT] * any(spot.kept for spot in spots)
    notes += [DIFFERENT] * any(spot.differs for spot in spots)
    spec: Spec = {"vconcat": parts, "spacing": 36}
    spec = with_notes(spec, heading(title, said, width), notes * legend)
    first = next((board for board in rows[0][2] if not board.recording), rows[0][2][-1])
    last = "; ".join(said) if len(rows) > 1 else f"{first.title}: {first.words}"
    return Chart(spec, ": ".join(filter(None, (title, last))))


def plan_html(plan: Plan, cell: int | str | None = None) -> str:
    """Return a plan for a notebook: its boards, and the table below.

    Args:
        plan: What to show.
        cell: Which cell of a sweep; the first by default.
    """
    table = f"<pre>{escape(str(plan))}</pre>"
    if not plan.cells:
        return table
    picture = draw_plan(plan, cell=cell)._repr_html_()
    return f"{picture}<details><summary>as a table</summary>{table}</details>"


def variant_words(plan: Plan) -> str:
    """Return what direct paths may pass through under a plan's variant."""
    match plan.variant:
        case "mlps":
            return "direct paths may pass through MLPs"
        case "single-pass":
            return "direct paths pass through nothing"
        case variant:
            return f"direct paths may pass through {some(sorted(variant.nodes))}"


def _names(plans: Sequence[Plan]) -> list[str]:
    """Return names for plans: what sets them apart, or their numbers."""
    for key in ("variant", "mode", "source", "request"):
        names = [str(getattr(plan, key)) for plan in plans]
        if len(set(names)) == len(names):
            return names
    return [f"plan {number}" for number in range(1, len(plans) + 1)]


def _nodes(nodes: frozenset[Node]) -> str:
    ordered = sorted(nodes)
    named = some(ordered)
    bars = [str(node) for node in ordered if str(node) in ("embed", "logits")]
    return listed(filter(None, [named, *bars]))
