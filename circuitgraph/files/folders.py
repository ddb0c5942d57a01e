"""A folder of results that takes the place of an older one in a single step.

Files that are replaced one by one would for a while, and after a kill for good, stand beside files
of another run. So a run fills a folder of its own, and at the end the two change names.
"""

import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

from circuitgraph.errors import EffectsError
from circuitgraph.files.reading import read_json
from circuitgraph.files.writing import sync_folder, write_file

__all__ = ["MANIFEST", "ResultsFolder"]

MANIFEST = "run.json"
"""The file that says which run a folder is from: its number, and the SHA-256 of each file."""

_FORMAT = "circuitgraph run"
_AT_FDCWD = -100
_EXCHANGE = 2


class ResultsFolder:
    """A folder that a run fills under another name, and that then takes the place of an older one.

    Whoever looks sees all files of one run, whenever the process ends; what a killed one leaves is
    a hidden folder beside it. Of an older folder, files that `MANIFEST` lists and that nobody
    changed since are dropped; all other files go along, unless the run writes one of that name.

    Args:
        path: The folder's final name; folders above it are made.

    Raises:
        EffectsError: The folder cannot be moved: a process stands in it, it is where a disk begins,
            or it holds folders, so it is more than results.
        OSError: It is a file, or a folder cannot be made there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     results = ResultsFolder(Path(place) / "results")
        ...     _ = (results.staged / "a.txt").write_text("one")
        ...     results.publish()
        ...     sorted(file.name for file in (Path(place) / "results").iterdir())
        ['a.txt', 'run.json']
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._target = Path(os.path.realpath(path))
        if self._target.exists():
            self._target.mkdir(exist_ok=True)  # which says so if it is a file
            _check_can_move(path, self._target)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        name = f".{self._target.name[:40]}.{secrets.token_hex(8)}.new"
        self.staged = self._target.with_name(name)
        self.staged.mkdir()
        if self._target.exists():
            _make_like(self.staged, self._target.stat())
        self._cleaner = weakref.finalize(self, shutil.rmtree, self.staged, ignore_errors=True)

    def publish(self) -> None:
        """Give the folder its final name; there is nothing to be done with this object after it.

        Raises:
            EffectsError: The folder cannot be moved, or a file in it cannot be read.
            OSError: Likewise.
        """
        names = sorted(file.name for file in self.staged.iterdir())
        sums = {name: _digest(self.staged / name) for name in names}
        manifest = {"format": _FORMAT, "version": 1, "run": secrets.token_hex(8), "files": sums}
        write_file(self.staged / MANIFEST, json.dumps(manifest, indent=1) + "\n", EffectsError)
        if self._target.exists():
            _check_can_move(self.path, self._target)
            for file in _not_ours(self._target):
                if not (self.staged / file.name).exists():
                    _carry_over(file, self.staged / file.name)
        sync_folder(self.staged)
        _swap(self.staged, self._target)
        self._cleaner.detach()


def _check_can_move(path: Path, target: Path) -> None:
    """Refuse a folder that something else than results depends on.

    Raises:
        EffectsError: What depends on it.
    """
    here = Path.cwd().resolve()
    if here == target or target in here.parents:
        problem = "it is the current folder, or holds it, and results take the place of a whole one"
    elif os.path.ismount(target):
        problem = "a disk is mounted there, and results take the place of a whole folder"
    elif inner := sorted(entry.name for entry in target.iterdir() if _is_folder(entry)):
        problem = f"it holds other folders ({inner[0]}), so it is more than results of a run"
    else:
        return
    raise EffectsError(
        f"cannot write results to {str(path)!r}: {problem}; name a new folder, such as "
        f"{str(path / 'results')!r}"
    )


def _is_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.is_symlink()


def _not_ours(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that no run wrote, or that were changed since."""
    sums: object = None
    if (folder / MANIFEST).is_file():
        try:
            manifest = read_json(folder / MANIFEST, EffectsError)
        except EffectsError:
            manifest = None
        if isinstance(manifest, dict) and manifest.get("format") == _FORMAT:
            sums = manifest.get("files")
    known = sums if isinstance(sums, dict) else {}
    for file in sorted(folder.iterdir()):
        regular = stat.S_ISREG(file.lstat().st_mode)
        ours = regular and file.name in known and known[file.name] == _digest(file)
        if not ours and (file.name != MANIFEST or not known):
            yield file


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _carry_over(source: Path, target: Path) -> None:
    """Put a file of the old folder into the new one, as a link to the same file where that goes."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _make_like(folder: Path, there: os.stat_result) -> None:
    """Give a new folder the owner and mode of the one whose place it takes."""
    new = folder.stat()
    if (new.st_uid, new.st_gid) != (there.st_uid, there.st_gid):
        os.chown(folder, there.st_uid, there.st_gid)
    folder.chmod(stat.S_IMODE(there.st_mode))


def _swap(new: Path, old: Path) -> None:
    """Give a folder the name of another, whose content is deleted afterwards.

    On Linux and macOS both names change in one step. Where the file system cannot do that, the old
    folder is moved aside first; a process killed in that moment leaves it there, whole.
    """
    if not old.exists():
        new.rename(old)
    elif _exchange(new, old):
        shutil.rmtree(new, ignore_errors=True)
    else:
        aside = old.with_name(f".{old.name[:40]}.{secrets.token_hex(8)}.old")
        old.rename(aside)
        try:
            new.rename(old)
        except BaseException:
            aside.rename(old)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    sync_folder(old.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return False where the system has no way to do that."""
    names = os.fsencode(one), os.fsencode(other)
    library = ctypes.CDLL(None, use_errno=True)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, _EXCHANGE)
        else:
            failed = library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    except AttributeError:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}:
        return False
    raise OSError(number, os.strerror(number), str(other))
