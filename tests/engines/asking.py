"""Putting a request to the outside oracle: from this project's objects to the oracle's tuples."""

from collections.abc import Mapping
from typing import Any

import torch

from circuitgraph.compiler import compile as compile_request
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Embed, Head, Logits, Port
from circuitgraph.request import EdgesRequest, PathRequest, Request, Site, Through, as_request
from tests.oracles.path_patching import (
    At,
    Sent,
    activation_patch,
    corrupt_senders,
    difference,
    patch_receivers,
)
from tests.oracles.plain import PlainTransformer, node_of


def oracle_node(node: Any) -> tuple[Any, ...]:
    match node:
        case Embed():
            return ("embed",)
        case Head(layer=layer, head=head):
            return ("head", layer, head)
        case MLP(layer=layer):
            return ("mlp", layer)
    raise AssertionError(node)


def oracle_port(port: Port) -> tuple[Any, ...]:
    match port.node:
        case Logits():
            return ("logits",)
        case MLP(layer=layer):
            return ("mlp", layer)
        case Head(layer=layer, head=head):
            return (port.name, layer, head)


def oracle_logits(
    plain: PlainTransformer,
    graph: ModelGraph,
    clean: torch.Tensor,
    corrupt: torch.Tensor,
    request: str | Request,
    variant: Any,
    mode: str,
    positions: dict[str, Any] | None = None,
    corrupt_positions: dict[str, Any] | None = None,
) -> torch.Tensor:
    """What the oracle makes of an unswept request."""
    asked = as_request(request)
    compile_request(graph, asked, variant, mode=mode)  # type: ignore[arg-type]
    match variant:
        case "mlps":
            through = {oracle_node(mlp) for mlp in graph.mlps}
        case "single-pass":
            through = set()
        case Through(nodes=nodes):
            through = {oracle_node(node) for node in nodes}

    def at(site: Site) -> list[At] | None:
        if site.at is None:
            return None
        found = []
        for name in site.at:  # type: ignore[union-attr]
            if isinstance(name, int):
                found.append(At(torch.full((len(clean),), name)))
            else:
                here = torch.as_tensor((positions or {})[name])
                there = torch.as_tensor((corrupt_positions or {}).get(name, here))
                found.append(At(here, there))
        return found

    def places(sites: list[Site], name: Any) -> dict[Any, list[At]]:
        found: dict[Any, list[At]] = {}
        for site in sites:
            where = at(site)
            if where is not None:
                found.setdefault(name(site.what), []).extend(where)
        return found

    match asked:
        case EdgesRequest(edges=edges):
            values = plain.values(corrupt)
            sent: dict[Any, dict[Any, Sent]] = {}
            for edge in edges:
                node, port = oracle_node(edge.sender.what), oracle_port(edge.receiver.what)
                sent.setdefault(port, {})[node] = Sent(values[node], at(edge.sender))
            read_at = places([edge.receiver for edge in edges], oracle_port)
            return patch_receivers(plain, clean, sent, through=through, mode=mode, read_at=read_at)
        case PathRequest(steps=steps, recompute=recompute):
            sites = [list(step.sites) for step in steps]  # type: ignore[union-attr]
            send_at = places(sites[0], oracle_node)
            senders = list(dict.fromkeys(oracle_node(site.what) for site in sites[0]))
            if len(sites) == 1:
                return activation_patch(plain, clean, corrupt, senders, send_at=send_at)
            *inner, last = [[oracle_port(site.what) for site in step] for step in sites[1:]]
            read_at = places([site for step in sites[1:] for site in step], oracle_port)
            sends = corrupt_senders(plain, corrupt, senders, send_at)
            for number, hop in enumerate(inner, start=1):
                here = places(sites[number], oracle_port)
                sends = _relay(plain, clean, sends, hop, through, here)
            return patch_receivers(
                plain,
                clean,
                {port: _before(plain, sends, port) for port in last},
                through=through,
                mode=mode if recompute else "set",
                read_at={port: found for port, found in read_at.items() if port in last},
            )
    raise AssertionError(asked)


def _before(plain: PlainTransformer, sent: Mapping[Any, Sent], port: Any) -> dict[Any, Sent]:
    """The senders that come before a port: several at once need not all reach all receivers."""
    return {node: value for node, value in sent.items() if plain.before(node, port)}


def _relay(
    plain: PlainTransformer,
    clean: torch.Tensor,
    sent: Mapping[Any, Sent],
    ports: list[Any],
    through: Any,
    read_at: Any,
) -> dict[Any, Sent]:
    """What the nodes of a hop send on, each port hearing those senders that come before it."""
    values = plain.values(clean)

    def read(port: Any) -> torch.Tensor:
        resid = plain.residual_at(values, port)
        if port not in ports:
            return resid
        change = difference(plain, values, _before(plain, sent, port), port, through)
        where = [At(here) for here, _ in read_at[port]] if port in read_at else None
        return Sent(resid + change, where).onto(resid)

    return {node_of(port): Sent(plain.value(node_of(port), read)) for port in ports}
