"""Writers killed with signal 9 at random moments: the file is one that was written, whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


def kill(folder: Path, times: int) -> dict[str, dict[str, int]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", str(folder), str(times)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "times",
    [3, pytest.param(40, marks=pytest.mark.large), pytest.param(400, marks=pytest.mark.large)],
)
def test_nothing_is_lost_in_a_kill(times: int, tmp_path: Path) -> None:
    found = kill(tmp_path, times)
    assert len(found) == 10
    assert {name: (part["killed"], part["lost"]) for name, part in found.items()} == dict.fromkeys(
        found, (times, 0)
    )
    if times >= 40:
        # The kills did fall into writing: that is what leaves temporary files behind.
        assert sum(part["temporary files left"] for part in found.values()) > 20
