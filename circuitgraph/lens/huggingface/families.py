"""What the modules of a family are called: a table, and the map that a user can give."""

import tomllib
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from circuitgraph.arguments import flag, text, whole
from circuitgraph.errors import ModelError
from circuitgraph.files import path_of

if TYPE_CHECKING:
    from circuitgraph.lens.huggingface.backend import HuggingFaceModel

__all__ = ["HuggingFaceMap", "map_of"]


@dataclass(frozen=True, slots=True)
class HuggingFaceMap:
    """Where a causal language model keeps the parts that patching needs.

    Paths are those of ``model.named_modules()``. Those of a block's parts start at the block, those
    of projections at the attention. The defaults are what Llama and most families after it use, so
    a map names only what is called otherwise. A map is proved on the model before it is used.

    Args:
        blocks: The list of blocks.
        attention: The attention of a block.
        q: The query projection of an attention; likewise ``k`` and ``v``.
        k: The key projection.
        v: The value projection.
        o: The output projection; it reads the heads' values side by side.
        qkv: One projection for queries, keys and values, in place of the three.
        qkv_order: How its features are ordered: ``joined`` for all queries, then all keys, then all
            values; ``grouped`` for one key-value head after another, each with its queries first.
        mlp: The module whose output is what the MLP writes: the MLP, or its last projection.
        mlp_norm: The norm through which the MLP reads the residual stream; empty where it reads the
            stream itself.
        parallel: Whether attention and MLP of a block read the same residual stream.
        final_norm: The norm after the last block; empty without one.
        unembed: What makes the logits; empty for the model's own output embeddings.
        n_heads: Query heads of a layer; 0 for what the model's config says.

    Example:
        >>> names = HuggingFaceMap(blocks="decoder.blocks", attention="attention")
        >>> exp = cg.Experiment(names.on(model), clean, corrupt, metric)  # doctest: +SKIP
    """

    blocks: str = "model.layers"
    attention: str = "self_attn"
    q: str = "q_proj"
    k: str = "k_proj"
    v: str = "v_proj"
    o: str = "o_proj"
    qkv: str = ""
    qkv_order: str = "joined"
    mlp: str = "mlp"
    mlp_norm: str = "post_attention_layernorm"
    parallel: bool = False
    final_norm: str = "model.norm"
    unembed: str = ""
    n_heads: int = 0

    @classmethod
    def read(cls, path: str | PathLike[str]) -> "HuggingFaceMap":
        """Return the map that a TOML file holds: one line a part, such as ``o = "c_proj"``.

        Raises:
            ModelError: There is no such file, it is no TOML, or a line names no part.
        """
        try:
            given = tomllib.loads(path_of(path, ModelError).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ModelError(f"cannot read the map {str(path)!r}: {error}") from error
        known = {one.name: one.default for one in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise ModelError(
                    f"the map {str(path)!r} names {name!r}, which is no part: the parts are "
                    f"{', '.join(known)}"
                )
            if type(value) is not type(known[name]):
                raise ModelError(
                    f"the map {str(path)!r} gives {name} = {value!r}: it must be like "
                    f"{known[name]!r}"
                )
        return cls(**given)

    def on(self, model: Any, tokenizer: Any = None) -> "HuggingFaceModel":
        """Return a model with its parts named; whatever takes a model takes it.

        Args:
            model: An ``AutoModelForCausalLM`` in eval mode, with eager attention.
            tokenizer: Turns text into tokens; by default ``model.tokenizer``, where there is one.

        Raises:
            ModelError: A part is not where the map says, or its heads cannot be told apart.
        """
        from circuitgraph.lens.huggingface.backend import HuggingFaceModel

        return HuggingFaceModel(model, self, tokenizer)

    def __post_init__(self) -> None:
        for part in fields(self):
            given = getattr(self, part.name)
            if isinstance(part.default, bool):
                flag(part.name, given, ModelError)
            elif isinstance(part.default, int):
                whole(part.name, given, ModelError, 0)
            else:
                text(part.name, given, ModelError)
        if self.qkv_order not in ("joined", "grouped"):
            raise ModelError(f"no order {self.qkv_order!r} of qkv: write 'joined' or 'grouped'")


_GPT2 = HuggingFaceMap(
    blocks="transformer.h",
    attention="attn",
    qkv="c_attn",
    o="c_proj",
    mlp_norm="ln_2",
    final_norm="transformer.ln_f",
)
_FAMILIES = {
    "gpt2": _GPT2,
    "openai-gpt": replace(_GPT2, mlp_norm="", final_norm=""),
    "gpt_neo": replace(_GPT2, attention="attn.attention", qkv="", o="out_proj"),
    "gptj": replace(_GPT2, qkv="", o="out_proj", mlp_norm="ln_1", parallel=True),
    "gpt_neox": HuggingFaceMap(
        blocks="gpt_neox.layers",
        attention="attention",
        qkv="query_key_value",
        qkv_order="grouped",
        o="dense",
        final_norm="gpt_neox.final_layer_norm",
    ),
    "opt": HuggingFaceMap(
        blocks="model.decoder.layers",
        o="out_proj",
        mlp="fc2",
        mlp_norm="final_layer_norm",
        final_norm="model.decoder.final_layer_norm",
    ),
    "falcon": HuggingFaceMap(
        blocks="transformer.h",
        attention="self_attention",
        qkv="query_key_value",
        qkv_order="grouped",
        o="dense",
        final_norm="transformer.ln_f",
    ),
    "bloom": HuggingFaceMap(
        blocks="transformer.h",
        attention="self_attention",
        qkv="query_key_value",
        qkv_order="grouped",
        o="dense",
        final_norm="transformer.ln_f",
    ),
    "mpt": HuggingFaceMap(
        blocks="transformer.blocks",
        attention="attn",
        qkv="Wqkv",
        o="out_proj",
        mlp="ffn",
        mlp_norm="norm_2",
        final_norm="transformer.norm_f",
    ),
    "phi": HuggingFaceMap(o="dense", final_norm="model.final_layernorm"),
    "phi3": HuggingFaceMap(qkv="qkv_proj"),
}
"""Families by the ``model_type`` of their config; all others are looked for under Llama's names."""


def map_of(model: Any) -> HuggingFaceMap:
    """Return the map of a model's family, fitted to the options that change its blocks."""
    config = model.config
    found = _FAMILIES.get(str(getattr(config, "model_type", "")), HuggingFaceMap())
    match getattr(config, "model_type", ""):
        case "gpt_neox":
            return replace(found, parallel=bool(config.use_parallel_residual))
        case "opt" if module_at(model, found.final_norm) is None:
            return replace(found, final_norm="")
        case "openai-gpt" | "gpt2" | "gpt_neo" | "gptj" | "opt" | "bloom" | "mpt":
            return found
    if module_at(model, "model.language_model.layers") is not None:  # the text half of two
        inner = "model.language_model"
        found = replace(found, blocks=f"{inner}.layers", final_norm=f"{inner}.norm")
    return _by_norms(model, found)


def _by_norms(model: Any, found: HuggingFaceMap) -> HuggingFaceMap:
    """Return the map with the MLP's norm, which families of one naming have or have not."""
    blocks = module_at(model, found.blocks)
    held = dict(blocks[0].named_children()) if blocks is not None and len(blocks) else {}
    if "pre_feedforward_layernorm" in held:
        return replace(found, mlp_norm="pre_feedforward_layernorm")
    if "post_attention_layernorm" in held:
        if "post_feedforward_layernorm" in held and "input_layernorm" not in held:
            return replace(found, mlp_norm="")  # both are norms of what is written
        return found
    own = "ln_mlp" if "ln_mlp" in held else "input_layernorm"
    return replace(found, mlp_norm=own, parallel=True)


def module_at(root: Any, path: str) -> Any:
    """Return the module at a path; None where there is none."""
    try:
        return root.get_submodule(path)
    except AttributeError:
        return None
