"""Estimates: what arrives at a receiver is exact, what becomes of it is the gradient's word.

`estimators` are the values that ``engine=`` takes. `engine` answers plans with them: `asked` says
which changes meet which gradients, `runs` takes the gradients (one backward pass each, `backward`,
added up in `ports`), `contraction` lets changes meet gradients as the fast engine finds them.
It knows nothing of labels, files or drawing.
"""

from circuitgraph.engines.gradient.estimators import EAP, EAPIG, CleanCorrupt

__all__ = ["EAP", "EAPIG", "CleanCorrupt"]
