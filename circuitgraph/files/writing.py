"""The one writer: a file holds all of what was last written to it, or all of what it held before.

The content goes to a temporary file of its own random name in the same folder, which reaches the
disk and then takes the file's name in one step. So neither a full disk nor a killed process leaves
half a file under the name; a killed process can leave the temporary file.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from circuitgraph.errors import CircuitGraphError
from circuitgraph.files.reading import path_of

__all__ = ["remove_unfinished", "write_file"]

TEMPORARY = ".circuitgraph-{}.tmp"
"""The name of a temporary file, around its random digits."""


def write_file(path: str | Path, content: str | bytes, error: type[CircuitGraphError]) -> Path:
    """Write a file as a whole, and return its path as it was given.

    A link is followed, and the file that it leads to is written. A file that is there keeps its
    mode and its owner.

    Args:
        path: Where; its folder must exist.
        content: All of it; texts are written as UTF-8.
        error: What to raise.

    Raises:
        CircuitGraphError: Of the class ``error``: there is no such folder, what is there is no
            regular file (a folder, a device, a pipe) or may not be written to, the disk is full.
            What the file held before is unharmed then.

    Example:
        >>> import tempfile
        >>> from circuitgraph.errors import EffectsError
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_file(Path(folder) / "a.txt", "all of it", EffectsError)
        ...     path.read_text()
        'all of it'
    """
    given = path_of(path, error)
    try:
        raw = content.encode() if isinstance(content, str) else content
        target = Path(os.path.realpath(given))
        _write(target, raw, _allowed(given, target, error))
    except UnicodeEncodeError as problem:
        raise error(
            f"cannot write {str(given)!r}: a text in it cannot be written as UTF-8 ({problem})"
        ) from problem
    except (OSError, ValueError) as problem:
        if isinstance(problem, CircuitGraphError):
            raise
        reason = getattr(problem, "strerror", None) or str(problem)
        raise error(f"cannot write {str(given)!r}: {reason}") from problem
    return given


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder nobody else writes to now."""
    for path in folder.glob(TEMPORARY.format("*")):
        with suppress(OSError):
            path.unlink()


def _allowed(given: Path, target: Path, error: type[CircuitGraphError]) -> os.stat_result | None:
    """Return what is known of the file that is there, None where there is none.

    Raises:
        CircuitGraphError: It cannot be replaced.
    """
    where = f"cannot write {str(given)!r}"
    if not target.parent.is_dir():
        raise error(f"{where}: there is no folder {str(given.parent)!r}")
    try:
        there = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(there.st_mode):
        raise error(f"{where}: it is {_kind(there.st_mode)}, not a regular file")
    if not os.access(target, os.W_OK):
        raise error(
            f"{where}: it may not be written to (its mode is {stat.filemode(there.st_mode)})"
        )
    return there


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def _write(target: Path, raw: bytes, there: os.stat_result | None) -> None:
    """Write a temporary file and give it the target's name; whatever happens, none stays behind."""
    temporary = target.with_name(TEMPORARY.format(secrets.token_hex(8)))
    # Until it has its owner, nobody else may look into what takes the place of a private file.
    mode = 0o666 if there is None else 0o600
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(temporary, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            if there is not None:
                _make_like(file.fileno(), there)
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(target.parent)


def _make_like(descriptor: int, there: os.stat_result) -> None:
    """Give a new file the owner, group and mode of the one whose place it takes."""
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (there.st_uid, there.st_gid):
        os.fchown(descriptor, there.st_uid, there.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(there.st_mode))


def sync_folder(folder: Path) -> None:
    """Make names in a folder last through a power cut, where the file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
