"""Random models and circuits on them, for hypothesis; and a fresh Python."""

import subprocess
import sys

from hypothesis import strategies as st

from circuitgraph.circuit import Circuit, Weight
from circuitgraph.graph import ModelGraph, ModelShape

NAMES = st.text(min_size=1, max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def shapes(draw, with_mlps=False):
    """Models of up to three layers of up to three heads, of every wiring."""
    n_heads = draw(st.integers(1, 3))
    attn_only = not with_mlps and draw(st.booleans())
    n_layers = draw(st.integers(1, 3))
    mlp_layers = None
    if not with_mlps and not attn_only and draw(st.booleans()):
        mlp_layers = tuple(sorted(draw(st.sets(st.integers(0, n_layers - 1)))))
    return ModelShape(
        n_layers,
        n_heads,
        draw(st.sampled_from([None, 1, n_heads])),
        parallel=draw(st.booleans()),
        attn_only=attn_only,
        mlp_layers=mlp_layers,
    )


@st.composite
def weights(draw, weighted=False):
    """Weights with or without value and interval."""
    if not weighted and draw(st.booleans()):
        return Weight()
    value = draw(FINITE)
    if draw(st.booleans()):
        low, high = sorted([draw(FINITE), draw(FINITE)])
        return Weight(value, low, high)
    return Weight(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FINITE | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def circuits_on(draw, shape, weighted=False):
    """Circuits on one model."""
    graph = ModelGraph(shape)
    every = list(graph.edges())
    edges = draw(st.lists(st.sampled_from(every), unique=True, max_size=12))
    known = {edge: draw(weights(weighted)) for edge in edges}
    inside = frozenset(edge for edge in edges if draw(st.booleans()))
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    groups = {name: set() for name in names}
    for node in graph.nodes:
        if names and draw(st.booleans()):
            groups[draw(st.sampled_from(names))].add(node)
    attrs = draw(
        st.dictionaries(st.text(max_size=4).filter(lambda k: k != "mib"), JSON, max_size=3)
    )
    return Circuit(shape, known, inside, groups, attrs)


@st.composite
def circuits(draw, weighted=False, with_mlps=False):
    """Circuits on any model."""
    return draw(circuits_on(draw(shapes(with_mlps)), weighted))


@st.composite
def circuit_pairs(draw):
    """Two circuits on one model."""
    shape = draw(shapes())
    return draw(circuits_on(shape)), draw(circuits_on(shape))


def run_python(code, *arguments, **environment):
    """Run code in a process of its own, which has imported nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        **environment,
    )
