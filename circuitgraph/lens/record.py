"""Recording a run: every node's value, the residual stream at every point, how blocks were called.

Hooks hand out the very tensors that the model goes on using. They are kept as they are, with the
number of writes that torch has counted for each; where a model has written into one afterwards, it
is recorded again with copies. Nothing recorded is ever changed in place.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.lens.axes import Axes, argument_axes, check_axes, tensors_in
from circuitgraph.lens.cache import FixedKeys
from circuitgraph.lens.modules import first_tensor
from circuitgraph.lens.parts import BlockParts, ModelParts, Projection

__all__ = ["BlockCall", "LayerRecord", "Recording", "record"]


@dataclass(frozen=True, slots=True)
class BlockCall:
    """How a block was called besides its hidden states, and what form its parts return.

    Args:
        args: Positional arguments after the hidden states.
        kwargs: Named arguments: masks, rotary embeddings, and so on.
        attn_form: The attention's output without its tensors: a tuple of None, or just None.
        mlp_form: The MLP's output, likewise.
        block_form: The block's output, likewise.
        axes: Which axes of the tensors among the arguments are prompts and positions, by name; of
            one in a tuple, ``name.number``.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attn_form: Any = None
    mlp_form: Any = None
    block_form: Any = None
    axes: Mapping[str, Axes] = field(default_factory=dict)

    def changed(self, change: Callable[[str, Axes, Tensor], Tensor]) -> "BlockCall":
        """Return the call with every tensor changed that has axes."""

        def of(name: str, value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(of(f"{name}.{number}", part) for number, part in enumerate(value))
            axes = self.axes.get(name)
            return change(name, axes, value) if isinstance(value, Tensor) and axes else value

        return replace(
            self,
            args=tuple(of(str(number), value) for number, value in enumerate(self.args)),
            kwargs={name: of(name, value) for name, value in self.kwargs.items()},
        )


@dataclass(slots=True)
class LayerRecord:
    """One block on one batch of prompts. Tensors are ``[prompt pos width]`` where not said.

    Args:
        resid: The block's input.
        mid: What its MLP reads; the same tensor as ``resid`` in a parallel block.
        q: Output of the query projection, before norms and rotation; likewise ``k`` and ``v``.
        z: Input of the output projection, all heads side by side.
        projected: Output of the output projection.
        attn: Output of the attention module.
        mlp: Output of the MLP; None without one.
        keys: Keys that the attention used, ``[prompt kv_head pos d_head]``, rotated; or None.
        values: Values likewise.
        call: The block's other arguments.
    """

    resid: Tensor
    call: BlockCall
    mid: Tensor | None = None
    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    z: Tensor | None = None
    projected: Tensor | None = None
    attn: Tensor | None = None
    mlp: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None


@dataclass(slots=True)
class Recording:
    """One run over a batch of prompts.

    Args:
        tokens: What was run.
        layers: One record per block.
        final: The residual stream after the last block.
        logits: The model's logits at the positions that were asked for.
        copied: Whether every tensor is a copy, since the model writes into its own.
    """

    tokens: Int[Tensor, "prompt pos"]
    layers: list[LayerRecord] = field(default_factory=list)
    final: Float[Tensor, "prompt pos d_model"] | None = None
    logits: Float[Tensor, "prompt read d_vocab"] | None = None
    copied: bool = False

    def part(self, prompts: slice, fields: Sequence[str] | None = None) -> "Recording":
        """Return the recording of some of the prompts, sharing memory with this one.

        Args:
            prompts: Which prompts.
            fields: Names of the `LayerRecord` fields to keep; None keeps all.
        """
        n_prompts = len(self.tokens)

        def cut(value: Any) -> Any:
            return None if value is None else value[prompts]

        def cut_argument(_: str, axes: Axes, value: Tensor) -> Tensor:
            return axes.of_prompts(value, prompts, n_prompts)

        layers = []
        for layer in self.layers:
            call = layer.call.changed(cut_argument)
            kept = set(LayerRecord.__slots__ if fields is None else fields) | {"resid"}
            values = {name: cut(getattr(layer, name)) for name in kept if name != "call"}
            layers.append(LayerRecord(call=call, **values))
        return Recording(
            self.tokens[prompts], layers, cut(self.final), cut(self.logits), self.copied
        )

    def bytes(self) -> int:
        """Memory that the recording holds."""
        seen: dict[int, int] = {}
        for layer in self.layers:
            for name in LayerRecord.__slots__:
                value = getattr(layer, name)
                if isinstance(value, Tensor):
                    seen[value.data_ptr()] = value.numel() * value.element_size()
        return sum(seen.values())


def record(
    parts: ModelParts,
    tokens: Int[Tensor, "prompt pos"],
    *,
    read: Int[Tensor, "prompt read"] | None = None,
    fields: Sequence[str] | None = None,
    copies: bool = False,
) -> Recording:
    """Run the model once and keep what it computed.

    Args:
        parts: The parts of a model in eval mode.
        tokens: Right-padded prompts.
        read: Positions whose logits are wanted; None computes them all.
        fields: Names of the `LayerRecord` fields to keep; None keeps all.
        copies: Whether to copy every tensor at once, for models that write into them.

    Returns:
        The recording. One forward pass, or two where a model writes into what it computed; only the
        wanted positions are unembedded.
    """
    keep = set(LayerRecord.__slots__ if fields is None else fields)
    recording = Recording(tokens, copied=copies)
    held: list[tuple[Tensor, int]] = []

    def hold(value: Tensor) -> Tensor:
        if copies:
            return value.clone()
        held.append((value, value._version))
        return value

    with ExitStack() as stack, torch.no_grad():

        def before(module: Any, hook: Callable[..., Any]) -> None:
            handle = module.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)

        def after(module: Any, hook: Callable[..., Any]) -> None:
            stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)

        for number, block in enumerate(parts.blocks):
            _watch_block(recording, number, block, keep, hold, before, after)

        def at_end(_: Any, __: Any, ___: Any, output: Any) -> None:
            recording.final = hold(first_tensor(output))

        after(parts.blocks[-1].block, at_end)
        if read is not None:
            rows = torch.arange(len(tokens), device=tokens.device)[:, None]

            def only_read(_: Any, args: Any, kwargs: Any) -> Any:
                return (args[0][rows, read], *args[1:]), kwargs

            before(parts.unembed.module, only_read)
        recording.logits = parts.run(tokens, "keys" in keep)
    if any(value._version != version for value, version in held):
        return record(parts, tokens, read=read, fields=fields, copies=True)
    _take_keys(recording)
    _share_equal_rows(recording, argument_axes(parts, tokens))
    return recording


