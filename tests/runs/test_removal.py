"""Runs are removed as a whole, and never while another process writes them."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from dlrunner.errors import BusyError
from dlrunner.runs.removal import point_latest_at_newest, remove_folder, spare_checkpoints
from tests.fake_runs import write_run


def test_a_run_that_is_being_trained_is_not_removed(here: Path) -> None:
    run = write_run(here / "runs" / "collab" / "a-00000001", 0.9)
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BusyError):
            remove_folder(run)
    assert (run / "config.yaml").exists()
    remove_folder(run)
    assert [path.name for path in run.parent.iterdir()] == [".lock"]


def test_latest_moves_to_the_newest_finished_run_when_its_own_is_removed(here: Path) -> None:
    runs = here / "runs"
    paths = [
        write_run(runs / "collab" / f"a-0000000{day}", 0.9, status=status, finished=f"2026-01-0{day}T00:00:00+00:00")
        for day, status in ((1, "done"), (2, "done"), (3, "failed"), (4, "done"))
    ]
    (runs / "latest").symlink_to("collab/a-00000004")
    remove_folder(paths[3])
    point_latest_at_newest(runs)
    assert (runs / "latest").resolve() == paths[1].resolve()
    for path in paths[:2]:
        remove_folder(path)
    point_latest_at_newest(runs)
    assert not (runs / "latest").is_symlink()


def test_the_checkpoint_that_predict_needs_is_not_spare(here: Path) -> None:
    run = write_run(here / "a", 0.9, weights={"checkpoint": "best.pt", "epoch": 2})
    for name in ("best.pt", "last.pt", "cycle-1.pt", "task.pt", "encoder.pt"):
        (run / name).touch()
    assert [file.name for file in spare_checkpoints(run)] == ["cycle-1.pt", "last.pt"]
    (run / "best.pt").unlink()
    assert spare_checkpoints(run) == []
    old = write_run(here / "old", 0.9)
    (old / "last.pt").touch()
    assert spare_checkpoints(old) == []


def test_a_run_that_has_ended_otherwise_since_the_question_is_kept(here: Path) -> None:
    run = write_run(here / "runs" / "collab" / "a-00000001", 0.9, status="done")
    assert not remove_folder(run, "failed")
    assert (run / "config.yaml").exists()
    assert remove_folder(run, "done")
    assert not run.exists()
