"""Checks of the oracle itself: it is the models' function, and it means what semantics say."""

import dataclasses
import itertools
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests import models
from tests.models import TinyModel
from tests.oracles import tracr
from tests.oracles.path_patching import (
    At,
    Sent,
    activation_patch,
    corrupt_senders,
    difference,
    direct_difference,
    patch_edges,
    patch_path,
    product,
    relay,
    unrolled,
)
from tests.oracles.plain import EMBED, LOGITS, Node, PlainTransformer, Port

VARIANTS: dict[str, Callable[[PlainTransformer], tuple[Node, ...]]] = {
    "single-pass": lambda model: (),
    "mlps": lambda model: model.mlps,
    "a head and an MLP": lambda model: (("head", 1, 0), ("mlp", 1)),
}
MODES = ("set", "add", "replace")
BUILDERS = (models.tiny_gpt2, models.tiny_llama, models.tiny_neox, models.tiny_gemma2)


def close(a: Tensor, b: Tensor, atol: float = 1e-9) -> bool:
    return torch.allclose(a, b, rtol=0, atol=atol)


def outgoing(model: PlainTransformer, node: Node) -> list[tuple[Node, Port]]:
    return [edge for edge in model.edges if edge[0] == node]


@pytest.fixture(params=BUILDERS, ids=lambda builder: builder.__name__)
def model(request: pytest.FixtureRequest) -> PlainTransformer:
    return request.param().exact


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Callable[[PlainTransformer], tuple[Node, ...]]:
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def clean() -> Tensor:
    return models.tiny_gpt2().tokens(n_prompts=2, n_pos=5, seed=1)


@pytest.fixture(scope="module")
def corrupt() -> Tensor:
    return models.tiny_gpt2().tokens(n_prompts=2, n_pos=5, seed=2)


# ------------------------------------------------------------------- the same function as others


ALL_BUILDERS = (
    models.tiny_gpt2,
    models.tiny_llama,
    models.tiny_mistral,
    models.tiny_qwen2,
    models.tiny_neox,
    lambda: models.tiny_neox(parallel=False),
    models.tiny_gemma2,
    models.tiny_attn_only,
)


@pytest.mark.parametrize("build", ALL_BUILDERS)
def test_bridge_keeps_float64_and_is_the_plain_function(build: Callable[[], TinyModel]) -> None:
    tiny = build()
    tokens = tiny.tokens()
    with torch.no_grad():
        bridged = tiny.bridge(tokens)
    assert bridged.dtype == torch.float64
    assert close(tiny.plain(tokens), bridged, atol=1e-12)


@pytest.mark.parametrize("build", ALL_BUILDERS)
def test_exact_differs_by_float32_rounding_only(build: Callable[[], TinyModel]) -> None:
    tiny = build()
    tokens = tiny.tokens()
    assert close(tiny.exact(tokens), tiny.hf_logits(tokens), atol=2e-5)


@pytest.mark.parametrize(
    ("build", "load"),
    [
        (models.tiny_gpt2, PlainTransformer.from_gpt2),
        (models.tiny_llama, PlainTransformer.from_llama),
        (models.tiny_mistral, PlainTransformer.from_llama),
        (models.tiny_qwen2, PlainTransformer.from_llama),
        (models.tiny_neox, PlainTransformer.from_neox),
        (lambda: models.tiny_neox(parallel=False), PlainTransformer.from_neox),
        (models.tiny_gemma2, PlainTransformer.from_gemma2),
        (models.tiny_attn_only, PlainTransformer.from_native),
    ],
)
def test_same_logits_as_the_module_it_was_read_from(
    build: Callable[[], TinyModel], load: Callable[..., PlainTransformer]
) -> None:
    tiny = build()
    tokens = tiny.tokens(n_prompts=4, n_pos=8)
    assert close(load(tiny.hf)(tokens), tiny.hf_logits(tokens), atol=1e-12)


@pytest.mark.parametrize("build", ALL_BUILDERS)
def test_tiny_models_are_not_trivial(build: Callable[[], TinyModel]) -> None:
    model, tokens = build().exact, build().tokens()
    values = model.values(tokens)
    for _, layer, head in model.heads:
        residual = model.residual_at(values, ("q", layer, head))
        q, k = model.q(layer, head, residual), model.k(layer, head, residual)
        sharpest = model.pattern(layer, q, k)[:, -1].max(-1).values
        assert sharpest.mean() > 0.25
    logits = model(tokens)
    for node in model.nodes[1:]:
        zero = {**values, node: torch.zeros_like(values[node])}
        assert not close(model.logits(model.residual_at(zero, LOGITS)), logits, atol=1e-2)


