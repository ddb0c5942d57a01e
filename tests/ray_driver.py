"""A driver of a sweep with two workers, to be ended: ``python -m tests.ray_driver FOLDER LOG``."""

import sys
from functools import partial
from pathlib import Path

import circuitgraph as cg
from tests.sweeping import METHOD, REQUEST, logged

if __name__ == "__main__":
    folder, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    recipe = partial(logged, log, seconds)
    try:
        cg.sweep(recipe, REQUEST, **METHOD, into=folder, cells=10, workers=2)
    except cg.CircuitGraphError as error:
        print(error)
        raise SystemExit(99) from error
