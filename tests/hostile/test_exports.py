"""An export that goes wrong leaves the one that was there as it was."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dlrunner
from dlrunner.files.temporary import exchange, temporary_folder
from dlrunner.inference import portable
from tests.conftest import Dlrun
from tests.small_runs import SmallRuns


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def exported(runs: SmallRuns, dlrun: Dlrun, here: Path) -> Iterator[Path]:
    """A good export with a person's own files beside it."""
    shutil.copytree(runs["ratings"], here / "run")
    assert dlrun("export", "run", "--out", "out")[0] == 0
    (here / "out" / ".git").mkdir()
    (here / "out" / ".git" / "config").write_text("mine")
    (here / "out" / "notes.txt").write_text("mine")
    (here / "out" / "link").symlink_to("notes.txt")
    yield here / "out"
    assert not [each.name for each in here.iterdir() if each.name.startswith(".out.")]


def test_a_full_disk_at_any_file_leaves_the_good_export(
    exported: Path, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, steps = content(exported), 0
    for fails in range(100):
        done = 0

        def full(source: Any, target: Any, fails: int = fails) -> None:
            nonlocal done
            done += 1
            if done > fails:
                raise OSError(errno.ENOSPC, "No space left on device")
            os.replace(source, target)  # noqa: PTH105

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            status, _, err = dlrun("export", "run", "--out", "out")
        if status == 0:
            break
        assert "the disk is full" in err
        assert content(exported) == before
        steps += 1
    assert steps >= 6
    assert content(exported).keys() == before.keys()
    assert content(exported)["notes.txt"] == before["notes.txt"]
    assert (exported / "link").is_symlink()
    assert dlrunner.load(exported).metrics == dlrunner.load("run").metrics


def test_an_export_that_is_killed_leaves_the_good_one_and_nothing_else_after_the_next(
    exported: Path, dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write = content(exported), portable.write
    child = os.fork()
    if child == 0:

        def killed(folder: Path, *given: Any) -> list[str]:
            write(folder, *given)
            os.kill(os.getpid(), signal.SIGKILL)
            return []

        monkeypatch.setattr(portable, "write", killed)
        dlrun("export", "run", "--out", "out")
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert content(exported) == before
    (left,) = here.glob(".out.*")
    os.utime(left, (0, 0))
    assert dlrun("export", "run", "--out", "out")[0] == 0
    assert not left.exists()
    assert content(exported).keys() == before.keys()


def test_a_folder_that_is_being_written_is_not_taken_for_one_that_was_left(here: Path) -> None:
    from dlrunner.files.temporary import remove_abandoned

    with temporary_folder(here / "out") as made:
        os.utime(made, (0, 0))
        remove_abandoned(here)
        assert made.is_dir()
    assert not made.exists()


def test_an_empty_folder_may_be_the_working_directory(
    runs: SmallRuns, dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs["ratings"], here / "run")
    (here / "empty").mkdir()
    monkeypatch.chdir(here / "empty")
    assert dlrun("export", str(here / "run"), "--out", ".")[0] == 0
    assert dlrunner.load(".").metrics == dlrunner.load(here / "run").metrics
    assert not [name for name in content(here / "empty") if name.startswith(".")]


def test_two_folders_are_never_missing_while_they_take_each_others_place(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new", "old"):
        (here / name).mkdir()
        (here / name / name).write_text("")
    child = os.fork()
    if child == 0:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            exchange(here / "new", here / "old")
        os._exit(0)
    seen = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert (here / "old").is_dir()
        seen += 1
    assert seen > 100
    monkeypatch.setattr("dlrunner.files.temporary.ctypes.CDLL", lambda *given, **named: object())  # a system without it
    inside = {name: content(here / name) for name in ("new", "old")}
    exchange(here / "new", here / "old")
    assert {"old": content(here / "new"), "new": content(here / "old")} == inside
