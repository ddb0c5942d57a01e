"""One tiny random model of each family, made from its Hugging Face config, offline."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["FAMILIES", "Family"]

COMMON = {"vocab_size": 37}
NATIVE = {"d_model": 16, "d_head": 4, "n_heads": 4, "n_layers": 3, "n_ctx": 64, "d_mlp": 24}


@dataclass(frozen=True, eq=False)
class Family:
    """How to make one family's tiny model.

    Args:
        name: As people call it.
        config: Class name of its Hugging Face config.
        model: Class name of its causal language model; also TransformerLens' architecture name.
        options: The config's arguments.
        dtype: What it is run in; float32 where the family's code does not allow float64.
        spread: How large its matrices are drawn.
    """

    name: str
    config: str
    model: str
    options: dict[str, Any]
    dtype: torch.dtype = torch.float64
    spread: float = 0.4

    @functools.cache  # noqa: B019  # a handful of tiny models, kept for the whole session
    def bridge(self) -> Any:
        """Return the model as a bridge; shared, so leave it as it is."""
        return self.new_bridge()

    def new_bridge(self) -> Any:
        """Return the model as a bridge of the caller's own."""
        from transformer_lens.model_bridge.sources import build_bridge_from_module

        model = self.module()
        given = {"tl_config": self.native()} if self.is_native else {"hf_config": model.config}
        return build_bridge_from_module(model, architecture=self.model, **given).eval()

    @property
    def is_native(self) -> bool:
        """Whether it is a model of TransformerLens' own."""
        return self.model == "TransformerLensNative"

    def native(self) -> Any:
        """Return TransformerLens' own config."""
        from transformer_lens.config import TransformerBridgeConfig

        return TransformerBridgeConfig(
            **{**NATIVE, "d_vocab": COMMON["vocab_size"], "dtype": self.dtype, **self.options}
        )

    def module(self) -> Any:
        """Return the model itself, with weights large enough that every patch matters."""
        if self.is_native:
            from transformer_lens.model_bridge.sources.native import NativeModel

            return self.randomized(lambda: NativeModel(self.native()))
        import transformers

        config = getattr(transformers, self.config)(**{**COMMON, **self.options})
        config._attn_implementation = "eager"
        return self.randomized(lambda: getattr(transformers, self.model)(config))

    def randomized(self, make: Callable[[], Any]) -> Any:
        """Return a model with its weights drawn anew."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = make().to(self.dtype).eval()
            model.requires_grad_(False)
            for name, weight in model.named_parameters():
                noise = torch.randn_like(weight)
                if (weight.ndim == 1 and "norm" in name.lower()) or "ln" in name.lower():
                    weight.copy_(weight + 0.2 * noise)
                elif weight.ndim >= 2:
                    weight.copy_(self.spread * noise)
                else:
                    weight.copy_(weight + 0.2 * noise)
        return model


def _llama_like(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        **more,
    }


def _opt(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "ffn_dim": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        **more,
    }


def _falcon(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "alibi": False,
        "new_decoder_architecture": False,
        "multi_query": True,
        **more,
    }


FAMILIES = (
    Family(
        "GPT-2",
        "GPT2Config",
        "GPT2LMHeadModel",
        {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    Family(
        "GPT-2, scaled by layer",
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "n_embd": 16,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "scale_attn_by_inverse_layer_idx": True,
        },
    ),
    Family(
        "GPT-2, reordered",
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "n_embd": 16,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "scale_attn_by_inverse_layer_idx": True,
            "reorder_and_upcast_attn": True,
        },
        torch.float32,
    ),
    Family(
        "GPT-1",
        "OpenAIGPTConfig",
        "OpenAIGPTLMHeadModel",
        {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    Family(
        "GPT-NeoX",
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
    Family(
        "GPT-NeoX, sequential",
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "use_parallel_residual": False,
        },
    ),
    Family(
        "GPT-Neo",
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        {
            "hidden_size": 16,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 4,
            "max_position_embeddings": 64,
        },
    ),
    Family(
        "GPT-J",
        "GPTJConfig",
        "GPTJForCausalLM",
        {"n_embd": 16, "n_layer": 3, "n_head": 4, "rotary_dim": 4, "n_positions": 64},
    ),
    Family("OPT", "OPTConfig", "OPTForCausalLM", _opt(word_embed_proj_dim=16)),
    Family(
        "OPT, projected words",
        "OPTConfig",
        "OPTForCausalLM",
        _opt(word_embed_proj_dim=8),
    ),
    Family(
        "OPT, norms after adding",
        "OPTConfig",
        "OPTForCausalLM",
        _opt(word_embed_proj_dim=16, do_layer_norm_before=False),
    ),
    Family(
        "OPT-350m",
        "OPTConfig",
        "OPTForCausalLM",
        _opt(word_embed_proj_dim=8, do_layer_norm_before=False),
    ),
    Family(
        "BLOOM", "BloomConfig", "BloomForCausalLM", {"hidden_size": 16, "n_layer": 3, "n_head": 4}
    ),
    Family("Falcon", "FalconConfig", "FalconForCausalLM", _falcon()),
    Family(
        "Falcon, every head its keys",
        "FalconConfig",
        "FalconForCausalLM",
        _falcon(multi_query=False, parallel_attn=False),
    ),
    Family("Falcon, ALiBi", "FalconConfig", "FalconForCausalLM", _falcon(alibi=True)),
    Family(
        "MPT",
        "MptConfig",
        "MptForCausalLM",
        {"d_model": 16, "n_heads": 4, "n_layers": 3, "max_seq_len": 64},
    ),
    Family("Llama", "LlamaConfig", "LlamaForCausalLM", _llama_like()),
    Family(
        "Mistral", "MistralConfig", "MistralForCausalLM", _llama_like(sliding_window=4, head_dim=4)
    ),
    Family(
        "Mixtral",
        "MixtralConfig",
        "MixtralForCausalLM",
        _llama_like(num_local_experts=4),
        torch.float32,
    ),
    Family("Qwen2", "Qwen2Config", "Qwen2ForCausalLM", _llama_like()),
    Family(
        "Qwen2, sliding window",
        "Qwen2Config",
        "Qwen2ForCausalLM",
        _llama_like(use_sliding_window=True, sliding_window=4, max_window_layers=1),
    ),
    Family("Qwen3", "Qwen3Config", "Qwen3ForCausalLM", _llama_like(head_dim=4)),
    Family(
        "Gemma 2",
        "Gemma2Config",
        "Gemma2ForCausalLM",
        _llama_like(head_dim=4, sliding_window=4, query_pre_attn_scalar=4),
    ),
    Family(
        "Gemma 3",
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        _llama_like(head_dim=4, sliding_window=4, query_pre_attn_scalar=4),
    ),
    Family(
        "Gemma 3, with vision",
        "Gemma3Config",
        "Gemma3ForConditionalGeneration",
        {
            "text_config": _llama_like(
                head_dim=4, sliding_window=4, query_pre_attn_scalar=4, **COMMON
            ),
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 16,
                "patch_size": 8,
            },
            "mm_tokens_per_image": 4,
        },
    ),
    Family("Phi", "PhiConfig", "PhiForCausalLM", _llama_like(num_key_value_heads=4)),
    Family("Phi-3", "Phi3Config", "Phi3ForCausalLM", _llama_like(pad_token_id=0)),
    Family(
        "Phi-3, long rope",
        "Phi3Config",
        "Phi3ForCausalLM",
        _llama_like(
            pad_token_id=0,
            original_max_position_embeddings=32,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10_000.0,
                "short_factor": [1.0, 1.5],
                "long_factor": [2.0, 3.0],
                "original_max_position_embeddings": 32,
            },
        ),
    ),
    Family("OLMo", "OlmoConfig", "OlmoForCausalLM", _llama_like()),
    Family("OLMo 2", "Olmo2Config", "Olmo2ForCausalLM", _llama_like()),
    Family(
        "StableLM", "StableLmConfig", "StableLmForCausalLM", _llama_like(partial_rotary_factor=0.5)
    ),
    Family("Cohere", "CohereConfig", "CohereForCausalLM", _llama_like(logit_scale=0.5)),
    Family(
        "Granite",
        "GraniteConfig",
        "GraniteForCausalLM",
        _llama_like(
            residual_multiplier=0.5,
            logits_scaling=2.0,
            attention_multiplier=0.5,
            embedding_multiplier=2.0,
        ),
    ),
    Family("Starcoder 2", "Starcoder2Config", "Starcoder2ForCausalLM", _llama_like()),
    Family(
        "SmolLM3",
        "SmolLM3Config",
        "SmolLM3ForCausalLM",
        _llama_like(num_hidden_layers=4, pad_token_id=0),
    ),
    Family(
        "gpt-oss",
        "GptOssConfig",
        "GptOssForCausalLM",
        _llama_like(
            head_dim=4,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=4,
            num_hidden_layers=4,
        ),
        torch.float32,
    ),
    Family(
        "DeepSeek-V3",
        "DeepseekV3Config",
        "DeepseekV3ForCausalLM",
        _llama_like(
            num_key_value_heads=4,
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_rope_head_dim=4,
            qk_nope_head_dim=4,
            v_head_dim=6,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
            moe_intermediate_size=12,
        ),
        torch.float32,
    ),
    Family(
        "TransformerLens' own",
        "",
        "TransformerLensNative",
        {"normalization_type": "LN", "act_fn": "gelu"},
    ),
    Family(
        "TransformerLens' own, attention only",
        "",
        "TransformerLensNative",
        {"attn_only": True, "normalization_type": "LN"},
    ),
    Family(
        "TransformerLens' own, no norm",
        "",
        "TransformerLensNative",
        {"normalization_type": None, "act_fn": "gelu"},
        spread=0.2,
    ),
    Family(
        "TransformerLens' own, RMS, gated",
        "",
        "TransformerLensNative",
        {
            "normalization_type": "RMS",
            "gated_mlp": True,
            "act_fn": "silu",
            "positional_embedding_type": "rotary",
            "rotary_dim": 4,
            "n_key_value_heads": 2,
        },
    ),
)
