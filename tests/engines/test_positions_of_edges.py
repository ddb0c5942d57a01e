"""One port that hears some edges at one position and others at another, in one list of edges."""

from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitgraph.compiler import compile as compile_request
from circuitgraph.errors import CircuitGraphError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import Head
from circuitgraph.request import EdgesRequest, Through, as_request
from tests.engines.asking import oracle_node, oracle_port
from tests.engines.cases import CORRUPT_POSITIONS, POSITIONS, case, close, run
from tests.oracles.path_patching import At, Sent, difference, live

REQUESTS = [
    "0.0@S2 -> 1.0.q@S2, 0.1@end -> 1.0.q@end => logits",
    "0.0@S2 -> 1.0.q@S2, 0.0@end -> 1.0.q@end, embed@end -> 1.0.q@end => logits",
    "0.0@S2 -> 1.1.k@S2, mlp0@end -> 1.1.k@end, embed -> 1.1.k => logits",
    "0.0@S2 -> logits@S2, 0.0@end -> logits@end, mlp0@1 -> logits@1, 1.0@end -> logits@end => logits",
    "0.0@S2 -> mlp1@S2, 0.1@end -> mlp1@{end, 1}, embed@1 -> mlp1@1 => logits",
]
TOGETHER = (
    "embed@S2 -> mlp0@S2, 0.1@end -> mlp0@end, 0.0@S2 -> 1.0.v@S2, mlp0@end -> 1.0.v@end => logits"
)
"""Receivers that reach each other: the modes differ."""


def expected(one: Any, text: str, variant: str, mode: str) -> Tensor:
    """Every position of every port with the edges that are heard there, and no others."""
    plain, setup = one.tiny.plain, one.setup
    through = {oracle_node(mlp) for mlp in setup.graph.mlps} if variant == "mlps" else set()
    values, clean = plain.values(setup.corrupt), plain.values(setup.clean)
    rows = torch.arange(setup.n_prompts)
    n_pos = setup.n_pos

    def index(name: Any, table: Any) -> Tensor:
        given = name if isinstance(name, int) else table.get(name, POSITIONS[name])
        return torch.as_tensor(given).expand(setup.n_prompts)

    def at(site: Any) -> list[At] | None:
        if site.at is None:
            return None
        return [At(index(n, POSITIONS), index(n, CORRUPT_POSITIONS)) for n in site.at]

    request = as_request(text)
    assert isinstance(request, EdgesRequest)

    def read(port: Any, live_values: Any) -> Tensor:
        stream = plain.residual_at(live_values, port)
        edges = [e for e in request.edges if oracle_port(e.receiver.what) == port]
        if not edges:
            return stream
        base = plain.residual_at(clean, port) if mode == "set" else stream
        found = stream.clone()
        changes: dict[Any, Tensor] = {}
        for prompt in rows.tolist():
            for position in range(n_pos):
                here: list[int] = []
                for number, edge in enumerate(edges):
                    places = at(edge.receiver)
                    if places is None or any(int(p.clean[prompt]) == position for p in places):
                        here.append(number)
                if not here:
                    continue
                key = tuple(here)
                if key not in changes:
                    senders: dict[Any, list[Any]] = {}
                    for number in here:
                        sender = edges[number].sender
                        senders.setdefault(oracle_node(sender.what), []).append(at(sender))
                    sent = {
                        node: Sent(values[node], None if None in ats else list(chain(*ats)))
                        for node, ats in senders.items()
                    }
                    changes[key] = difference(plain, clean, sent, port, through)
                found[prompt, position] = (base + changes[key])[prompt, position]
        return found

    return live(plain, setup.clean, read)


