"""What tests share: the small language model, loaded once."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2_loaded():
    """SmolLM2-135M with what was written and asked of the network while it was loaded."""
    from circuitgraph.errors import ModelError
    from circuitgraph.models.wheel import find_gguf
    from tests.loading import Loaded

    try:
        find_gguf()
    except ModelError as error:
        pytest.skip(str(error))
    return Loaded()


@pytest.fixture(scope="session")
def mib_file():
    """A circuit file of the MIB benchmark, where the folder with it is named."""
    folder = os.environ.get("CIRCUITGRAPH_CASES")
    if not folder:
        pytest.skip("CIRCUITGRAPH_CASES names no folder with the benchmark's circuit file")
    return Path(folder) / "mib_ioi_eapig.json"


@pytest.fixture(scope="session")
def smollm2(smollm2_loaded):
    """SmolLM2-135M, shared: leave it as it is."""
    return smollm2_loaded.model


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the users of SmolLM2, and send them all to one process: it is loaded once."""
    for item in items:
        if "smollm2_loaded" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.smollm2)
            item.add_marker(pytest.mark.xdist_group("smollm2"))
