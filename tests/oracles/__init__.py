"""What a path patch is, computed a second time: plain torch, no hooks, none of circuitgraph.

Slow and obvious on purpose. `plain` is a decoder read off another module's weights,
`path_patching` what semantics say on top of it, `tracr` loads compiled programs.
"""
