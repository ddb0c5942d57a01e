"""Boards as grids: heads and MLPs in rows of layers, the embedding below, the logits above."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from circuitgraph.draw.looks import LOOKS, Look
from circuitgraph.draw.steps import Board
from circuitgraph.draw.tiles import Canvas, Frame, Rect, Text, stacked, wrapped
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Embed, Head, Logits, Node

__all__ = ["Measures", "board_canvas", "legend_canvas", "recording_canvas"]

_GAP = 1.0
_BAR = 13.0
_ASIDE = 7.0
_AXIS = 13.0
_TITLE = 17.0
_CAPTION = 8.0


@dataclass(frozen=True, slots=True)
class Measures:
    """How large the cells of a model's grid are, so that it fits a page, in points."""

    shape: ModelShape
    cell: float
    row: float
    mlp: float
    left: float

    @classmethod
    def of(cls, shape: ModelShape) -> "Measures":
        """Return the largest cells with which the grid is neither too wide nor too high."""
        cell = max(5.0, min(14.0, 230.0 / shape.n_heads))
        row = max(5.0, min(14.0, 390.0 / shape.n_layers))
        has_mlps = any(shape.has_mlp(layer) for layer in range(shape.n_layers))
        return cls(shape, cell, row, max(20.0, cell) if has_mlps else 0.0, 17.0)

    @property
    def heads_width(self) -> float:
        """Width of one row of heads."""
        return self.shape.n_heads * (self.cell + _GAP) - _GAP

    @property
    def stream_width(self) -> float:
        """Width of the bars for the embedding and the logits."""
        return self.heads_width + (_ASIDE + self.mlp if self.mlp else 0.0)

    @property
    def width(self) -> float:
        """Width of a board, with the numbers of the layers."""
        return self.left + self.stream_width

    @property
    def grid_height(self) -> float:
        """Height of all rows."""
        return self.shape.n_layers * (self.row + _GAP) - _GAP

    @property
    def mark(self) -> float:
        """Size of what is written in a cell."""
        return max(4.0, min(8.0, 0.72 * min(self.cell + 2, self.row)))


def board_canvas(graph: ModelGraph, board: Board, measures: Measures, *, words: bool) -> Canvas:
    """Return one run as a grid.

    Args:
        graph: The model's graph.
        board: The run.
        measures: How large cells are.
        words: Whether title and caption are part of it.
    """
    size, left = measures.mark, measures.left
    top = _TITLE if words else 0.0
    texts = [Text(left, 6.0, board.title, 11.0, bold=True)] if words else []
    rects = [_bar(board, Logits(), measures, top)]
    top += _BAR + _AXIS
    texts += [
        Text(
            left + at * (measures.cell + _GAP) + measures.cell / 2,
            top - 7.0,
            str(at),
            6.8,
            faint=True,
            anchor="middle",
        )
        for at in _ticks(graph.shape.n_heads, measures.cell / 8.0)
    ]
    if measures.mlp:
        middle = left + measures.stream_width - measures.mlp / 2
        texts.append(Text(middle, top - 7.0, "MLP", 6.8, faint=True, anchor="middle"))
    for layer in range(graph.shape.n_layers):
        y = top + (graph.shape.n_layers - 1 - layer) * (measures.row + _GAP)
        if layer in _ticks(graph.shape.n_layers, measures.row / 7.0):
            texts.append(
                Text(left - 3, y + measures.row / 2, str(layer), 6.5, faint=True, anchor="end")
            )
        for head in range(graph.shape.n_heads):
            spot = board.spots[Head(layer, head)]
            x = left + head * (measures.cell + _GAP)
            wide = len(spot.mark) > 1
            rects.append(
                Rect(
                    x,
                    y,
                    measures.cell,
                    measures.row,
                    spot.look,
                    spot.mark,
                    spot.words,
                    spot.kept,
                    size * (0.7 if wide else 1.0),
                )
            )
        if graph.shape.has_mlp(layer):
            spot = board.spots[MLP(layer)]
            x = left + measures.stream_width - measures.mlp
            rects.append(
                Rect(
                    x,
                    y,
                    measures.mlp,
                    measures.row,
                    spot.look,
                    spot.mark,
                    spot.words,
                    spot.kept,
                    size,
                )
            )
    top += measures.grid_height + 3.0
    rects.append(_bar(board, Embed(), measures, top))
    frames = _frames(board, measures, top - 3.0)
    grid = Canvas(tuple(rects), tuple(texts), measures.width, top + _BAR, frames)
    if not words:
        return grid
    caption = wrapped(board.words, measures.width - left, left, grid.height + 5.0, _CAPTION)
    return stacked([grid, caption])


