# %% [markdown]
"""# Name movers

Which heads write the name of the indirect object into the logits, and which heads tell them where
to look? Two sweeps over all 270 heads of SmolLM2-135M, and a drawn circuit.
"""

# %%
import circuitgraph as cg

model = cg.load_model("smollm2-135m")
task = cg.tasks.ioi(model.tokenizer, n=12, seed=1)
exp = cg.Experiment(model, task)
exp

# %% [markdown]
# `head` is every head, one at a time. Each is set to what it writes on the corrupt prompt, and
# only the logits hear of it (through MLPs on the way, which is the variant `mlps`).

# %%
to_logits = exp.patch("head -> logits")
to_logits.top(8)

# %% [markdown]
# Negative: without it the answer suffers. Positive: the head speaks against the right name, as
# the negative name movers of GPT-2 do (Wang et al. 2022, arXiv:2211.00593).

# %%
to_logits.heatmap()

# %% [markdown]
# The heads whose loss harms the answer most. In braces they are patched *together*; `.q@end` is
# what their queries read at the last token. So: who tells them where to look?

# %%
writers = to_logits.top(5, by="negative")["name"].tolist()
together = "{" + ", ".join(writers) + "}"
to_queries = exp.patch(f"head -> {together}.q@end => logits")
to_queries.top(4)

# %% [markdown]
# One head stands out. In brackets, edges are patched *one at a time*: that gives each edge of the
# circuit a weight of its own.

# %%
feeders = to_queries.top(2, by="negative")["name"].tolist()
edges = exp.patch(f"[{', '.join(feeders)}] -> [{', '.join(writers)}].q@end => logits")

circuit = cg.Circuit.from_effects(to_logits).restrict([*writers, "logits"])
circuit |= cg.Circuit.from_effects(edges)
circuit = circuit.with_groups({"write the answer": writers, "tell them where to look": feeders})
print(circuit)

# %%
drawing = circuit.draw(title="Indirect objects in SmolLM2-135M")
drawing.save("name_movers.svg")
drawing

# %% [markdown]
# Do the edges add up to what they do together? They need not: heads can stand in for each other,
# and a circuit of single edges does not show that. So look at both.

# %%
one_by_one = edges.normalized().sum().item()
at_once = exp.patch(f"{{{', '.join(feeders)}}} -> {together}.q@end => logits").normalized().item()
print(f"{one_by_one:+.2f} summed over the edges, {at_once:+.2f} patched together")
