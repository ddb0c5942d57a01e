"""The one writer: what is refused, what is kept, and what a full disk or a kill leaves."""

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from circuitgraph.circuit import Circuit
from circuitgraph.draw import Drawing
from circuitgraph.effects import Comparison, Effects
from circuitgraph.errors import CircuitGraphError, EffectsError
from circuitgraph.files import MANIFEST, ResultsFolder, parse_json, write_file
from circuitgraph.files import folders as swapping
from circuitgraph.graph import ModelShape
from circuitgraph.report import Report

ROOT = os.geteuid() == 0


def effects() -> Effects:
    return Effects.from_arrays(
        [[[3.0, 1.0], [4.0, 2.0]]],
        clean=[4.0, 2.0],
        corrupt=[0.0, -2.0],
        sweep={"layer": [9], "head": [6, 9]},
        request="head -> logits",
    )


def circuit() -> Circuit:
    return Circuit.from_edges(ModelShape(12, 12), {"9.9 -> logits": -0.5, "9.6 -> logits": -0.25})


def drawing() -> Drawing:
    box = '<rect width="9" height="9"/>'
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">{box}</svg>',
        dot="digraph { a_node_of_a_graph -> another_node_of_it }",
    )


WRITERS = {
    "effects.json": lambda path: effects().save(path),
    "comparison.json": lambda path: Comparison({"a": effects(), "b": effects()}).save(path),
    "effects.csv": lambda path: effects().to_csv(path),
    "circuit.json": lambda path: circuit().save(path),
    "mib.json": lambda path: circuit().to_mib(path),
    "drawing.dot": lambda path: drawing().save(path),
    "drawing.svg": lambda path: drawing().save(path),
    "drawing.png": lambda path: drawing().save(path),
    "chart.html": lambda path: effects().heatmap().save(path),
    "report.html": lambda path: Report(question="Why?", versions={}).save(path),
}
every_writer = pytest.mark.parametrize("name", WRITERS)


def only(folder: Path, *names: str) -> bool:
    return sorted(entry.name for entry in folder.iterdir()) == sorted(names)


# -- what is written where -----------------------------------------------------------------------


@every_writer
def test_a_file_is_written_and_nothing_else(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](path)
    first = path.read_bytes()
    assert len(first) > 40
    WRITERS[name](str(path))
    assert path.read_bytes() == first
    assert only(tmp_path, name)


@every_writer
def test_what_is_no_regular_file_is_refused(name, tmp_path):
    folder, pipe = tmp_path / f"folder-{name}", tmp_path / f"pipe-{name}"
    folder.mkdir()
    os.mkfifo(pipe)
    link = tmp_path / f"link-{name}"
    link.symlink_to(os.devnull)
    for path, what in ((folder, "a folder"), (pipe, "a pipe"), (link, "a device")):
        with pytest.raises(CircuitGraphError, match=f"{path.name}': it is {what}, not a regular"):
            WRITERS[name](path)
    assert folder.is_dir()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    assert link.is_symlink()
    with pytest.raises(CircuitGraphError, match=r"there is no folder '.*nowhere'"):
        WRITERS[name](tmp_path / "nowhere" / name)
    assert only(tmp_path, folder.name, pipe.name, link.name)


def test_the_null_device_stays_one():
    with pytest.raises(EffectsError, match="cannot write '/dev/null': it is a device"):
        effects().save("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_links_are_followed(tmp_path):
    (tmp_path / "data").mkdir()
    there, link, dangling = (tmp_path / name for name in ("data/a.json", "link.json", "new.json"))
    there.write_text("old")
    link.symlink_to("data/a.json")
    dangling.symlink_to("data/b.json")
    assert effects().save(link) == link
    effects().save(dangling)
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert Effects.load(there) == Effects.load(tmp_path / "data" / "b.json") == effects()
    assert only(tmp_path / "data", "a.json", "b.json")
    around = tmp_path / "around.json"
    around.symlink_to(around)
    with pytest.raises(EffectsError, match="cannot write"):
        effects().save(around)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666])
