# %% [markdown]
"""# Place or name?

Heads that tell the name movers where to look can do so in two ways: by the *place* of the name that
was said twice, or by its *token* (Wang et al. 2022, arXiv:2211.00593, appendix A). Corrupt prompts
that change only one of the two tell them apart. In the letters of `corrupt=`, the names of a prompt
stand in reading order, and a new letter is a new name.
"""

# %%
import circuitgraph as cg

N = 12
model = cg.load_model("smollm2-135m")
CORRUPT = {
    "both": "ABB->XYZ, BAB->XYZ",  # other names: neither is left
    "token": "ABB->ACC, BAB->CAC",  # the name said twice is another one, in the same places
    "place": "ABB->BAB, BAB->ABB",  # the same names, but the one said twice stands elsewhere
}
tasks = {
    what: cg.tasks.ioi(model.tokenizer, n=N, seed=1, corrupt=how) for what, how in CORRUPT.items()
}
for what, task in tasks.items():
    print(f"{what:6} {task.corrupt_text[0]}")

# %% [markdown]
# Where only the place changes, the same answer is right in both prompts, so clean and corrupt
# measure alike: effects cannot be normalised, and are read as raw changes of the logit difference.

# %%
request = "[20.0, 19.2] -> {23.3, 29.1, 23.0}.q@end => logits"
changes = {}
for what, task in tasks.items():
    exp = cg.Experiment(model, task, allow_no_difference=True)
    effects = exp.patch(request)
    changes[what] = effects.difference().mean("prompt").to_numpy()

# %% [markdown]
# A head that loses as much by `token` as by `both` passes on which name it was; one that loses by
# `place`, where it stood.

# %%
print(f"{'head':8}{'both':>8}{'token':>8}{'place':>8}")
for number, sender in enumerate(effects.cells()):
    row = "".join(f"{changes[what][number]:8.2f}" for what in CORRUPT)
    print(f"{sender:8}{row}")

# %% [markdown]
# 20.0 hardly hears which name was said twice, and loses when it stands elsewhere: what it passes on
# to the queries is a place.
