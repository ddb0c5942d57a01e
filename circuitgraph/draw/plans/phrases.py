"""What a run does, in words: one sentence or two for the caption below its board."""

from collections.abc import Iterable, Sequence

from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Embed, Head, Logits, Node, Port
from circuitgraph.plan import FromRun, PatchPort, PatchWrite, Plan, ReplaceSenders, Run
from circuitgraph.plan.reach import reached
from circuitgraph.request.sites import positions_text

__all__ = ["listed", "recording_words", "run_words", "some", "source_words", "span"]

_SOURCES = {
    "corrupt": "its write in the corrupt run",
    "zero": "zero",
    "mean": "its mean write over the data set",
    "mean-position": "its mean write at each position",
    "given": "a write that was given",
}
_SPEAKS = {
    "corrupt": ("speaks as in the corrupt run", "speak as in the corrupt run"),
    "zero": ("is silenced (set to zero)", "are silenced (set to zero)"),
    "mean": ("speaks its mean over the data set", "speak their means over the data set"),
    "mean-position": ("speaks its mean at each position", "speak their means at each position"),
    "given": ("speaks what was given", "speak what was given"),
}


def source_words(plan: Plan) -> str:
    """Return what senders are set to."""
    return _SOURCES[plan.source]


def recording_words(which: str) -> str:
    """Return what a recording keeps."""
    if which == "clean":
        return "Record every node's write and input."
    return {
        "corrupt": "Record every node's write.",
        "mean": "Average writes over a data set.",
        "mean-position": "Average writes over a data set, position by position.",
    }.get(which, "Writes given beforehand.")


def run_words(plan: Plan, run: Run) -> str:
    """Return what a run does, as one sentence, and a second where it needs no forward pass.

    Example:
        >>> from circuitgraph.compiler import compile
        >>> from circuitgraph.graph import ModelShape
        >>> graph = ModelGraph(ModelShape(n_layers=12, n_heads=12))
        >>> plan = compile(graph, "5.5 -> 8.6.v => logits")
        >>> print(run_words(plan, plan.cells[0].runs[0]))
        5.5 speaks as in the corrupt run; every other head is frozen; MLPs 5–7 answer; what arrives
        at 8.6.v is recorded.
    """
    parts = [*_speaking(plan, run), *_reading(run)]
    match run.name:
        case "send":
            parts += [*_frozen(plan.graph, run), *_answering(plan, run), *_kept(run)]
        case "recompute":
            names = listed(map(str, _receivers(run)))
            one = len(_receivers(run)) == 1
            parts.append(f"only {names} {'is' if one else 'are'} recomputed from that")
            parts += _kept(run)
        case "measure":
            parts += [_after(plan, run), "the metric is read from the logits"]
        case "read out":
            parts.append("the metric is read from them")
    text = "; ".join(parts)
    text = f"{text[0].upper()}{text[1:]}."
    if not plan.is_closed_form(run):
        return text
    if run.name == "send":
        return f"{text} No pass: a sum of recorded writes."
    return f"{text} No pass: norm and unembedding only."


# -- the parts of the sentence ---------------------------------------------------------------------


def _speaking(plan: Plan, run: Run) -> list[str]:
    """Return who is set to what, grouped by where the value comes from."""
    groups: dict[str, list[str]] = {}
    for op in run.patched:
        value = str(op.value) if isinstance(op.value, FromRun) else ""
        groups.setdefault(value, []).append(_placed(op.node, op))
    found = []
    for value, names in groups.items():
        many = len(names) > 1
        speaks = _SPEAKS[plan.source][many]
        if value:
            speaks = f"{'speak' if many else 'speaks'} as in {value}"
        found.append(f"{listed(names)} {speaks}")
    return found


def _placed(thing: Node | Port, op: PatchWrite | PatchPort | ReplaceSenders) -> str:
    at = positions_text(op.at).strip("@{}")
    return f"{_called(thing)} at {at}" if at else _called(thing)


def _called(thing: Node | Port) -> str:
    match thing:
        case MLP(layer=layer) | Port(node=MLP(layer=layer)):
            return f"MLP {layer}"
        case Embed():
            return "the embedding"
        case Logits() | Port(node=Logits()):
            return "the logits"
        case _:
            return str(thing)


