"""Property 15: the fast engine gives the numbers of the reference engine, kind by kind."""

from collections.abc import Callable, Iterator, Sequence

from circuitgraph.checks.choosing import joint
from circuitgraph.checks.results import Found, LeftOut, Same
from circuitgraph.checks.subject import Subject, every_logit, part_of, run_plan
from circuitgraph.errors import NodeError
from circuitgraph.nodes import MLP, Head, Logits, Port
from circuitgraph.request import Mode, Through, Variant

__all__ = [
    "activation_patching",
    "edges_in_mode",
    "into",
    "key_value_heads",
    "long_paths",
    "several_receivers",
    "straight_to_the_logits",
    "through_some_nodes",
    "with_positions",
]

VARIANTS: tuple[Variant, ...] = ("mlps", "single-pass")


def straight_to_the_logits(variant: Variant) -> Callable[[Subject], Iterator[Found]]:
    """Return the check of every writer into the logits; all kinds of senders are among them."""

    def check(subject: Subject) -> Iterator[Found]:
        names = [f"{sender} -> logits" for sender in subject.chosen.senders]
        first = VARIANTS.index(variant)
        named = names[first : first + 1 + subject.cells]
        request = f"{joint(subject.chosen.senders, '[]')} -> logits"
        yield from compare(
            subject, request if subject.brief else "node -> logits", variant, named=named
        )

    return check


def into(kind: str) -> Callable[[Subject], Iterator[Found]]:
    """Return the check of one kind of receiver: ``q``, ``k``, ``v`` or ``mlp``."""

    def check(subject: Subject) -> Iterator[Found]:
        chosen = subject.chosen
        if kind == "mlp":
            receivers: Sequence[Port] = [mlp.port for mlp in chosen.mlps[::-1]]
            if not receivers:
                raise LeftOut("the model has no MLPs")
        else:
            receivers = chosen.heads(kind)
        senders = chosen.before(receivers[:1])[:3]
        for turn, variant in enumerate(taking_turns(subject, "qkvm".index(kind[0]))):
            request = f"{joint(senders, '[]')} -> {joint(receivers, '[]')} => logits"
            yield from compare(subject, request, variant, turn="qkvm".index(kind[0]) + turn)

    return check


def several_receivers(subject: Subject) -> Iterator[Found]:
    """Compare several senders into several receivers at once, the logits among them."""
    chosen = subject.chosen
    receivers = [*chosen.heads("v")[:1], *(mlp.port for mlp in chosen.mlps[-1:]), Logits().port]
    senders = chosen.before(receivers)[:3]
    for variant in taking_turns(subject, 0):
        yield from compare(subject, f"{joint(senders)} -> {joint(receivers)} => logits", variant)