def _watch_block(  # noqa: C901  # a list of hooks, one after another
    recording: Recording,
    number: int,
    parts: BlockParts,
    keep: set[str],
    hold: Callable[[Tensor], Tensor],
    before: Callable[..., None],
    after: Callable[..., None],
) -> None:
    """Install the hooks that record one block."""

    def enter(_: Any, args: Any, kwargs: Any) -> None:
        kwargs = dict(kwargs)
        if args:
            hidden, rest = args[0], tuple(args[1:])
        else:
            hidden, rest = kwargs.pop("hidden_states"), ()
        recording.layers.append(LayerRecord(hold(hidden), BlockCall(rest, kwargs)))

    def leave(_: Any, __: Any, ___: Any, output: Any) -> None:
        layer = recording.layers[number]
        layer.call = replace(layer.call, block_form=_without_tensors(output))

    before(parts.block, enter)
    after(parts.block, leave)

    def keep_value(name: str, value: Tensor) -> None:
        layer = recording.layers[number]
        setattr(layer, name, hold(value).reshape(*layer.resid.shape[:2], -1))

    def keep_output(name: str, form: str | None = None) -> Callable[..., None]:
        def hook(_: Any, __: Any, ___: Any, output: Any) -> None:
            if name in keep:
                keep_value(name, first_tensor(output))
            if form is not None:
                layer = recording.layers[number]
                layer.call = replace(layer.call, **{form: _without_tensors(output)})

        return hook

    def keep_port(name: str, port: Projection) -> Callable[..., None]:
        def hook(_: Any, __: Any, ___: Any, output: Any) -> None:
            keep_value(name, port.of(first_tensor(output)))

        return hook

    def keep_input(name: str) -> Callable[..., None]:
        def hook(_: Any, args: Any, kwargs: Any) -> None:
            keep_value(name, args[0] if args else kwargs["hidden_states"])

        return hook

    for name, port in parts.ports.items():
        if name in keep:
            after(port.module, keep_port(name, port))
    if "z" in keep:
        before(parts.o.module, keep_input("z"))
    if "projected" in keep:
        after(parts.o.module, keep_output("projected"))
    after(parts.attn, keep_output("attn", "attn_form"))
    if parts.mlp is not None:
        after(parts.mlp, keep_output("mlp", "mlp_form"))
        if not parts.parallel and "mid" in keep:
            before(parts.reader, keep_input("mid"))


