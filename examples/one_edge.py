# %% [markdown]
"""# One edge

Declare an edge of a model, read what will be run, patch it, and see what it did to each prompt.
"""

# %%
import circuitgraph as cg

model = cg.load_model("smollm2-135m")
task = cg.tasks.ioi(model.tokenizer, n=12, seed=1)
print(task)

# %% [markdown]
# Clean and corrupt prompts are the same sentence with other names. On a clean prompt the model
# knows who gets the gift; on a corrupt one nobody could. An experiment holds both, and the metric
# that tells them apart: the logit of the right name minus that of the wrong one.

# %%
exp = cg.Experiment(model, task)
exp

# %% [markdown]
# An edge joins a sender to the port of a receiver. As objects or as text, it is the same request.

# %%
edge = cg.Edge(cg.Head(23, 3), cg.Logits().port)
assert str(edge) == "23.3 -> logits"

plan = exp.plan(edge)
print(plan)

# %% [markdown]
# Nothing has been run yet: a plan is plain data. It says that head 23.3 will be set to what it
# writes on the corrupt prompt while all other heads are frozen and the MLPs between answer; and
# that the logits are then read with that change and no other.
#
# An effect of 0 says that patching harmed nothing, of -1 that all of the difference between clean
# and corrupt prompts was lost.

# %%
effects = exp.patch(edge)
print(effects)

# %% [markdown]
# The average hides what happened to each prompt, so the numbers of each are kept.

# %%
change = effects.difference().values
for text, (right, wrong), lost in zip(task.clean_text, task.answers, change, strict=True):
    print(f"{lost:+.1f}  {text} ->{right}, not{wrong}")

# %% [markdown]
# An edge into the *queries* of a head, at the last token, with everything after it recomputed
# (`=>`). Head 20.0 tells 23.3 a little of where to look:

# %%
print(exp.patch("20.0 -> 23.3.q@end => logits"))

# %% [markdown]
# The same plan, run hook by hook by the slow engine that anybody can check by eye:

# %%
slow = exp.patch("20.0 -> 23.3.q@end => logits", engine="reference")
fast = exp.patch("20.0 -> 23.3.q@end => logits")
print(f"{slow.normalized().item():.6f} and {fast.normalized().item():.6f}")
