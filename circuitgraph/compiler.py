"""From a request to a plan.

`compile` reads like the list of what happens: read the request, settle what direct paths may pass
through, lay out the grid of cells, refuse what is wrong, write each cell's runs. Every step is a
pure function of plain values; nothing here knows torch or a model.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import assert_never, cast, get_args

from circuitgraph.errors import (
    NodeError,
    Problems,
    RequestError,
    UnsupportedError,
)
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Edge, Head, Logits, Port, Writer
from circuitgraph.plan import (
    Axis,
    Cell,
    Freeze,
    FromRun,
    FromSource,
    Op,
    PatchPort,
    PatchWrite,
    Plan,
    ReadLogits,
    Record,
    ReplaceSenders,
    Run,
    Source,
)
from circuitgraph.request import (
    MODES,
    EachPosition,
    EdgesRequest,
    Every,
    Joint,
    KVPort,
    Mode,
    PathRequest,
    Positions,
    Request,
    Site,
    Sweep,
    Term,
    Through,
    Variant,
    as_request,
)

__all__ = ["compile"]


def compile(
    graph: ModelGraph,
    request: str | Request | Edge | Iterable[Edge],
    variant: Variant = "mlps",
    *,
    mode: Mode = "set",
    source: Source = "corrupt",
    n_positions: int | None = None,
) -> Plan:
    """Return the ordered runs that answer a request.

    Args:
        graph: The model's graph.
        request: Text such as ``head -> logits``, a `Request`, an `Edge` or a collection of them.
        variant: What a direct path may pass through: ``mlps``, ``single-pass`` or `Through`.
        mode: What patching several receivers means: ``set``, ``add`` or ``replace``.
        source: Where patched values come from; ``corrupt`` is the run on the corrupt prompt.
        n_positions: Length of the prompts; only a sweep over positions (``@each``) needs it.

    Returns:
        The plan. In a sweep, cells that no valid request fills are left out of it.

    Raises:
        RequestError: The request cannot be read, or every cell of it is invalid.
        NodeError: A node is not in the graph, or a sender does not come before its receiver.

    Example:
        >>> from circuitgraph.graph import ModelShape
        >>> graph = ModelGraph(ModelShape(n_layers=12, n_heads=12))
        >>> plan = compile(graph, "5.5 -> 8.6.v => logits")
        >>> [run.name for run in plan.cells[0].runs]
        ['send', 'measure']
        >>> compile(graph, "head -> logits", "single-pass").cost.forward_passes
        0
    """
    asked = as_request(request)
    problems = Problems()
    through = resolve_variant(graph, variant, problems)
    check_words(mode, source, problems)
    check_nodes(graph, asked, problems)
    problems.raise_if_any(f"cannot compile {str(asked)!r}")
    axes, candidates = lay_out(graph, asked, n_positions)
    if mode == "replace":
        check_replace(candidates, through, problems)
        problems.raise_if_any(f"cannot compile {str(asked)!r}")
    cells = write_cells(graph, candidates, through, mode, source)
    if not cells:
        _, first = candidates[0]
        problems.add(order_problem(graph, first))
        problems.raise_if_any(f"cannot compile {str(asked)!r}")
    return Plan(graph, asked, variant, mode, source, axes, cells)


# -- what a direct path may pass through -----------------------------------------------------------


def resolve_variant(
    graph: ModelGraph, variant: Variant, problems: Problems
) -> frozenset[Head | MLP]:
    """Return the set of nodes that a variant lets direct paths pass through."""
    match variant:
        case "mlps":
            return frozenset(graph.mlps)
        case "single-pass":
            return frozenset()
        case Through(nodes=nodes):
            for node in sorted(nodes):
                problems.add(graph.problem(node))
            return nodes
        case _:
            problems.add(
                RequestError(
                    f"no variant {variant!r}: write 'mlps' (direct paths pass through MLPs), "
                    "'single-pass' (through nothing) or cg.Through(nodes)"
                )
            )
            return frozenset()


def check_words(mode: Mode, source: Source, problems: Problems) -> None:
    """Check the words that a request is compiled with."""
    if mode not in MODES:
        problems.add(RequestError(f"no mode {mode!r}: write one of {', '.join(MODES)}"))
    if source not in get_args(Source):
        allowed = ", ".join(get_args(Source))
        problems.add(RequestError(f"no source {source!r}: write one of {allowed}"))


# -- does everything exist? ------------------------------------------------------------------------


def check_nodes(graph: ModelGraph, request: Request, problems: Problems) -> None:
    """Check that every node and port that a request names is in the graph."""
    for site in _sites(request):
        if isinstance(site.what, KVPort):
            problems.add(_kv_problem(graph, site.what))
        else:
            problems.add(graph.problem(site.what))
    if isinstance(request, EdgesRequest):
        _check_edges(graph, request, problems)


def _sites(request: Request) -> list[Site]:
    match request:
        case PathRequest(steps=steps):
            found: list[Site] = []
            for step in steps:
                match step:
                    case Joint(sites=sites):
                        found += sites
                    case Sweep(items=items):
                        found += [site for item in items for site in item.sites]
                    case Every():
                        pass
                    case _:
                        assert_never(step)
            return found
        case EdgesRequest(edges=edges):
            return [site for edge in edges for site in (edge.sender, edge.receiver)]
        case _:
            raise RequestError(f"{request!r} is no request")


def _kv_problem(graph: ModelGraph, port: KVPort) -> NodeError | None:
    shape = graph.shape
    if port.layer >= shape.n_layers or port.kv_head >= shape.kv_heads:
        return NodeError(
            f"no port {str(port)!r} in this graph ({shape.n_layers} layers of {shape.kv_heads} "
            f"key-value heads): layer must be 0..{shape.n_layers - 1}, "
            f"key-value head 0..{shape.kv_heads - 1}"
        )
    return None


def _check_edges(graph: ModelGraph, request: EdgesRequest, problems: Problems) -> None:
    """Check each edge of a list by itself: it is asked for by name, so it must be possible."""
    places: dict[object, Positions] = {}
    for edge in request.edges:
        what = edge.receiver.what
        if places.setdefault(what, edge.receiver.at) != edge.receiver.at:
            problems.add(
                UnsupportedError(
                    f"{what} receives at different positions in one list of edges: "
                    "give all edges into a port the same positions"
                )
            )
        for port in _ports(graph, edge.receiver):
            if graph.problem(port) is None and graph.problem(_writer(edge.sender)) is None:
                problems.add(graph.order_problem(_writer(edge.sender), port))


# -- the grid of cells -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hops:
    """One cell's request: sites that are patched together at each step, all of them resolved."""

    steps: tuple[tuple[Site, ...], ...]
    recompute: bool
    edges: tuple[tuple[tuple[Site, ...], tuple[Site, ...]], ...] = ()

    def __str__(self) -> str:
        if self.edges:
            pairs = [
                f"{sender} -> {receiver}"
                for senders, receivers in self.edges
                for receiver in receivers
                for sender in senders
            ]
            return ", ".join(pairs) + " => logits"
        return str(PathRequest(tuple(Joint(step) for step in self.steps), self.recompute))


