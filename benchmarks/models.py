"""Models of the right shape with random weights: timing needs no others."""

from typing import Any

import torch

SHAPES = ("gpt2-small", "gpt2-narrow", "smollm2-135m", "llama-3-8b")


def build(shape: str, device: str, dtype: torch.dtype) -> Any:
    """Return a bridge over a Hugging Face model made from its config."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    model = build_module(shape, device, dtype)
    architecture = type(model).__name__
    bridge = build_bridge_from_module(model, architecture=architecture, hf_config=model.config)
    return bridge.to(device)


def build_module(shape: str, device: str, dtype: torch.dtype) -> Any:
    """Return a Hugging Face model made from its config."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    match shape:
        case "gpt2-small":
            config = GPT2Config()
        case "gpt2-narrow":  # all nodes of GPT-2 small, on which to count
            config = GPT2Config(n_embd=48, vocab_size=500)
        case "smollm2-135m":
            config = LlamaConfig(
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=30,
                num_attention_heads=9,
                num_key_value_heads=3,
                vocab_size=49152,
                tie_word_embeddings=True,
                rope_theta=100_000.0,
            )
        case "llama-3-8b":
            config = LlamaConfig(
                hidden_size=4096,
                intermediate_size=14336,
                num_hidden_layers=32,
                num_attention_heads=32,
                num_key_value_heads=8,
                vocab_size=128256,
                rope_theta=500_000.0,
            )
        case _:
            raise ValueError(f"no shape {shape!r}: write one of {', '.join(SHAPES)}")
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model = model.to(device).eval().requires_grad_(False)
    # Weights as drawn give nearly uniform attention; larger ones make every patch matter.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name and "wte" not in name and "wpe" not in name:
                weight.mul_(2.0)
    return model


def prompts(model: Any, n_prompts: int, n_pos: int, device: str) -> dict[str, Any]:
    """Return random prompt pairs that differ at three positions, and a metric's tokens."""
    generator = torch.Generator().manual_seed(1)
    vocab = int(model.cfg.d_vocab)
    clean = torch.randint(0, vocab, (n_prompts, n_pos), generator=generator)
    corrupt = clean.clone()
    changed = [position for position in (2, 4, 11) if position < n_pos]
    corrupt[:, changed] = torch.randint(0, vocab, (n_prompts, len(changed)), generator=generator)
    answers = torch.randint(0, vocab, (2, n_prompts), generator=generator)
    answers[1] = torch.where(answers[0] == answers[1], (answers[1] + 1) % vocab, answers[1])
    return {
        "clean": clean.to(device),
        "corrupt": corrupt.to(device),
        "correct": answers[0].to(device),
        "incorrect": answers[1].to(device),
        "end": torch.full((n_prompts,), n_pos - 1, device=device),
    }
