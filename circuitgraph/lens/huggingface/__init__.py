"""Plain Hugging Face models: where an ``AutoModelForCausalLM`` keeps its parts.

A family's modules are named in a small table (`families`), or in a map that a user gives; what was
named is then proved on the model itself (`proof`). This room imports nothing of TransformerLens.
"""

from circuitgraph.lens.huggingface.families import HuggingFaceMap

__all__ = ["HuggingFaceMap"]
