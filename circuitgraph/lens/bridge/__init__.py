"""TransformerLens: where a `TransformerBridge` keeps its parts, and what its hooks are called.

Nothing outside this room knows TransformerLens.
"""
