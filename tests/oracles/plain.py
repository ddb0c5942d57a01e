"""A decoder in plain torch whose every node can be computed alone.

`PlainTransformer` reads the weights of a Hugging Face module (or arrays made by hand) and has one
method per thing a path patch needs: the residual stream that a port reads, a head's z from three
residual streams, an MLP's write, the logits. It knows nothing of patching and installs no hook.

A *value* is what is known of a node: the embedding for `("embed",)`, z for a head, the write for an
MLP. Where a block normalises what attention adds, a head has no write of its own, so values, not
writes, are what a patch exchanges. Keys and values are repeated per query head on loading: then
every query head owns its copy, and grouped queries need no further thought.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tests.oracles.pieces import (
    Function,
    Rotary,
    gated_mlp,
    gemma_rms_norm,
    layer_norm,
    linear,
    no_norm,
    plain_mlp,
    rms_norm,
    split_heads,
)

Node = tuple[Any, ...]
"""`("embed",)`, `("head", layer, head)`, `("mlp", layer)`, and `("logits",)`, which only reads."""

Port = tuple[Any, ...]
"""`("q" | "k" | "v", layer, head)`, `("mlp", layer)`, `("logits",)`."""

Edge = tuple[Node, Port]

Residual = Float[Tensor, "prompt pos d_model"]
Z = Float[Tensor, "prompt pos d_head"]
Values = Mapping[Node, Tensor]

EMBED: Node = ("embed",)
LOGITS: Port = ("logits",)


def node_of(port: Port) -> Node:
    """The node that reads at this port."""
    return ("head", port[1], port[2]) if port[0] in ("q", "k", "v") else port


def ports_of(node: Node) -> tuple[Port, ...]:
    """Where this node reads the residual stream."""
    match node:
        case ("embed",):
            return ()
        case ("head", layer, head):
            return (("q", layer, head), ("k", layer, head), ("v", layer, head))
        case _:
            return (node,)


@dataclass(frozen=True, eq=False)
class Attention:
    """Weights of one attention block, heads first, keys and values repeated per query head."""

    w_q: Float[Tensor, "head d_model d_head"]
    b_q: Float[Tensor, "head d_head"]
    w_k: Float[Tensor, "head d_model d_head"]
    b_k: Float[Tensor, "head d_head"]
    w_v: Float[Tensor, "head d_model d_head"]
    b_v: Float[Tensor, "head d_head"]
    w_o: Float[Tensor, "head d_head d_model"]
    b_o: Float[Tensor, " d_model"]
    scale: float
    norm: Function = no_norm
    post_norm: Function = no_norm
    score_cap: float | None = None
    window: int | None = None


@dataclass(frozen=True, eq=False)
class MLP:
    """One MLP block."""

    function: Function
    norm: Function = no_norm
    post_norm: Function = no_norm


@dataclass(frozen=True, eq=False)
class Layer:
    """Attention and, unless the model has none, an MLP."""

    attention: Attention
    mlp: MLP | None


# -------------------------------------------------------------------------------------- model


@dataclass(frozen=True, eq=False)
class PlainTransformer:
    """A decoder in plain torch, node by node.

    `softmax_dtype` is the precision of the attention softmax: Hugging Face takes it in float32 for
    Llama and its relatives whatever the model's dtype, and the loaders' `inner_dtype` follows it.
    With `inner_dtype=torch.float64` nothing is rounded on the way: a slightly different function,
    but one whose identities hold to 1e-12.
    """

    w_e: Float[Tensor, "d_vocab d_model"]
    w_pos: Float[Tensor, "n_ctx d_model"] | None
    layers: tuple[Layer, ...]
    final_norm: Function
    w_u: Float[Tensor, "d_model d_vocab_out"]
    n_kv_heads: int
    parallel: bool = False
    causal: bool = True
    rotary: Rotary | None = None
    embed_scale: float = 1.0
    logit_cap: float | None = None
    softmax_dtype: torch.dtype = torch.float64

    # ------------------------------------------------------------------------------ the graph

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def n_heads(self) -> int:
        """Number of query heads of a layer."""
        return self.layers[0].attention.w_q.shape[0]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that write, each after everything that it reads."""
        nodes: list[Node] = [EMBED]
        for layer, block in enumerate(self.layers):
            nodes += [("head", layer, head) for head in range(self.n_heads)]
            if block.mlp is not None:
                nodes.append(("mlp", layer))
        return tuple(nodes)

    @property
    def heads(self) -> tuple[Node, ...]:
        """All heads."""
        return tuple(node for node in self.nodes if node[0] == "head")

    @property
    def mlps(self) -> tuple[Node, ...]:
        """All MLPs."""
        return tuple(node for node in self.nodes if node[0] == "mlp")

    @property
    def ports(self) -> tuple[Port, ...]:
        """All ports, the logits' last."""
        return (*(port for node in self.nodes for port in ports_of(node)), LOGITS)

    def before(self, node: Node, port: Port) -> bool:
        """Whether what this node writes is in the residual stream that this port reads."""
        if node == EMBED or port == LOGITS:
            return True
        if node[1] != port[1]:
            return bool(node[1] < port[1])
        return node[0] == "head" and port[0] == "mlp" and not self.parallel

    def senders(self, port: Port) -> tuple[Node, ...]:
        """All nodes before this port."""
        return tuple(node for node in self.nodes if self.before(node, port))

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Every sender with every port that it comes before."""
        return tuple((node, port) for port in self.ports for node in self.senders(port))

    # ------------------------------------------------------------------------------- one node

    def embed(self, tokens: Int[Tensor, "prompt pos"]) -> Residual:
        """What the embedding writes, positions included."""
        write = self.w_e[tokens] * self.embed_scale
        return write if self.w_pos is None else write + self.w_pos[: tokens.shape[1]]

    def q(self, layer: int, head: int, residual: Residual) -> Z:
        """The head's queries, before rotation."""
        attention = self.layers[layer].attention
        return attention.norm(residual) @ attention.w_q[head] + attention.b_q[head]

    def k(self, layer: int, head: int, residual: Residual) -> Z:
        """The head's own copy of the keys, before rotation."""
        attention = self.layers[layer].attention
        return attention.norm(residual) @ attention.w_k[head] + attention.b_k[head]

    def v(self, layer: int, head: int, residual: Residual) -> Z:
        """The head's own copy of the values."""
        attention = self.layers[layer].attention
        return attention.norm(residual) @ attention.w_v[head] + attention.b_v[head]

    def pattern(self, layer: int, q: Z, k: Z) -> Float[Tensor, "prompt pos pos"]:
        """Where each position looks, from queries and keys before rotation."""
        attention = self.layers[layer].attention
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        scores = q @ k.mT * attention.scale
        if attention.score_cap is not None:
            scores = torch.tanh(scores / attention.score_cap) * attention.score_cap
        there = torch.arange(q.shape[1])
        ahead = there[None, :] - there[:, None]
        hidden = torch.zeros_like(ahead, dtype=torch.bool)
        if self.causal:
            hidden |= ahead > 0
        if attention.window is not None:
            hidden |= ahead <= -attention.window
        scores = scores.masked_fill(hidden, float("-inf"))
        return F.softmax(scores, dim=-1, dtype=self.softmax_dtype).to(q.dtype)

    def z(
        self,
        layer: int,
        head: int,
        q_residual: Residual,
        k_residual: Residual,
        v_residual: Residual,
    ) -> Z:
        """The head's z when its three ports read these residual streams."""
        q, k = self.q(layer, head, q_residual), self.k(layer, head, k_residual)
        return self.pattern(layer, q, k) @ self.v(layer, head, v_residual)

    def head_write(self, layer: int, head: int, z: Z) -> Residual:
        """What the head adds to the residual stream (in a block without a norm after attention)."""
        return z @ self.layers[layer].attention.w_o[head]

    def attention_write(self, layer: int, zs: Sequence[Z]) -> Residual:
        """What the layer's attention adds, all heads together: W_O, its bias, the norm after it."""
        attention = self.layers[layer].attention
        total = attention.b_o
        for head, z in enumerate(zs):
            total = total + self.head_write(layer, head, z)
        return attention.post_norm(total)

    def mlp(self, layer: int, residual: Residual) -> Residual:
        """What the layer's MLP adds, the norm after it included."""
        block = self.layers[layer].mlp
        assert block is not None, f"layer {layer} has no MLP"
        return block.post_norm(block.function(block.norm(residual)))

    def logits(self, residual: Residual) -> Float[Tensor, "prompt pos d_vocab_out"]:
        """Final norm and unembedding."""
        logits = self.final_norm(residual) @ self.w_u
        if self.logit_cap is not None:
            logits = torch.tanh(logits / self.logit_cap) * self.logit_cap
        return logits

    # ------------------------------------------------------------------------ nodes put together

    def residual_at(self, values: Values, port: Port) -> Residual:
        """The residual stream that a port reads when the nodes before it have these values."""
        total = values[EMBED]
        for layer, block in enumerate(self.layers):
            if self.before(("head", layer, 0), port):
                zs = [values["head", layer, head] for head in range(self.n_heads)]
                total = total + self.attention_write(layer, zs)
            if block.mlp is not None and self.before(("mlp", layer), port):
                total = total + values["mlp", layer]
        return total

    def value(self, node: Node, residual: Callable[[Port], Residual]) -> Tensor:
        """The value of a node (not the embedding), given what each of its ports reads."""
        match node:
            case ("head", layer, head):
                q, k, v = (residual(port) for port in ports_of(node))
                return self.z(layer, head, q, k, v)
            case ("mlp", layer):
                return self.mlp(layer, residual(node))
            case _:
                raise ValueError(f"{node} is not computed from the residual stream")

    def values(self, tokens: Int[Tensor, "prompt pos"]) -> dict[Node, Tensor]:
        """The value of every node on these tokens."""
        values: dict[Node, Tensor] = {EMBED: self.embed(tokens)}
        for node in self.nodes[1:]:
            values[node] = self.value(node, lambda port: self.residual_at(values, port))
        return values

    def __call__(
        self, tokens: Int[Tensor, "prompt pos"]
    ) -> Float[Tensor, "prompt pos d_vocab_out"]:
        """The logits on these tokens."""
        return self.logits(self.residual_at(self.values(tokens), LOGITS))

    # ------------------------------------------------------------------------------- loading

    @classmethod
    def from_gpt2(cls, hf: Any) -> "PlainTransformer":
        """Read a `GPT2LMHeadModel`: learned positions, LayerNorm, sequential blocks."""
        config, n_heads = hf.config, hf.config.n_head
        layers = []
        for block in hf.transformer.h:
            # Conv1D keeps its weight [in, out]; queries, keys and values lie side by side.
            weights = block.attn.c_attn.weight.detach().chunk(3, dim=1)
            biases = block.attn.c_attn.bias.detach().chunk(3)
            q, k, v = (split_heads(w, b, n_heads) for w, b in zip(weights, biases, strict=True))
            attention = Attention(
                *q,
                *k,
                *v,
                w_o=torch.stack(block.attn.c_proj.weight.detach().chunk(n_heads, dim=0)),
                b_o=block.attn.c_proj.bias.detach(),
                scale=block.attn.scaling,
                norm=_hf_layer_norm(block.ln_1),
            )
            function = plain_mlp(
                block.mlp.c_fc.weight.detach(),
                block.mlp.c_fc.bias.detach(),
                block.mlp.c_proj.weight.detach(),
                block.mlp.c_proj.bias.detach(),
                config.activation_function,
            )
            layers.append(Layer(attention, MLP(function, norm=_hf_layer_norm(block.ln_2))))
        return cls(
            w_e=hf.transformer.wte.weight.detach(),
            w_pos=hf.transformer.wpe.weight.detach(),
            layers=tuple(layers),
            final_norm=_hf_layer_norm(hf.transformer.ln_f),
            w_u=hf.lm_head.weight.detach().T,
            n_kv_heads=n_heads,
        )

    @classmethod
    def from_llama(cls, hf: Any, inner_dtype: torch.dtype = torch.float32) -> "PlainTransformer":
        """Read a `LlamaForCausalLM`, or a Mistral or Qwen 2: rotary, RMSNorm, grouped queries."""
        config = hf.config
        layers = []
        for block in hf.model.layers:
            attention = Attention(
                **_separate_projections(block.self_attn, config),
                scale=block.self_attn.scaling,
                norm=_hf_rms_norm(block.input_layernorm, inner_dtype),
                window=_window(block.self_attn, config),
            )
            mlp = MLP(
                gated_mlp(block.mlp, config.hidden_act),
                norm=_hf_rms_norm(block.post_attention_layernorm, inner_dtype),
            )
            layers.append(Layer(attention, mlp))
        return cls(
            w_e=hf.model.embed_tokens.weight.detach(),
            w_pos=None,
            layers=tuple(layers),
            final_norm=_hf_rms_norm(hf.model.norm, inner_dtype),
            w_u=hf.lm_head.weight.detach().T,
            n_kv_heads=config.num_key_value_heads,
            rotary=Rotary.of(hf.model.rotary_emb),
            softmax_dtype=inner_dtype,
        )

    @classmethod
    def from_neox(cls, hf: Any, inner_dtype: torch.dtype = torch.float32) -> "PlainTransformer":
        """Read a `GPTNeoXForCausalLM`: rotary on part of a head, blocks parallel or not.

        Hugging Face takes the softmax in float32; TransformerLens' bridge over it does not.
        """
        config, n_heads = hf.config, hf.config.num_attention_heads
        layers = []
        for block in hf.gpt_neox.layers:
            # Each head's queries, keys and values lie side by side.
            weight, bias = split_heads(*linear(block.attention.query_key_value), n_heads)
            w_q, w_k, w_v = weight.chunk(3, dim=-1)
            b_q, b_k, b_v = bias.chunk(3, dim=-1)
            w_o, b_o = linear(block.attention.dense)
            attention = Attention(
                *(w_q, b_q, w_k, b_k, w_v, b_v),
                w_o=torch.stack(w_o.chunk(n_heads, dim=0)),
                b_o=b_o,
                scale=block.attention.scaling,
                norm=_hf_layer_norm(block.input_layernorm),
            )
            function = plain_mlp(
                *linear(block.mlp.dense_h_to_4h),
                *linear(block.mlp.dense_4h_to_h),
                config.hidden_act,
            )
            norm = _hf_layer_norm(block.post_attention_layernorm)
            layers.append(Layer(attention, MLP(function, norm=norm)))
        return cls(
            w_e=hf.gpt_neox.embed_in.weight.detach(),
            w_pos=None,
            layers=tuple(layers),
            final_norm=_hf_layer_norm(hf.gpt_neox.final_layer_norm),
            w_u=hf.lm_head.weight.detach().T,
            n_kv_heads=n_heads,
            parallel=config.use_parallel_residual,
            rotary=Rotary.of(hf.gpt_neox.rotary_emb),
            softmax_dtype=inner_dtype,
        )

    @classmethod
    def from_gemma2(cls, hf: Any, inner_dtype: torch.dtype = torch.float32) -> "PlainTransformer":
        """Read a `Gemma2ForCausalLM`: norms after attention and MLP, capped scores and logits."""
        config = hf.config
        layers = []
        for block in hf.model.layers:
            attention = Attention(
                **_separate_projections(block.self_attn, config),
                scale=block.self_attn.scaling,
                norm=_hf_gemma_norm(block.input_layernorm, inner_dtype),
                post_norm=_hf_gemma_norm(block.post_attention_layernorm, inner_dtype),
                score_cap=config.attn_logit_softcapping,
                window=block.self_attn.sliding_window,
            )
            mlp = MLP(
                gated_mlp(block.mlp, config.hidden_activation),
                norm=_hf_gemma_norm(block.pre_feedforward_layernorm, inner_dtype),
                post_norm=_hf_gemma_norm(block.post_feedforward_layernorm, inner_dtype),
            )
            layers.append(Layer(attention, mlp))
        embed_scale = hf.model.embed_tokens.embed_scale.to(hf.model.embed_tokens.weight.dtype)
        return cls(
            w_e=hf.model.embed_tokens.weight.detach(),
            w_pos=None,
            layers=tuple(layers),
            final_norm=_hf_gemma_norm(hf.model.norm, inner_dtype),
            w_u=hf.lm_head.weight.detach().T,
            n_kv_heads=config.num_key_value_heads,
            rotary=Rotary.of(hf.model.rotary_emb),
            embed_scale=embed_scale.item(),
            logit_cap=config.final_logit_softcapping,
            softmax_dtype=inner_dtype,
        )

    @classmethod
    def from_native(cls, native: Any) -> "PlainTransformer":
        """Read TransformerLens' own module: LayerNorm, learned positions, attention only."""
        n_heads = native.cfg.n_heads
        layers = []
        for block in native.layers:
            w_o, b_o = linear(block.attn.o)
            attention = Attention(
                *split_heads(*linear(block.attn.q), n_heads),
                *split_heads(*linear(block.attn.k), n_heads),
                *split_heads(*linear(block.attn.v), n_heads),
                w_o=torch.stack(w_o.chunk(n_heads, dim=0)),
                b_o=b_o,
                scale=1 / block.attn.scale,
                norm=_hf_layer_norm(block.ln1),
            )
            layers.append(Layer(attention, None))
        return cls(
            w_e=native.tok_embed.weight.detach(),
            w_pos=native.pos.weight.detach(),
            layers=tuple(layers),
            final_norm=_hf_layer_norm(native.ln_out),
            w_u=native.head.weight.detach().T,
            n_kv_heads=n_heads,
        )

    @classmethod
    def from_arrays(
        cls,
        w_e: Float[Tensor, "d_vocab d_model"],
        w_u: Float[Tensor, "d_model d_vocab_out"],
        attention: Sequence[Mapping[str, Tensor]],
        *,
        mlps: Sequence[Mapping[str, Tensor]] | None = None,
        w_pos: Float[Tensor, "n_ctx d_model"] | None = None,
        causal: bool = True,
        parallel: bool = False,
    ) -> "PlainTransformer":
        """A model without norms, from arrays.

        Args:
            w_e: Token embedding.
            w_u: Unembedding.
            attention: For each layer `w_q w_k w_v` [head, d_model, d_head], `w_o` [head, d_head,
                d_model] and, if wanted, the biases `b_q b_k b_v` [head, d_head] and `b_o`.
            mlps: For each layer `w_in b_in w_out b_out` of a ReLU MLP; none for attention only.
            w_pos: Position embedding; none for no positions at all.
            causal: Whether a position sees only what comes before.
            parallel: Whether attention and MLP of a layer read the same point.
        """
        layers = []
        for index, arrays in enumerate(attention):
            n_heads, d_model, d_head = arrays["w_q"].shape
            zeros = {name: w_e.new_zeros(n_heads, d_head) for name in ("b_q", "b_k", "b_v")}
            block = {**zeros, "b_o": w_e.new_zeros(d_model), **arrays}
            layer_mlp = None
            if mlps is not None:
                layer_mlp = MLP(plain_mlp(**mlps[index], activation="relu"))
            layers.append(Layer(Attention(**block, scale=d_head**-0.5), layer_mlp))
        return cls(
            w_e=w_e,
            w_pos=w_pos,
            layers=tuple(layers),
            final_norm=no_norm,
            w_u=w_u,
            n_kv_heads=layers[0].attention.w_q.shape[0],
            causal=causal,
            parallel=parallel,
        )


