"""An outside oracle for any family: the three steps with plain torch hooks on the model itself.

It knows neither this package nor TransformerLens' hooks; of the bridge it takes only the names that
the Hugging Face modules have.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Sender = tuple[int, int] | int | None
"""A head ``(layer, head)``, the layer of an MLP, or None for the embedding."""

Edits = dict[str, Callable[[Tensor], Tensor]]


class RawModel:
    """A Hugging Face model and the names of its parts.

    Args:
        module: The model, not bridged.
        bridge: A bridge over the same architecture, for the names.
    """

    def __init__(self, module: Any, bridge: Any) -> None:
        self.module = module
        self.n_heads = bridge.cfg.n_heads
        self.n_kv_heads = getattr(bridge.cfg, "n_key_value_heads", None) or self.n_heads
        self.layers: list[Any] = []
        self.parts: dict[str, Any] = {}
        for number, block in enumerate(bridge.blocks):
            layer = module.get_submodule(block.name)
            attention = layer.get_submodule(block.attn.name)
            inner = block.attn._modules
            self.layers.append(layer)
            self.parts[f"z{number}"] = attention.get_submodule(block.attn.o.name)
            if "mlp" in block._modules:
                mlp = block.mlp
                name = mlp.name if mlp.name is not None else mlp.out.name
                self.parts[f"mlp{number}"] = layer.get_submodule(name)
            for port in "qkv":
                own = attention.get_submodule((inner.get("qkv") or inner[port]).name)
                norm = inner.get(f"{port}_norm")
                if norm is not None:
                    norm = attention.get_submodule(norm.name)
                    # Normed over all heads together: a head's own are cut out after the norm.
                    own = norm if norm.weight.numel() == own.out_features else own
                self.parts[f"{port}{number}"] = own
        self.plain: dict[int, dict[str, Tensor]] = {}
        self.joint = "qkv" in bridge.blocks[0].attn._modules
        config = module.config if hasattr(module, "config") else None
        self.interleaved = type(module).__name__ == "GPTNeoXForCausalLM" or (
            type(module).__name__ == "FalconForCausalLM" and not config.multi_query
        )

    def slice_of(self, port: str, head: int, width: int) -> slice:
        """Where one head's queries, or one key-value head's keys or values, stand."""
        if not self.joint:
            size = width // (self.n_heads if port == "q" else self.n_kv_heads)
            return slice(head * size, (head + 1) * size)
        size = width // (self.n_heads + 2 * self.n_kv_heads)
        if self.interleaved:
            start = 3 * head + "qkv".index(port)
        else:
            start = head + {"q": 0, "k": self.n_heads, "v": self.n_heads + self.n_kv_heads}[port]
        return slice(start * size, (start + 1) * size)

    def run(self, tokens: Tensor, edits: Edits | None = None) -> dict[str, Tensor]:
        """Run with some values set; return logits and what passed every part."""
        edits, handles = edits or {}, []
        seen: dict[str, Tensor] = {}

        def changed(name: str, value: Tensor) -> Tensor:
            edit = edits.get(name)
            value = value if edit is None else edit(value.clone())
            seen[name] = value.detach().clone()
            return value

        def before(name: str) -> Any:
            def hook(_: Any, args: Any, kwargs: Any) -> Any:
                if args:
                    return (changed(name, args[0]), *args[1:]), kwargs
                value = changed(name, kwargs["hidden_states"])
                return args, {**kwargs, "hidden_states": value}

            return hook

        def after(name: str) -> Any:
            def hook(_: Any, __: Any, output: Any) -> Any:
                if isinstance(output, tuple):
                    return (changed(name, output[0]), *output[1:])
                return changed(name, output)

            return hook

        handles.append(self.layers[0].register_forward_pre_hook(before("embed"), with_kwargs=True))
        # One module may hold queries, keys and values: its hooks then act one after another.
        for name, part in self.parts.items():
            if name.startswith("z"):
                handles.append(part.register_forward_pre_hook(before(name), with_kwargs=True))
            else:
                handles.append(part.register_forward_hook(after(name)))
        try:
            with torch.no_grad():
                output = self.module(tokens)
        finally:
            for handle in handles:
                handle.remove()
        seen["logits"] = output if isinstance(output, Tensor) else output.logits
        return seen

    def frozen(
        self,
        clean: dict[str, Tensor],
        corrupt: dict[str, Tensor],
        sender: Sender,
        variant: str,
        live: str = "",
    ) -> Edits:
        """Return edits that set the sender to its corrupt value and freeze all else but ``live``."""
        held: dict[str, Tensor] = {}
        for number in range(len(self.layers)):
            z = clean[f"z{number}"].clone()
            if isinstance(sender, tuple) and sender[0] == number:
                width = z.shape[-1] // self.n_heads
                part = slice(sender[1] * width, (sender[1] + 1) * width)
                z[..., part] = corrupt[f"z{number}"][..., part]
            held[f"z{number}"] = z
            name = f"mlp{number}"
            if name in self.parts and sender == number:
                held[name] = corrupt[name]
            elif name in self.parts and variant == "single-pass" and name != live:
                held[name] = clean[name]
        if sender is None:
            held["embed"] = corrupt["embed"]
        # Falcon adds to what its MLP returns in place: hand out copies.
        return {name: (lambda _, value=value: value.clone()) for name, value in held.items()}

    def patched(
        self, clean: Tensor, corrupt: Tensor, sender: Sender, receiver: str, variant: str
    ) -> Tensor:
        """Return the logits of ``sender -> receiver => logits``.

        Args:
            clean: Tokens; the same object in every call, whose plain run is kept.
            corrupt: Likewise.
            sender: What is set to its corrupt value.
            receiver: ``logits``, ``mlp2``, or such as ``q2.1``: queries of layer 2, head 1. Of keys
                and values, the number is that of the key-value head.
            variant: ``mlps`` or ``single-pass``.
        """
        for tokens in (clean, corrupt):
            if id(tokens) not in self.plain:
                self.plain[id(tokens)] = self.run(tokens)
        one, other = self.plain[id(clean)], self.plain[id(corrupt)]
        name, _, head = receiver.partition(".")
        sent = self.run(clean, self.frozen(one, other, sender, variant, live=name))
        if receiver == "logits":
            return sent["logits"]
        # The receiver's own projection, or MLP, saw what arrived there.
        arrived = sent[name]

        def edit(value: Tensor) -> Tensor:
            if not head:
                return arrived
            part = self.slice_of(name[0], int(head), value.shape[-1])
            value[..., part] = arrived[..., part]
            return value

        return self.run(clean, {name: edit})["logits"]
