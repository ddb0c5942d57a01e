# %% [markdown]
"""# Path patching, for readers of ARENA

The exercises on indirect objects in ARENA's chapter on interpretability write path patching as a
loop of hooked forward passes. Here each step stands twice: as such a loop, written with plain
hooks, and as one line. Both give the same numbers. On GPT-2 where the Hugging Face hub can be
reached, with the chapter's own heads; on SmolLM2-135M otherwise, with the heads that do their work
there.
"""

# %%
import torch

import circuitgraph as cg

N = 6
try:
    model = cg.load_model("gpt2")
except cg.errors.CircuitGraphError:
    model = cg.load_model("smollm2-135m")
GPT2 = model.cfg.n_layers == 12
# Names that move the answer, and heads that tell them where to look, as groups that share values.
MOVERS = ["9.9", "9.6", "10.0"] if GPT2 else ["23.3", "29.1", "24.4"]
INHIBITORS = ["8.6", "8.10"] if GPT2 else ["20.0", "20.1", "20.2"]
task = cg.tasks.ioi(model.tokenizer, n=N, seed=1)
exp = cg.Experiment(model, task)
n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
exp

# %% [markdown]
# ## The loop
#
# Three steps (Wang et al. 2022, appendix B). *One*: run the clean and the corrupt prompts and keep
# what every head writes. *Two*: run the clean prompts again with the sender's output from the
# corrupt run, all other heads frozen, and keep what arrives at the receivers. *Three*: run the
# clean prompts with only that put in. As in the chapter, a head's output is its `z`; MLPs are
# recomputed in step two, or frozen too, which is the chapter's other version.


# %%
def record(tokens):
    """Step one: the outputs of all heads and MLPs."""
    wanted = ("attn.hook_z", "hook_mlp_out")
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=lambda hook: hook.endswith(wanted))
    return {hook: cache[hook].clone() for hook in cache}


clean, corrupt = record(task.clean), record(task.corrupt)


def freezing(sender, mlps_too):
    """The hooks of step two: every output as in the clean run, one head's as in the corrupt run."""
    layer, head = map(int, sender.split("."))
    hooks = []
    for at in range(n_layers):

        def set_heads(z, hook, at=at):
            frozen = clean[f"blocks.{at}.attn.hook_z"].clone()
            if at == layer:
                frozen[:, :, head] = corrupt[f"blocks.{at}.attn.hook_z"][:, :, head]
            return frozen

        hooks.append((f"blocks.{at}.attn.hook_z", set_heads))
        if mlps_too:
            hooks.append(
                (
                    f"blocks.{at}.hook_mlp_out",
                    lambda out, hook, at=at: clean[f"blocks.{at}.hook_mlp_out"].clone(),
                )
            )
    return hooks


rows = torch.arange(len(task))
end, right, wrong = task.positions["end"], task.metric.correct, task.metric.incorrect


def logit_diff(logits):
    """The mean logit difference at the last token."""
    last = logits[rows, end]
    return float((last[rows, right] - last[rows, wrong]).mean())


with torch.no_grad():
    CLEAN, CORRUPT = logit_diff(model(task.clean)), logit_diff(model(task.corrupt))


def effect(logits):
    """0 where nothing was harmed, -1 where all was lost."""
    return (logit_diff(logits) - CLEAN) / (CLEAN - CORRUPT)


# %% [markdown]
# ## Heads to the final residual stream
#
# The receiver is the end of the residual stream, so step three is only the unembedding, and the
# logits of step two are the result. The chapter sweeps over all heads; the loop below takes a few
# of them, the line after it all.


# %%
def loop_to_logits(senders, mlps_too):
    """One forward pass for each head."""
    effects = {}
    for sender in senders:
        with torch.no_grad():
            logits = model.run_with_hooks(task.clean, fwd_hooks=freezing(sender, mlps_too))
        effects[sender] = effect(logits)
    return effects


def beside(title, loop, effects):
    """Print the loop's numbers beside ours, and insist that they are the same."""
    print(f"{title:32}{'loop':>10}{'one line':>12}")
    ours = effects.normalized()
    for sender, by_loop in loop.items():
        layer, head = map(int, sender.split("."))
        by_line = float(ours.sel(layer=layer, head=head))
        print(f"{sender:32}{by_loop:10.5f}{by_line:12.5f}")
        assert abs(by_loop - by_line) < 1e-3, sender


both = exp.compare("head -> logits")
beside("MLPs recomputed", loop_to_logits(MOVERS, mlps_too=False), both.effects["mlps"])
beside("MLPs frozen", loop_to_logits(MOVERS, mlps_too=True), both.effects["single-pass"])

# %%
both.effects["mlps"].heatmap()

# %% [markdown]
# The chapter asks how far the two versions differ. A `Comparison` says so, with intervals.

# %%
both.table(5)

# %% [markdown]
# ## Heads to the values of the S-inhibition heads
#
# Now step three is a run of its own: whatever the receivers' values were in step two is put into a
# clean run. Where query heads share values, as in SmolLM2, the receivers are all heads of a group.


# %%
def loop_to_values(senders):
    """Two forward passes for each head."""
    kv_heads = getattr(model.cfg, "n_key_value_heads", None) or n_heads
    shared = n_heads // kv_heads
    receivers = {
        (int(layer), int(head) // shared) for layer, head in (h.split(".") for h in INHIBITORS)
    }
    effects = {}
    for sender in senders:
        kept = {}

        def keep(layer, kept=kept):
            return lambda values, hook: kept.update({layer: values.clone()})

        def put_in(layer, kept=kept):
            def patch(values, hook):
                patched = values.clone()
                for head in (head for at, head in receivers if at == layer):
                    patched[:, :, head] = kept[layer][:, :, head]
                return patched

            return patch

        places = {layer: f"blocks.{layer}.attn.hook_v" for layer, _ in receivers}
        step_two = freezing(sender, False) + [(at, keep(layer)) for layer, at in places.items()]
        with torch.no_grad():
            model.run_with_hooks(task.clean, fwd_hooks=step_two)
            step_three = [(at, put_in(layer)) for layer, at in places.items()]
            logits = model.run_with_hooks(task.clean, fwd_hooks=step_three)
        effects[sender] = effect(logits)
    return effects


values = "{" + ", ".join(f"{head}.v" for head in INHIBITORS) + "}"
to_values = exp.patch(f"head -> {values} => logits")
feeders = to_values.top(3)["name"].tolist()
beside("heads -> values", loop_to_values(feeders), to_values)

# %%
to_values.heatmap()

# %% [markdown]
# What was compiled: the chapter's three steps, read before they are run.

# %%
print(exp.plan(f"{feeders[0]} -> {values} => logits"))

# %% [markdown]
# ## The diagram
#
# The chapter ends with a picture of the circuit. A circuit is made of effects, and drawn.

# %%
circuit = cg.Circuit.from_effects(both.effects["mlps"], top=5) | cg.Circuit.from_effects(
    to_values, top=6
)
circuit.draw(title=f"Indirect objects in {'GPT-2' if GPT2 else 'SmolLM2'}").save(
    "arena_path_patching.svg"
)
circuit