# --------------------------------------------------------------- the same patches as done by hand


def test_three_steps_with_hooks_on_the_module(clean: Tensor, corrupt: Tensor) -> None:
    """`0.1 -> 2.0.q => logits` and `0.1 -> logits`, mlps, as the paper does it on GPT-2."""
    tiny = models.tiny_gpt2()
    blocks, d_head = tiny.hf.transformer.h, 4

    def run(tokens: Tensor, hooks: list) -> tuple[Tensor, list[Tensor], Tensor]:
        """Logits, z of every layer, and the stream before layer 2."""
        zs: list[Tensor] = []
        streams: list[Tensor] = []
        handles = [add() for add in hooks]
        handles += [
            b.attn.c_proj.register_forward_pre_hook(lambda _, x: zs.append(x[0])) for b in blocks
        ]
        handles.append(blocks[2].register_forward_pre_hook(lambda _, x: streams.append(x[0])))
        try:
            return tiny.hf(tokens).logits, zs, streams[0]
        finally:
            for handle in handles:
                handle.remove()

    def setting_z(layer: int, z: Tensor) -> Callable:
        return lambda: blocks[layer].attn.c_proj.register_forward_pre_hook(lambda *_: (z,))

    def setting_q(layer: int, head: int, q: Tensor) -> Callable:
        def hook(_module: object, _inputs: object, output: Tensor) -> Tensor:
            output = output.clone()
            output[..., head * d_head : (head + 1) * d_head] = q
            return output

        return lambda: blocks[layer].attn.c_attn.register_forward_hook(hook)

    _, clean_z, _ = run(clean, [])
    _, corrupt_z, _ = run(corrupt, [])
    patched_z = [z.clone() for z in clean_z]
    patched_z[0][..., d_head : 2 * d_head] = corrupt_z[0][..., d_head : 2 * d_head]
    to_logits, _, stream = run(clean, [setting_z(layer, z) for layer, z in enumerate(patched_z)])
    q = blocks[2].attn.c_attn(blocks[2].ln_1(stream))[..., :d_head]
    to_head, _, _ = run(clean, [setting_q(2, 0, q)])

    model, sender = tiny.plain, ("head", 0, 1)
    direct = patch_path(model, clean, corrupt, [[sender]], through=model.mlps)
    assert close(direct, to_logits, atol=1e-12)
    downstream = patch_path(
        model, clean, corrupt, [[sender], [("q", 2, 0)]], through=model.mlps, end="=>"
    )
    assert close(downstream, to_head, atol=1e-12)
    assert not close(downstream, model(clean), atol=1e-3)


def test_a_key_value_head_is_the_port_of_its_whole_group(clean: Tensor, corrupt: Tensor) -> None:
    """Patch the second KV head's keys in layer 1 with a hook on `k_proj`, which is shared."""
    tiny = models.tiny_llama()
    model, layer = tiny.plain, tiny.hf.model.layers[1]
    ports = [("k", 1, 2), ("k", 1, 3)]
    change = direct_difference(model, clean, corrupt, [EMBED], ports)[ports[0]]
    stream = model.residual_at(model.values(clean), ports[0]) + change
    keys = layer.self_attn.k_proj(layer.input_layernorm(stream))[..., 4:]

    def hook(_module: object, _inputs: object, output: Tensor) -> Tensor:
        return torch.cat([output[..., :4], keys], dim=-1)

    handle = layer.self_attn.k_proj.register_forward_hook(hook)
    try:
        expected = tiny.hf(clean).logits
    finally:
        handle.remove()
    assert close(patch_edges(model, clean, corrupt, product([EMBED], ports)), expected, 1e-12)