def _without_tensors(output: Any) -> Any:
    """Return the form of an output, so that a replayed module can return the same form."""
    if isinstance(output, tuple | list):
        return type(output)(None for _ in output)
    return None


def is_cache(value: Any) -> bool:
    """Return whether an argument of a block is a key-value cache."""
    return hasattr(value, "update") and hasattr(value, "get_seq_length")


def _take_keys(recording: Recording) -> None:
    """Keep the rotated keys and values that the run left in its cache, and drop the cache."""
    n_pos = recording.tokens.shape[1]
    for number, layer in enumerate(recording.layers):
        given = [*layer.call.args, *layer.call.kwargs.values()]
        cache = next((value for value in given if is_cache(value)), None)
        held = getattr(cache, "layers", None)
        if held is not None and number < len(held):
            keys, values = (
                getattr(held[number], "keys", None),
                getattr(held[number], "values", None),
            )
            if isinstance(keys, Tensor) and keys.ndim == 4 and keys.shape[2] == n_pos:
                layer.keys, layer.values = keys, values
        instead = _casting(layer, cache)
        layer.call = replace(
            layer.call,
            args=tuple(instead if is_cache(value) else value for value in layer.call.args),
            kwargs={n: instead if is_cache(v) else v for n, v in layer.call.kwargs.items()},
        )


def _casting(layer: LayerRecord, cache: Any) -> FixedKeys | None:
    """Return what stands in for a cache when the block is replayed; None where it does nothing.

    A cache holds keys and values in one type. Where keys are rotated in a wider one than the
    weights have (OLMo 2), it widens the values, and attention does not run without it.
    """
    keys, values = layer.keys, layer.values
    if cache is None or keys is None or values is None or keys.dtype == layer.resid.dtype:
        return None
    wide = values.dtype
    return FixedKeys(lambda k, v: (k, v.to(wide)))


def _share_equal_rows(recording: Recording, axes: Sequence[Mapping[str, Axes]]) -> None:
    """Say which axes are prompts, and keep once every argument that is the same for all of them."""
    n_prompts = len(recording.tokens)
    known: dict[tuple[int, Axes], tuple[Tensor, Tensor]] = {}

    def share(_: str, found: Axes, value: Tensor) -> Tensor:
        # All blocks are handed one tensor: look through it once. Keeping it keeps its id its own.
        key = (id(value), found)
        if key not in known:
            known[key] = (value, found.shared(value))
        return known[key][1]

    for number, (layer, names) in enumerate(zip(recording.layers, axes, strict=True)):
        call = layer.call
        found = {
            name: check_axes(names, name, value, n_prompts, number)
            for name, value in tensors_in(call.args, call.kwargs)
        }
        layer.call = replace(call, axes=found).changed(share)
