"""A plan as boards: what happens to every node in every run, before any picture.

Plain data with words. How boards are spread over a picture and painted is no business of this
module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from circuitgraph.draw.plans.looks import LOOKS, Look
from circuitgraph.draw.plans.phrases import recording_words, run_words, source_words
from circuitgraph.errors import PlanError
from circuitgraph.nodes import Head, Logits, Node, Port
from circuitgraph.plan import Cell, FromRun, FromSource, Plan, Run
from circuitgraph.plan.reach import last_point, reached

__all__ = ["Board", "Spot", "boards_of", "differing", "find_cell", "with_differences"]


@dataclass(frozen=True, slots=True)
class Spot:
    """One node in one run.

    Args:
        look: What happens to it.
        mark: What is written in its cell.
        words: The same in words.
        kept: Whether the run records what it reads or writes, or reads the metric from it.
        differs: Whether something else happens to it in the plan beside this one.
    """

    look: Look
    mark: str
    words: str
    kept: bool = False
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """One run, or one recording.

    Args:
        title: ``1 send``.
        words: What the run does, as sentences.
        spots: What happens to each node.
        recording: Whether it records a prompt, all nodes alike.
    """

    title: str
    words: str
    spots: Mapping[Node, Spot]
    recording: bool = False


def find_cell(plan: Plan, wanted: int | str | None) -> Cell:
    """Return one cell of a plan: by number, by name, or the first.

    Raises:
        PlanError: The plan has no cells, or no such cell.
    """
    if not plan.cells:
        raise PlanError(f"nothing to draw: the plan of {plan.title!r} has no valid cell")
    if wanted is None:
        return plan.cells[0]
    if isinstance(wanted, str):
        squeezed = "".join(wanted.split())
        for cell in plan.cells:
            if "".join(cell.name.split()) == squeezed:
                return cell
    elif -len(plan.cells) <= wanted < len(plan.cells):
        return plan.cells[wanted]
    some = ", ".join(repr(cell.name) for cell in plan.cells[:3])
    raise PlanError(
        f"no cell {wanted!r} in the plan of {plan.title!r}: it has {len(plan.cells)}, "
        f"numbered from 0 and named {some}{', ...' if len(plan.cells) > 3 else ''}"
    )


def boards_of(plan: Plan, cell: Cell) -> tuple[Board, ...]:
    """Return the recordings and the runs of one cell, in order.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelGraph, ModelShape
        >>> from circuitgraph.nodes import MLP
        >>> plan = compile(ModelGraph(ModelShape(12, 12)), "5.5 -> 8.6.v => logits")
        >>> boards = boards_of(plan, plan.cells[0])
        >>> [board.title for board in boards]
        ['clean', 'corrupt', '1 send', '2 measure']
        >>> boards[2].spots[MLP(6)].look, boards[2].spots[Head(6, 9)].look
        ('recomputed', 'frozen')
        >>> boards[2].spots[Head(8, 6)].words
        '8.6: not run, but what arrives at its v is recorded'
    """
    boards = [_recording(plan, "clean")]
    if plan.source != "zero":
        boards.append(_recording(plan, plan.source))
    for number, run in enumerate(cell.runs, start=1):
        spots = {node: _spot(plan, run, node) for node in plan.graph.nodes}
        boards.append(Board(f"{number} {run.name}", run_words(plan, run), spots))
    return tuple(boards)


def differing(board: Board, other: Board) -> frozenset[Node]:
    """Return the nodes to which something else happens in another board of the same step.

    A node that is frozen and one that comes out as in the clean run are not told apart.
    """
    return frozenset(
        node
        for node, spot in board.spots.items()
        if node in other.spots and _fate(spot) != _fate(other.spots[node])
    )


def _fate(spot: Spot) -> tuple[str, str, bool]:
    if spot.look in ("frozen", "unchanged"):
        return "clean", "", spot.kept
    return spot.look, spot.mark, spot.kept


def with_differences(board: Board, nodes: frozenset[Node]) -> Board:
    """Return a board in which these nodes are framed as different."""
    spots = {
        node: replace(spot, differs=node in nodes) if node in nodes else spot
        for node, spot in board.spots.items()
    }
    return replace(board, spots=spots)


# -- one node in one run ---------------------------------------------------------------------------


def _recording(plan: Plan, which: str) -> Board:
    look: Look = "frozen" if which == "clean" else "corrupt"
    words = (
        f"recorded on the {which} prompt" if which in ("clean", "corrupt") else source_words(plan)
    )
    spots = {node: Spot(look, "", f"{node}: {words}") for node in plan.graph.nodes}
    return Board(which, recording_words(which), spots, recording=True)


def _spot(plan: Plan, run: Run, node: Node) -> Spot:
    look = _look(plan, run, node)
    mark = LOOKS[look].mark
    ports = "".join(_letter(port) for port in _ports(run, node))
    recorded = [port for port in run.recorded_ports if port.node == node]
    written = node in run.recorded_writes
    measured = isinstance(node, Logits) and run.reads_logits
    if look == "patched":
        mark = ports or mark
    elif recorded:
        mark = "".join(map(_letter, recorded)) or mark
    said = [_words(plan, run, node, look, ports)]
    if recorded:
        arrives = f"its {', '.join(map(_letter, recorded))}" if isinstance(node, Head) else "it"
        said.append(f"{'but ' * (look == 'idle')}what arrives at {arrives} is recorded")
    if written:
        said.append("its write is recorded")
    if measured:
        said.append("the metric is read")
    return Spot(look, mark, f"{node}: {', '.join(said)}", bool(recorded) or written or measured)


def _look(plan: Plan, run: Run, node: Node) -> Look:
    graph = plan.graph
    for op in run.patched:
        if op.node == node:
            return "sent" if isinstance(op.value, FromRun) else "corrupt"
    if _ports(run, node):
        return "patched"
    if isinstance(node, Logits):
        return "recomputed" if run.reads_logits else "idle"
    if graph.writes_at(node) > last_point(graph, run):
        return "idle"
    if node in run.frozen:
        return "frozen"
    return "recomputed" if node in reached(graph, run) else "unchanged"


def _words(plan: Plan, run: Run, node: Node, look: Look, ports: str) -> str:
    """Return what happens to a node, in a few words."""
    match look:
        case "corrupt" | "sent":
            value = next(op.value for op in run.patched if op.node == node)
            if isinstance(value, FromSource):
                return f"sender, set to {source_words(plan)}"
            return f"sender, set to its write of {value}"
        case "patched":
            where = f" at {', '.join(ports)}" if isinstance(node, Head) else ""
            return f"receiver, reads a patched value{where}, and is recomputed from it"
        case "frozen":
            return "frozen to its clean write"
        case "recomputed":
            return "recomputed, and may differ from the clean run"
        case "unchanged":
            return "as in the clean run, since nothing before it differs"
        case _:
            return "not run"


def _ports(run: Run, node: Node) -> tuple[Port, ...]:
    return tuple(sorted({op.port for op in run.ports if op.port.node == node}))


def _letter(port: Port) -> str:
    return port.name if isinstance(port.node, Head) else ""
