# %% [markdown]
"""# Two variants

A direct path from a head to the logits may pass through MLPs, or through nothing at all. Which of
the two one means changes what one finds; here they stand side by side.
"""

# %%
import circuitgraph as cg

model = cg.load_model("smollm2-135m")
task = cg.tasks.ioi(model.tokenizer, n=25, seed=1)
exp = cg.Experiment(model, task)

# %% [markdown]
# * `mlps`: MLPs between sender and receiver are recomputed (Wang et al. 2022, arXiv:2211.00593).
# * `single-pass`: they are frozen, so only what the head itself writes arrives.

# %%
both = exp.compare("head -> logits")
both.table(8)

# %%
for sentence in both.sentences():
    print("-", sentence)

# %%
both.heatmap()

# %% [markdown]
# Where the two agree, MLPs play no part; where they differ, an MLP amplified, weakened or turned
# around what the head wrote. The head that matters most in this model is 23.3. Which MLPs does
# its effect pass through? A variant can be any set of nodes, so let one MLP through at a time.

# %%
through = {
    layer: exp.patch("23.3 -> logits", cg.Through([cg.MLP(layer)])).normalized().item()
    for layer in range(23, 30)
}
with_all, with_none = (
    both.effects[name].normalized().sel(layer=23, head=3).item() for name in both.names
)
print(f"through no MLP   {with_none:+.3f}")
for layer, effect in through.items():
    print(f"through mlp{layer}    {effect:+.3f}   ({effect - with_none:+.3f})")
print(f"through all      {with_all:+.3f}   ({with_all - with_none:+.3f})")
print(f"the single ones add up to {sum(through.values()) - len(through) * with_none:+.3f}")

# %% [markdown]
# No single MLP carries much. What is missing when the single ones are added up passes through
# several MLPs in a row, or comes from the final norm, after which nothing simply adds up. The plan
# says what each variant holds fixed:

# %%
print(exp.plan("23.3 -> logits", variant="single-pass"))
