"""How many layers and heads a model has, and how its blocks are wired."""

from dataclasses import dataclass, field

from circuitgraph.arguments import collection, flag, whole
from circuitgraph.errors import NodeError

__all__ = ["ModelShape"]


LIMIT = 2**20
"""No model has as many heads; beyond it, nodes alone would take minutes and gigabytes."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the graph needs to know of a model.

    Args:
        n_layers: Number of blocks.
        n_heads: Query heads per layer.
        n_kv_heads: Key and value heads per layer; None means one per query head.
        parallel: Whether attention and MLP of a block read the same point of the residual stream.
        attn_only: Whether the model has no MLPs at all.
        mlp_layers: The layers that have an MLP; None means all (or none, with ``attn_only``).
            Their order and repeats mean nothing.

    Raises:
        NodeError: Numbers that no model can have.

    Example:
        >>> ModelShape(n_layers=30, n_heads=9, n_kv_heads=3).heads_of_group(2)
        (6, 7, 8)
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int | None = None
    parallel: bool = False
    attn_only: bool = False
    mlp_layers: tuple[int, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_heads", "n_kv_heads"):
            number = getattr(self, name)
            if number is not None or name != "n_kv_heads":
                object.__setattr__(self, name, whole(f"ModelShape: {name}", number, NodeError))
        for name in ("parallel", "attn_only"):
            flag(f"ModelShape: {name}", getattr(self, name), NodeError)
        if self.n_layers < 1 or self.n_heads < 1:
            raise NodeError(
                f"a model has at least one layer and one head, got {self.n_layers} layers "
                f"of {self.n_heads} heads"
            )
        if self.n_layers * self.n_heads > LIMIT:
            raise NodeError(
                f"{self.n_layers} layers of {self.n_heads} heads are "
                f"{self.n_layers * self.n_heads:,} heads: a graph has at most {LIMIT:,}"
            )
        if self.n_kv_heads is not None and (
            self.n_kv_heads < 1 or self.n_heads % self.n_kv_heads != 0
        ):
            raise NodeError(
                f"{self.n_heads} query heads cannot share {self.n_kv_heads} key-value heads: "
                "the first must be a multiple of the second"
            )
        if self.mlp_layers is not None:
            given = collection("ModelShape: mlp_layers", self.mlp_layers, "layers", NodeError)
            layers = {whole("ModelShape: mlp_layers", layer, NodeError) for layer in given}
            object.__setattr__(self, "mlp_layers", tuple(sorted(layers)))
            outside = [layer for layer in self.mlp_layers if not 0 <= layer < self.n_layers]
            if outside or (self.attn_only and self.mlp_layers):
                raise NodeError(
                    f"mlp_layers={self.mlp_layers} does not fit {self.n_layers} layers"
                    + (" without MLPs (attn_only)" if self.attn_only else "")
                )

    @property
    def kv_heads(self) -> int:
        """Number of key-value heads per layer, also where each query head has its own."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def grouped(self) -> bool:
        """Whether several query heads share one key-value head."""
        return self.kv_heads != self.n_heads

    def heads_of_group(self, kv_head: int) -> tuple[int, ...]:
        """Return the query heads that read one key-value head."""
        size = self.n_heads // self.kv_heads
        return tuple(range(kv_head * size, (kv_head + 1) * size))

    def has_mlp(self, layer: int) -> bool:
        """Return whether the layer has an MLP."""
        if self.attn_only:
            return False
        return self.mlp_layers is None or layer in self.mlp_layers
