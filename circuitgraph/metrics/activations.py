"""Metrics that read an activation at one of the model's hooks instead of the logits."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.arguments import text
from circuitgraph.errors import CircuitGraphError, MetricError
from circuitgraph.metrics.base import Position, Prompts
from circuitgraph.metrics.function import called, checked
from circuitgraph.nodes import Head, parse_node

__all__ = ["Activation", "AttentionTo"]


@dataclass(frozen=True, eq=False)
class Activation:
    """One number per prompt of what passes a hook in the patched run.

    The run is one in which everything after the receivers is recomputed, so a request must end in
    ``=>``: ``5.5 -> 8.6.v => logits`` asks what the rest of the model makes of 8.6's new values,
    an attention pattern further on included. The pattern of a head whose own port is patched is the
    one that the patched port makes.

    Args:
        hook: Of a bridge, a name in its ``hook_dict``, such as ``blocks.9.attn.hook_pattern``
            ``[prompt head query key]`` or ``blocks.9.hook_resid_post`` ``[prompt pos d_model]``. Of
            a Hugging Face model, the path of a module, such as ``model.layers.9.mlp``, for its
            output; with ``:in`` after it for its input, or of an attention with ``:pattern`` for
            its pattern.
        function: From the activation, ``[prompt ...]``, to one number per prompt, ``[prompt]``.
        label: What tables call it; the hook's name by default.

    Raises:
        MetricError: No such hook, or one before the first block, where nothing is patched.

    Example:
        >>> norm = Activation("blocks.9.hook_resid_post", lambda resid: resid[:, -1].norm(dim=-1))
        >>> norm.name
        'blocks.9.hook_resid_post'
    """

    hook: str
    function: Callable[[Tensor], Tensor]
    label: str = ""

    @property
    def name(self) -> str:
        """What the metric is called in tables."""
        return self.label or self.hook

    def bind(self, prompts: Prompts) -> "Activation":
        """Return the metric, if the model has the hook."""
        text("hook", self.hook, MetricError)
        text("label", self.label, MetricError)
        if not callable(self.function):
            raise MetricError(f"function must be callable, got {self.function!r}")
        if self.hook not in prompts.hooks:
            near = get_close_matches(self.hook, prompts.hooks.names | prompts.hooks.early, n=3)
            hint = f": did you mean {', '.join(near)}?" if near else ""
            raise MetricError(
                f"the model has no hook named {self.hook!r}{hint or ':'} {prompts.hooks.told}"
            )
        if self.hook in prompts.hooks.early:
            raise MetricError(
                f"{self.hook!r} comes before the first block, where no patch changes anything: "
                "read a hook of a block, of the final norm or of the unembedding"
            )
        return self

    def measure(
        self, values: Float[Tensor, "row prompt *rest"], clean: Tensor | None = None
    ) -> Float[Tensor, "row prompt"]:
        """Return one number per prompt, row by row."""
        found = [
            checked(called(self.function, row, self.name), row.shape[0], self.name)
            for row in values
        ]
        return torch.stack(found)


@dataclass(frozen=True, eq=False)
class AttentionTo:
    """How much one head attends from one position to another: an entry of its pattern, 0 to 1.

    Args:
        head: The head, such as ``"9.9"``.
        key: The position that is attended to: a named position, an index, or one per prompt.
        query: The position that attends.

    Example:
        >>> AttentionTo("9.9", "IO").name
        'attention of 9.9 from end to IO'
    """

    head: str | Head
    key: Position
    query: Position = "end"

    @property
    def name(self) -> str:
        """What the metric is called in tables."""
        return f"attention of {self.head} from {_told(self.query)} to {_told(self.key)}"

    def bind(self, prompts: Prompts) -> Activation:
        """Return the metric fitted to the prompts."""
        try:
            head = parse_node(self.head) if isinstance(self.head, str) else self.head
        except CircuitGraphError as error:
            raise MetricError(f"AttentionTo: {error}") from error
        patterns = prompts.hooks.patterns
        if (
            not isinstance(head, Head)
            or head.layer >= len(patterns)
            or patterns[head.layer] not in prompts.hooks
            or head.head >= prompts.n_heads
        ):
            raise MetricError(
                f"AttentionTo reads a head's pattern, and {self.head} is no head of this model: "
                f"its layers have heads 0..{prompts.n_heads - 1}; write 9.6 for layer 9, head 6"
            )
        query = prompts.position(self.query, "AttentionTo")
        key = prompts.position(self.key, "AttentionTo")
        rows = torch.arange(prompts.n_prompts, device=query.device)

        def entry(pattern: Tensor) -> Tensor:
            return pattern[rows, head.head, query, key]

        return Activation(patterns[head.layer], entry, self.name).bind(prompts)

    def measure(self, values: Tensor, clean: Tensor | None = None) -> Tensor:
        """Raise: only the metric that `bind` returns can measure."""
        raise MetricError("AttentionTo must meet the prompts first: give it to an Experiment")


def _told(position: Position) -> str:
    return str(position) if isinstance(position, str | int) else "given positions"