def long_paths(subject: Subject) -> Iterator[Found]:
    """Compare paths over several heads, and over an MLP."""
    chosen = subject.chosen
    yield from compare(subject, f"{chosen.path('q')} -> logits", "mlps")
    yield from compare(subject, f"{chosen.path('k')} => logits", "single-pass")
    if chosen.mlps:
        mlp = chosen.mlps[len(chosen.mlps) // 2]
        sender = chosen.before([mlp.port])[0]
        yield from compare(subject, f"{sender} -> {mlp} -> logits", "single-pass")


def activation_patching(subject: Subject) -> Iterator[Found]:
    """Compare nodes patched with everything after them recomputed."""
    senders = subject.chosen.senders
    yield from compare(subject, f"{joint(senders, '[]')} => logits", "mlps", turn=1)


def with_positions(subject: Subject) -> Iterator[Found]:
    """Compare senders and receivers at named positions, and a sweep over positions.

    ``b`` stands elsewhere in the corrupt prompts.
    """
    chosen = subject.chosen
    query, key = chosen.late.q, chosen.late.k
    sender = chosen.before([query])[0]
    last = chosen.senders[0]
    yield from compare(subject, f"{sender}@b -> {query}@b => logits", "mlps")
    yield from compare(subject, f"{sender}@{{a, b}} -> {key}@b => logits", "single-pass")
    yield from compare(subject, f"{last}@each -> logits", "mlps", turn=-1)
    yield from compare(subject, f"{last}@b => logits", "mlps")


def through_some_nodes(subject: Subject) -> Iterator[Found]:
    """Compare direct paths that may pass through one MLP and one head, and nothing else."""
    chosen = subject.chosen
    between: list[Head | MLP] = [*chosen.mlps[:1], chosen.middle]
    variant = Through(between)
    senders = joint(chosen.senders[:3], "[]")
    yield from compare(subject, f"{senders} -> logits", variant)
    receiver = chosen.late.v
    first = joint(chosen.before([receiver])[:3], "[]")
    yield from compare(subject, f"{first} -> {receiver} => logits", variant, turn=1)


def key_value_heads(subject: Subject) -> Iterator[Found]:
    """Compare whole key-value heads as receivers."""
    for port, variant in (("k", "mlps"), ("v", "single-pass")):
        whole, heads = subject.chosen.key_value_head(port)
        senders = joint(subject.chosen.before(heads)[:3], "[]")
        yield from compare(subject, f"{senders} -> {whole} => logits", variant)  # type: ignore[arg-type]


def edges_in_mode(mode: Mode) -> Callable[[Subject], Iterator[Found]]:
    """Return the check of several edges whose receivers reach each other."""

    def check(subject: Subject) -> Iterator[Found]:
        edges = reaching_edges(subject)
        turn = 0 if mode == "set" else 1
        for variant in VARIANTS[1:] if mode == "replace" else taking_turns(subject, turn):
            yield from compare(subject, f"{', '.join(edges)} => logits", variant, mode)

    return check


def reaching_edges(subject: Subject) -> list[str]:
    """Return edges, as texts, of which one's receiver comes before another's."""
    chosen, graph = subject.chosen, subject.graph
    ports = [chosen.middle.v, chosen.late.q, *(mlp.port for mlp in chosen.mlps[-1:]), Logits().port]
    found = [(sender, port) for port in ports for sender in chosen.before([port])[:2]]
    assert all(graph.precedes(sender, port) for sender, port in found)
    return list(dict.fromkeys(f"{sender} -> {port}" for sender, port in found))


def compare(
    subject: Subject,
    request: str,
    variant: Variant,
    mode: Mode = "set",
    *,
    named: Sequence[str] = (),
    turn: int = 0,
) -> Iterator[Same]:
    """Run a request by both engines, under both metrics.

    Args:
        subject: The model.
        request: What to patch; the fast engine runs the whole sweep.
        variant: What direct paths may pass through.
        mode: What patching several receivers means.
        named: Which cells the reference engine runs; by default some, evenly spaced.
        turn: Where it starts among them, so that requests take turns.

    Raises:
        LeftOut: The fast engine leaves this to the reference engine, and why.
    """
    try:
        plan = subject.plan(request, variant, mode)
    except NodeError as error:  # a model so small that nothing comes before the receiver
        raise LeftOut(str(error)) from error
    if reason := subject.fast.cannot(plan):
        raise LeftOut(f"the reference engine answers this: {reason}")
    names = {cell.name: number for number, cell in enumerate(plan.cells)}
    numbers = [names[name] for name in named] or spaced(len(plan.cells), subject.cells, turn)
    answers = run_plan(subject.answering, plan)[numbers]
    everything = run_plan(subject.fast, part_of(plan, numbers))
    scale = subject.answer_scale
    for number, answer, whole in zip(numbers, answers, everything, strict=True):
        cell = plan.cells[number]
        logits = subject.reference.outcome(cell).logits
        what = f"{cell.name} ({variant}{f', {mode}' if mode != 'set' else ''})"
        yield Same(what, whole, every_logit(logits), subject.clean)
        measured = subject.reference.measure(logits)
        yield Same(what, answer, measured, subject.answering.clean_metric, scale)


def taking_turns(subject: Subject, turn: int) -> tuple[Variant, ...]:
    """Return both variants; on a large model one, so that checks take turns."""
    return (VARIANTS[turn % 2],) if subject.brief else VARIANTS


def spaced(total: int, wanted: int, turn: int = 0) -> list[int]:
    """Return some numbers below a total, evenly spaced, starting at a place of their own.

    Example:
        >>> spaced(12, 3), spaced(12, 3, turn=1), spaced(2, 6), spaced(5, 1, turn=-1)
        ([0, 4, 8], [1, 5, 9], [0, 1], [4])
    """
    wanted = min(wanted, total)
    step = total / wanted
    return sorted((int(place * step) + turn) % total for place in range(wanted))
