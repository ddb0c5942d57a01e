"""Which estimate: the values that ``engine=`` takes. They differ in where the gradient is taken."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from circuitgraph.errors import RequestError

if TYPE_CHECKING:
    from circuitgraph.engines.engine import EngineOptions
    from circuitgraph.engines.gradient.engine import GradientEngine
    from circuitgraph.engines.setup import Setup

__all__ = ["EAP", "EAPIG", "CleanCorrupt", "Estimator", "Path", "Rules", "Spot"]

Rules = Literal["relp", "gim"]
Path = Literal["inputs", "activations"]


@dataclass(frozen=True, slots=True)
class Spot:
    """A run at which the gradient is taken: between clean and corrupt.

    Args:
        what: What is moved: ``embed`` for the whole input, ``z`` or ``mlp`` for the heads or the
            MLP of one layer. All else is then computed from it, on the clean prompts.
        layer: Which layer.
        clean: How far it is moved: ``corrupt + clean * (clean value - corrupt value)``.
        share: What this run counts for in the mean.
    """

    what: Literal["embed", "z", "mlp"]
    layer: int
    clean: float
    share: float


class _Named:
    """What the estimates have in common: their name, and that they are estimates."""

    __slots__ = ()

    is_estimate = True
    rules: Rules | None

    def _check_rules(self) -> None:
        if self.rules is not None and self.rules not in get_args(Rules):
            raise RequestError(
                f"no rules {self.rules!r}: write one of {', '.join(get_args(Rules))}, or None"
            )

    def prepare(self, setup: "Setup", options: "EngineOptions") -> "GradientEngine":
        """Return the engine on an experiment; nothing is run yet."""
        from circuitgraph.engines.gradient.engine import GradientEngine

        return GradientEngine(setup, self, options)  # type: ignore[arg-type]

    def _named(self, name: str) -> str:
        return name if self.rules is None else f"{name} with {_RULES[self.rules]}"


_RULES = {"relp": "RelP rules", "gim": "GIM rules"}


@dataclass(frozen=True, slots=True)
class EAP(_Named):
    """Edge attribution patching: the gradient at the clean run.

    An estimate is ``< change that arrives at the receiver, gradient at the receiver's input >``,
    one forward and one backward pass for all edges. The change is exact; what the rest of the model
    makes of it is its first-order term, which fails where softmax saturates.

    Args:
        rules: How the gradient passes norms, activations, gates and softmax: ``relp``, ``gim``, or
            as it is.

    Raises:
        RequestError: No such rules.

    Example:
        >>> EAP().name, EAP(rules="gim").name
        ('EAP', 'EAP with GIM rules')

    Nanda 2023; Syed, Rager and Conmy 2023, arXiv:2310.10348.
    """

    rules: Rules | None = None

    def __post_init__(self) -> None:
        self._check_rules()

    @property
    def name(self) -> str:
        """What results call it."""
        return self._named("EAP")

    def spots(self, mlp_layers: tuple[int, ...], n_layers: int) -> Iterator[Spot]:  # noqa: ARG002
        """Yield the runs at which the gradient is taken."""
        yield Spot("embed", 0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class CleanCorrupt(_Named):
    """Attribution with the mean of the gradients at the clean and at the corrupt run.

    Args:
        rules: As for `EAP`.

    Raises:
        RequestError: No such rules.

    Example:
        >>> CleanCorrupt().name
        'clean-corrupt'
    """

    rules: Rules | None = None

    def __post_init__(self) -> None:
        self._check_rules()

    @property
    def name(self) -> str:
        """What results call it."""
        return self._named("clean-corrupt")

    def spots(self, mlp_layers: tuple[int, ...], n_layers: int) -> Iterator[Spot]:  # noqa: ARG002
        """Yield the runs at which the gradient is taken."""
        yield Spot("embed", 0, 1.0, 0.5)
        yield Spot("embed", 0, 0.0, 0.5)


MOST_STEPS = 10_000
"""Papers take 5 to 100."""


@dataclass(frozen=True, slots=True)
class EAPIG(_Named):
    """Edge attribution patching with integrated gradients: a mean over runs on the way.

    Args:
        steps: How many runs: at ``k / steps`` of the way from corrupt to clean, ``k`` from 0 to
            ``steps - 1``, so that the corrupt end is among them and the clean end is not.
        path: What moves: ``inputs``, the embeddings; or ``activations``: the embedding, the heads
            of each layer and each MLP in turn, each by itself, ``steps`` runs for each.
        rules: As for `EAP`.

    Raises:
        RequestError: No such path or rules, or less than one step.

    Example:
        >>> EAPIG(steps=5).name
        'EAP-IG (5 steps)'

    Hanna, Pezzelle and Belinkov 2024, arXiv:2403.17806.
    """

    steps: int = 5
    path: Path = "inputs"
    rules: Rules | None = None

    def __post_init__(self) -> None:
        self._check_rules()
        whole = isinstance(self.steps, int) and not isinstance(self.steps, bool)
        if not whole or not 1 <= self.steps <= MOST_STEPS:
            raise RequestError(
                f"EAPIG(steps={self.steps!r}): steps is a whole number from 1 to {MOST_STEPS:,}"
            )
        if self.path not in get_args(Path):
            raise RequestError(
                f"EAPIG(path={self.path!r}): the path is one of {', '.join(get_args(Path))}"
            )

    @property
    def name(self) -> str:
        """What results call it."""
        kind = "EAP-IG" if self.path == "inputs" else "EAP-IG activations"
        return self._named(f"{kind} ({self.steps} step{'s' * (self.steps != 1)})")

    def spots(self, mlp_layers: tuple[int, ...], n_layers: int) -> Iterator[Spot]:
        """Yield the runs at which the gradient is taken."""
        moved: list[tuple[Literal["embed", "z", "mlp"], int]] = [("embed", 0)]
        if self.path == "activations":
            for layer in range(n_layers):
                moved.append(("z", layer))
                moved += [("mlp", layer)] * (layer in mlp_layers)
        share = 1 / (self.steps * len(moved))
        for what, layer in moved:
            for step in range(self.steps):
                yield Spot(what, layer, step / self.steps, share)


Estimator = EAP | CleanCorrupt | EAPIG
