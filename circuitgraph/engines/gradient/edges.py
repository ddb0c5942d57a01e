"""Every edge at once, as a product of senders and ports: no plan, and no cell of one.

Only for the variant ``single-pass`` on blocks that add what their parts write: then what a sender
changes is its write, the same wherever it arrives, and all edges into a point are one product of
changes and gradients. Tokens do not meet, so they are taken in slices that fit.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.state import State
from circuitgraph.engines.gradient.asked import HeldPlaces
from circuitgraph.engines.gradient.estimators import Estimator
from circuitgraph.engines.gradient.ports import PortGradients, token_slices
from circuitgraph.engines.gradient.runs import mean_gradients
from circuitgraph.errors import UnsupportedError

__all__ = ["every_edge"]


def every_edge(
    state: State, estimator: Estimator, numbers_at_once: int = 2**27
) -> Float[Tensor, "metric prompt sender port"]:
    """Return the estimated change of the metric for every edge; NaN where there is none.

    Args:
        state: The recorded experiment; the source is the corrupt run.
        estimator: Where gradients are taken.
        numbers_at_once: How many numbers of writes are laid out at once.

    Raises:
        UnsupportedError: Blocks do more than add what their parts write.
    """
    if not state.traits.additive:
        raise UnsupportedError(
            "a node's write in this model's blocks is no sum that can be laid out for all edges at "
            "once: patch('node -> port => logits', 'single-pass') finds it block by block"
        )
    nothing = HeldPlaces()
    found = mean_gradients(state, estimator, [nothing])[nothing]
    with torch.no_grad():
        return torch.stack([_contract(state, one, numbers_at_once) for one in found])


def _contract(
    state: State, gradients: PortGradients, numbers_at_once: int
) -> Float[Tensor, "prompt sender port"]:
    graph = state.setup.graph
    n_senders, n_ports, d_model = len(graph.writers), len(graph.ports), state.final.shape[-1]
    points = [graph.writes_at(writer) for writer in graph.writers]
    shape = (state.n_prompts, n_senders, n_ports)
    total = torch.zeros(shape, dtype=state.delta_dtype, device=state.final.device)
    reached = torch.zeros(shape[1:], dtype=torch.bool, device=total.device)
    place = {port: at for at, port in enumerate(graph.ports)}
    n_tokens = state.n_prompts * state.n_pos
    for part in token_slices(n_tokens, n_senders * d_model, numbers_at_once):
        changes = _writes(state, part)
        prompt = torch.arange(part.start, part.stop, device=total.device) // state.n_pos
        for point in range(2 * graph.shape.n_layers + 1):
            ports = gradients.ports_at(point)
            if not ports:
                continue
            # Writers stand in the order of the stream, so those before a point are the first.
            n_before = sum(at <= point for at in points)
            scores = gradients.scores(point, changes[:, :n_before], part)
            columns = torch.tensor([place[port] for port in ports], device=total.device)
            summed = scores.new_zeros(state.n_prompts, *scores.shape[1:])
            total[:, :n_before, columns] += summed.index_add_(0, prompt, scores)
            reached[:n_before, columns] = True
    return total.masked_fill(~reached, torch.nan)


def _writes(state: State, part: slice) -> Float[Tensor, "token sender d_model"]:
    """Return by how much every node's write differs, at some tokens."""
    wide = state.delta_dtype
    clean, corrupt = state.clean.layers, state.corrupt.layers

    def change(theirs: Tensor | None, ours: Tensor | None) -> Tensor:
        assert theirs is not None
        assert ours is not None
        return theirs.flatten(0, 1)[part].to(wide) - ours.flatten(0, 1)[part].to(wide)

    embed = change(corrupt[0].resid, clean[0].resid)
    n_senders = len(state.setup.graph.writers)
    made = embed.new_empty(len(embed), n_senders, embed.shape[-1])
    made[:, 0] = embed
    column = 1
    for number, layer in enumerate(clean):
        weight = state.blocks.output_weights[number].to(wide)
        values = state.blocks.split(change(corrupt[number].z, layer.z))
        heads = slice(column, column + len(weight))
        made[:, heads] = torch.bmm(values.transpose(0, 1), weight).transpose(0, 1)
        column += len(weight)
        if layer.mlp is not None:
            made[:, column] = change(corrupt[number].mlp, layer.mlp)
            column += 1
    return made