def test_hand_worked_model() -> None:
    """Attention only, no norm, one position: every number can be checked on paper."""
    w_v = torch.stack([torch.diag(torch.tensor(d)) for d in ([1.0, 2.0], [3.0, 4.0])]).double()
    eye, zero = torch.eye(2).double(), torch.zeros(2, 2, 2).double()
    layer = {"w_q": zero, "w_k": zero, "w_v": w_v, "w_o": torch.stack([eye, eye])}
    w_e = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).double()
    model = PlainTransformer.from_arrays(w_e, eye, [layer, layer])
    clean, corrupt = torch.tensor([[1]]), torch.tensor([[0]])

    assert model(corrupt)[0, 0].tolist() == [25, 49]
    assert model(clean)[0, 0].tolist() == [-25, -49]
    edges = [
        (("head", 0, 1), LOGITS),
        (("head", 0, 0), ("v", 1, 1)),
        (EMBED, ("v", 0, 0)),
    ]
    for n, logits in ((1, [-19, -41]), (2, [-13, -25]), (3, [-9, -13])):
        assert patch_edges(model, clean, corrupt, edges[:n], mode="replace").tolist() == [[logits]]
        assert unrolled(model, clean, corrupt, edges[:n]).tolist() == [[logits]]


@pytest.mark.parametrize("name", tracr.PROGRAMS)
class TestCompiledPrograms:
    def test_reproduces_its_output(self, name: str) -> None:
        program = tracr.load(name)
        assert close(program.model(program.clean), program.clean_out, atol=1e-11)

    def test_effects_are_where_the_circuit_is(self, name: str) -> None:
        program = tracr.load(name)
        model, clean, corrupt = program.model, program.clean, program.corrupt
        clean_out = model(clean)
        some = slice(None, None, 20)
        for edge in model.edges:
            patched = patch_edges(model, clean, corrupt, [edge])
            change = (patched - clean_out).abs().max().item()
            if edge in program.effective:
                assert change == pytest.approx(program.effective[edge], abs=1e-9), edge
            else:
                assert change < 1e-4, edge
            if edge not in program.structural:
                assert change < 1e-12, edge
            for mode in MODES[1:]:
                again = patch_edges(model, clean[some], corrupt[some], [edge], mode=mode)
                assert close(again, patched[some], 1e-12), edge


# -------------------------------------------------------------------------- properties, by number


@pytest.mark.parametrize("mode", MODES)
def test_1_equal_inputs_change_nothing(
    model: PlainTransformer, clean: Tensor, mode: str, variant: Callable
) -> None:
    patched = patch_edges(model, clean, clean, model.edges, through=variant(model), mode=mode)
    assert close(patched, model(clean))


@pytest.mark.parametrize("mode", MODES)
def test_1_a_sender_equal_in_both_changes_nothing(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor, mode: str, variant: Callable
) -> None:
    corrupt = torch.cat([clean[:, :2], corrupt[:, 2:]], dim=1)
    positions = {node: [At(torch.tensor([1, 0]))] for node in model.nodes}
    patched = patch_edges(
        model,
        clean,
        corrupt,
        model.edges,
        through=variant(model),
        mode=mode,
        send_at=positions,
    )
    assert close(patched, model(clean))


def test_2_a_sender_after_its_receiver_is_an_error(clean: Tensor, corrupt: Tensor) -> None:
    gpt2, neox = models.tiny_gpt2().exact, models.tiny_neox().exact
    for model, sender, receiver in (
        (gpt2, ("head", 1, 0), ("q", 1, 1)),
        (gpt2, ("mlp", 1), ("mlp", 1)),
        (gpt2, ("mlp", 2), ("v", 1, 1)),
        (neox, ("head", 1, 0), ("mlp", 1)),
    ):
        for mode in MODES:
            with pytest.raises(ValueError, match="is not before"):
                patch_edges(model, clean, corrupt, [(sender, receiver)], mode=mode)
        with pytest.raises(ValueError, match="is not before"):
            patch_path(model, clean, corrupt, [[sender], [receiver]])
    assert gpt2.before(("head", 1, 0), ("mlp", 1))


