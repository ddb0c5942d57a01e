"""Small graphs, and the parts of a plan in few letters, so that plans can be written out whole."""

from circuitgraph.compiler import compile
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import parse_node, parse_port
from circuitgraph.plan import Freeze, FromRun, FromSource, PatchPort, PatchWrite, Record

SMALL = ModelGraph(ModelShape(n_layers=3, n_heads=2))
GROUPED = ModelGraph(ModelShape(n_layers=2, n_heads=4, n_kv_heads=2))
PARALLEL = ModelGraph(ModelShape(n_layers=3, n_heads=2, parallel=True))
ATTN_ONLY = ModelGraph(ModelShape(n_layers=3, n_heads=2, attn_only=True))


def corrupt(name, at=None):
    return PatchWrite(parse_node(name), FromSource("corrupt"), at)


def from_run(name, run):
    return PatchWrite(parse_node(name), FromRun(run))


def freeze(names):
    return Freeze(frozenset(map(parse_node, names.split())))


def port(name, run, mode="set", at=None):
    return PatchPort(parse_port(name), run, mode, at)


def record(*names):
    return Record(ports=tuple(map(parse_port, names)))


def record_writes(*names):
    return Record(writes=tuple(map(parse_node, names)))


def runs_of(request, variant="mlps", graph=SMALL, **options):
    """The runs of an unswept request."""
    plan = compile(graph, request, variant, **options).lint()
    assert plan.axes == ()
    (cell,) = plan.cells
    assert cell.index == ()
    return cell.runs
