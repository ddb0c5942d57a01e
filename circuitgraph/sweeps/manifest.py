"""What a sweep computes, said field by field, and the parts that it is cut into.

Everything that could make another number is in the manifest, so two sweeps with equal manifests may
be joined, and a part is known by the manifest and by which cells and prompts it holds.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from circuitgraph.files import Strict

__all__ = ["Manifest", "Part", "versions"]

_COMPUTES = ("circuitgraph-lens", "numpy", "torch", "transformer-lens", "transformers")
"""The packages whose version may change a number."""


class Manifest(Strict):
    """What a sweep computes.

    Args:
        request: What is patched.
        variant: What direct paths may pass through.
        mode: What patching several receivers means.
        source: Where patched values come from, values and data set of one's own included.
        cells: ``all``, or which were chosen.
        engine: What answers, with its settings.
        metric: What is measured, with its tokens and positions.
        prompts: Clean and corrupt tokens, lengths, and where positions stand.
        model: Its name and shape.
        weights: The weights' fingerprint: every byte of them, and the settings.
        dtype: What the model computes in.
        versions: Of the packages that compute.
    """

    request: str
    variant: str
    mode: str
    source: str
    cells: str
    engine: str
    metric: str
    prompts: str
    model: str
    weights: str
    dtype: str
    versions: dict[str, str]

    @property
    def digest(self) -> str:
        """A short text that tells this manifest from others."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: "Manifest") -> Iterator[tuple[str, str, str]]:
        """Yield each field that differs, with what it says here and there."""
        for name in type(self).model_fields:
            here, there = getattr(self, name), getattr(other, name)
            if name == "versions":
                for package in sorted({*here, *there}):
                    one, two = here.get(package, "none"), there.get(package, "none")
                    if one != two:
                        yield f"version of {package}", one, two
            elif here != there:
                yield name, here, there


@dataclass(frozen=True, slots=True)
class Part:
    """Some cells of a sweep on some of its prompts: what one worker computes in one go.

    Args:
        of: The manifest's digest: request, method, prompts, weights, metric, versions, dtype. Empty
            where a part does not leave its process, so that nothing need be told from it.
        cells: Numbers of cells in the plan.
        prompts: Numbers of prompts; None for all.

    Example:
        >>> Part("f00d", range(0, 4)).name == Part("f00d", range(0, 4)).name
        True
    """

    of: str
    cells: range
    prompts: range | None = None

    @property
    def name(self) -> str:
        """What the part computes, as a short text."""
        text = f"{self.of} {self.cells} {self.prompts}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that compute."""
    found = {}
    for name in _COMPUTES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found
