"""Effects, comparisons and circuits with made-up numbers, for tests of the report."""

import numpy as np

from circuitgraph.circuit import Circuit
from circuitgraph.effects import Comparison, Effects
from circuitgraph.graph import ModelShape

SHAPE = ModelShape(n_layers=4, n_heads=3)
NASTY = '<script>document.title = "owned"</script><img src=x onerror=alert(1)>'


def effects(seed=0, variant="mlps", request="head -> logits", sweep=None, prompts=12, scale=0.2):
    """Effects of a sweep over layer and head; 2.1 stands out, 3.2 works against."""
    random = np.random.default_rng(seed)
    sweep = sweep or {"layer": range(4), "head": range(3)}
    clean = 4 + np.random.default_rng(99).normal(0, 0.1, prompts)
    corrupt = np.full(prompts, 0.5)
    shape = tuple(len(values) for values in sweep.values())
    patched = clean + random.normal(0, scale, (*shape, prompts))
    if list(sweep)[:2] == ["layer", "head"]:
        patched[2, 1] -= 2.0 if variant == "mlps" else 1.2
        patched[3, 2] += 0.9
    return Effects.from_arrays(
        patched, clean, corrupt, sweep, request=request, variant=variant, metric="logit difference"
    )


def comparison(seed=0):
    """The same request under both variants."""
    names = ("mlps", "single-pass")
    return Comparison({name: effects(seed, variant=name) for name in names})


def circuit():
    """Ten edges over four layers: known with weights, six of them in the circuit, two groups."""
    weights = {
        "2.1 -> logits": (-0.6, -0.7, -0.5),
        "3.2 -> logits": (0.3, 0.2, 0.4),
        "3.0 -> logits": (-0.2, -0.3, -0.1),
        "0.1 -> 2.1.q": (-0.15, -0.2, -0.1),
        "mlp0 -> 2.1.v": (-0.1, -0.2, 0.0),
        "embed -> 0.1.k": (-0.08, -0.1, -0.06),
        "1.0 -> 2.1.k": -0.05,
        "0.2 -> 3.2.q": 0.03,
        "1.1 -> 3.0.v": -0.02,
        "embed -> mlp0": 0.01,
    }
    groups = {"movers": ["2.1", "3.0"], "against": ["3.2"]}
    attrs = {"quantity": "effect", "helps": "negative"}
    return Circuit.from_edges(SHAPE, weights, groups, attrs).top(6)
