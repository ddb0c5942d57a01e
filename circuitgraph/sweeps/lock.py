"""One driver for a folder: a lock that ends with the process that holds it, however it ends."""

import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from circuitgraph.errors import SweepError

__all__ = ["holder", "only_driver"]

LOCK = "driver.lock"

_HELD: set[Path] = set()
_HELD_LOCK = threading.Lock()
"""Folders that this process works on: the system's lock is one for a whole process."""


@contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Have a folder to oneself inside the ``with`` block.

    The system takes the lock away when the process ends, killed or not.

    Raises:
        SweepError: Another driver works on it, and which; or it cannot be written to or locked.
    """
    place = folder.resolve()
    with _HELD_LOCK:
        if place in _HELD:
            raise _busy(folder, "another sweep of this process")
        _HELD.add(place)
    try:
        descriptor = _open(place / LOCK)
        try:
            _lock(descriptor, folder)
            with suppress(OSError):  # who works here is good to know; a full disk shows later
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _myself().encode(), 0)
            yield
        finally:
            os.close(descriptor)
    finally:
        with _HELD_LOCK:
            _HELD.discard(place)


def holder(folder: Path) -> str:
    """Return who works on a folder; empty where nobody does."""
    if folder.resolve() in _HELD:  # opening and closing the file would give our lock away
        return _myself()
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return os.read(descriptor, 1000).decode(errors="replace").strip() or "another process"
    finally:
        os.close(descriptor)
    return ""


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise SweepError(
            f"cannot write to the folder {str(path.parent)!r}: {error.strerror}"
        ) from error


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        who = os.read(descriptor, 1000).decode(errors="replace").strip()
        raise _busy(folder, who or "another process") from None
    except OSError as error:
        raise SweepError(
            f"the file system of {str(folder)!r} knows no locks ({error.strerror}), so a second "
            "sweep could not be kept away: name a folder on another one"
        ) from error


def _myself() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _busy(folder: Path, who: str) -> SweepError:
    return SweepError(
        f"{who} works on the sweep in {str(folder)!r}: wait for it, or see how far it is with "
        f"circuitgraph sweep --status {json.dumps(str(folder))}"
    )
