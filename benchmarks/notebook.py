"""The three-step loop with plain hooks, as notebooks write it: what we are measured against.

Clean and corrupt are recorded once. Then for each sender: a run in which every other head is frozen
(and in the single-pass variant every MLP too) that records what the receivers read, and a run with
the receivers patched. For the logits the second run is a norm and an unembedding.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

Receiver = tuple[str, int, int]
"""``("v", layer, head)``."""


class Notebook:
    """One model and one set of prompts, recorded.

    Args:
        model: A `TransformerBridge`.
        data: As made by `benchmarks.models.prompts`.
    """

    def __init__(self, model: Any, data: dict[str, Any]) -> None:
        self.model = model
        self.data = data
        self.n_layers = len(model.blocks)
        self.z_names = [f"blocks.{layer}.attn.hook_z" for layer in range(self.n_layers)]
        self.mlp_names = [f"blocks.{layer}.hook_mlp_out" for layer in range(self.n_layers)]
        self.resid = f"blocks.{self.n_layers - 1}.hook_resid_post"
        self.rows = torch.arange(len(data["clean"]), device=data["clean"].device)

    @torch.no_grad()
    def record(self) -> None:
        """Record the clean and the corrupt run."""
        wanted = {*self.z_names, *self.mlp_names}
        keep = lambda name: name in wanted  # noqa: E731
        clean, self.clean = self.model.run_with_cache(self.data["clean"], names_filter=keep)
        corrupt, self.corrupt = self.model.run_with_cache(self.data["corrupt"], names_filter=keep)
        self.clean_metric, self.corrupt_metric = self.metric(clean), self.metric(corrupt)

    def metric(self, logits: Tensor) -> Tensor:
        """Return the logit difference at the last position."""
        data = self.data
        at = logits[self.rows, data["end"]]
        return at[self.rows, data["correct"]] - at[self.rows, data["incorrect"]]

    def _freeze(self, layer: int, sender: tuple[int, int], z: Tensor, hook: Any) -> Tensor:
        z = self.clean[self.z_names[layer]].clone()
        if layer == sender[0]:
            z[:, :, sender[1]] = self.corrupt[self.z_names[layer]][:, :, sender[1]]
        return z

    def _freeze_mlp(self, name: str, value: Tensor, hook: Any) -> Tensor:
        return self.clean[name]

    def frozen_run(
        self, sender: tuple[int, int], variant: str, keep: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run clean with the sender corrupt and all other heads frozen; keep some activations."""
        kept: dict[str, Tensor] = {}

        def save(name: str, value: Tensor, hook: Any) -> None:
            kept[name] = value

        hooks = [(n, partial(self._freeze, at, sender)) for at, n in enumerate(self.z_names)]
        if variant == "single-pass":
            hooks += [(name, partial(self._freeze_mlp, name)) for name in self.mlp_names]
        hooks += [(name, partial(save, name)) for name in keep]
        logits = self.model.run_with_hooks(self.data["clean"], fwd_hooks=hooks)
        return logits, kept

    @torch.no_grad()
    def to_logits(self, sender: tuple[int, int], variant: str) -> Tensor:
        """Return the metric of ``sender -> logits``."""
        _, kept = self.frozen_run(sender, variant, [self.resid])
        return self.metric(self.model.unembed(self.model.ln_final(kept[self.resid])))

    @torch.no_grad()
    def to_heads(
        self,
        sender: tuple[int, int],
        receivers: Sequence[Receiver],
        variant: str,
        at_end: bool = False,
    ) -> Tensor:
        """Return the metric of ``sender -> receivers => logits``."""
        names = {f"blocks.{layer}.attn.hook_{port}" for port, layer, _ in receivers}
        _, kept = self.frozen_run(sender, variant, sorted(names))

        def patch(name: str, value: Tensor, hook: Any) -> Tensor:
            patched = value.clone()
            for port, layer, head in receivers:
                if name == f"blocks.{layer}.attn.hook_{port}":
                    if at_end:
                        patched[self.rows, self.data["end"], head] = kept[name][
                            self.rows, self.data["end"], head
                        ]
                    else:
                        patched[:, :, head] = kept[name][:, :, head]
            return patched

        hooks = [(name, partial(patch, name)) for name in sorted(names)]
        logits = self.model.run_with_hooks(self.data["clean"], fwd_hooks=hooks)
        return self.metric(logits)