Candidate = tuple[tuple[int, ...], Hops]


def lay_out(
    graph: ModelGraph, request: Request, n_positions: int | None
) -> tuple[tuple[Axis, ...], list[Candidate]]:
    """Return the swept dimensions and every cell of their grid, valid or not."""
    match request:
        case EdgesRequest():
            return (), [((), Hops((), recompute=True, edges=_by_senders(graph, request)))]
        case PathRequest(steps=steps, recompute=recompute):
            axes: list[Axis] = []
            choices: list[list[tuple[tuple[int, ...], tuple[Site, ...]]]] = []
            prefixes = _prefixes(steps)
            for step, prefix in zip(steps, prefixes, strict=True):
                step_axes, items = _expand(graph, step, prefix)
                axes += step_axes
                choices.append(items)
            candidates = [
                (
                    tuple(at for index, _ in chosen for at in index),
                    Hops(
                        tuple(sites for _, sites in chosen),
                        recompute and not _only_logits(chosen[-1][1]),
                    ),
                )
                for chosen in product(*choices)
            ]
            return _sweep_positions(request, tuple(axes), candidates, n_positions)
        case _:
            raise RequestError(f"{request!r} is no request")


def _prefixes(steps: Sequence[Term]) -> list[str]:
    """Return what stands before the dimension names of each step: nothing for the senders."""
    swept = [number for number, step in enumerate(steps) if number and not isinstance(step, Joint)]
    plain = len(swept) <= 1
    return [
        "" if number == 0 else "receiver" if plain else f"receiver{number}"
        for number in range(len(steps))
    ]


