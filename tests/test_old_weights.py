"""Weights saved by TransformerLens 1 to 3, loaded by TransformerLens' own converter.

The state dict is made here, in the layout of ``HookedTransformer.state_dict()``; the oracle is a
plain transformer made of the same arrays, which knows nothing of the converter.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import circuitgraph as cg
from tests.oracles.path_patching import patch_path
from tests.oracles.plain import PlainTransformer

LAYERS, HEADS, D_MODEL, D_HEAD, D_MLP, D_VOCAB, N_CTX = 2, 3, 12, 4, 20, 17, 8


@pytest.fixture(scope="module")
def saved() -> dict[str, Tensor]:
    """A toy's state dict as people have it on disk: no norms, causal mask and all."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return 0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = {
        "embed.W_E": draw(D_VOCAB, D_MODEL),
        "pos_embed.W_pos": draw(N_CTX, D_MODEL),
        "unembed.W_U": draw(D_MODEL, D_VOCAB),
        "unembed.b_U": torch.zeros(D_VOCAB, dtype=torch.float64),
    }
    for layer in range(LAYERS):
        attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
        for port in "QKV":
            weights[f"{attn}.W_{port}"] = draw(HEADS, D_MODEL, D_HEAD)
            weights[f"{attn}.b_{port}"] = draw(HEADS, D_HEAD)
        weights |= {
            f"{attn}.W_O": draw(HEADS, D_HEAD, D_MODEL),
            f"{attn}.b_O": draw(D_MODEL),
            f"{attn}.mask": torch.ones(N_CTX, N_CTX).tril().bool(),
            f"{attn}.IGNORE": torch.tensor(-torch.inf),
            f"{mlp}.W_in": draw(D_MODEL, D_MLP),
            f"{mlp}.b_in": draw(D_MLP),
            f"{mlp}.W_out": draw(D_MLP, D_MODEL),
            f"{mlp}.b_out": draw(D_MODEL),
        }
    return weights


@pytest.fixture(scope="module")
def bridge(saved: dict[str, Tensor]) -> Any:
    """What docs/models.md tells people to do."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

    config = TransformerBridgeConfig(
        n_layers=LAYERS,
        n_heads=HEADS,
        d_model=D_MODEL,
        d_head=D_HEAD,
        d_mlp=D_MLP,
        d_vocab=D_VOCAB,
        n_ctx=N_CTX,
        act_fn="relu",
        normalization_type=None,
        dtype=torch.float64,
    )
    model = TransformerBridge.boot_native(config, dtype=torch.float64)
    model.load_state_dict(convert_tl_checkpoint(saved, config), strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def plain(saved: dict[str, Tensor]) -> PlainTransformer:
    attention = [
        {
            f"{kind.lower()}_{port.lower()}": saved[f"blocks.{layer}.attn.{kind}_{port}"]
            for kind in ("W", "b")
            for port in "QKVO"
        }
        for layer in range(LAYERS)
    ]
    mlps = [
        {
            name.lower(): saved[f"blocks.{layer}.mlp.{name}"]
            for name in ("W_in", "b_in", "W_out", "b_out")
        }
        for layer in range(LAYERS)
    ]
    return PlainTransformer.from_arrays(
        saved["embed.W_E"],
        saved["unembed.W_U"],
        attention,
        mlps=mlps,
        w_pos=saved["pos_embed.W_pos"],
    )


def tokens(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, D_VOCAB, (3, 6), generator=generator)


def test_gives_the_logits_of_the_arrays(bridge: Any, plain: PlainTransformer) -> None:
    with torch.no_grad():
        ours = bridge(tokens(1))
    assert (ours - plain(tokens(1))).abs().max() < 1e-9
    assert ours.abs().max() > 1


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_can_be_patched(bridge: Any, plain: PlainTransformer, engine: str) -> None:
    clean, corrupt = tokens(1), tokens(2)
    exp = cg.Experiment(bridge, clean, corrupt, cg.LogitDiff([3] * 3, [5] * 3), progress=False)
    head, query = ("head", 0, 1), ("q", 1, 2)
    for text, steps, end in (
        ("0.1 -> logits", [[head]], "->"),
        ("0.1 -> 1.2.q => logits", [[head], [query]], "=>"),
    ):
        theirs = patch_path(plain, clean, corrupt, steps, through=plain.mlps, end=end)
        expected = (theirs[:, -1, 3] - theirs[:, -1, 5]).numpy()
        ours = exp.patch(text, engine=engine).data.patched.to_numpy()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)
        assert np.abs(expected - exp.clean_metric).max() > 1e-2


def test_another_head_count_is_refused(saved: dict[str, Tensor]) -> None:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

    config = TransformerBridgeConfig(
        n_layers=LAYERS, n_heads=2, d_model=D_MODEL, d_head=6, d_vocab=D_VOCAB, n_ctx=N_CTX
    )
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.W_Q.*has shape"):
        convert_tl_checkpoint(saved, config)