def _reading(run: Run) -> list[str]:
    """Return which receivers read what."""
    groups: dict[str, list[str]] = {}
    for op in run.ports:
        groups.setdefault(_value(op), []).append(_placed(op.port, op))
    found = []
    for value, names in groups.items():
        many = len(names) > 1 or names[0] == "the logits"
        own = value.format(its="their" if many else "its")
        found.append(f"{listed(names)} {'read' if many else 'reads'} {own}")
    return found


def _value(op: PatchPort | ReplaceSenders) -> str:
    match op:
        case PatchPort(delta_from=run, mode="set"):
            return f"{{its}} clean value plus the change of run {run + 1}"
        case PatchPort(delta_from=run):
            return f"{{its}} live value plus the change of run {run + 1}"
        case ReplaceSenders(senders=senders):
            names = listed(_placed(sender.node, sender) for sender in senders)
            return f"{{its}} live value with {names} replaced"


def _frozen(graph: ModelGraph, run: Run) -> list[str]:
    """Return what is frozen, as who is not: every other head, and every MLP."""
    patched = {op.node for op in run.patched}
    others = [head for head in graph.heads if head not in patched]
    live = [head for head in others if head not in run.frozen]
    speakers = patched & set(graph.heads)
    heads = "every other head" if speakers else "every head"
    if live:
        heads += f" but {some(live)}"
    mlps = [mlp for mlp in graph.mlps if mlp not in patched]
    answering = [mlp for mlp in mlps if mlp not in run.frozen]
    if mlps and not answering:
        return [f"{heads} and every MLP are frozen"]
    if 0 < len(answering) <= 4 and len(answering) < len(mlps):
        return [f"{heads} and every MLP but {some(answering)} are frozen"]
    return [f"{heads} is frozen"] if others and len(live) < len(others) else []


def _answering(plan: Plan, run: Run) -> list[str]:
    """Return who is recomputed and can differ."""
    live = reached(plan.graph, run)
    return [f"{some(live)} {'answers' if len(live) == 1 else 'answer'}"] if live else []


def _after(plan: Plan, run: Run) -> str:
    first = "after it" if len(run.ports) + len(run.patched) == 1 else "after them"
    live = reached(plan.graph, run)
    return f"everything {first} is recomputed" if live else "nothing comes after but the logits"


def _receivers(run: Run) -> list[Node]:
    return sorted({op.port.node for op in run.ports})


def _kept(run: Run) -> list[str]:
    found = []
    if run.recorded_ports:
        found.append(f"what arrives at {listed(map(_called, run.recorded_ports))} is recorded")
    if run.recorded_writes:
        names = listed(map(_called, run.recorded_writes))
        found.append(
            f"what {names} {'write' if len(run.recorded_writes) > 1 else 'writes'} is recorded"
        )
    return found


# -- names -----------------------------------------------------------------------------------------


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return names as a list in words; many of them are counted.

    Example:
        >>> listed(["8.6.v", "8.10.v", "7.9.v"]), listed(map(str, range(9)), most=3)
        ('8.6.v, 8.10.v and 7.9.v', '0, 1 and 7 more')
    """
    found = list(names)
    if len(found) > most:
        found = [*found[: most - 1], f"{len(found) - most + 1} more"]
    return f"{', '.join(found[:-1])} and {found[-1]}" if len(found) > 1 else "".join(found)


def some(nodes: Sequence[Node]) -> str:
    """Return nodes in few words: ``7.1 and MLPs 5–7``.

    Example:
        >>> some([MLP(5), MLP(6), MLP(7), Head(7, 1)])
        '7.1 and MLPs 5–7'
    """
    heads = [node for node in nodes if isinstance(node, Head)]
    mlps = sorted(node.layer for node in nodes if isinstance(node, MLP))
    parts = []
    if len(heads) > 4:
        parts.append(f"{len(heads)} heads")
    elif heads:
        parts.append(listed(map(str, heads)))
    if mlps:
        parts.append(f"MLP{'s' * (len(mlps) > 1)} {span(mlps)}")
    return " and ".join(parts)


def span(numbers: Sequence[int]) -> str:
    """Return sorted numbers, runs of three or more as a range.

    Example:
        >>> span([5, 6, 7]), span([0, 2, 3]), span([1, 2, 3, 8])
        ('5–7', '0, 2, 3', '1–3, 8')
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(parts)
