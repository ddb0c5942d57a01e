"""Ctrl-C as it really comes: a signal to another process, at any moment of a patch."""

import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

CHILD = """
import signal
import sys
import numpy as np
import circuitgraph as cg
from circuitgraph.lens.guard import foreign_forwards, foreign_hooks
from circuitgraph.lens.modules import Replacement
from tests import models

engine, turns = sys.argv[1], int(sys.argv[2])
tiny = models.tiny_gpt2()
bridge = tiny.new_bridge()
clean, corrupt = tiny.tokens(3, 5, seed=1), tiny.tokens(3, 5, seed=2)
exp = cg.Experiment(bridge, clean, corrupt, cg.LogitDiff([1, 2, 3], [4, 5, 6]))


def patched():
    found = exp.patch("0.0 -> {1.0.v, 1.1.q, 2.0.k} => logits", "mlps", engine=engine)
    return found.data["patched"].to_numpy()


def left():
    forwards = [m for m in bridge.modules() if isinstance(vars(m).get("forward"), Replacement)]
    hooks = [h for m in bridge.modules() for h in m._forward_hooks.values()]
    ours = [h for h in hooks if str(getattr(h, "__module__", "")).startswith("circuitgraph")]
    return len(forwards) + len(ours) + len(foreign_hooks(bridge)) + len(foreign_forwards(bridge))


expected, interrupted = patched(), 0
for turn in range(turns):
    try:
        # A shell that starts tests in the background has interrupts ignored, children's too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("start", flush=True)
        while True:
            patched()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupted += 1
    # Whatever was left would have made the next patch wrong, and is gone after it.
    found = patched()
    assert np.array_equal(found, expected), (turn, found, expected)
    assert left() == 0, turn
print("interrupted", interrupted, flush=True)
"""


@pytest.mark.parametrize(
    ("engine", "turns"),
    [
        ("fast", 6),
        ("reference", 6),
        pytest.param("fast", 500, marks=pytest.mark.large),
        pytest.param("reference", 500, marks=pytest.mark.large),
    ],
)
def test_a_real_interrupt_leaves_the_model_as_it_was(engine: str, turns: int) -> None:
    root = Path(__file__).parent.parent
    generator = np.random.default_rng(turns)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, engine, str(turns)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            for _ in range(turns):
                if child.stdout.readline().strip() != "start":
                    break
                time.sleep(float(generator.uniform(0, 0.2)))
                child.send_signal(signal.SIGINT)
                assert select.select([child.stdout], [], [], 60)[0], "the interrupt was lost"
            out, err = child.communicate(timeout=300)
        finally:
            child.kill()
    assert out.strip() == f"interrupted {turns}", err[-2000:]