def recording_canvas(
    graph: ModelGraph, boards: Sequence[Board], measures: Measures, *, words: bool
) -> Canvas:
    """Return the recordings, small and one above the other: a strip per layer, all nodes alike."""
    width, mlp = 46.0, 8.0
    room = (measures.grid_height + 2 * _BAR + 14.0) / 2 - 40.0
    row = max(1.6, min(7.0, room / graph.shape.n_layers - 0.8))
    parts, top = [], 0.0
    for board in boards:
        look: Look = board.spots[Embed()].look
        rects = []
        y = top + (_TITLE if words else 0.0)
        for layer in reversed(range(graph.shape.n_layers)):
            said = f"{board.title} recording, layer {layer}"
            heads = width - mlp - 2 if graph.mlps else width
            rects.append(Rect(0.0, y, heads, row, look, words=f"{said}: heads", plain=True))
            if graph.shape.has_mlp(layer):
                rects.append(Rect(width - mlp, y, mlp, row, look, words=f"{said}: MLP", plain=True))
            y += row + 0.8
        said = f"{board.title} recording: the embedding"
        rects.append(Rect(0.0, y, width, max(3.0, row), look, words=said, plain=True))
        texts = (Text(0.0, top + 6.0, board.title, 10.0, bold=True),) if words else ()
        parts.append(Canvas(tuple(rects), texts, width, y + max(3.0, row)))
        top = parts[-1].height + 4.0
        if words:
            parts.append(wrapped(board.words, width + 22, 0.0, top, 7.0, faint=True))
            top = parts[-1].height + 12.0
    return stacked(parts)


def legend_canvas(
    looks: Iterable[tuple[Look, str]], width: float, *, kept: str = "", differs: str = ""
) -> Canvas:
    """Return samples of what a picture has, each with words, in as many lines as they need.

    Args:
        looks: What there is, each with its words.
        width: How wide it may be.
        kept: What a thick border means, where there is one.
        differs: What a dashed frame means, where there is one.
    """
    samples = [
        (Rect(0, 0, 14, 11, look, LOOKS[look].mark, size=7.5), words) for look, words in looks
    ]
    if kept:
        samples.append((Rect(0, 0, 14, 11, "unchanged", words="legend: kept", kept=True), kept))
    if differs:
        samples.append((Rect(0, 0, 14, 11, "idle", words="legend: differs"), differs))
    columns = max(1, min(len(samples), int(width // 205)))
    parts = []
    for at, (rect, words) in enumerate(samples):
        x, y = (at % columns) * (width / columns), (at // columns) * 16.0
        named = (
            rect
            if rect.words
            else Rect(0, 0, 14, 11, rect.look, rect.mark, f"legend: {words}", size=7.5)
        )
        frames = (Frame(1, 1, 12, 9),) if differs and words == differs else ()
        line = Text(19, 5.5, words, 8.0)
        parts.append(Canvas((named,), (line,), 205.0, 12.0, frames).moved(x, y))
    return stacked(parts)


def _frames(board: Board, measures: Measures, bottom: float) -> tuple[Frame, ...]:
    """Return frames around what differs: one for MLPs above each other, or heads side by side."""
    shape, found = measures.shape, []
    high, wide = measures.row + _GAP, measures.cell + _GAP
    lowest = bottom - measures.row
    with_mlp = [layer for layer in range(shape.n_layers) if shape.has_mlp(layer)]
    for run in _runs([layer for layer in with_mlp if board.spots[MLP(layer)].differs]):
        x = measures.left + measures.stream_width - measures.mlp
        height = len(run) * high - _GAP
        found.append(_around(x, lowest - run[-1] * high, measures.mlp, height))
    for layer in range(shape.n_layers):
        heads = range(shape.n_heads)
        for run in _runs([head for head in heads if board.spots[Head(layer, head)].differs]):
            x, width = measures.left + run[0] * wide, len(run) * wide - _GAP
            found.append(_around(x, lowest - layer * high, width, measures.row))
    bars: dict[Node, float] = {
        Logits(): bottom - measures.grid_height - _BAR - _AXIS,
        Embed(): bottom + 3.0,
    }
    for node, y in bars.items():
        if board.spots[node].differs:
            found.append(_around(measures.left, y, measures.stream_width, _BAR))
    return tuple(found)


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Return sorted numbers as runs of neighbours."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _around(x: float, y: float, width: float, height: float) -> Frame:
    return Frame(x - 2, y - 2, width + 4, height + 4)


def _bar(board: Board, node: Embed | Logits, measures: Measures, y: float) -> Rect:
    spot = board.spots[node]
    mark = "embedding" if isinstance(node, Embed) else "logits"
    if spot.mark and spot.look != "idle":
        mark = f"{spot.mark} {mark}"
    if isinstance(node, Logits) and "metric" in spot.words:
        mark += ": metric"
    width = measures.stream_width
    size = min(7.5, width / (0.56 * len(mark)))
    return Rect(measures.left, y, width, _BAR, spot.look, mark, spot.words, spot.kept, size)


def _ticks(count: int, room: float) -> range:
    """Return which numbers are written, where each has so much room: all, or some of them."""
    return range(0, count, 1 if room >= 1 else 2 if room >= 0.6 else 5)
