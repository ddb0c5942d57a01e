"""Positions and batches: what a patch at one place, or in company, must leave alone."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from circuitgraph.checks.choosing import joint
from circuitgraph.checks.engines import VARIANTS
from circuitgraph.checks.footprint import Footprint
from circuitgraph.checks.properties import plain_requests
from circuitgraph.checks.results import Fact, Found, LeftOut, Same
from circuitgraph.checks.subject import Subject, every_logit, run_plan
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.setup import PositionTable
from circuitgraph.nodes import Logits

__all__ = [
    "kept_position",
    "later_positions",
    "one_by_one",
    "one_position_read",
    "order",
    "padding",
    "prompts_alone",
    "untouched",
]

PADDING = 2


def kept_position(subject: Subject) -> Iterator[Found]:
    """3: a sender patched at one position changes only that position of a receiver's input."""
    chosen, graph, reference = subject.chosen, subject.graph, subject.reference
    sender = chosen.early
    ports = [chosen.late.k, *(mlp.port for mlp in chosen.mlps[-1:])]
    receivers = [port for port in ports if graph.precedes(sender, port)]
    end = " => logits" if receivers else ""
    request = f"{sender}@1 -> {joint([*receivers, Logits().port])}{end}"
    for variant in VARIANTS:
        kept = reference.run_once(subject.plan(request, variant).cells[0].runs[0], [])
        for port, resid in kept.ports.items():
            change = resid - reference.clean.ports[port]
            scale = change[:, 1].abs().max().item()
            yield Fact(f"{sender}@1 does not reach {port} ({variant})", holds=scale > 0)
            elsewhere = change.clone()
            elsewhere[:, 1] = 0
            nothing = torch.zeros_like(change)
            yield Same(f"{sender}@1 -> {port} ({variant})", elsewhere, nothing, -change, scale)


def one_position_read(subject: Subject) -> Iterator[Found]:
    """3: for a metric that reads one position, only a patch at that position matters."""
    engine, sender = subject.answering, subject.chosen.senders[0]
    read = subject.setup.metric.read
    assert read is not None
    clean, scale = engine.clean_metric, subject.answer_scale
    for variant in VARIANTS:
        by_position = run_plan(engine, subject.plan(f"{sender}@each -> logits", variant))
        everywhere = run_plan(engine, subject.plan(f"{sender} -> logits", variant))[0]
        places = torch.arange(len(by_position), device=read.device)[:, None]
        expected = torch.where(places == read, everywhere, clean)
        what = f"{sender}@each -> logits ({variant})"
        yield Same(what, by_position, expected, clean.expand_as(expected), scale)


def later_positions(subject: Subject) -> Iterator[Found]:
    """3: in a causal model a patch changes nothing before its position."""
    if not subject.answering.traits.causal:
        raise LeftOut("what is computed at a position depends on later ones")
    at = subject.setup.n_pos // 2
    clean, corrupt = (subject.logits(t) for t in (subject.setup.clean, subject.setup.corrupt))
    scale = (clean - corrupt).abs().max().item()
    senders = joint(subject.chosen.senders[:3])
    for request in (f"{senders}@{at} => logits", f"{senders}@{at} -> logits"):
        (cell,) = subject.plan(request).cells
        logits = subject.reference.outcome(cell).logits
        yield Same(request, logits[:, :at], clean[:, :at], clean[:, :at] - scale, scale)


def prompts_alone(subject: Subject) -> Iterator[Found]:
    """14: a batch is its prompts one by one."""
    setup = subject.setup
    if setup.n_prompts == 1:
        raise LeftOut("there is only one prompt")
    requests = plain_requests(subject)
    alone = []
    for number in range(setup.n_prompts):
        rows = slice(number, number + 1)
        table = PositionTable(
            1,
            setup.n_pos,
            {name: index[rows] for name, index in setup.positions.clean.items()},
            {name: index[rows] for name, index in setup.positions.corrupt.items()},
            setup.positions.device,
        )
        engine = subject.with_prompts(setup.clean[rows], setup.corrupt[rows], table)
        alone.append([subject.run(asked, variant, engine=engine) for asked, variant in requests])
    for number, (request, variant) in enumerate(requests):
        apart = torch.cat([one[number] for one in alone], dim=1)
        yield subject.same(f"{request} ({variant})", subject.run(request, variant), apart)


def one_by_one(subject: Subject) -> Iterator[Found]:
    """14: a sweep is its requests one by one."""
    for request, variant in _sweeps(subject):
        plan = subject.plan(request, variant)  # type: ignore[arg-type]
        together = run_plan(subject.fast, plan)
        for cell, values in list(zip(plan.cells, together, strict=True))[:: 1 + len(together) // 6]:
            alone = subject.run(cell.name, plan.variant)
            yield subject.same(f"{cell.name} ({variant})", values[None], alone)


def order(subject: Subject) -> Iterator[Found]:
    """14: the order of a sweep changes nothing."""
    names = [str(sender) for sender in subject.chosen.senders]
    for text in ("{} -> logits", "{} => logits"):
        one, other = (subject.run(text.format(joint(part, "[]"))) for part in (names, names[::-1]))
        yield subject.same(text.format(joint(names, "[]")), one, other.flip(0))


def padding(subject: Subject) -> Iterator[Found]:
    """14: right padding changes nothing."""
    setup, engine = subject.setup, subject.answering
    context = subject.backend.limits.n_ctx
    if context and setup.n_pos + PADDING > context:
        raise LeftOut("the prompts are as long as the model takes")
    if not engine.traits.causal:
        raise LeftOut("what is computed at a position depends on later ones")
    clean, corrupt = (
        torch.cat([tokens, tokens[:, 1:2].expand(-1, PADDING)], dim=1)
        for tokens in (setup.clean, setup.corrupt)
    )
    table = replace(setup.positions, n_pos=clean.shape[1])
    padded = FastEngine(replace(setup, clean=clean, corrupt=corrupt, positions=table))
    before = engine.clean_metric
    for request, variant in plain_requests(subject):
        plan = subject.plan(request, variant)
        expected = run_plan(engine, plan)
        found = run_plan(padded, plan)
        what = f"{request} ({variant})"
        yield Same(what, found, expected, before.expand_as(expected), subject.answer_scale)


def untouched(subject: Subject) -> Iterator[Found]:
    """The model is left as it was: its weights, hooks, modes, and what it computes."""
    after = Footprint.of(subject.backend.model)
    changes = list(subject.before.changes(after))
    yield Fact("; ".join(changes), holds=not changes)
    again = every_logit(subject.logits(subject.setup.clean))
    yield Same("the clean run again", again, subject.clean, subject.clean)


def _sweeps(subject: Subject) -> list[tuple[str, str]]:
    receiver = subject.chosen.late.v
    senders = joint(subject.chosen.before([receiver]), "[]")
    return [
        (f"{joint(subject.chosen.senders, '[]')} -> logits", "mlps"),
        (f"{senders} -> {receiver} => logits", "single-pass"),
    ]
