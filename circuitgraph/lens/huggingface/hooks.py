"""Reading and editing what passes a module of a Hugging Face model, by the module's path.

``model.layers.3.mlp`` is what that module gives, ``model.layers.3:in`` what it reads, and
``model.layers.3.self_attn:pattern`` the pattern of an attention, which eager attention hands out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from circuitgraph.lens.huggingface.families import HuggingFaceMap
from circuitgraph.lens.modules import first_tensor, with_first
from circuitgraph.lens.sites import Hook, HookNames, HookSite, Part

__all__ = ["IN", "PATTERN", "hooked", "names_of", "site_of"]

IN, PATTERN = ":in", ":pattern"


def names_of(model: Any, names: HuggingFaceMap, unembed: str) -> HookNames:
    """Return every activation of a model that can be read."""
    late, early, patterns = set(), set(), []
    for path, _ in model.named_modules():
        layer, rest = _inside(path, names)
        if layer is None and path not in (names.final_norm, unembed):
            early |= {path, path + IN} if path else set()
            continue
        late |= {path, path + IN}
        if rest == names.attention:
            patterns.append(path + PATTERN)
    return HookNames(
        frozenset(late | set(patterns)),
        frozenset(early),
        tuple(patterns),
        "model.named_modules() lists the paths; ':in' after one means what the module reads",
        f"an attention's {PATTERN!r}",
    )


def _inside(path: str, names: HuggingFaceMap) -> tuple[int | None, str]:
    """Return the layer that a path lies in, and the path from its block on."""
    if not path.startswith(names.blocks + "."):
        return None, path
    number, _, rest = path.removeprefix(names.blocks + ".").partition(".")
    return int(number), rest


def site_of(name: str, names: HuggingFaceMap) -> HookSite:
    """Return where an activation is read."""
    path, _, kind = name.partition(":")
    layer, rest = _inside(path, names)
    if layer is None:
        return HookSite(name, None, "end")
    return HookSite(name, layer, _part(rest, kind, names))


def _part(rest: str, kind: str, names: HuggingFaceMap) -> Part:
    """Return the part of a block that a module belongs to."""
    o = f"{names.attention}.{names.o}"
    mlp_reader = names.mlp_norm or names.mlp
    known: dict[tuple[str, str], Part] = {
        ("", ""): "out",
        ("", "in"): "in",
        (names.attention, "pattern"): "pattern",
        (names.attention, ""): "block",
        (o, "in"): "z",
        (o, ""): "block",
        (names.mlp, ""): "mlp out",
    }
    if not names.parallel:
        known[mlp_reader, "in"] = "mid"
    if (rest, kind) in known:
        return known[rest, kind]
    if rest == names.attention or rest.startswith(names.attention + "."):
        return "attention"
    if rest in (names.mlp, mlp_reader) or rest.startswith((names.mlp + ".", mlp_reader + ".")):
        return "attention" if names.parallel and rest == mlp_reader else "mlp"
    return "attention" if rest in ("input_layernorm", "ln_1", "ln_attn") else "block"


@contextmanager
def hooked(model: Any, pairs: Sequence[tuple[HookSite, Hook]]) -> Iterator[None]:
    """Call hooks at some places inside the ``with`` block."""
    with ExitStack() as opened:
        for site, hook in pairs:
            path, _, kind = site.name.partition(":")
            module = model.get_submodule(path)
            if kind == "in":
                handle = module.register_forward_pre_hook(_before(site, hook), with_kwargs=True)
            else:
                after = _pattern(site, hook) if kind else _after(site, hook)
                handle = module.register_forward_hook(after)
            opened.callback(handle.remove)
        yield


def _before(site: HookSite, hook: Hook) -> Callable[..., Any]:
    def before(_: Any, args: Any, kwargs: Any) -> Any:
        name = None if args else _first_name(kwargs)
        value = args[0] if name is None else kwargs[name]
        edited = hook(value, hook=site)
        if edited is None:
            return None
        if name is None:
            return (edited.clone(), *args[1:]), kwargs
        return args, {**kwargs, name: edited.clone()}

    return before


def _first_name(kwargs: dict[str, Any]) -> str:
    if "hidden_states" in kwargs:
        return "hidden_states"
    return next(name for name, value in kwargs.items() if isinstance(value, Tensor))


def _after(site: HookSite, hook: Hook) -> Callable[..., Any]:
    def after(_: Any, __: Any, output: Any) -> Any:
        edited = hook(first_tensor(output), hook=site)
        # A block may add to what its parts give in place: what it gets is its own.
        return None if edited is None else with_first(output, edited.clone())

    return after


def _pattern(site: HookSite, hook: Hook) -> Callable[..., Any]:
    def after(_: Any, __: Any, output: Any) -> None:
        if isinstance(output, tuple) and len(output) > 1 and isinstance(output[1], torch.Tensor):
            hook(output[1], hook=site)

    return after
