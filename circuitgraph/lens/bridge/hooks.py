"""Where the hooks of a `TransformerBridge` sit."""

from typing import Any

from circuitgraph.lens.bridge.names import mlp_writer
from circuitgraph.lens.sites import HookSite, Part

__all__ = ["find_hook"]


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
