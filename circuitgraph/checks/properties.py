"""What must be true of path patching on any model, by the properties' numbers in the concepts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from circuitgraph.checks.choosing import joint
from circuitgraph.checks.engines import VARIANTS
from circuitgraph.checks.results import Differs, Fact, Found, LeftOut, Same
from circuitgraph.checks.subject import Subject
from circuitgraph.errors import NodeError
from circuitgraph.nodes import MLP, Head, Logits
from circuitgraph.request import MODES, Mode, Variant

__all__ = [
    "added_up",
    "corrupt_run",
    "edges_into_one_receiver",
    "equal_prompts",
    "every_edge_replaced",
    "every_edge_set",
    "key_value_head_is_its_heads",
    "no_mlp_between",
    "node_is_its_edges",
    "one_edge_in_every_mode",
    "plain_requests",
    "sender_after_receiver",
    "shared_token",
    "two_hops",
]

MOST_EDGES = 5_000
"""Patching every edge of a larger graph takes too long for a check."""

OUTGOING = 400
"""A node with more outgoing edges is passed over for a later one."""


def plain_requests(subject: Subject) -> list[tuple[str, Variant]]:
    """Return a few requests of every kind, with their variants."""
    chosen = subject.chosen
    receiver = chosen.late.q
    senders = joint(chosen.before([receiver])[:2])
    return [
        (f"{joint(chosen.senders[:3])} -> logits", "mlps"),
        (f"{joint(chosen.senders[:3])} -> logits", "single-pass"),
        (f"{senders} -> {receiver} => logits", "mlps"),
        (f"{chosen.path('k')} => logits", "single-pass"),
        (f"{chosen.senders[0]} => logits", "mlps"),
    ]


def equal_prompts(subject: Subject) -> Iterator[Found]:
    """1: where clean and corrupt are one prompt, patching changes nothing."""
    setup = subject.setup
    engine = subject.with_prompts(
        setup.clean, setup.clean, replace(setup.positions, corrupt=setup.positions.clean)
    )
    for request, variant in plain_requests(subject):
        found = subject.run(request, variant, engine=engine)
        yield subject.same(f"{request} ({variant})", found, subject.clean)


def shared_token(subject: Subject) -> Iterator[Found]:
    """1: where both prompts begin with one token, patching everything there changes nothing."""
    if not torch.equal(subject.setup.clean[:, 0], subject.setup.corrupt[:, 0]):
        raise LeftOut("the prompts differ from their first token on")
    if not subject.answering.traits.causal:
        raise LeftOut("what is computed at a position depends on later ones")
    everyone = joint(subject.graph.writers)
    request = f"{everyone}@0 => logits"
    yield subject.same("every writer@0 => logits", subject.run(request), subject.clean)


def sender_after_receiver(subject: Subject) -> Iterator[Found]:
    """2: a sender that is not before its receiver is an error, not a zero."""
    late = subject.chosen.late
    wrong = [f"{late} -> {late.q} => logits"]
    if late.layer:
        wrong.append(f"{late} -> {Head(0, 0).v} => logits")
    wrong += [f"{mlp} -> {mlp} => logits" for mlp in subject.chosen.mlps[:1]]
    for request in wrong:
        try:
            subject.plan(request)
        except NodeError:
            yield Fact(request, holds=True)
        else:
            yield Fact(f"{request} was compiled, though nothing flows that way", holds=False)


def added_up(subject: Subject) -> Iterator[Found]:
    """4: single-pass, a receiver's input is clean plus the sum of what its senders change."""
    chosen, reference = subject.chosen, subject.reference
    receiver = chosen.late.k
    senders = [*chosen.before([receiver])[:3]]
    ports = f"{{{receiver}, logits}} => logits"

    def sent(names: str) -> dict[str, torch.Tensor]:
        plan = subject.plan(f"{names} -> {ports}", "single-pass")
        kept = reference.run_once(plan.cells[0].runs[0], [])
        return {str(p): resid - reference.clean.ports[p] for p, resid in kept.ports.items()}

    together = sent(joint(senders))
    alone = [sent(str(sender)) for sender in senders]
    for port, change in together.items():
        total = torch.stack([one[port] for one in alone]).sum(dim=0)
        nothing, scale = torch.zeros_like(total), change.abs().max().item()
        yield Same(f"{joint(senders)} -> {port}", total, change, nothing, scale)