def _hf_layer_norm(module: Any) -> Function:
    bias = None if module.bias is None else module.bias.detach()
    return layer_norm(module.weight.detach(), bias, module.eps)


def _hf_rms_norm(module: Any, dtype: torch.dtype) -> Function:
    return rms_norm(module.weight.detach(), module.variance_epsilon, dtype)


def _hf_gemma_norm(module: Any, dtype: torch.dtype) -> Function:
    return gemma_rms_norm(module.weight.detach(), module.eps, dtype)


def _separate_projections(attention: Any, config: Any) -> dict[str, Tensor]:
    """Weights of an attention with `q_proj`, `k_proj`, `v_proj`, `o_proj`."""
    n_heads, n_kv_heads = config.num_attention_heads, config.num_key_value_heads
    repeats = n_heads // n_kv_heads
    w_q, b_q = split_heads(*linear(attention.q_proj), n_heads)
    w_k, b_k = split_heads(*linear(attention.k_proj), n_kv_heads, repeats)
    w_v, b_v = split_heads(*linear(attention.v_proj), n_kv_heads, repeats)
    w_o, b_o = linear(attention.o_proj)
    return {
        "w_q": w_q,
        "b_q": b_q,
        "w_k": w_k,
        "b_k": b_k,
        "w_v": w_v,
        "b_v": b_v,
        "w_o": torch.stack(w_o.chunk(n_heads, dim=0)),
        "b_o": b_o,
    }


def _window(attention: Any, config: Any) -> int | None:
    """The layer's sliding window: Qwen 2 says so on the layer, Mistral in the config."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(config, "sliding_window", None) if config.model_type == "mistral" else None
