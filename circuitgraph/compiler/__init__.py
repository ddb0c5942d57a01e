"""From a request to a plan. Nothing here knows torch or a model.

`compiling` reads like the list of what happens; `checks` refuses what is wrong, `layout` lays out
the `grid` of cells, `runs` writes what each cell does.
"""

from circuitgraph.compiler.compiling import compile

__all__ = ["compile"]