def _expand(
    graph: ModelGraph, term: Term, prefix: str
) -> tuple[list[Axis], list[tuple[tuple[int, ...], tuple[Site, ...]]]]:
    """Return a step's dimensions and, for each place in them, the sites patched together."""
    named = prefix or "sender"
    dim = f"{prefix}_" if prefix else ""
    shape = graph.shape
    match term:
        case Joint(sites=sites):
            return [], [((), _resolve(graph, sites))]
        case Sweep(items=items):
            axis = Axis(named, tuple(str(item) for item in items))
            return [axis], [
                ((place,), _resolve(graph, item.sites)) for place, item in enumerate(items)
            ]
        case Every(kind="head", port=port, at=at):
            axes = [
                Axis(f"{dim}layer", tuple(range(shape.n_layers))),
                Axis(f"{dim}head", tuple(range(shape.n_heads))),
            ]
            return axes, [
                ((head.layer, head.head), (Site(Port(head, port) if port else head, at),))
                for head in graph.heads
            ]
        case Every(kind="kv", port=port, at=at):
            axes = [
                Axis(f"{dim}layer", tuple(range(shape.n_layers))),
                Axis(f"{dim}kv_head", tuple(range(shape.kv_heads))),
            ]
            return axes, [
                (
                    (layer, kv),
                    _resolve(graph, (Site(KVPort(layer, kv, "k" if port == "k" else "v"), at),)),
                )
                for layer in range(shape.n_layers)
                for kv in range(shape.kv_heads)
            ]
        case Every(kind="mlp", at=at):
            if not graph.mlps:
                raise RequestError("nothing to sweep over: the model has no MLPs")
            axis = Axis(f"{dim}layer", tuple(mlp.layer for mlp in graph.mlps))
            return [axis], [
                ((place,), (Site(mlp.port if prefix else mlp, at),))
                for place, mlp in enumerate(graph.mlps)
            ]
        case Every(kind="node" | "port" as kind, at=at):
            things: Sequence[Writer | Port] = graph.writers if kind == "node" else graph.ports
            axis = Axis(named, tuple(map(str, things)))
            return [axis], [((place,), (Site(thing, at),)) for place, thing in enumerate(things)]
        case _:
            raise RequestError(f"{term!r} is no step of a path")


def _only_logits(sites: Sequence[Site]) -> bool:
    """Return whether nothing is downstream of these receivers, as for `port => logits`."""
    return all(isinstance(site.what, Port) and site.what.node == Logits() for site in sites)


def _resolve(graph: ModelGraph, sites: Sequence[Site]) -> tuple[Site, ...]:
    """Return the sites with every key-value head written out as the ports of its query heads."""
    found: list[Site] = []
    for site in sites:
        if isinstance(site.what, KVPort):
            found += [Site(port, site.at) for port in _ports(graph, site)]
        else:
            found.append(site)
    return tuple(dict.fromkeys(found))


def _ports(graph: ModelGraph, site: Site) -> tuple[Port, ...]:
    match site.what:
        case KVPort(layer=layer, kv_head=kv_head, name=name):
            heads = graph.shape.heads_of_group(kv_head)
            return tuple(Port(Head(layer, head), name) for head in heads)
        case Port():
            return (site.what,)
        case _:
            raise RequestError(f"{site} is no receiver")


def _writer(site: Site) -> Writer:
    if isinstance(site.what, Port | KVPort):
        raise RequestError(f"{site} is no sender")
    return site.what


def _by_senders(
    graph: ModelGraph, request: EdgesRequest
) -> tuple[tuple[tuple[Site, ...], tuple[Site, ...]], ...]:
    """Return receivers grouped by equal sets of senders, since those share a sender run."""
    senders: dict[Site, list[Site]] = {}
    for edge in request.edges:
        for port in _ports(graph, edge.receiver):
            senders.setdefault(Site(port, edge.receiver.at), []).append(edge.sender)
    groups: dict[frozenset[Site], list[Site]] = {}
    for receiver, found in senders.items():
        groups.setdefault(frozenset(found), []).append(receiver)
    return tuple(
        (tuple(sorted(found, key=_site_order)), tuple(receivers))
        for found, receivers in groups.items()
    )


def _site_order(site: Site) -> tuple[Writer, str]:
    return _writer(site), str(site.at)


def _sweep_positions(
    request: PathRequest,
    axes: tuple[Axis, ...],
    candidates: list[Candidate],
    n_positions: int | None,
) -> tuple[tuple[Axis, ...], list[Candidate]]:
    """Return the grid with a last dimension for ``@each``, where the request has one."""
    swept = [
        number
        for number in range(len(request.steps))
        if any(isinstance(site.at, EachPosition) for site in candidates[0][1].steps[number])
    ]
    if not swept:
        return axes, candidates
    if len(swept) > 1:
        raise UnsupportedError("@each can stand at one step of a path only")
    if n_positions is None:
        raise RequestError("@each needs to know how many positions there are: give n_positions")
    axis = Axis("position", tuple(range(n_positions)))
    return (*axes, axis), [
        ((*index, position), _place(hops, position))
        for index, hops in candidates
        for position in range(n_positions)
    ]