def test_a_mode_is_kept(mode, tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(mode)
    effects().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_that_the_system_gives(tmp_path):
    (tmp_path / "plain").touch()
    effects().save(tmp_path / "a.json")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_an_owner_is_kept(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    os.chown(path, 1234, 2345)
    effects().save(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


AS_NOBODY = """
import os, sys
from circuitgraph.errors import EffectsError
from circuitgraph.files import write_file
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    write_file(sys.argv[1], "new", EffectsError)
except EffectsError as error:
    print(error)
"""


@pytest.mark.skipif(not ROOT, reason="needs root to become somebody else")
def test_what_may_not_be_written_stays():
    folder = Path(tempfile.mkdtemp())  # others may not enter pytest's own
    folder.chmod(0o755)
    try:
        theirs, mine = folder / "theirs", folder / "readonly"
        for path in (theirs, mine):
            path.write_text("old")
        theirs.chmod(0o666)
        os.chown(mine, 65534, 65534)
        mine.chmod(0o444)

        def said(path):
            command = [sys.executable, "-c", AS_NOBODY, str(path)]
            root = str(Path(__file__).parent.parent)
            done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
            return done.stdout

        assert "Permission denied" in said(theirs)  # a folder that may not be written to
        folder.chmod(0o777)
        assert "Operation not permitted" in said(theirs)  # an owner that cannot be kept
        assert "it may not be written to (its mode is -r--r--r--)" in said(mine)
        assert theirs.read_text() == mine.read_text() == "old"
        assert only(folder, "theirs", "readonly")
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_texts_that_are_no_utf8(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(EffectsError, match="a text in it cannot be written as UTF-8"):
        write_file(tmp_path / "a", "\ud800", EffectsError)
    with pytest.raises(EffectsError, match="embedded null"):
        write_file(f"{tmp_path}/a\0b", "text", EffectsError)
    assert (tmp_path / "a").read_text() == "old"


# -- a disk that is full -------------------------------------------------------------------------

FULL = """
import resource, signal, sys
sys.path.insert(0, ".")
from tests.test_files import WRITERS
from circuitgraph.errors import CircuitGraphError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for name, write in WRITERS.items():
    write(f"{sys.argv[1]}/{name}")
before = {name: open(f"{sys.argv[1]}/{name}", "rb").read() for name in WRITERS}
resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
for name, write in WRITERS.items():
    try:
        write(f"{sys.argv[1]}/{name}")
    except CircuitGraphError as error:
        whole = open(f"{sys.argv[1]}/{name}", "rb").read() == before[name]
        print(name, whole, str(error).rpartition(": ")[2])
"""


def test_where_a_file_cannot_grow_the_old_one_stays(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.splitlines() == [f"{name} True File too large" for name in WRITERS]
    assert only(tmp_path, *WRITERS)


@pytest.mark.large
@pytest.mark.skipif(not ROOT, reason="only root can mount")
def test_a_disk_that_is_full(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    small = {name: write for name, write in WRITERS.items() if name != "figure.html"}
    try:
        for name, write in small.items():
            write(tmp_path / name)
        before = {name: (tmp_path / name).read_bytes() for name in small}
        with (tmp_path / "filler").open("wb", buffering=0) as filler:
            with pytest.raises(OSError, match="No space left"):
                while filler.write(bytes(4096)):
                    pass
        for name, write in small.items():
            with pytest.raises(CircuitGraphError, match="No space left on device"):
                write(tmp_path / name)
            assert (tmp_path / name).read_bytes() == before[name]
        assert only(tmp_path, "filler", *small)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("step", ["fsync", "fchmod", "replace", "interrupt"])
def test_whatever_fails_leaves_the_old_file_and_no_other(step, tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")

    def fail(*_: object, **__: object) -> None:
        if step == "interrupt":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, {"interrupt": "fsync"}.get(step, step), fail)
    if step == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((EffectsError, KeyboardInterrupt)):
        write_file(path, "new", EffectsError)
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert only(tmp_path, "a")


def test_many_writers_of_one_file_leave_one_of_them(tmp_path):
    path = tmp_path / "a"
    contents = [str(number) * 100_000 for number in range(8)]
    threads = [
        threading.Thread(target=write_file, args=(path, content, EffectsError))
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in contents
    assert only(tmp_path, "a")


# -- folders -------------------------------------------------------------------------------------


def fill(path: Path, **files: str) -> ResultsFolder:
    results = ResultsFolder(path)
    for name, text in files.items():
        (results.staged / name).write_text(text)
    return results


def texts(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir() if file.name != MANIFEST}


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(swapping, "_exchange", lambda *_: False)
    path = tmp_path / "deep" / "results"
    fill(path, a="1", b="1").publish()
    path.chmod(0o750)
    results = fill(path, b="2", c="2")
    assert texts(path) == {"a": "1", "b": "1"}
    results.publish()
    assert texts(path) == {"b": "2", "c": "2"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    said = json.loads((path / MANIFEST).read_text())
    assert sorted(said["files"]) == ["b", "c"]
    assert only(tmp_path / "deep", "results")


def test_files_of_others_go_along(tmp_path):
    path = tmp_path / "results"
    path.mkdir()
    (path / "notes").write_text("mine")
    (path / "link").symlink_to("notes")
    fill(path, a="1", b="1", c="1").publish()
    assert texts(path) == {"notes": "mine", "link": "mine", "a": "1", "b": "1", "c": "1"}
    (path / "a").write_text("changed by hand")
    (path / "b").write_text("changed by hand")
    fill(path, b="2").publish()
    assert texts(path) == {"notes": "mine", "link": "mine", "a": "changed by hand", "b": "2"}
    assert (path / "link").is_symlink()


def test_a_folder_that_is_given_up_leaves_nothing(tmp_path):
    path = tmp_path / "results"
    fill(path, a="1").publish()
    results = fill(path, b="2")
    del results
    assert texts(path) == {"a": "1"}
    assert only(tmp_path, "results")


def test_folders_that_cannot_be_moved(tmp_path, monkeypatch):
    (tmp_path / "work" / "src").mkdir(parents=True)
    with pytest.raises(EffectsError, match=r"it holds other folders \(src\).*name a new folder"):
        ResultsFolder(tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work" / "src")
    for here in (Path(), Path(".."), tmp_path / "work" / "src"):
        with pytest.raises(EffectsError, match="it is the current folder, or holds it"):
            ResultsFolder(here)
    with pytest.raises(EffectsError, match="a disk is mounted there"):
        ResultsFolder(Path("/proc"))
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        ResultsFolder(tmp_path / "file")
    assert only(tmp_path, "work", "file")


def test_a_link_to_a_folder_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    fill(tmp_path / "link", a="1").publish()
    assert (tmp_path / "link").is_symlink()
    assert texts(tmp_path / "real") == {"a": "1"}


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 1}}', "the key 'b' stands twice in one object"),
        ("[NaN]", "NaN is no number of JSON"),
        ("-Infinity", "-Infinity is no number of JSON"),
        ("[" * 51 + "]" * 51, "more than 50 lists and objects stand in each other"),
        ("[" * 100_000 + "]" * 100_000, "more than 50 lists and objects stand in each other"),
        ('{"a":' * 60 + "1" + "}" * 60, "more than 50 lists and objects stand in each other"),
        ("1" * 5000, "Exceeds the limit"),
    ],
)
def test_json_that_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_json_that_is_read():
    assert parse_json('{"a": [1, 2.5, null, {"a": true}]}') == {"a": [1, 2.5, None, {"a": True}]}
    assert parse_json("[" * 50 + "]" * 50)


@pytest.mark.parametrize("load", [Effects.load, Comparison.load, Circuit.load, Circuit.from_mib])
def test_pipes_folders_and_devices_are_not_read(load, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, what in (
        (tmp_path / "pipe", "a pipe or a device"),
        (Path("/dev/zero"), "a pipe or a device"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(CircuitGraphError, match=f"no file .*it is {what}"):
            load(path)
    with pytest.raises(CircuitGraphError, match="no file"):
        load(tmp_path / "pipe" / "x")
    with pytest.raises(CircuitGraphError, match="embedded null"):
        load(f"{tmp_path}/\0")