@pytest.mark.parametrize("text", REQUESTS)
@pytest.mark.parametrize("variant", ["mlps", "single-pass"])
@pytest.mark.parametrize("model", ["gpt2", pytest.param("llama", marks=pytest.mark.large)])
def test_each_edge_is_heard_at_its_own_position(model: str, variant: Any, text: str) -> None:
    one = case(model)
    found = {}
    for mode in ("set", "add", "replace"):
        plan = compile_request(
            one.setup.graph, text, variant, mode=mode, n_positions=one.setup.n_pos
        )
        for engine in (one.fast, one.reference):
            if mode == "replace" and engine is one.fast and engine.cannot(plan):
                continue
            found[mode, engine.name] = run(engine, plan)
    wanted = one.measured([expected(one, text, variant, "set")])
    for key, value in found.items():
        assert close(value, wanted), key


@pytest.mark.parametrize("variant", ["mlps", "single-pass"])
@pytest.mark.parametrize("mode", ["set", "add"])
def test_ports_that_reach_each_other(mode: Any, variant: Any) -> None:
    one = case("gpt2")
    plan = compile_request(one.setup.graph, TOGETHER, variant, mode=mode)
    wanted = one.measured([expected(one, TOGETHER, variant, mode)])
    assert close(run(one.fast, plan), wanted)
    assert close(run(one.reference, plan), wanted)


def test_plain_hooks_on_the_unbridged_model() -> None:
    """Queries of one head, made anew from a stream that is changed at two positions."""
    one = case("gpt2")
    setup, module = one.setup, one.tiny.hf
    rows = torch.arange(setup.n_prompts)
    attention, width = module.transformer.h[0].attn, module.config.n_embd // module.config.n_head
    seen: list[Tensor] = []
    handle = attention.c_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module(setup.clean)
    module(setup.corrupt)
    handle.remove()
    z_clean, z_corrupt = seen
    change = torch.zeros(*setup.clean.shape, module.config.n_embd, dtype=z_clean.dtype)
    for head, name in ((0, "S2"), (1, "end")):
        part = slice(head * width, (head + 1) * width)
        here = torch.as_tensor(POSITIONS[name])
        there = torch.as_tensor(CORRUPT_POSITIONS.get(name, POSITIONS[name]))
        delta = z_corrupt[rows, there, part] - z_clean[rows, here, part]
        change[rows, here] += delta @ attention.c_proj.weight[part]
    block = module.transformer.h[1]
    streams: list[Tensor] = []

    def set_queries(_: Any, args: Any, output: Tensor) -> Tensor:
        normed = block.ln_1(streams[0] + change)
        new = normed @ block.attn.c_attn.weight + block.attn.c_attn.bias
        edited = output.clone()
        edited[..., :width] = new[..., :width]
        return edited

    handles = [
        block.register_forward_pre_hook(lambda _, args: streams.append(args[0])),
        block.attn.c_attn.register_forward_hook(set_queries),
    ]
    with torch.no_grad():
        logits = module(setup.clean).logits
    for handle in handles:
        handle.remove()
    plan = compile_request(setup.graph, REQUESTS[0], "single-pass")
    wanted = one.measured([logits])
    assert close(run(one.fast, plan), wanted)
    assert close(run(one.reference, plan), wanted)


GRAPH = ModelGraph(ModelShape(n_layers=3, n_heads=2))


@pytest.mark.parametrize(
    ("text", "variant", "message"),
    [
        (
            "0.0 -> 1.0.q@S1, 0.1 -> 1.0.q@S2 => logits",
            "mlps",
            "each edge sends where it is heard: write 0.0@S1 -> 1.0.q@S1",
        ),
        ("0.0@S2 -> 1.0.q@end, 0.1@S1 -> 1.0.q@S1 => logits", "mlps", "write 0.0@end -> 1.0.q@end"),
        (
            "0.0@S2 -> 2.0.q@S2, 0.1@S1 -> 2.0.q@S1 => logits",
            Through({Head(1, 0)}),
            "paths that pass through heads do not stay at theirs",
        ),
    ],
)
def test_what_would_be_heard_elsewhere_is_refused(text: str, variant: Any, message: str) -> None:
    with pytest.raises(CircuitGraphError, match=message):
        compile_request(GRAPH, text, variant)
