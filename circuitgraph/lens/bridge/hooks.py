"""Reading an activation at one of the model's hooks while something else runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.errors import HookError
from circuitgraph.lens.bridge.names import mlp_writer
from circuitgraph.lens.modules import Stop

__all__ = ["Caught", "HookSite", "caught", "find_hook", "see", "unseen"]

Part = Literal["pattern", "attention", "z", "mid", "mlp", "mlp out", "in", "out", "block", "end"]


@dataclass(frozen=True, slots=True)
class HookSite:
    """Where a hook sits.

    Args:
        name: The bridge's own name of the hook, not an alias.
        layer: The layer whose block holds it; None after the last block.
        part: Which part of the block: ``pattern`` for attention patterns and scores, which have a
            head axis; ``attention`` and ``mlp`` for what else is computed inside of those, before
            the heads' values and the MLP's output; ``in``, ``mid``, ``out``, ``z`` and ``mlp out``
            for the block's input, residual stream between, output, heads' values and MLP's output;
            ``block`` for anything after them; ``end`` after the last block.
    """

    name: str
    layer: int | None
    part: Part


def find_hook(model: Any, name: str) -> HookSite:
    """Return where a hook sits.

    Args:
        model: A `TransformerBridge`.
        name: A name in its ``hook_dict``, of or after the first block.
    """
    point = model.hook_dict[name]
    names = [found for found, module in model.named_modules() if module is point]
    canonical = _bridge_name(names) or str(getattr(point, "name", "") or name)
    if not canonical.startswith("blocks."):
        return HookSite(canonical, None, "end")
    number, _, rest = canonical.removeprefix("blocks.").partition(".")
    layer = int(number)
    return HookSite(canonical, layer, _part(model, layer, rest))


def _bridge_name(names: list[str]) -> str:
    return min((one for one in names if "original_component" not in one), key=len, default="")


def _part(model: Any, layer: int, rest: str) -> Part:
    """Return the part of a block that a hook belongs to."""
    block = model.blocks[layer]
    mlp = block._modules.get("mlp")
    writer = "mlp" if mlp is None or mlp_writer(block) is mlp else "mlp.out"
    known: dict[str, Part] = {
        "attn.hook_pattern": "pattern",
        "attn.hook_attn_scores": "pattern",
        "attn.o.hook_in": "z",
        "hook_in": "in",
        "hook_out": "out",
        "ln2.hook_in": "mid",
        f"{writer}.hook_out": "mlp out",
    }
    if rest in known:
        return known[rest]
    if rest.startswith(("attn.o.", "attn.hook_out", "attn.hook_result")):
        return "block"
    if rest.startswith(("attn.", "ln1.", "hook_attn_in")):
        return "attention"
    if rest.startswith(("mlp.", "ln2.", "hook_mlp_in")):
        return "mlp"
    return "block"


@dataclass(slots=True)
class Caught:
    """What a hook saw, the last time it fired."""

    name: str
    values: list[Tensor] = field(default_factory=list)

    @property
    def value(self) -> Tensor:
        """The activation.

        Raises:
            HookError: The hook never fired.
        """
        if not self.values:
            raise HookError(
                f"the hook at {self.name} never fired: this model does not compute it, "
                "or only when told to; choose another hook"
            )
        return self.values[-1]

    def see(self, value: Tensor, hook: Any) -> None:  # noqa: ARG002  # hooks are called by name
        """Keep a copy: hooks hand out tensors that the model goes on using."""
        self.values[:] = [value.detach().clone()]


def see(
    model: Any, tokens: Int[Tensor, "prompt pos"], sites: Mapping[str, HookSite]
) -> dict[str, Tensor]:
    """Run the model as it is and return what passes some hooks, ``[prompt ...]`` by name.

    The run ends after the last block that has one of the hooks.
    """
    layers = [site.layer for site in sites.values()]
    with ExitStack() as opened, torch.no_grad():
        last = max((layer for layer in layers if layer is not None), default=0)
        if None not in layers and last + 1 < len(model.blocks):
            opened.enter_context(suppress(Stop))

            def stop(*_: Any) -> None:
                raise Stop(None)

            following = model.blocks[last + 1].original_component
            opened.callback(following.register_forward_pre_hook(stop).remove)
        catches = {
            name: opened.enter_context(caught(model, site.name)) for name, site in sites.items()
        }
        model(tokens, return_type="logits")
    found = {}
    for name, catch in catches.items():
        value = catch.value
        side_by_side = value.ndim == 2 and len(value) == tokens.numel()
        found[name] = value.reshape(*tokens.shape, -1) if side_by_side else value
    return found


def unseen(name: str) -> str:
    """Return what is wrong where a patched head's own pattern does not show."""
    return (
        f"the hook at {name} does not show the pattern of a head whose port is patched: this "
        "model's attention hands its patterns out only when it is done; patch another port, or "
        "measure what comes after"
    )


@contextmanager
def caught(model: Any, name: str) -> Iterator[Caught]:
    """Catch what passes a hook inside the ``with`` block.

    Args:
        model: A `TransformerBridge`.
        name: The hook's own name.
    """
    found = Caught(name)
    hooks: list[tuple[str, Callable[..., None]]] = [(name, found.see)]
    with model.hooks(fwd_hooks=hooks):
        yield found
