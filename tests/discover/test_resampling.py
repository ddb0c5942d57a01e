"""Stability of a cut, against plain loops over resamples."""

import numpy as np
import pytest

from circuitgraph.discover import cut, stability
from circuitgraph.effects import Effects
from circuitgraph.errors import CircuitError

HEADS = [f"{layer}.{head}" for layer in range(3) for head in range(4)]
SHAPE = '{"n_layers": 3, "n_heads": 4, "attn_only": true}'


def effects_of(patched, clean, corrupt):
    return Effects.from_arrays(
        patched,
        clean,
        corrupt,
        sweep={"sender": HEADS},
        request=f"[{', '.join(HEADS)}] -> logits",
        shape=SHAPE,
    )


@pytest.fixture
def noisy():
    generator = np.random.default_rng(3)
    clean = 4 + generator.normal(size=9)
    strength = np.linspace(0, -2, len(HEADS))[:, None]
    patched = clean + strength + generator.normal(size=(len(HEADS), 9))
    return effects_of(patched, clean, generator.normal(size=9))


@pytest.mark.parametrize("sign", ["absolute", "signed"])
@pytest.mark.parametrize("how", ["top", "greedy"])
def test_it_is_the_plain_loop(noisy, how, sign):
    found = stability(noisy, 4, how, sign, resamples=40, seed=5)
    counts = np.random.default_rng(5).multinomial(9, np.full(9, 1 / 9), size=40)
    data = noisy.data
    circuits = []
    for times in counts:
        rows = np.repeat(np.arange(9), times)
        drawn = effects_of(
            data["patched"].to_numpy()[:, rows],
            data["clean"].to_numpy()[rows],
            data["corrupt"].to_numpy()[rows],
        )
        circuits.append({str(edge) for edge in cut(drawn, 4, how, sign)})
    pairs = [
        len(one & other) / len(one | other)
        for at, one in enumerate(circuits)
        for other in circuits[:at]
    ]
    assert found.jaccard == pytest.approx(np.mean(pairs), abs=1e-12)
    whole = {str(edge) for edge in cut(noisy, 4, how, sign)}
    assert found.jaccard_to_circuit == pytest.approx(
        [len(one & whole) / len(one | whole) for one in circuits]
    )
    share = {row.edge: row.frequency for row in found.frequency.itertuples() if row.frequency > 0}
    every = set().union(*circuits)
    assert share == {name: np.mean([name in one for one in circuits]) for name in every}
    assert set(found.frequency["edge"][found.frequency["in_circuit"]]) == whole


def test_prompts_that_all_say_the_same_are_stable_and_noise_is_not():
    clean = np.full(12, 4.0)
    patched = clean + np.linspace(0, -2, len(HEADS))[:, None]
    sure = stability(effects_of(patched, clean, np.zeros(12)), 3)
    assert sure.jaccard == 1
    assert sure.stable
    assert sure.core().members == sure.circuit.members
    generator = np.random.default_rng(0)
    noise = clean + generator.normal(size=(len(HEADS), 12))
    unsure = stability(effects_of(noise, clean, np.zeros(12)), 3)
    assert unsure.jaccard < 0.6
    assert not unsure.stable
    assert "not stable: a mean Jaccard index of 0.8" in repr(unsure)
    assert len(unsure.core()) < 3


def test_what_is_not_allowed(noisy):
    with pytest.raises(CircuitError, match="resamples must be a whole number of 2 or more, got 1"):
        stability(noisy, 3, resamples=1)
    one_prompt = effects_of(np.ones((len(HEADS), 1)), [2.0], [0.0])
    with pytest.raises(CircuitError, match="one prompt: there is nothing to draw anew"):
        stability(one_prompt, 3)
    with pytest.raises(CircuitError, match="stability needs Effects"):
        stability(cut(noisy, 3), 3)