def corrupt_run(subject: Subject) -> Iterator[Found]:
    """5: every writer into the logits is the corrupt run; with MLPs recomputed, heads do."""
    heads = joint(["embed", *subject.graph.heads])
    everyone = joint(subject.graph.writers)
    corrupt = subject.corrupt
    for variant in VARIANTS:
        found = subject.run(f"{everyone} -> logits", variant)
        yield subject.same(f"every writer -> logits ({variant})", found, corrupt)
    found = subject.run(f"{heads} -> logits", "mlps")
    yield subject.same("embed and every head -> logits (mlps)", found, corrupt)
    found = subject.run(f"{joint(subject.graph.heads)} -> logits", "mlps")
    yield Differs("the heads without the embedding", found, corrupt.expand_as(found))


def every_edge_set(subject: Subject) -> Iterator[Found]:
    """6: with every writer into the logits, what else is patched is irrelevant."""
    graph, chosen = subject.graph, subject.chosen
    receivers = [Logits().port, chosen.late.q, *(mlp.port for mlp in chosen.mlps[-1:])]
    edges = [edge for receiver in receivers for edge in graph.edges_into(receiver)]
    if graph.n_edges <= MOST_EDGES:
        edges = list(graph.edges())
    for variant in VARIANTS:
        found = subject.run(edges, variant)
        yield subject.same(f"{len(edges)} edges ({variant}, set)", found, subject.corrupt)


def no_mlp_between(subject: Subject) -> Iterator[Found]:
    """7: both variants agree where no MLP lies between sender and receiver."""
    graph = subject.graph
    requests = []
    if not graph.mlps:
        requests.append(f"{joint(subject.chosen.senders)} -> logits")
    for mlp in graph.mlps[:1]:
        sender = Head(mlp.layer, 0)
        if graph.precedes(sender, mlp):
            requests.append(f"{sender} -> {mlp} => logits")
    for layer in range(1, graph.shape.n_layers):
        one = MLP(layer - 1)
        if one in graph.mlps:
            requests.append(f"{one} -> {{{layer}.0.k, {layer}.0.v}} => logits")
            break
    if not requests:
        raise LeftOut("there is an MLP between any sender and receiver")
    for request in requests:
        through, past = (subject.run(request, variant) for variant in VARIANTS)
        yield subject.same(request, through, past)


def every_edge_replaced(subject: Subject) -> Iterator[Found]:
    """8: in mode replace every edge gives the corrupt run; in mode add it does not."""
    if subject.graph.n_edges > MOST_EDGES:
        raise LeftOut(f"the model has {subject.graph.n_edges:,} edges")
    edges = list(subject.graph.edges())
    found = subject.run(edges, "single-pass", "replace")
    yield subject.same(f"{len(edges)} edges (replace)", found, subject.corrupt)
    if subject.graph.shape.n_layers > 1:
        added = subject.run(edges, "single-pass", "add")
        yield Differs("mode add with every edge", added, subject.corrupt.expand_as(added))


def node_is_its_edges(subject: Subject) -> Iterator[Found]:
    """9: patching a node is patching all its outgoing edges, in modes add and replace."""
    chosen = subject.chosen
    nodes = [
        next(node for node in kind if len(subject.graph.edges_from(node)) <= OUTGOING)
        for kind in ((chosen.early, chosen.middle, chosen.late), chosen.mlps)
        if kind
    ]
    modes: tuple[Mode, ...] = ("add", "replace")
    for node in nodes:
        expected = subject.run(f"{node} => logits")
        for mode in modes:
            found = subject.run(subject.graph.edges_from(node), "single-pass", mode)
            yield subject.same(f"{node} and its edges ({mode})", found, expected)


