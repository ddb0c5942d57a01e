"""Tiny random models, each as a Hugging Face module, as a bridge and as a plain transformer.

Weights are drawn anew, in float64 and large enough that attention patterns are far from uniform,
MLPs far from linear and every norm weight and bias far from its default: then a patch that is wrong
somewhere shows. Each builder is cached, so share these models and do not change them; for one that
a test may change there is `new_bridge`.
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tests.oracles.plain import PlainTransformer

N_CTX = 16
D_VOCAB = 23


@dataclass(frozen=True, eq=False)
class TinyModel:
    """One random model three times over.

    Attributes:
        hf: The module with its own forward.
        architecture: Its name among TransformerLens' architectures.
        plain: The oracle for `bridge`, to 1e-12: it takes a softmax in float32 where that does.
        exact: The same weights with everything in float64, so that identities hold to 1e-12.
    """

    hf: nn.Module
    architecture: str
    plain: PlainTransformer
    exact: PlainTransformer
    _config: dict[str, Any]

    def new_bridge(self) -> Any:
        """A `TransformerBridge` over a copy of the module, in float64."""
        from transformer_lens.model_bridge.sources import build_bridge_from_module

        return build_bridge_from_module(copy.deepcopy(self.hf), self.architecture, **self._config)

    @functools.cached_property
    def bridge(self) -> Any:
        """The bridge that all tests share."""
        return self.new_bridge()

    def hf_logits(self, tokens: Int[Tensor, "prompt pos"]) -> Float[Tensor, "prompt pos d_vocab"]:
        """The logits of the module's own forward."""
        output = self.hf(tokens)
        return output if isinstance(output, Tensor) else output.logits

    def tokens(
        self, n_prompts: int = 3, n_pos: int = 6, seed: int = 0
    ) -> Int[Tensor, "prompt pos"]:
        """Random tokens; another seed for the corrupt ones."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, D_VOCAB, (n_prompts, n_pos), generator=generator)


def randomize(module: nn.Module, seed: int) -> nn.Module:
    """The module in float64 and eval mode, with all its parameters drawn anew."""
    module = module.to(torch.float64).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        is_norm = parameter.ndim == 1 and name.endswith("weight")
        parameter.copy_(1 + 0.3 * noise if is_norm else 0.6 * noise)
    return module


def _from_hf(
    cls_name: str,
    config_name: str,
    load: Callable[..., PlainTransformer],
    bridge_options: dict[str, Any],
    exact_options: dict[str, Any],
    seed: int = 0,
    **config: Any,
) -> TinyModel:
    import transformers

    hf_config = getattr(transformers, config_name)(**config, attn_implementation="eager")
    with torch.random.fork_rng(devices=[]):
        hf = randomize(getattr(transformers, cls_name)(hf_config), seed)
    return TinyModel(
        hf=hf,
        architecture=cls_name,
        plain=load(hf, **bridge_options),
        exact=load(hf, **exact_options),
        _config={"hf_config": hf.config},
    )


EXACT = {"inner_dtype": torch.float64}


@functools.cache
def tiny_gpt2() -> TinyModel:
    """LayerNorm, learned positions, biases everywhere; 3 layers of 3 heads."""
    return _from_hf(
        "GPT2LMHeadModel",
        "GPT2Config",
        PlainTransformer.from_gpt2,
        bridge_options={},
        exact_options={},
        n_layer=3,
        n_head=3,
        n_embd=12,
        n_inner=20,
        n_positions=N_CTX,
        vocab_size=D_VOCAB,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )


@functools.cache
def gpt2_shaped() -> TinyModel:
    """All layers and heads of GPT-2 small, each two wide: what has its edges can be read for it."""
    return _from_hf(
        "GPT2LMHeadModel",
        "GPT2Config",
        PlainTransformer.from_gpt2,
        bridge_options={},
        exact_options={},
        n_embd=24,
        n_positions=64,
        vocab_size=D_VOCAB,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )


@functools.cache
def tiny_llama() -> TinyModel:
    """RMSNorm, rotary, gated MLPs; 3 layers of 4 query heads that share 2 key-value heads."""
    return _from_hf(
        "LlamaForCausalLM",
        "LlamaConfig",
        PlainTransformer.from_llama,
        bridge_options={},
        exact_options=EXACT,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=16,
        intermediate_size=20,
        max_position_embeddings=N_CTX,
        vocab_size=D_VOCAB,
    )


@functools.cache
def tiny_mistral() -> TinyModel:
    """A Llama whose attention sees the last 3 positions only; 2 layers."""
    return _from_hf(
        "MistralForCausalLM",
        "MistralConfig",
        PlainTransformer.from_llama,
        bridge_options={},
        exact_options=EXACT,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=16,
        intermediate_size=20,
        max_position_embeddings=N_CTX,
        vocab_size=D_VOCAB,
        sliding_window=3,
    )


@functools.cache
def tiny_qwen2() -> TinyModel:
    """A Llama with biases on queries, keys and values; 2 layers."""
    return _from_hf(
        "Qwen2ForCausalLM",
        "Qwen2Config",
        PlainTransformer.from_llama,
        bridge_options={},
        exact_options=EXACT,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=16,
        intermediate_size=20,
        max_position_embeddings=N_CTX,
        vocab_size=D_VOCAB,
    )


@functools.cache
def tiny_neox(parallel: bool = True) -> TinyModel:
    """Parallel blocks, LayerNorm, rotary on half of each head; 3 layers of 2 heads."""
    return _from_hf(
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        PlainTransformer.from_neox,
        bridge_options=EXACT,  # the bridge takes this softmax in the model's own precision
        exact_options=EXACT,
        num_hidden_layers=3,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=20,
        max_position_embeddings=N_CTX,
        vocab_size=D_VOCAB,
        use_parallel_residual=parallel,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
    )


@functools.cache
def tiny_gemma2() -> TinyModel:
    """Norms after attention and MLP, capped scores and logits, every other layer windowed."""
    return _from_hf(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        PlainTransformer.from_gemma2,
        bridge_options={},
        exact_options=EXACT,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        query_pre_attn_scalar=4,
        hidden_size=16,
        intermediate_size=20,
        max_position_embeddings=N_CTX,
        vocab_size=D_VOCAB,
        sliding_window=3,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=10.0,
    )


@functools.cache
def tiny_attn_only() -> TinyModel:
    """TransformerLens' own model, attention only: LayerNorm, learned positions; 3 layers of 3."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native import NativeModel

    config = TransformerBridgeConfig(
        d_model=12,
        d_head=4,
        n_layers=3,
        n_heads=3,
        n_ctx=N_CTX,
        d_vocab=D_VOCAB,
        attn_only=True,
        normalization_type="LN",
        positional_embedding_type="standard",
        dtype=torch.float64,
    )
    with torch.random.fork_rng(devices=[]):
        native = randomize(NativeModel(config), seed=0)
    plain = PlainTransformer.from_native(native)
    return TinyModel(native, "TransformerLensNative", plain, plain, {"tl_config": config})
