"""Boards as grids: heads and MLPs in rows of layers, the embedding below, the logits above.

Tiles in their places, in pixels, x to the right and y downwards; Vega paints them and makes the
legend, as it does for heatmaps. Graphviz would have nothing to lay out here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from circuitgraph.draw.chart import Spec
from circuitgraph.draw.lettering import text_width, wrap_text
from circuitgraph.draw.palette import FAINT, INK
from circuitgraph.draw.plans.looks import DIFFERS, LOOKS, Look
from circuitgraph.draw.plans.steps import Board, Spot
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Embed, Head, Logits, Node

__all__ = ["Tile", "board_spec", "recording_spec", "tiles_spec"]

_GAP = 1.5
_BAR = 17.0
_LEFT = 24.0
_CAPTION = 10.5
_MANY = 2000
"""Heads of a grid whose cells are too small for symbols: colours say the same."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A cell: where it stands, how it looks, what is written in it, what it says.

    ``kept`` tiles have a thick border, ``plain`` ones none, and ``differs`` puts a dashed frame
    around one.
    """

    x: float
    y: float
    width: float
    height: float
    look: Look
    mark: str = ""
    words: str = ""
    kept: bool = False
    differs: bool = False
    plain: bool = False
    size: float = 9.0


Label = tuple[float, float, str, str]
"""Words beside the tiles: x, y, the words, and which part of them stands at x."""


def tiles_spec(
    title: str,
    tiles: Iterable[Tile],
    labels: Iterable[Label],
    words: str,
    size: tuple[float, float],
    looks: Mapping[Look, str],
    legend: bool,
) -> Spec:
    """Return tiles as a part of a chart: a title above, words below.

    Args:
        title: What it is.
        tiles: The cells.
        labels: Small words beside them.
        words: What to say below, in lines as wide as the tiles.
        size: Width and height.
        looks: All looks of the chart, each with what its legend says.
        legend: Whether there is one.
    """
    width, height = size
    rows = [_row(tile, looks) for tile in tiles]
    said = wrap_text(words, max(width, 96.0), _CAPTION)
    lines = [
        {"x": x, "y": y, "words": text, "anchor": anchor, "size": 9, "ink": FAINT}
        for x, y, text, anchor in labels
    ]
    lines += [
        {"x": 0, "y": height + 14 + 1.35 * _CAPTION * at, "words": line, "anchor": "left",
         "size": _CAPTION, "ink": INK}
        for at, line in enumerate(said)
    ]  # fmt: skip
    place = {
        key: {"field": key, "type": "quantitative", "scale": None, "axis": None} for key in "xy"
    }
    box = place | {"x2": {"field": "x2"}, "y2": {"field": "y2"}}
    key = {"orient": "bottom", "direction": "vertical", "columns": 2, "symbolType": "square"}
    key |= {"symbolSize": 140, "symbolStrokeWidth": 0.8, "symbolOpacity": 1, "title": None}
    key |= {"symbolStrokeColor": FAINT}
    scale = {"domain": list(looks.values()), "range": [LOOKS[look].fill for look in looks]}
    fill = {"field": "look", "type": "nominal", "scale": scale, "legend": key if legend else None}
    own = {"type": "nominal", "scale": None}
    written = place | {
        "text": {"field": "words"},
        "color": {"field": "ink"} | own,
        "size": {"field": "size", "type": "quantitative", "scale": None},
    }
    layers: list[Spec] = [
        {
            "data": {"values": rows},
            "mark": {"type": "rect"},
            "encoding": box
            | {
                "fill": fill,
                "stroke": {"field": "stroke"} | own,
                "strokeWidth": {"field": "pen", "type": "quantitative", "scale": None},
                "description": {"field": "says"},
                "tooltip": {"field": "says"},
            },
        },
        _texts([row | _middle(row) for row in rows if row["words"]], "center", written),
        *(
            _texts([line for line in lines if line["anchor"] == anchor], anchor, written)
            for anchor in ("left", "center", "right")
        ),
    ]
    frame = {"type": "rect", "fillOpacity": 0, "stroke": DIFFERS, "strokeWidth": 2}
    frame |= {"strokeDash": [5, 3], "aria": False}
    framed = [row for row in rows if row["differs"]]
    layers.append({"data": {"values": framed}, "mark": frame, "encoding": box})
    return {
        "width": width,
        "height": height,
        "title": {"text": title, "anchor": "start", "fontSize": 13},
        "layer": [layer for layer in layers if layer["data"]["values"]],
    }


def _texts(rows: Sequence[Spec], anchor: str, encoding: Spec) -> Spec:
    mark = {"type": "text", "align": anchor, "baseline": "middle", "aria": False}
    return {"data": {"values": list(rows)}, "mark": mark, "encoding": encoding}


def _row(tile: Tile, looks: Mapping[Look, str]) -> Spec:
    paint = LOOKS[tile.look]
    bare = tile.plain or not paint.border
    return {
        "x": tile.x,
        "y": tile.y,
        "x2": tile.x + tile.width,
        "y2": tile.y + tile.height,
        "look": looks[tile.look],
        "words": tile.mark,
        "size": min(tile.size, 0.9 * tile.width / max(0.1, text_width(tile.mark, 1.0))),
        "says": tile.words,
        "ink": INK if tile.kept and not paint.border else paint.ink,
        "stroke": INK if tile.kept else paint.fill if bare else paint.border,
        "pen": 2 if tile.kept else 0 if bare else 0.7,
        "differs": tile.differs,
    }


def _middle(row: Spec) -> Spec:
    return {"x": (row["x"] + row["x2"]) / 2, "y": (row["y"] + row["y2"]) / 2}


def board_spec(
    graph: ModelGraph, board: Board, looks: Mapping[Look, str], legend: bool = True
) -> Spec:
    """Return one run as a grid, as large as fits a page."""
    shape = graph.shape
    wide = max(6.5, min(18.0, 300.0 / shape.n_heads))
    high = max(6.5, min(18.0, 510.0 / shape.n_layers))
    mlp = max(26.0, wide) if graph.mlps else 0.0
    across = shape.n_heads * wide + (mlp + 9.0 if mlp else 0.0) - _GAP
    top, size = _BAR + 16.0, max(5.0, min(10.5, 0.72 * high))
    bottom = top + shape.n_layers * high
    labels: list[Label] = [
        (_LEFT + (head + 0.45) * wide, top - 8, str(head), "center")
        for head in range(0, shape.n_heads, _every(wide, 12))
    ]
    labels += [
        (_LEFT - 5, bottom - (layer + 0.55) * high, str(layer), "right")
        for layer in range(0, shape.n_layers, _every(high, 9))
    ]
    if mlp:
        labels.append((_LEFT + across - mlp / 2, top - 8, "MLP", "center"))

    few = shape.n_layers * shape.n_heads <= _MANY

    def tile(spot: Spot, x: float, y: float, width: float) -> Tile:
        mark = spot.mark if few or spot.mark != LOOKS[spot.look].mark else ""
        return Tile(
            x, y, width, high - _GAP, spot.look, mark, spot.words, spot.kept, spot.differs,
            size=size,
        )  # fmt: skip

    def bar(node: Node, name: str, y: float) -> Tile:
        spot = board.spots[node]
        mark = f"{spot.mark} {name}" if spot.mark and spot.look != "idle" else name
        mark += ": metric" if isinstance(node, Logits) and "metric" in spot.words else ""
        return Tile(
            _LEFT, y, across, _BAR, spot.look, mark, spot.words, spot.kept, spot.differs, size=10
        )

    tiles = [bar(Logits(), "logits", 0.0), bar(Embed(), "embedding", bottom + 4.0)]
    for layer in range(shape.n_layers):
        y = bottom - (layer + 1) * high
        for head in range(shape.n_heads):
            spot = board.spots[Head(layer, head)]
            tiles.append(tile(spot, _LEFT + head * wide, y, wide - _GAP))
        if shape.has_mlp(layer):
            tiles.append(tile(board.spots[MLP(layer)], _LEFT + across - mlp, y, mlp))
    size_of = (_LEFT + across, bottom + 4.0 + _BAR)
    return tiles_spec(board.title, tiles, labels, board.words, size_of, looks, legend)


def recording_spec(
    graph: ModelGraph, board: Board, looks: Mapping[Look, str], legend: bool = True
) -> Spec:
    """Return a recording, small: a strip per layer, all nodes alike."""
    look: Look = board.spots[Embed()].look
    high = max(2.0, min(9.0, 190.0 / graph.shape.n_layers))
    width, mlp = 62.0, 11.0
    tiles = []
    for layer in range(graph.shape.n_layers):
        y = (graph.shape.n_layers - 1 - layer) * high
        said = f"{board.title} recording, layer {layer}"
        heads = width - mlp - 3 if graph.mlps else width
        size = high - min(1.0, high / 3)
        tiles.append(Tile(0.0, y, heads, size, look, words=f"{said}: heads", plain=True))
        if graph.shape.has_mlp(layer):
            words = f"{said}: MLP"
            tiles.append(Tile(width - mlp, y, mlp, size, look, words=words, plain=True))
    bottom = graph.shape.n_layers * high + 1
    said = f"{board.title} recording: the embedding"
    tiles.append(Tile(0.0, bottom, width, max(4.0, high), look, words=said, plain=True))
    return tiles_spec(board.title, tiles, (), board.words, (width, bottom + high), looks, legend)


def _every(room: float, needed: float) -> int:
    """Return every how many numbers are written, where each has so much room and needs so much."""
    return next((step for step in (1, 2, 5, 10) if step * room >= needed), 20)
