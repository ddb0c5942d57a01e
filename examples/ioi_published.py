# %% [markdown]
"""# The published circuit

The circuit that answers indirect-object prompts in GPT-2 small, as Wang et al. published it (2022,
arXiv:2211.00593): written in a few lines, drawn, and made into a request. This needs no model.
"""

# %%
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import circuitgraph as cg

CLASSES = {
    "previous token": ["2.2", "4.11"],
    "duplicate token": ["0.1", "0.10", "3.0"],
    "induction": ["5.5", "5.8", "5.9", "6.9"],
    "S-inhibition": ["7.3", "7.9", "8.6", "8.10"],
    "name movers": ["9.6", "9.9", "10.0"],
    "backup name movers": ["9.0", "9.7", "10.1", "10.2", "10.6", "10.10", "11.2", "11.9"],
    "negative name movers": ["10.7", "11.10"],
}
BETWEEN = [
    ("embed", "qkv", "previous token"),
    ("embed", "qkv", "duplicate token"),
    ("previous token", "k", "induction"),
    ("induction", "v", "S-inhibition"),
    ("duplicate token", "v", "S-inhibition"),
    ("S-inhibition", "q", "name movers"),
    ("S-inhibition", "q", "backup name movers"),
    ("S-inhibition", "q", "negative name movers"),
    ("name movers", "", "logits"),
    ("backup name movers", "", "logits"),
    ("negative name movers", "", "logits"),
]

# %% [markdown]
# That is a graph of classes. The edges of the model that it stands for: from every head of one
# class to every head of the next.


# %%
def edges_between(
    classes: Mapping[str, Sequence[str]], between: Iterable[tuple[str, str, str]]
) -> list[str]:
    """Return the edges of a graph of classes; what is no class stands for itself."""
    edges = []
    for sender_class, ports, receiver_class in between:
        senders = classes.get(sender_class, [sender_class])
        receivers = classes.get(receiver_class, [receiver_class])
        inputs = [f".{port}" for port in ports] or [""]
        edges += [f"{s} -> {r}{i}" for s, r, i in product(senders, receivers, inputs)]
    return edges


graph = cg.ModelGraph(cg.ModelShape(n_layers=12, n_heads=12))
circuit = cg.Circuit.from_edges(graph, edges_between(CLASSES, BETWEEN), groups=CLASSES)
print(circuit.summary)

# %% [markdown]
# With `bundle=True` each class is one box, and all edges between two classes are one line per port.

# %%
title = "Indirect objects in GPT-2 small (Wang et al. 2022)"
drawing = circuit.draw(title=title, bundle=True, rankdir="LR")
drawing.save("ioi_published.svg")
drawing

# %% [markdown]
# Head by head:

# %%
circuit.draw(title=title, rankdir="LR")

# %% [markdown]
# A circuit's edges are a request, too. This one patches all of them together, each receiver with
# its own senders, and recomputes what comes after:

# %%
plan = cg.compile(graph, circuit.edges, mode="replace")
print(plan.cost)

# %% [markdown]
# On the model itself that is `exp.patch(circuit.edges, mode="replace")`, after
# `model = cg.load_model("gpt2")`, which downloads the weights once.
#
# Heads, classes and edges are the paper's. It also says at which token each class acts, and that a
# part of what reaches the S-inhibition heads goes into their keys; neither is drawn here.