@pytest.mark.parametrize("name", ["single-pass", "mlps"])
def test_3_a_direct_path_keeps_its_position(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor, name: str
) -> None:
    sender, receivers = ("head", 0, 1), [("k", 2, 0), ("mlp", 2), LOGITS]
    at = At(clean=torch.tensor([3, 1]), corrupt=torch.tensor([2, 4]))
    through = VARIANTS[name](model)
    found = direct_difference(
        model, clean, corrupt, [sender], receivers, through=through, send_at={sender: [at]}
    )
    for change in found.values():
        size = change.norm(dim=-1)
        for prompt, pos in itertools.product(range(2), range(5)):
            patched = at.clean[prompt] == pos
            assert size[prompt, pos] > 1e-3 if patched else size[prompt, pos] < 1e-12
    logits = patch_path(model, clean, corrupt, [[sender]], through=through, send_at={sender: [at]})
    same = [[pos for pos in range(5) if pos != at.clean[prompt]] for prompt in range(2)]
    for prompt in range(2):
        assert close(logits[prompt, same[prompt]], model(clean)[prompt, same[prompt]])


def test_4_single_pass_adds_writes_before_the_norm(clean: Tensor, corrupt: Tensor) -> None:
    for build in (models.tiny_gpt2, models.tiny_llama, models.tiny_neox):
        model = build().exact
        clean_values, corrupt_values = model.values(clean), model.values(corrupt)
        senders = [("head", 0, 1), ("mlp", 1), ("head", 1, 0)]
        total = corrupt_values["mlp", 1] - clean_values["mlp", 1]
        for layer, head in ((0, 1), (1, 0)):
            z = corrupt_values["head", layer, head] - clean_values["head", layer, head]
            total = total + model.head_write(layer, head, z)
        assert close(direct_difference(model, clean, corrupt, senders, [LOGITS])[LOGITS], total)
        stream = model.residual_at(clean_values, LOGITS)
        patched = patch_path(model, clean, corrupt, [senders])
        assert close(patched, model.logits(stream + total))
        assert not close(patched, model.logits(stream) + model.logits(total), 1e-2)


def test_5_what_is_enough_to_make_the_corrupt_run(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor
) -> None:
    expected = model(corrupt)
    assert close(patch_path(model, clean, corrupt, [model.nodes]), expected)
    heads_and_embedding = (EMBED, *model.heads)
    assert close(
        patch_path(model, clean, corrupt, [heads_and_embedding], through=model.mlps), expected
    )
    assert not close(patch_path(model, clean, corrupt, [heads_and_embedding]), expected, 1e-2)
    assert not close(
        patch_path(model, clean, corrupt, [model.heads], through=model.mlps), expected, 1e-2
    )


def test_6_set_with_everything_is_the_corrupt_run(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor, variant: Callable
) -> None:
    through = variant(model)
    assert close(patch_edges(model, clean, corrupt, model.edges, through=through), model(corrupt))
    to_logits = product([("head", 0, 0), ("mlp", 1)], [LOGITS])
    others = [edge for edge in model.edges if edge[1] != LOGITS]
    assert close(
        patch_edges(model, clean, corrupt, to_logits + others, through=through),
        patch_edges(model, clean, corrupt, to_logits, through=through),
    )


def test_7_variants_agree_without_an_mlp_between(clean: Tensor, corrupt: Tensor) -> None:
    attn_only, gpt2, neox = (
        build().exact for build in (models.tiny_attn_only, models.tiny_gpt2, models.tiny_neox)
    )
    for model, senders, receivers in (
        (attn_only, [EMBED, ("head", 0, 1), ("head", 1, 2)], [("q", 2, 0), ("v", 2, 1), LOGITS]),
        (gpt2, [("mlp", 0), ("head", 1, 2)], [("mlp", 1)]),
        (neox, [("head", 1, 0), ("mlp", 1)], [("q", 2, 1), ("mlp", 2)]),
    ):
        single = direct_difference(model, clean, corrupt, senders, receivers)
        mlps = direct_difference(model, clean, corrupt, senders, receivers, through=model.mlps)
        for receiver in receivers:
            assert close(single[receiver], mlps[receiver])


def test_7_variants_differ_with_an_mlp_between(clean: Tensor, corrupt: Tensor) -> None:
    gpt2, neox = models.tiny_gpt2().exact, models.tiny_neox().exact
    for model, receiver in ((gpt2, ("q", 1, 0)), (neox, ("q", 2, 0))):
        single, mlps = (
            direct_difference(model, clean, corrupt, [("head", 0, 1)], [receiver], through=through)
            for through in ((), model.mlps)
        )
        assert not close(single[receiver], mlps[receiver], 1e-2)


