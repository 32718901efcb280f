"""Two processes never write one folder, whatever becomes of the file of its lock; what the killed left is removed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrunner.errors import BusyError, RunError
from dlrunner.files.locks import FolderLock
from dlrunner.runs.directory import RunDirectory
from dlrunner.sweeps.folder import Job, SweepDirectory
from tests.conftest import QUICK, Dlrun, start

IDENTITY = {"signature": "0a1b2c3d", "code": "c", "data": "d"}
WORDS = ("task=collab", "data.path=my.csv", "epochs=5", *QUICK)


def claim(here: Path) -> RunDirectory:
    return RunDirectory.claim(here / "runs", "collab", "a", IDENTITY)[0]


def test_a_lock_that_another_process_may_have_stops_the_writer(here: Path) -> None:
    first = claim(here)
    first.save("last.pt", {"a": 1})
    (first.path / ".lock").unlink()
    second = claim(here)
    whole = (first.path / "last.pt").read_bytes()
    attempts: list[Callable[[], None]] = [
        lambda: first.save("last.pt", {"a": 2}),
        lambda: first.write_text("metrics.jsonl", ""),
        lambda: first.member(0).save("last.pt", {}),
        lambda: first.finish({"status": "done"}),
    ]
    for write in attempts:
        with pytest.raises(RunError, match="was removed or replaced"):
            write()
    assert (first.path / "last.pt").read_bytes() == whole
    assert not (first.path / "summary.json").exists()
    second.save("last.pt", {"a": 3})
    first.release()
    with pytest.raises(BusyError):
        claim(here)


def test_a_lock_that_was_only_removed_is_taken_again(here: Path) -> None:
    first = claim(here)
    (first.path / ".lock").unlink()
    first.save("last.pt", {"a": 1})
    with pytest.raises(BusyError):
        claim(here)
    first.release()
    claim(here).release()


def test_a_lock_is_never_a_link(here: Path) -> None:
    claim(here).release()
    (lock,) = here.glob("runs/collab/*/.lock")
    lock.unlink()
    lock.symlink_to(here / "elsewhere")
    with pytest.raises(RunError, match=r"\.lock"):
        claim(here)
    assert not (here / "elsewhere").exists()


def test_a_lock_that_is_replaced_while_it_is_taken_is_nobodys(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flock = here / "lock", fcntl.flock
    taken: list[int] = []

    def replaced(descriptor: int, how: int) -> None:
        flock(descriptor, how)
        if len(taken) < 3:
            taken.append(descriptor)
            path.unlink()
            if len(taken) < 3:
                path.touch()

    monkeypatch.setattr(fcntl, "flock", replaced)
    held = FolderLock.take(path)
    assert held is not None
    assert len(taken) == 3
    assert FolderLock.take(path) is None
    held.check()
    held.release()


@pytest.mark.parametrize("missing", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_on_a_file_system_without_locks_no_run_begins_and_nothing_keeps_the_next_one_out(
    here: Path, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(missing, os.strerror(missing))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        with pytest.raises(RunError, match=os.strerror(missing)):
            claim(here)
    claim(here).release()


def test_a_sweep_whose_lock_was_replaced_stops_writing(here: Path) -> None:
    with SweepDirectory(here / "sweep") as folder:
        folder.add(Job(0, [], {}))
        (here / "sweep" / ".lock").unlink()
        with SweepDirectory(here / "sweep"), pytest.raises(RunError, match="was removed or replaced"):
            folder.write_record(0, {"status": "done"})


def test_a_run_whose_lock_was_replaced_ends_with_a_sentence_and_the_other_finishes(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    words = (*WORDS, "epochs=40", "trainer.checkpoint_minutes=0.0001")
    first = start(*words, cwd=here)
    while not (found := list(here.glob("runs/collab/*/last.pt"))):
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    (found[0].parent / ".lock").unlink()
    second = start(*words, cwd=here)
    told = first.communicate(), second.communicate()
    assert {first.returncode, second.returncode} <= {0, 1}, told
    assert 0 in (first.returncode, second.returncode), told
    assert dlrun(*words)[0] == 0


NAMES = (
    ".last.pt.0123456789abcdef",
    ".last.pt.aaaaaaaaaaaaaaaa",
    ".metrics.jsonl.4711471147114711",
    ".summary.json.ffffffffffffffff",
)
OTHERS = (".lock", ".hidden", "last.pt", "notes.0123456789abcdef", ".gitignore")


def test_temporary_files_of_the_killed_are_removed_when_the_folder_is_claimed(here: Path) -> None:
    run = claim(here)
    member = run.member(0).path
    for folder in (run.path, member):
        for name in (*NAMES, *OTHERS[1:]):
            (folder / name).write_text("x")
    (run.path / ".report.html.0123456789abcdef").write_text("of a living `dlrun report`")
    run.release()
    again = claim(here)
    for folder in (run.path, member):
        assert not [name for name in NAMES if (folder / name).exists()]
        assert all((folder / name).exists() for name in OTHERS[1:])
    assert (run.path / ".report.html.0123456789abcdef").exists()
    os.utime(run.path / ".report.html.0123456789abcdef", (0, 0))
    again.release()
    claim(here).release()
    assert not (run.path / ".report.html.0123456789abcdef").exists()


def test_what_a_killed_process_left_in_the_cache_is_removed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlrunner.data.core.cache import tidy, write_sealed

    names = (".a.npz.0123456789abcdef", ".b.npz.aaaaaaaaaaaaaaaa", ".stand-in.4711471147114711")
    (here / "tokens").mkdir()
    for name in names:
        for folder, age in ((here / "tokens", 0), (here / "tokens", time.time())):
            path = folder / f"{name}"
            path.write_text("x")
            os.utime(path, (age, age))
    os.utime(here / "tokens" / names[0], (0, 0))
    os.utime(here / "tokens" / names[1], (0, 0))
    (here / "tokens" / "kept.npz").write_text("x")
    os.utime(here / "tokens" / "kept.npz", (0, 0))
    child = os.fork()
    if child == 0:  # a living writer holds the lock of what takes long
        with (here / "tokens" / ".long.npy.0123456789abcdef").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.utime(here / "tokens" / ".long.npy.0123456789abcdef", (0, 0))
            (here / "ready").touch()
            time.sleep(60)
        os._exit(0)
    while not (here / "ready").exists():
        time.sleep(0.01)
    tidy.cache_clear()
    write_sealed(here / "tokens" / "b.npz", b"b")
    left = sorted(path.name for path in (here / "tokens").iterdir())
    assert left == [".long.npy.0123456789abcdef", ".stand-in.4711471147114711", "b.npz", "kept.npz"]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    tidy.cache_clear()
    write_sealed(here / "tokens" / "b.npz", b"b")
    assert ".long.npy.0123456789abcdef" not in [path.name for path in (here / "tokens").iterdir()]
    tidy.cache_clear()