def _place(hops: Hops, position: int) -> Hops:
    steps = tuple(
        tuple(
            replace(site, at=(position,)) if isinstance(site.at, EachPosition) else site
            for site in step
        )
        for step in hops.steps
    )
    return replace(hops, steps=steps)


# -- is a cell valid? ------------------------------------------------------------------------------


def order_problem(graph: ModelGraph, hops: Hops) -> NodeError | None:
    """Return why a cell cannot be: a sender before none of its receivers, or the reverse."""
    for senders, receivers in _all_hops(hops):
        for sender in senders:
            reached = [port for port in receivers if graph.precedes(sender, port)]
            if not reached:
                return graph.order_problem(sender, receivers[0])
        if all(
            not graph.precedes(sender, receiver) for sender in senders for receiver in receivers
        ):
            return graph.order_problem(senders[0], receivers[0])
    return None


def unreached(graph: ModelGraph, hops: Hops) -> NodeError | None:
    """Return the first receiver that no sender comes before, as an error, or None."""
    for senders, receivers in _all_hops(hops):
        for receiver in receivers:
            if not any(graph.precedes(sender, receiver) for sender in senders):
                return graph.order_problem(senders[0], receiver)
    return None


def _all_hops(hops: Hops) -> list[tuple[list[Writer], list[Port]]]:
    if hops.edges:
        return [
            ([_writer(site) for site in senders], [cast(Port, site.what) for site in receivers])
            for senders, receivers in hops.edges
        ]
    found = []
    senders = [_writer(site) for site in hops.steps[0]]
    for step in hops.steps[1:]:
        ports = [cast(Port, site.what) for site in step]
        found.append((senders, ports))
        senders = list(dict.fromkeys(cast(Writer, port.node) for port in ports))
    return found


def check_replace(
    candidates: Sequence[Candidate], through: frozenset[Head | MLP], problems: Problems
) -> None:
    """Refuse mode ``replace`` where a receiver is also a node that direct paths pass through."""
    for _, hops in candidates:
        last = [receivers for _, receivers in _all_hops(hops)]
        ports = [port for receivers in (last if hops.edges else last[-1:]) for port in receivers]
        inside = [port for port in ports if port.node in through]
        if inside and len(ports) > 1:
            problems.add(
                UnsupportedError(
                    f"mode 'replace' with {inside[0]} both a receiver and a node that direct paths "
                    "to other receivers pass through: use variant 'single-pass', or cg.Through "
                    f"without {inside[0].node}"
                )
            )
            return


# -- the runs of a cell ----------------------------------------------------------------------------


def write_cells(
    graph: ModelGraph,
    candidates: Sequence[Candidate],
    through: frozenset[Head | MLP],
    mode: Mode,
    source: Source,
) -> tuple[Cell, ...]:
    """Return the valid cells with their runs; a single invalid cell raises."""
    freeze_all_but = _freezer(graph)
    single = len(candidates) == 1
    cells = []
    for index, hops in candidates:
        problem = order_problem(graph, hops) or (unreached(graph, hops) if single else None)
        if problem is not None:
            if single:
                raise NodeError(f"cannot compile {str(hops)!r}: {problem}")
            continue
        writer = _CellWriter(graph, through, mode, source, freeze_all_but)
        cells.append(Cell(index, str(hops), writer.runs(hops)))
    return tuple(cells)


def _freezer(graph: ModelGraph) -> Callable[[frozenset[Writer]], Freeze]:
    """Return a function that freezes all writers but some; equal sets share one object."""
    everything = frozenset(graph.writers)

    @cache
    def freeze_all_but(live: frozenset[Writer]) -> Freeze:
        return Freeze(everything - live)

    return freeze_all_but