def test_8_replace_goes_from_clean_to_corrupt(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor, variant: Callable
) -> None:
    through = variant(model)
    assert close(
        patch_edges(model, clean, corrupt, [], through=through, mode="replace"), model(clean)
    )
    edges = model.edges
    assert close(
        patch_edges(model, clean, corrupt, edges, through=through, mode="replace"), model(corrupt)
    )
    added = patch_edges(model, clean, corrupt, edges, through=through, mode="add")
    assert not close(added, model(corrupt), 1e-2)


@pytest.mark.parametrize("node", [EMBED, ("head", 0, 1), ("head", 1, 0), ("mlp", 0), ("mlp", 2)])
def test_9_a_node_is_all_its_outgoing_edges(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor, node: Node
) -> None:
    expected = activation_patch(model, clean, corrupt, [node])
    edges = outgoing(model, node)
    assert close(patch_edges(model, clean, corrupt, edges, mode="add"), expected)
    for variant in VARIANTS.values():
        patched = patch_edges(model, clean, corrupt, edges, through=variant(model), mode="replace")
        assert close(patched, expected)
    assert not close(expected, model(clean), 1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_10_replace_is_the_unrolled_graph(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor, seed: int, variant: Callable
) -> None:
    shallow = dataclasses.replace(model, layers=model.layers[:2])
    rng = random.Random(seed)
    edges = [edge for edge in shallow.edges if rng.random() < rng.choice([0.05, 0.2, 0.6])]
    at = At(torch.tensor([2, 3]), torch.tensor([4, 3]))
    options = {
        "through": variant(shallow),
        "send_at": {node: [at] for node in shallow.nodes if rng.random() < 0.2},
        "read_at": {port: [at] for port in shallow.ports if rng.random() < 0.2},
    }
    patched = patch_edges(shallow, clean, corrupt, edges, mode="replace", **options)
    assert close(patched, unrolled(shallow, clean, corrupt, edges, **options))


def test_10_a_receiver_that_a_path_passes_through_stays_patched(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor
) -> None:
    """Head 1.0 cannot go through MLP 0, so patching it must not undo what arrived there."""
    both = [(EMBED, ("mlp", 0)), (("head", 1, 0), ("q", 2, 0))]
    single, mlps = (
        patch_edges(model, clean, corrupt, both, through=through, mode="replace")
        for through in ((), (("mlp", 0),))
    )
    assert close(single, mlps)


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_11_two_hops_are_one_hop_with_the_middle_recomputed(
    clean: Tensor, corrupt: Tensor, kind: str
) -> None:
    for build in (models.tiny_gpt2, models.tiny_llama, models.tiny_neox):
        model = build().exact
        w, v, r = ("head", 0, 1), (kind, 1, 0), ("q", 2, 1)
        found = patch_path(model, clean, corrupt, [[w], [v], [r]])

        # By hand, single-pass: three streams, two heads, no run of the model.
        before, after = model.values(clean), model.values(corrupt)
        stream = model.residual_at(before, v)
        patched = stream + model.head_write(0, 1, after[w] - before[w])
        z = model.z(1, 0, *(patched if port == kind else stream for port in "qkv"))
        stream = model.residual_at(before, r)
        patched = stream + model.head_write(1, 0, z - before["head", 1, 0])
        z = model.z(2, 1, patched, stream, stream)
        stream = model.residual_at(before, LOGITS)
        expected = model.logits(stream + model.head_write(2, 1, z - before["head", 2, 1]))
        assert close(found, expected)
        assert not close(found, model(clean), 1e-6)

        edge_set = [(w, v), (("head", 1, 0), r), (("head", 2, 1), LOGITS)]
        for mode in MODES:
            together = patch_edges(model, clean, corrupt, edge_set, mode=mode)
            assert not close(together, expected, 1e-4)


def test_11_in_every_variant_with_everything_downstream(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor, variant: Callable
) -> None:
    through, r = variant(model), ("v", 2, 1)
    for w, v in ((("head", 0, 1), ("k", 1, 0)), (EMBED, ("mlp", 1))):
        found = patch_path(model, clean, corrupt, [[w], [v], [r]], through=through, end="=>")
        before = model.values(clean)
        middle = relay(model, clean, corrupt_senders(model, corrupt, [w]), [v], through=through)
        assert set(middle) == {("mlp", 1) if v[0] == "mlp" else ("head", 1, 0)}
        change = difference(model, before, middle, r, through)
        z = model.z(
            2,
            1,
            model.residual_at(before, ("q", 2, 1)),
            model.residual_at(before, ("k", 2, 1)),
            model.residual_at(before, r) + change,
        )
        after = {**before, ("head", 2, 1): z}
        if not model.parallel:
            after["mlp", 2] = model.mlp(2, model.residual_at(after, ("mlp", 2)))
        assert close(found, model.logits(model.residual_at(after, LOGITS)))


def test_12_ports_and_heads_of_a_group_do_not_add_up(clean: Tensor, corrupt: Tensor) -> None:
    model = models.tiny_llama().exact

    def effect(receivers: list[Port]) -> Tensor:
        steps = [[EMBED], receivers]
        return patch_path(model, clean, corrupt, steps, end="=>") - model(clean)

    for ports in (
        [("q", 1, 2), ("k", 1, 2), ("v", 1, 2)],
        [("k", 1, 2), ("k", 1, 3)],
        [("v", 1, 2), ("v", 1, 3)],
    ):
        assert not close(effect(ports), sum(effect([port]) for port in ports), 1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_14_prompts_and_padding_do_not_matter(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor, mode: str
) -> None:
    edges = product([EMBED, ("head", 0, 1)], [("q", 1, 0), ("v", 2, 1), LOGITS])
    together = patch_edges(model, clean, corrupt, edges, through=model.mlps, mode=mode)
    for prompt in range(2):
        rows = slice(prompt, prompt + 1)
        alone = patch_edges(
            model, clean[rows, :4], corrupt[rows, :4], edges, through=model.mlps, mode=mode
        )
        assert close(alone, together[rows, :4])


# ------------------------------------------------------------------------------ the fine print


@pytest.mark.parametrize("steps", [[[("q", 2, 0)]], [[("k", 1, 1)], [("v", 2, 1)]], [[("mlp", 1)]]])
def test_modes_agree_for_one_path(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor, steps: list, variant: Callable
) -> None:
    steps = [[("head", 0, 0)], *steps]
    one, *others = (
        patch_path(model, clean, corrupt, steps, through=variant(model), end="=>", mode=mode)
        for mode in MODES
    )
    assert all(close(one, other) for other in others)
    assert not close(one, model(clean), 1e-6)


def test_modes_differ_where_receivers_reach_each_other(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor
) -> None:
    edges = product([EMBED], [("v", 0, 0), ("v", 1, 1), LOGITS])
    edges.append((("head", 0, 0), ("v", 1, 1)))
    patched = [patch_edges(model, clean, corrupt, edges, mode=mode) for mode in MODES]
    for one, other in itertools.combinations(patched, 2):
        assert not close(one, other, 1e-3)


def test_an_mlp_that_sends_is_set_and_not_recomputed(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor
) -> None:
    senders = [EMBED, ("mlp", 0)]
    alone, together = (
        direct_difference(model, clean, corrupt, senders, [("q", 1, 0)], through=through)["q", 1, 0]
        for through in ((), model.mlps)
    )
    assert close(alone, together)


def test_a_port_patched_at_some_positions_is_live_at_the_others(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor
) -> None:
    receiver, at = ("q", 1, 0), At(torch.tensor([3, 1]))
    values = model.values(clean)
    sent = corrupt_senders(model, corrupt, [EMBED])
    everywhere = relay(model, clean, sent, [receiver])["head", 1, 0].value
    here = relay(model, clean, sent, [receiver], read_at={receiver: [at]})["head", 1, 0].value
    expected = Sent(everywhere, [at]).onto(values["head", 1, 0])
    assert close(here, expected)  # a query matters only where it is


def test_after_a_post_norm_heads_are_patched_together(clean: Tensor, corrupt: Tensor) -> None:
    """Two heads of one layer: the norm after attention sees both, so their changes do not add."""
    model = models.tiny_gemma2().exact
    heads = [("head", 1, 0), ("head", 1, 1)]
    apart = [direct_difference(model, clean, corrupt, [h], [LOGITS])[LOGITS] for h in heads]
    together = direct_difference(model, clean, corrupt, heads, [LOGITS])[LOGITS]
    assert not close(apart[0] + apart[1], together, 1e-3)
