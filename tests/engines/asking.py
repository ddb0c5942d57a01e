"""Putting a request to the outside oracle: from this project's objects to the oracle's tuples."""

from typing import Any

import torch

from circuitgraph.compiler import compile as compile_request
from circuitgraph.graph import ModelGraph
from circuitgraph.nodes import MLP, Embed, Head, Logits, Port
from circuitgraph.request import EdgesRequest, PathRequest, Request, Site, Through, as_request
from tests.oracles.path_patching import At, activation_patch, patch_edges, patch_path, product
from tests.oracles.plain import PlainTransformer


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
            pairs = [(oracle_node(e.sender.what), oracle_port(e.receiver.what)) for e in edges]
            return patch_edges(
                plain,
                clean,
                corrupt,
                pairs,
                through=through,
                mode=mode,
                send_at=places([e.sender for e in edges], oracle_node),
                read_at=places([e.receiver for e in edges], oracle_port),
            )
        case PathRequest(steps=steps, recompute=recompute):
            sites = [list(step.sites) for step in steps]  # type: ignore[union-attr]
            send_at = places(sites[0], oracle_node)
            senders = list(dict.fromkeys(oracle_node(site.what) for site in sites[0]))
            if len(sites) == 1:
                return activation_patch(plain, clean, corrupt, senders, send_at=send_at)
            hops = [[oracle_port(site.what) for site in step] for step in sites[1:]]
            read_at = places([site for step in sites[1:] for site in step], oracle_port)
            if len(hops) == 1:
                edges = product(senders, hops[0])
                edges = [edge for edge in edges if plain.before(*edge)]
                return patch_edges(
                    plain,
                    clean,
                    corrupt,
                    edges,
                    through=through,
                    mode=mode if recompute else "set",
                    send_at=send_at,
                    read_at=read_at,
                )
            if not recompute:
                assert hops[-1] == [("logits",)]
            return patch_path(
                plain,
                clean,
                corrupt,
                [senders, *(hops if recompute else hops[:-1])],
                through=through,
                end="=>" if recompute else "->",
                mode=mode,
                send_at=send_at,
                read_at=read_at,
            )
    raise AssertionError(asked)