@dataclass(frozen=True, slots=True)
class _CellWriter:
    """Writes the runs of one cell, hop by hop."""

    graph: ModelGraph
    through: frozenset[Head | MLP]
    mode: Mode
    source: Source
    freeze_all_but: Callable[[frozenset[Writer]], Freeze]

    def runs(self, hops: Hops) -> tuple[Run, ...]:
        if hops.edges:
            return self.edge_set(hops)
        runs: list[Run] = []
        patches = tuple(
            PatchWrite(_writer(site), FromSource(self.source), site.at) for site in hops.steps[0]
        )
        receivers = hops.steps[1:]
        if not receivers:
            return (Run("measure", (*patches, ReadLogits())),)
        for hop, sites in enumerate(receivers):
            last = hop == len(receivers) - 1
            if last and hops.recompute and self.mode == "replace":
                runs.append(self.measure(self.replacements(sites, patches)))
                break
            runs.append(self.send(patches, sites))
            if last:
                ports = self.patched_ports(sites, patches, len(runs) - 1)
                runs.append(self.measure(ports) if hops.recompute else self.read_out(ports))
            else:
                runs.append(self.recompute(sites, patches, len(runs) - 1))
                recomputed = runs[-1].recorded_writes
                patches = tuple(PatchWrite(node, FromRun(len(runs) - 1)) for node in recomputed)
        return tuple(runs)

    def edge_set(self, hops: Hops) -> tuple[Run, ...]:
        """Each receiver with its own senders; receivers of equal senders share a sender run."""
        runs: list[Run] = []
        ports: list[Op] = []
        for senders, receivers in hops.edges:
            patches = tuple(
                PatchWrite(_writer(site), FromSource(self.source), site.at) for site in senders
            )
            if self.mode == "replace":
                ports += self.replacements(receivers, patches)
            else:
                runs.append(self.send(patches, receivers))
                ports += self.patched_ports(receivers, patches, len(runs) - 1)
        runs.append(self.measure(ports))
        return tuple(runs)

    def send(self, patches: tuple[PatchWrite, ...], receivers: Sequence[Site]) -> Run:
        """Senders patched, everything outside the variant frozen; record what arrives.

        A sender that is patched at some positions only is frozen at the others, unless a direct
        path may pass through it.
        """
        live = frozenset(patch.node for patch in patches if patch.at is None) | self.through
        ports = tuple(cast(Port, site.what) for site in self.reached(receivers, patches))
        return Run("send", (*patches, self.freeze_all_but(live), Record(ports=ports)))

    def recompute(
        self, receivers: Sequence[Site], patches: tuple[PatchWrite, ...], sent: int
    ) -> Run:
        """Inner receivers recomputed from their patched ports alone; record what they write."""
        ports = self.patched_ports(receivers, patches, sent, mode="set")
        nodes = tuple(dict.fromkeys(cast(Writer, op.port.node) for op in ports))
        freeze = self.freeze_all_but(frozenset(nodes))
        return Run("recompute", (*ports, freeze, Record(writes=nodes)))

    def measure(self, ports: Sequence[Op]) -> Run:
        """Receivers patched, everything downstream recomputed."""
        return Run("measure", (*ports, ReadLogits()))

    def read_out(self, ports: Sequence[Op]) -> Run:
        """Only norm and unembedding: what arrives at the logits is known."""
        return Run("read out", (*ports, self.freeze_all_but(frozenset()), ReadLogits()))

    def patched_ports(
        self,
        receivers: Sequence[Site],
        patches: tuple[PatchWrite, ...],
        sent: int,
        mode: Mode | None = None,
    ) -> tuple[PatchPort, ...]:
        kind = mode or self.mode
        return tuple(
            PatchPort(cast(Port, site.what), sent, "add" if kind == "add" else "set", site.at)
            for site in self.reached(receivers, patches)
        )

    def replacements(
        self, receivers: Sequence[Site], patches: tuple[PatchWrite, ...]
    ) -> list[ReplaceSenders]:
        found = []
        for site in self.reached(receivers, patches):
            port = cast(Port, site.what)
            before = tuple(patch for patch in patches if self.graph.precedes(patch.node, port))
            held = {patch.node for patch in before}
            between = frozenset(
                node for node in self.through - held if self.lies_between(node, held, port)
            )
            found.append(ReplaceSenders(port, before, between, site.at))
        return found

    def lies_between(self, node: Head | MLP, senders: set[Writer], port: Port) -> bool:
        """Return whether a direct path from a sender to the port can pass through the node."""
        inputs = self.graph.ports_of(node)
        return self.graph.precedes(node, port) and any(
            self.graph.precedes(sender, inputs[0]) for sender in senders
        )

    def reached(
        self, receivers: Sequence[Site], patches: tuple[PatchWrite, ...]
    ) -> tuple[Site, ...]:
        return tuple(
            site
            for site in receivers
            if any(self.graph.precedes(patch.node, cast(Port, site.what)) for patch in patches)
        )
