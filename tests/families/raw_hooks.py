"""An outside oracle for any family: the three steps with plain torch hooks on the model itself.

It knows neither this package nor TransformerLens' hooks; of the bridge it takes only the names that
the Hugging Face modules have.
"""

from typing import Any

import torch
from torch import Tensor

Sender = tuple[int, int] | int
"""A head ``(layer, head)``, or the layer of an MLP."""


class RawModel:
    """A Hugging Face model and the names of its parts.

    Args:
        module: The model, not bridged.
        bridge: A bridge over the same architecture, for the names.
    """

    def __init__(self, module: Any, bridge: Any) -> None:
        self.module = module
        self.n_heads = bridge.cfg.n_heads
        self.layers, self.outputs, self.mlps, self.norms, self.queries = [], [], [], [], []
        for block in bridge.blocks:
            layer = module.get_submodule(block.name)
            attention = layer.get_submodule(block.attn.name)
            self.layers.append(layer)
            self.outputs.append(attention.get_submodule(block.attn.o.name))
            mlp = block.mlp
            inner = layer.get_submodule(mlp.name if mlp.name is not None else mlp.out.name)
            self.mlps.append(inner)
            norm = block._modules.get("ln1")
            self.norms.append(None if norm is None else layer.get_submodule(norm.name))
            joint = "qkv" in block.attn._modules
            self.queries.append(None if joint else attention.get_submodule(block.attn.q.name))

    def run(self, tokens: Tensor, edits: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run with some values set; return logits, every z, every MLP output, every block input."""
        edits, seen, handles = edits or {}, {}, []
        shape = tokens.shape

        def before(name: str) -> Any:
            def hook(_: Any, args: Any, kwargs: Any) -> Any:
                value = args[0] if args else kwargs["hidden_states"]
                edit = edits.get(name)
                if edit is not None:
                    value = edit(value.clone())
                    args = (value, *args[1:])
                seen[name] = value.detach().clone()
                return args, kwargs

            return hook

        def after(name: str) -> Any:
            def hook(_: Any, __: Any, output: Any) -> Any:
                value = output[0] if isinstance(output, tuple) else output
                edit = edits.get(name)
                if edit is not None:
                    value = edit(value.clone())
                seen[name] = value.detach().clone()
                return (value, *output[1:]) if isinstance(output, tuple) else value

            return hook

        for number, layer in enumerate(self.layers):
            for module, hook in (
                (layer, before(f"x{number}")),
                (self.outputs[number], before(f"z{number}")),
            ):
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            handles.append(self.mlps[number].register_forward_hook(after(f"mlp{number}")))
            if self.queries[number] is not None:
                handles.append(self.queries[number].register_forward_hook(after(f"q{number}")))
        try:
            with torch.no_grad():
                seen["logits"] = self.module(tokens).logits
        finally:
            for handle in handles:
                handle.remove()
        assert seen["logits"].shape[:2] == shape
        return seen

    def frozen(
        self, clean: dict[str, Any], corrupt: dict[str, Any], sender: Sender, variant: str
    ) -> Any:
        """Return edits that set the sender to its corrupt value and freeze all else."""
        edits: dict[str, Any] = {}
        for number in range(len(self.layers)):
            z = clean[f"z{number}"].clone()
            if isinstance(sender, tuple) and sender[0] == number:
                width = z.shape[-1] // self.n_heads
                part = slice(sender[1] * width, (sender[1] + 1) * width)
                z[..., part] = corrupt[f"z{number}"][..., part]
            edits[f"z{number}"] = lambda _, z=z: z
            if sender == number:
                edits[f"mlp{number}"] = lambda _, v=corrupt[f"mlp{number}"]: v
            elif variant == "single-pass":
                edits[f"mlp{number}"] = lambda _, v=clean[f"mlp{number}"]: v
        return edits

    def to_logits(self, clean: Tensor, corrupt: Tensor, sender: Sender, variant: str) -> Tensor:
        """Return the logits of ``sender -> logits``."""
        one, other = self.run(clean), self.run(corrupt)
        return self.run(clean, self.frozen(one, other, sender, variant))["logits"]

    def to_query(
        self, clean: Tensor, corrupt: Tensor, sender: Sender, head: tuple[int, int], variant: str
    ) -> Tensor:
        """Return the logits of ``sender -> head.q => logits``."""
        layer, number = head
        one, other = self.run(clean), self.run(corrupt)
        frozen = self.run(clean, self.frozen(one, other, sender, variant))
        # The receiver's own query projection saw what arrived there.
        query = frozen[f"q{layer}"]

        def edit(value: Tensor) -> Tensor:
            width = value.shape[-1] // self.n_heads
            part = slice(number * width, (number + 1) * width)
            value[..., part] = query[..., part]
            return value

        return self.run(clean, {f"q{layer}": edit})["logits"]
