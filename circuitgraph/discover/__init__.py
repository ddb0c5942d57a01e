"""From scores of edges to a circuit: cutting, searching, and how far a choice can be trusted.

`cut` chooses edges by their scores; `stability` says how far that choice hangs on the prompts.
`acdc` removes edges while the answer stays, `backward` follows what stands out back from the
logits; both return a `Search`. What is found is a `Circuit`; whether it answers, the room
`evaluation` says. This room compiles and runs nothing itself: it asks an experiment. It knows
nothing of files or drawing.
"""

from circuitgraph.circuit.cutting import cut
from circuitgraph.discover.acdc import acdc
from circuitgraph.discover.backward import backward
from circuitgraph.discover.resampling import Stability, stability
from circuitgraph.discover.screen import Screening, screen
from circuitgraph.discover.search import Search

__all__ = ["Screening", "Search", "Stability", "acdc", "backward", "cut", "screen", "stability"]