def one_edge_in_every_mode(subject: Subject) -> Iterator[Found]:
    """8: for one edge the three modes are one."""
    receiver = subject.chosen.late.q
    request = f"{subject.chosen.before([receiver])[0]} -> {receiver} => logits"
    first, *others = (subject.run(request, "single-pass", mode) for mode in MODES)
    for mode, found in zip(MODES[1:], others, strict=True):
        yield subject.same(f"{request} (set, {mode})", found, first)
    found = subject.run(request, "mlps", "add")
    yield subject.same(f"{request} (mlps)", found, subject.run(request, "mlps"))


def edges_into_one_receiver(subject: Subject) -> Iterator[Found]:
    """10: edges into one receiver are its senders together, in every mode."""
    receiver = subject.chosen.late.v
    senders: Sequence[object] = subject.chosen.before([receiver])[:3]
    if len(senders) < 2:
        raise LeftOut("only one sender comes before the last layer")
    edges = ", ".join(f"{sender} -> {receiver}" for sender in senders)
    for variant in VARIANTS:
        together = subject.run(f"{joint(senders)} -> {receiver} => logits", variant)
        for mode in MODES if variant == "single-pass" else MODES[:2]:
            found = subject.run(f"{edges} => logits", variant, mode)
            yield subject.same(f"{edges} ({variant}, {mode})", found, together)


def edges_across_a_cut(subject: Subject) -> Iterator[Found]:
    """10: every path crosses from lower to upper layers once: those edges give the corrupt run."""
    graph = subject.graph
    for layer in {1, graph.shape.n_layers - 1} - {0}:
        edges = [
            edge
            for edge in graph.edges()
            if graph.writes_at(edge.sender) <= 2 * layer <= graph.reads_at(edge.receiver)
        ]
        if len(edges) > MOST_EDGES:
            raise LeftOut(f"{len(edges):,} edges cross layer {layer}")
        found = subject.run(edges, "single-pass", "replace")
        yield subject.same(f"{len(edges)} edges across layer {layer}", found, subject.corrupt)


def edges_into_one_node(subject: Subject) -> Iterator[Found]:
    """10: every path through a node comes in by an edge into it, so those edges are the node."""
    chosen = subject.chosen
    for node in (chosen.late, *chosen.mlps[-1:]):
        edges = [edge for edge in subject.graph.edges() if edge.receiver.node == node]
        if len(edges) > MOST_EDGES:
            raise LeftOut(f"{len(edges):,} edges lead into {node}")
        found = subject.run(edges, "single-pass", "replace")
        yield subject.same(f"edges into {node}", found, subject.run(f"{node} => logits"))


def two_hops(subject: Subject) -> Iterator[Found]:
    """11: a path of two hops is its second hop with what the middle makes of the first."""
    path = subject.chosen.path("q")
    if path.count("->") < 2:
        raise LeftOut("a path of two hops needs two layers")
    last = path.split(" -> ")[-1]
    for variant in VARIANTS:
        runs = subject.plan(f"{path} => logits", variant).cells[0].runs
        sent = subject.reference.run_once(runs[0], [])
        writes = subject.reference.run_once(runs[1], [sent]).writes
        (node,) = writes
        given = subject.fast.with_setup(replace(subject.fast.setup, given=writes))
        expected = subject.given(f"{node} -> {last} => logits", variant, given)
        found = subject.run(f"{path} => logits", variant)
        yield subject.same(f"{path} ({variant})", found, expected)


def key_value_head_is_its_heads(subject: Subject) -> Iterator[Found]:
    """12: a key-value head is what its query heads read of it, together."""
    for port in ("k", "v"):
        whole, heads = subject.chosen.key_value_head(port)
        sender = subject.chosen.before(heads)[0]
        together = subject.run(f"{sender} -> {joint(heads)} => logits")
        found = subject.run(f"{sender} -> {whole} => logits")
        yield subject.same(f"{sender} -> {whole}", found, together)
