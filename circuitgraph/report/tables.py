"""The table of a result: every cell with its numbers, in HTML; the script sorts and filters."""

import math
from html import escape

import numpy as np

from circuitgraph.report.results import Result, View

__all__ = ["MAX_ROWS", "column_header", "decimals", "fixed", "table_html", "table_shell"]

MAX_ROWS = 400
"""Rows of a table: the strongest cells."""


def table_html(result: Result, at: int) -> str:
    """Return the strongest cells, the strongest first, with one or more columns per view.

    Args:
        result: What to show.
        at: Its number on the page.
    """
    panels = result.views[0].grid.panels
    names = [str(name) for panel in panels for name in panel.names.ravel()]
    flat = [_flat(view) for view in result.views]
    plain = [index for index, view in enumerate(result.views) if not view.difference]
    with np.errstate(all="ignore"):
        sizes = np.fmax.reduce([np.abs(flat[index][0]) for index in plain])
    order = [int(cell) for cell in np.argsort(-np.nan_to_num(sizes, nan=-1.0), kind="stable")]
    order = [cell for cell in order if np.isfinite(sizes[cell])]
    several = len(panels) > 1
    # Of a comparison, the interval that matters is the one of the difference.
    detailed = [
        view
        for view in result.views
        if _has_intervals(view) and (view.difference or len(result.views) == 1)
    ]
    heads = [column_header("cell", "text"), *([column_header("panel", "text")] if several else [])]
    for view in result.views:
        heads.append(column_header(view.name, "number"))
        if view in detailed:
            share = 100 * (result.confidence or 0.95)
            heads.append(column_header(f"{share:g} % interval", "number"))
            heads.append(column_header("differs" if view.difference else "stands out", "text"))
    titles = [panel.title for panel in panels for _ in range(panel.values.size)]
    digits = decimals(max(result.views[index].limit for index in plain))
    rows = []
    for cell in order[:MAX_ROWS]:
        columns = [f'<th scope="row">{escape(names[cell])}</th>']
        columns += [f"<td>{escape(titles[cell])}</td>"] if several else []
        for view, (values, low, high, stands) in zip(result.views, flat, strict=True):
            columns.append(_number(values[cell], digits))
            if view in detailed:
                columns.append(_interval(low[cell], high[cell], digits))
                columns.append(f"<td>{'yes' if stands[cell] else ''}</td>")
        rows.append(f'<tr data-name="{escape(names[cell])}">{"".join(columns)}</tr>')
    note = f"the strongest {MAX_ROWS} of {len(order):,} cells" if len(order) > MAX_ROWS else ""
    return table_shell(f"table-{at}", "All cells", note or f"{len(order)} cells", heads, rows)


def table_shell(ident: str, name: str, note: str, heads: list[str], rows: list[str]) -> str:
    """Return a table that can be sorted, searched and kept as a file.

    Args:
        ident: What the script knows it by.
        name: What it holds, in words.
        note: How much of it is shown.
        heads: Cells of the head row.
        rows: Whole rows of the body.
    """
    tools = (
        f'<div class="tools" hidden><label>Find <input type="search" data-filter="{ident}" '
        f'placeholder="9.6 or mlp"></label>'
        f'<button type="button" class="quiet" data-keep="{ident}">Keep as CSV</button></div>'
    )
    return (
        f'<h3>{escape(name)}</h3><p class="small">{escape(note)}</p>{tools}'
        f'<div class="scroll tall" tabindex="0" role="region" aria-label="{escape(name)}">'
        f'<table id="{ident}" class="sortable"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="small printed">On paper: the first 30 rows as they were sorted.</p>'
    )


def column_header(words: str, kind: str) -> str:
    """Return the head of a column; the script makes a button of it that sorts."""
    css = ' class="number"' if kind == "number" else ""
    return f'<th scope="col" data-kind="{kind}"{css}>{escape(words)}</th>'


def _flat(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    panels = view.grid.panels
    parts = ("values", "low", "high", "significant")
    values, low, high, stands = (
        np.concatenate([getattr(panel, part).ravel() for panel in panels]) for part in parts
    )
    return values, low, high, stands


def _has_intervals(view: View) -> bool:
    return any(bool(np.isfinite(panel.low).any()) for panel in view.grid.panels)


def decimals(limit: float) -> int:
    """Return how many decimals tell cells apart whose largest number is this one.

    Example:
        >>> decimals(0.65), decimals(0.0715), decimals(12.0)
        (3, 4, 1)
    """
    return min(6, max(0, 2 - math.floor(math.log10(limit)))) if limit > 0 else 1


def fixed(value: float, digits: int) -> str:
    """Return a number with so many decimals, with a true minus sign and no minus zero."""
    words = f"{value:.{digits}f}"
    return (words.removeprefix("-") if float(words) == 0 else words).replace("-", "−")


def _number(value: float, digits: int) -> str:
    if not np.isfinite(value):
        return '<td class="number" data-value="">–</td>'
    return f'<td class="number" data-value="{value:.6g}">{fixed(float(value), digits)}</td>'


def _interval(low: float, high: float, digits: int) -> str:
    if not np.isfinite(low):
        return '<td class="number" data-value=""></td>'
    words = f"{fixed(float(low), digits)} to {fixed(float(high), digits)}"
    return f'<td class="number" data-value="{low:.6g}">{words}</td>'
