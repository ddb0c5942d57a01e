"""Requests and findings as a person says them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from circuitgraph.circuit.weights import signed
from circuitgraph.draw.plans.phrases import listed
from circuitgraph.effects import Effects
from circuitgraph.effects.display import estimated
from circuitgraph.errors import RequestError
from circuitgraph.request import EdgesRequest, Every, Joint, PathRequest, Sweep, Term, parse

__all__ = ["effect_findings", "heading", "in_words"]

_KINDS = {
    "head": "head",
    "mlp": "MLP",
    "node": "writer (embedding, heads, MLPs)",
    "port": "port",
    "kv": "key-value head",
}
_FEW = 20
"""With fewer prompts than this, that nothing stands out says little."""

_PORTS = {"q": "queries", "k": "keys", "v": "values"}


_SOURCES = {
    "corrupt": "what {they} {verb} on the corrupt prompts",
    "zero": "nothing (zero)",
    "mean": "what {they} {verb} on average",
    "mean-position": "what {they} {verb} on average at each position",
    "given": "values that were given",
}


def in_words(request: str, source: str = "corrupt") -> str:
    """Return what a request asks, in a sentence or two; nothing where it cannot be read.

    Args:
        request: Its text.
        source: Where patched values come from; of several, anything that is no source.

    Example:
        >>> print(in_words("head -> logits"))
        One at a time, each head sends into the logits what it sends on the corrupt prompts, along
        direct paths only. How much of the metric is lost?
        >>> print(in_words("9.9 => logits"))
        9.9 writes what it writes on the corrupt prompts, and everything after it is recomputed. How
        much of the metric is lost?
    """
    try:
        found = parse(request)
    except RequestError:
        return ""
    asked = "How much of the metric is lost?"
    values = _SOURCES.get(source, "the values of each source in turn")
    match found:
        case PathRequest(steps=steps, recompute=recompute):
            return f"{_path(steps, recompute, values)} {asked}"
        case EdgesRequest(edges=edges):
            named = listed([str(edge) for edge in edges], most=8)
            many = len(edges) > 1
            together = "These edges carry" if many else "This edge carries"
            they, verb = ("they", "carry") if many else ("it", "carries")
            carried = values.format(they=they, verb=verb)
            return (
                f"{together} {carried}{', all at once' * many}: {named}. "
                f"Everything after {'them' if many else 'it'} is recomputed. {asked}"
            )
        case _:
            return ""


def effect_findings(effects: Effects, statistics: xr.Dataset | None) -> list[str]:
    """Return what some effects say: what stands out, and the strongest.

    Args:
        effects: The effects.
        statistics: What ``effects.statistics(...)`` gave; None where there are none.
    """
    values = effects.normalized().to_numpy().ravel()
    filled = np.flatnonzero(~np.isnan(values))
    if len(filled) == 0:
        return ["No request fills a cell."]
    metric = effects.attrs.get("metric") or "metric"
    found = []
    chosen = filled
    if statistics is not None:
        significant = statistics["significant"].to_numpy().ravel()
        chosen = filled[significant[filled]]
        level = 1 - float(statistics.attrs["confidence"])
        found.append(
            f"{len(chosen)} of {len(filled)} effects stand{'s' * (len(chosen) == 1)} out from zero "
            f"({level:.2g} level, corrected for {len(filled)} cells; {effects.n_prompts} prompts)."
        )
        if len(chosen) == 0 and effects.n_prompts < _FEW:
            found.append("Of so few prompts that says little: more would tell more.")
    # Cells of one sweep keep their order in `cells`, so the filled ones can be named by place.
    names = dict(zip(filled.tolist(), effects.cells(), strict=True))
    order = sorted(chosen.tolist(), key=lambda cell: -abs(values[cell]))
    harmful = [f"{names[cell]} ({signed(values[cell])})" for cell in order if values[cell] < 0]
    helpful = [f"{names[cell]} ({signed(values[cell])})" for cell in order if values[cell] > 0]
    if harmful:
        found.append(f"Patching these lowers the {metric} most: {', '.join(harmful[:4])}.")
    if helpful:
        found.append(f"Patching these raises it most: {', '.join(helpful[:4])}.")
    return found


def heading(effects: Effects, shared: Mapping[str, Any]) -> str:
    """Return one line: model, settings, prompts, the metric clean and corrupt."""
    parts = [str(shared["model"])] if shared.get("model") else []
    parts += [f"{key} {shared[key]}" for key in ("variant", "mode", "source") if shared.get(key)]
    parts += filter(None, [estimated(shared)])
    parts.append(f"{effects.n_prompts} prompt{'s' * (effects.n_prompts != 1)}")
    data = effects.data
    if data["clean"].ndim == 1:
        clean, corrupt = (signed(float(data[name].mean()), 3) for name in ("clean", "corrupt"))
        metric = shared.get("metric") or "metric"
        parts.append(f"mean {metric} {clean} clean, {corrupt} corrupt")
    return " · ".join(parts)


def _path(steps: tuple[Term, ...], recompute: bool, values: str) -> str:
    swept = any(not isinstance(step, Joint) for step in steps)
    start = "One at a time, " if swept else ""
    sender = _term(steps[0])
    many = isinstance(steps[0], Joint) and len(steps[0].sites) > 1
    verb = ("write" if len(steps) == 1 else "send") + ("" if many else "s")
    patched = values.format(they="they" if many else "it", verb=verb)
    if len(steps) == 1:
        it = "" if swept or many else " it"
        return _capital(
            f"{start}{sender} {verb} {patched}, and everything after{it} is recomputed."
        )
    stops = " and on into ".join(_term(step) for step in steps[1:])
    said = f"{start}{sender} {verb} into {stops} {patched}, along direct paths only"
    return _capital(f"{said}{'; everything after that is recomputed' if recompute else ''}.")


def _term(term: Term) -> str:
    """Return one step of a path: ``each head``, ``the values of each head``, ``8.6.v``."""
    match term:
        case Every(kind=kind, port=port, at=at):
            where = f" at {str(term).split('@')[1]}" if at is not None else ""
            if port:
                return f"the {_PORTS[port]} of each {_KINDS[kind]}{where}"
            return f"each {_KINDS[kind]}{where}"
        case Sweep(items=items):
            return f"each of {listed([str(item) for item in items], most=8)}"
        case Joint(sites=sites):
            names = [str(site).replace("@", " at ") for site in sites]
            return listed(["the logits" if name == "logits" else name for name in names], most=8)


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
