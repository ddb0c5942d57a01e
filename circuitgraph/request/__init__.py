"""What a user asks for: which senders, which receivers, where, and how the path ends.

A request says nothing of how it is answered. It may name things that the graph of a certain model
does not have; the compiler finds that out. This room knows neither graphs nor plans.

The notation, which `parse` reads and ``str(request)`` writes::

    5.5 -> 8.6.v => logits              one edge, everything downstream recomputed
    head -> logits                      every head, one at a time, straight into the logits
    {5.5, 6.9} -> {8.6, 8.10}.v => logits        joint senders, joint receivers
    [5.5, 6.9] -> head.q => logits      a list and every head's queries, one at a time
    5.5@S2 -> 8.6.v@S2 -> 9.9.q@end -> logits    a longer path, with positions
    9.9 => logits                       activation patching
    5.5 -> 8.6.v, 3.0 -> 9.9.q => logits         edges patched together, each with its own sender
"""

from circuitgraph.request.edge_sets import EdgeSets
from circuitgraph.request.notation import parse
from circuitgraph.request.objects import as_request, path
from circuitgraph.request.requests import (
    EdgesRequest,
    PathRequest,
    Request,
    SiteEdge,
    positions_in,
    sites_in,
)
from circuitgraph.request.sites import EachPosition, KVPort, Positions, Site
from circuitgraph.request.terms import Every, Joint, Sweep, Term
from circuitgraph.request.variant import MODES, Mode, Through, Variant

__all__ = [
    "MODES",
    "EachPosition",
    "EdgeSets",
    "EdgesRequest",
    "Every",
    "Joint",
    "KVPort",
    "Mode",
    "PathRequest",
    "Positions",
    "Request",
    "Site",
    "SiteEdge",
    "Sweep",
    "Term",
    "Through",
    "Variant",
    "as_request",
    "parse",
    "path",
    "positions_in",
    "sites_in",
]
