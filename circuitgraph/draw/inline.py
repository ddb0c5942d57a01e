"""Boards as small SVG inside HTML: for notebooks and the report, where Graphviz is not needed.

Cells of one look share a group, so a picture of a large model stays small, and a style sheet can
repaint every look by its class (``cg-frozen``, ``cg-corrupt``, ...).
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from circuitgraph.draw.boards import Measures, board_canvas, legend_canvas, recording_canvas
from circuitgraph.draw.looks import DIFFERS, LOOKS, Look
from circuitgraph.draw.palette import FAINT, INK
from circuitgraph.draw.plans import (
    DIFFERENT,
    KEPT,
    compared_boards,
    look_words,
    plan_notes,
    plan_title,
    variant_words,
)
from circuitgraph.draw.schedules import schedule_key, schedule_notes, stage_canvas, stage_words
from circuitgraph.draw.steps import Board, find_cell
from circuitgraph.draw.tiles import Canvas, Rect
from circuitgraph.plan import Plan
from circuitgraph.schedule import Schedule

__all__ = ["inline_svg", "plan_figures", "plan_html", "schedule_html"]

_FACE = 'style="max-width:100%;height:auto" font-family="Helvetica,Arial,sans-serif"'
_SCALE = 1.15
"""Pixels of a screen per point."""

_STYLE = """<style>
.cg-plan{background:#fff;color:#222;font-family:Helvetica,Arial,sans-serif;padding:8px}
.cg-plan p{margin:4px 0;color:#555;font-size:13px}.cg-plan h4{margin:0 0 4px;font-size:14px}
.cg-boards{display:flex;flex-wrap:wrap;gap:18px 26px;align-items:flex-start}
.cg-boards figure{margin:0}.cg-boards figcaption{font-size:12.5px;line-height:1.35;margin-top:4px}
.cg-variants{display:flex;flex-wrap:wrap;gap:18px 24px}
.cg-recordings{width:108px;display:grid;gap:12px}
.cg-key{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:10px 0 0;padding:0}
.cg-key li{display:flex;gap:6px;align-items:center;font-size:12px}
</style>"""


def plan_html(plan: Plan, cell: int | str | None = None) -> str:
    """Return a plan for a notebook: its boards, what they mean, and the table below.

    Args:
        plan: What to show.
        cell: Which cell of a sweep; the first by default.
    """
    table = f"<pre>{escape(str(plan))}</pre>"
    if not plan.cells:
        return table
    notes = "".join(f"<p>{escape(note)}</p>" for note in plan_notes(plan, find_cell(plan, cell)))
    head = f"<strong>Plan of {escape(plan_title(plan))}</strong>{notes}"
    figures = plan_figures([plan], cell)
    more = f"<details><summary>as a table</summary>{table}</details>"
    return f'{_STYLE}<div class="cg-plan">{head}{figures}{more}</div>'


def schedule_html(schedule: Schedule) -> str:
    """Return a schedule for a notebook: its stages, and the table below."""
    table = f"<pre>{escape(str(schedule))}</pre>"
    if not schedule.stages:
        return table
    request = f"{schedule.plan.request}, variant {schedule.plan.variant}"
    figures, there = [], set()
    for number, stage in enumerate(schedule.stages):
        canvas = stage_canvas(schedule, number, words=False)
        there |= {rect.look for rect in canvas.rects}
        rows = f"{len(stage.jobs)} row{'s' * (len(stage.jobs) != 1)}"
        title = f"{number + 1} {stage.name}: {rows}"
        figures.append(_figure(title, canvas, stage_words(schedule, number)))
    key = schedule_key(there)
    return (
        f'{_STYLE}<div class="cg-plan"><strong>Schedule of {escape(request)}</strong>'
        f"<p>{escape(schedule_notes(schedule))}</p>"
        f'<div class="cg-boards">{"".join(figures)}</div>{_key(key)}'
        f"<details><summary>as a table</summary>{table}</details></div>"
    )


def plan_figures(plans: Sequence[Plan] | Mapping[str, Plan], cell: int | str | None = None) -> str:
    """Return the boards of one plan, or of several with frames around what differs, and a legend.

    Titles and captions are text around the pictures, so they wrap on narrow screens.
    """
    rows, said = compared_boards(plans, cell)
    parts = [f'<p class="cg-difference">{escape(". ".join(said))}.</p>'] if said else []
    shown, variants = "", []
    for plan, name, boards in rows:
        figures = _figures(plan, boards, recordings=plan.source != shown)
        head = ""
        if len(rows) > 1:
            head = f"<h4>{escape(name)} <span>{escape(variant_words(plan))}</span></h4>"
        variants.append(f'<div>{head}<div class="cg-boards">{figures}</div></div>')
        shown = plan.source
    parts.append(f'<div class="cg-variants">{"".join(variants)}</div>')
    every = [board for _, _, boards in rows for board in boards]
    spots = [spot for board in every for spot in board.spots.values()]
    kept = KEPT if any(spot.kept for spot in spots) else ""
    differs = DIFFERENT if any(spot.differs for spot in spots) else ""
    return "".join(parts) + _key(look_words([plan for plan, _, _ in rows], every), kept, differs)


def _figures(plan: Plan, boards: Sequence[Board], *, recordings: bool) -> str:
    graph, measures = plan.graph, Measures.of(plan.graph.shape)
    found = []
    recorded = [board for board in boards if board.recording] if recordings else []
    if recorded:
        pair = "".join(
            _figure(
                board.title, recording_canvas(graph, [board], measures, words=False), board.words
            )
            for board in recorded
        )
        found.append(f'<div class="cg-recordings">{pair}</div>')
    for board in boards:
        if not board.recording:
            canvas = board_canvas(graph, board, measures, words=False)
            found.append(_figure(board.title, canvas, board.words))
    return "".join(found)


def _figure(title: str, canvas: Canvas, words: str) -> str:
    wide = max(canvas.width, 90.0) * _SCALE
    picture = inline_svg(canvas, f"{title}: {words}")
    return (
        f'<figure style="width:{wide:.0f}px;max-width:100%"><h4>{escape(title)}</h4>'
        f"{picture}<figcaption>{escape(words)}</figcaption></figure>"
    )


def _key(looks: Iterable[tuple[Look, str]], kept: str = "", differs: str = "") -> str:
    """Return the legend as a list of samples with words."""
    samples = [(legend_canvas([(look, "")], 1.0), words) for look, words in looks]
    if kept:
        samples.append((legend_canvas([], 1.0, kept=" "), kept))
    if differs:
        samples.append((legend_canvas([], 1.0, differs=" "), differs))
    items = []
    for canvas, words in samples:
        swatch = Canvas(canvas.rects, (), 14.0, 11.0, canvas.frames)
        items.append(f"<li>{inline_svg(swatch.moved(2, 2), '', pad=2)}{escape(words)}</li>")
    return f'<ul class="cg-key">{"".join(items)}</ul>'


def inline_svg(canvas: Canvas, label: str, pad: float = 1.0) -> str:
    """Return a canvas as SVG; every text in it is escaped.

    Args:
        canvas: What to write.
        label: What a screen reader says; without one it passes the picture over.
        pad: Room at the right and below.
    """
    width, height = canvas.width + pad, canvas.height + pad
    said = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    size = f'width="{width * _SCALE:.0f}" height="{height * _SCALE:.0f}"'
    box = f'viewBox="0 0 {_number(width)} {_number(height)}" {size}'
    parts = [f'<svg class="cg-board" {said} {box} {_FACE}>']
    for look in LOOKS:
        cells = [rect for rect in canvas.rects if rect.look == look]
        if cells:
            parts.append(_look(look, cells))
    for faint in (False, True):
        lines = [line for line in canvas.texts if line.faint == faint]
        if lines:
            words = "".join(
                f'<text x="{_number(line.x)}" y="{_number(line.y + 0.36 * line.size)}" '
                f'font-size="{_number(line.size)}" text-anchor="{line.anchor}">'
                f"{escape(line.words)}</text>"
                for line in lines
            )
            color = FAINT if faint else INK
            parts.append(f'<g class="cg-{"faint" if faint else "ink"}" fill="{color}">{words}</g>')
    if canvas.frames:
        frames = "".join(
            f'<rect x="{_number(frame.x)}" y="{_number(frame.y)}" '
            f'width="{_number(frame.width)}" height="{_number(frame.height)}"/>'
            for frame in canvas.frames
        )
        parts.append(
            f'<g class="cg-differs" fill="none" stroke="{DIFFERS}" stroke-width="1.8" '
            f'stroke-dasharray="5 3">{frames}</g>'
        )
    return "".join(parts) + "</svg>"


def _look(look: Look, cells: Sequence[Rect]) -> str:
    """Return all cells of one look: their boxes, then what is written in them."""
    paint = LOOKS[look]
    boxes, marks = [], []
    for rect in cells:
        kept = f' class="cg-kept" stroke="{INK}" stroke-width="1.6"' if rect.kept else ""
        plain = ' stroke="none"' if rect.plain else ""
        box = " ".join(
            f'{name}="{_number(getattr(rect, name))}"' for name in ("x", "y", "width", "height")
        )
        boxes.append(f"<rect {box}{kept or plain}><title>{escape(rect.words)}</title></rect>")
        if rect.mark:
            x, y = rect.x + rect.width / 2, rect.y + rect.height / 2 + 0.36 * rect.size
            bold = ' class="cg-kept"' if rect.kept else ""
            marks.append(
                f'<text x="{_number(x)}" y="{_number(y)}"{bold} font-size="{_number(rect.size)}">'
                f"{escape(rect.mark)}</text>"
            )
    stroke = f'stroke="{paint.border}" stroke-width="0.6"' if paint.border else ""
    group = f'<g class="cg-{look}"><g fill="{paint.fill}" {stroke}>{"".join(boxes)}</g>'
    if marks:
        group += (
            f'<g fill="{paint.ink}" text-anchor="middle" pointer-events="none">{"".join(marks)}</g>'
        )
    return f"{group}</g>"


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
