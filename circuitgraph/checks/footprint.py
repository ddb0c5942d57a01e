"""What a model is like, so that one can say that it was left as it was."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Footprint"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Everything about a model that patching must leave alone.

    Args:
        weights: A checksum of every parameter and buffer, by name.
        hooks: Names of hook points that hold hooks, and how many.
        forwards: Names of modules whose forward is replaced.
        training: Names of modules in training mode.
        random_state: A hash of torch's global random state.
    """

    weights: tuple[tuple[str, int], ...]
    hooks: tuple[tuple[str, int], ...]
    forwards: tuple[str, ...]
    training: tuple[str, ...]
    random_state: int

    @classmethod
    def of(cls, model: Any) -> "Footprint":
        """Return a model's footprint; reads every weight once."""
        modules = list(model.named_modules())
        return cls(
            weights=tuple(_checksums(model)),
            hooks=tuple(
                (name, number) for name, module in modules if (number := _count_hooks(module))
            ),
            forwards=tuple(name for name, module in modules if "forward" in vars(module)),
            training=tuple(name for name, module in modules if module.training),
            random_state=hash(torch.get_rng_state().numpy().tobytes()),
        )

    def changes(self, after: "Footprint") -> Iterator[str]:
        """Yield what is different afterwards, in words."""
        for what, one, other in (
            ("the weights changed", self.weights, after.weights),
            ("hooks stayed behind", self.hooks, after.hooks),
            ("forwards stayed replaced", self.forwards, after.forwards),
            ("modules changed between training and evaluation", self.training, after.training),
        ):
            names = sorted({str(item) for item in set(one) ^ set(other)})
            if names:
                yield f"{what} at {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
        if self.random_state != after.random_state:
            yield "torch's global random state moved"


def _count_hooks(module: Any) -> int:
    held = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return sum(map(len, held))


def _checksums(model: Any) -> Iterator[tuple[str, int]]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in tensors.items():
        yield name, _checksum(tensor)


def _checksum(tensor: torch.Tensor) -> int:
    """Return the sum of a tensor's bits, read as whole numbers."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = tensor.detach().contiguous().view(kinds[tensor.element_size()])
    return int(bits.sum(dtype=torch.int64).item())
