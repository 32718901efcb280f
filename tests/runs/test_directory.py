"""Run folders: asked twice is done once, nothing stale, nothing lost, nothing half."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
import yaml

from dlrunner.data.core.cache import write_whole
from dlrunner.data.core.synthetic import generated
from dlrunner.errors import Interrupted, RunError
from dlrunner.files.atomic import atomic_file, readable_os_errors, write_atomic
from dlrunner.files.locks import FolderLock
from dlrunner.runs import directory as runs
from dlrunner.runs.checkpoints import load_weights_file
from dlrunner.runs.labels import label, run_label
from dlrunner.runs.reader import FinishedRun
from dlrunner.sweeps import folder as sweep_folder
from dlrunner.sweeps.folder import SweepDirectory
from tests.conftest import QUICK, Dlrun, ratings_table, start

WORDS = ("task=collab", "data.path=my.csv", "epochs=2", *QUICK)


def only_run(here: Path, task: str = "collab") -> Path:
    (run,) = [path for path in (here / "runs" / task).iterdir() if path.is_dir()]
    return run


def test_a_run_leaves_all_its_files(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    status, out, _ = dlrun("task=collab", "data.path=my.csv", "epochs=2")
    assert status == 0
    run = only_run(here)
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.yaml",
        "overrides.yaml",
        "metrics.jsonl",
        "summary.json",
        "last.pt",
        "best.pt",
        "run.log",
        "plots",
        "report.html",
        "predictions.csv",
        "task.pt",
    }
    assert run.name.startswith("epochs=2,data.path=my.csv-")
    assert str(run.relative_to(here)) in out
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert set(rows[0]) == {
        "epoch",
        "step",
        "train/loss",
        "valid/loss",
        "valid/rmse",
        "valid/mae",
        "lr",
        "seconds",
        "examples_per_second",
    }
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "done"
    assert summary["metric"] == {
        "name": "valid/rmse",
        "value": rows[1]["valid/rmse"],
        "epoch": 2,
        "higher_is_better": False,
    }
    assert summary["data"]["rows"]["train"] + summary["data"]["rows"]["valid"] == 1500
    assert {
        "seconds",
        "peak_memory_mb",
        "device",
        "precision",
        "seed",
        "versions",
        "git",
        "code",
        "final",
        "best",
    } <= set(summary)
    assert yaml.safe_load((run / "config.yaml").read_text())["epochs"] == 2
    assert (here / "runs" / "latest").resolve() == run.resolve()


def test_the_same_command_twice_trains_once(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    first = (only_run(here) / "last.pt").stat().st_mtime_ns
    status, out, _ = dlrun(*WORDS)
    assert status == 0
    assert "already finished" in out
    assert (only_run(here) / "last.pt").stat().st_mtime_ns == first
    assert dlrun("epochs=2", "optim=adamw", "seed=0", "data.path=my.csv", *QUICK)[1].count("already finished") == 1


@pytest.mark.parametrize("words", [("data.user=customr",), ("data.valid_column=customr", "data.split=column")])
def test_a_setting_that_the_table_refuses_leaves_no_folder(
    words: tuple[str, ...], dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    dlrun(*WORDS)
    before = (here / "runs" / "latest").resolve()
    run = only_run(here)
    status, _, err = dlrun(*WORDS, *words)
    assert (status, "customr" in err) == (2, True), err
    assert (here / "runs" / "latest").resolve() == before
    assert only_run(here) == run


def test_latest_never_is_a_run_that_failed(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    before = (here / "runs" / "latest").resolve()
    assert dlrun(*WORDS, "optim.lr=1e20", "schedule=constant")[0] == 1
    assert (here / "runs" / "latest").resolve() == before


def test_rerun_trains_again_in_a_new_folder(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    old = only_run(here)
    dlrun(*WORDS, "rerun=true")
    names = sorted(path.name for path in (here / "runs" / "collab").iterdir() if path.is_dir())
    assert names == [old.name, f"{old.name}-2"]


def test_changed_data_is_never_answered_with_the_old_result(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    ratings_table(seed=1).to_csv(ratings_csv, index=False)
    status, out, _ = dlrun(*WORDS)
    assert status == 0
    assert "the data changed since" in out
    assert "already finished" not in out
    assert len([p for p in (here / "runs" / "collab").iterdir() if p.is_dir()]) == 2
    assert "already finished" in dlrun(*WORDS)[1]


def test_changed_code_is_never_answered_with_the_old_result(
    dlrun: Dlrun, ratings_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dlrun(*WORDS)
    monkeypatch.setattr("dlrunner.execution.identity.code_digest", lambda plugins: "another")
    assert "the code changed since" in dlrun(*WORDS)[1]


def test_a_folder_that_holds_another_configuration_is_refused(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    recorded = only_run(here) / "run.json"
    recorded.write_text(recorded.read_text().replace(only_run(here).name[-8:], "00000000"))
    status, _, err = dlrun(*WORDS)
    assert status == 2
    assert "holds another configuration" in err


def interrupted(here: Path) -> Path:
    """Make a finished run look like one that was killed before its last file."""
    (only_run(here) / "summary.json").unlink()
    return only_run(here)


def test_a_truncated_checkpoint_ends_with_a_sentence_and_loses_nothing(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    dlrun(*WORDS)
    run = interrupted(here)
    whole = (run / "last.pt").read_bytes()
    (run / "last.pt").write_bytes(whole[: len(whole) // 2])
    status, _, err = dlrun(*WORDS)
    assert status == 1
    assert "last.pt is damaged or not a checkpoint" in err
    assert "rerun=true" in err
    assert (run / "best.pt").exists()


def test_a_checkpoint_with_a_flipped_byte_is_noticed(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    run = interrupted(here)
    content = bytearray((run / "last.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "last.pt").write_bytes(content)
    status, _, err = dlrun(*WORDS)
    assert status == 1
    assert "damaged" in err


def test_a_foreign_checkpoint_is_refused(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    run = interrupted(here)
    torch.save({"identity": {"signature": "another"}, "model": {}}, run / "last.pt")
    status, _, err = dlrun(*WORDS)
    assert status == 1
    assert "belongs to another run" in err


def test_a_checkpoint_executes_nothing(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    dlrun(*WORDS)
    run = interrupted(here)
    torch.save({"model": Trap(here / "sprung")}, run / "last.pt")
    status, _, err = dlrun(*WORDS)
    assert status == 1
    assert "not a checkpoint" in err
    assert not (here / "sprung").exists()


class Trap:
    """Pickles to a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_read_only_folder_ends_with_a_sentence(
    dlrun: Dlrun, ratings_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    status, _, err = dlrun(*WORDS)
    assert status == 1
    assert "cannot be written" in err
    assert "runs" in err


def test_a_finished_run_of_a_read_only_folder_is_shown_again(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dlrun(*WORDS)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    before = {path: path.stat().st_mtime_ns for path in (here / "runs").rglob("*")}
    status, out, err = dlrun(*WORDS)
    assert (status, err) == (0, "")
    assert "already finished" in out
    assert {path: path.stat().st_mtime_ns for path in (here / "runs" / "collab").rglob("*")}.items() <= before.items()


@pytest.mark.parametrize("name", [".tags.json.0123456789abcdef", "tags.json"])
def test_what_cannot_be_written_has_its_final_name(name: str) -> None:
    with pytest.raises(RunError, match=r"^runs/a/tags\.json cannot be written: "), readable_os_errors(Path("runs")):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), f"runs/a/{name}")


class Full(io.BytesIO):
    """A file on a disk that is full after a few bytes."""

    def write(self, content: Any) -> int:
        if len(content) > 100:
            with Path("/dev/full").open("wb", buffering=0) as full:
                return full.write(content)
        return super().write(content)


def test_a_full_disk_ends_with_a_sentence_and_keeps_what_was_saved(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Path] = []

    @contextlib.contextmanager
    def fill(path: Path) -> Iterator[BinaryIO]:
        with atomic_file(path) as file:
            saved.append(path)
            if [each.name for each in saved].count("last.pt") == 2 and path.name == "last.pt":
                yield Full()
            else:
                yield file

    monkeypatch.setattr("dlrunner.runs.directory.atomic_file", fill)
    status, _, err = dlrun(*WORDS)
    assert status == 1
    assert "the disk is full" in err
    run = only_run(here)
    assert torch.load(run / "last.pt", weights_only=True)["state"]["epoch"] == 1
    assert json.loads((run / "summary.json").read_text())["status"] == "failed"
    assert not list(run.glob(".*.*"))
    monkeypatch.undo()


def test_a_really_full_disk_is_told_too(here: Path, tmp_path: Path) -> None:
    """On a file system of 3 MB, where this machine lets us mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = (
        shutil.which("mount")
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("needs the right to mount a small file system")
    try:
        process = start("task=collab", "data.source=synthetic", "epochs=1", f"runs_dir={small}", *QUICK, cwd=here)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "the disk is full" in err
        assert "Traceback" not in err
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_of_two_processes_started_at_once_one_trains_and_the_other_says_so(here: Path) -> None:
    words = ("task=collab", "data.source=synthetic", "epochs=3", *QUICK)
    first = start("task=collab", "data.source=synthetic", "epochs=1", *QUICK, cwd=here)
    first.communicate(timeout=120)  # the stand-in is there now
    both = [start(*words, cwd=here) for _ in range(2)]
    ends = [process.communicate(timeout=120) for process in both]
    statuses = sorted(process.poll() or 0 for process in both)
    assert statuses in ([0, 1], [0, 0]), ends
    if statuses == [0, 1]:
        loser = next(err for (_, err), process in zip(ends, both, strict=True) if process.returncode == 1)
        assert "another process is training this run" in loser
    else:  # the second came when the first was done
        assert any("already finished" in out for out, _ in ends)
    folders = [path for path in (here / "runs" / "collab").iterdir() if path.is_dir() and "epochs=3" in path.name]
    assert len(folders) == 1


def test_the_lock_keeps_a_second_writer_out(tmp_path: Path) -> None:
    identity = {"signature": "0123abcd", "code": "c", "data": "d"}
    first, _ = runs.RunDirectory.claim(tmp_path, "collab", "x", identity)
    script = (
        "from pathlib import Path; from dlrunner.runs.directory import RunDirectory\n"
        f"RunDirectory.claim(Path({str(tmp_path)!r}), 'collab', 'x', {identity!r})"
    )
    second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "another process is training this run" in second.stderr
    first.release()
    again, reason = runs.RunDirectory.claim(tmp_path, "collab", "x", identity)
    assert reason == "unfinished"
    again.release()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Interrupted(signal.SIGTERM)])
def test_a_folder_that_could_not_be_claimed_is_free_again(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    identity = {"signature": "0a1b2c3d", "code": "1", "data": "1"}
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_atomic", fails)
        patch.setattr(sweep_folder, "remove_abandoned", fails)
        with pytest.raises((RunError, Interrupted)):
            runs.RunDirectory.claim(tmp_path, "collab", "x", identity)
        with pytest.raises((OSError, Interrupted)):
            SweepDirectory(tmp_path / "sweep").__enter__()
    run, _ = runs.RunDirectory.claim(tmp_path, "collab", "x", identity)
    run.release()
    with SweepDirectory(tmp_path / "sweep"):
        pass


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert not list(tmp_path.glob(".file*"))


def test_a_stop_while_a_checkpoint_is_written_stays_a_stop(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.RunDirectory(here)
    run.save("last.pt", {"weights": torch.zeros(1000)})
    before = (here / "last.pt").read_bytes()

    class Stopped(io.BytesIO):
        def write(self, content: Any) -> int:
            if len(content) > 1000:
                raise Interrupted(signal.SIGTERM)
            return super().write(content)

    @contextlib.contextmanager
    def stop(path: Path) -> Iterator[BinaryIO]:
        with atomic_file(path):
            yield Stopped()

    monkeypatch.setattr("dlrunner.runs.directory.atomic_file", stop)
    with pytest.raises(Interrupted):
        run.save("last.pt", {"weights": torch.ones(1000)})
    assert (here / "last.pt").read_bytes() == before
    assert [path.name for path in here.iterdir()] == ["last.pt"]


def test_two_threads_that_write_the_same_file_leave_one_of_theirs_whole(here: Path) -> None:
    path, barrier, contents = here / "file", threading.Barrier(2), [b"a" * 100_000, b"b" * 200_000]

    def write(content: bytes) -> None:
        for _ in range(30):
            with atomic_file(path) as file:
                file.write(content[:1000])
                barrier.wait(timeout=10)
                file.write(content[1000:])
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, contents))
    assert [each.name for each in here.iterdir()] == ["file"]


def test_two_threads_that_prepare_the_same_data_do_not_disturb_each_other(here: Path) -> None:
    barrier = threading.Barrier(2)

    def write(folder: Path) -> float:
        (folder / "a.csv").write_text("a")
        barrier.wait(timeout=10)
        (folder / "b.csv").write_text("b")
        return 0.5

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: generated(here / "data", ["a.csv", "b.csv"], write), range(2)))
    assert found == [(here / "data", 0.5)] * 2
    assert [each.name for each in here.iterdir()] == ["data"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_file_has_the_mode_of_a_new_one(here: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        runs.RunDirectory(here).save("last.pt", {})
        write_whole(here / "cached", b"content")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in here.iterdir()} == {0o666 & ~umask}


def test_a_file_of_the_cache_that_cannot_be_written_leaves_nothing_behind(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="broken"):
        write_whole(here / "cached", b"content")
    assert not list(here.iterdir())


def test_a_checkpoint_is_not_in_memory_twice_while_it_is_saved(here: Path) -> None:
    script = (
        "import resource, sys, torch\nfrom pathlib import Path\nfrom dlrunner.runs.directory import RunDirectory\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "RunDirectory(Path(sys.argv[1])).save('first.pt', {'weights': torch.ones(5)})\n"
        "state = {'weights': torch.ones(25_000_000)}\nbefore = peak()\n"
        "RunDirectory(Path(sys.argv[1])).save('last.pt', state)\nprint(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(here)], capture_output=True, text=True, check=True)
    assert (here / "last.pt").stat().st_size > 100_000_000
    assert float(done.stdout) < 50  # MB


def test_damaged_run_folders_are_told(tmp_path: Path) -> None:
    from dlrunner.errors import ConfigError

    with pytest.raises(ConfigError, match="there is no run folder"):
        FinishedRun.read(tmp_path / "none")
    with pytest.raises(ConfigError, match="is not a run folder"):
        FinishedRun.read(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [")
    (tmp_path / "overrides.yaml").write_text("[]")
    with pytest.raises(ConfigError, match="is damaged"):
        FinishedRun.read(tmp_path)


def test_a_folder_name_is_readable_and_safe() -> None:
    assert label(["model.init=[0, 0.05]", "++optim.lr=1e-3"]) == "model.init=0+0.05,optim.lr=1e-3"
    assert label(["data.path=../../etc/x y.csv"]) == "data.path=x_y.csv"
    assert len(label([f"a{i}=1" for i in range(99)])) <= 48


def test_a_folder_is_named_after_all_that_changes_the_result_but_the_task(tmp_path: Path) -> None:
    words = ["task=tabular", "task.loss=poisson", "device=cpu", "log.plots=false", "epochs=2"]
    assert run_label(words, {"task": "tabular"}) == "epochs=2,task.loss=poisson"
    identity = {"signature": "0123abcd", "code": "c", "data": "d"}
    older, _ = runs.RunDirectory.claim(tmp_path, "tabular", "epochs=2", identity)
    older.finish({"status": "done"})
    older.release()
    again, reason = runs.RunDirectory.claim(tmp_path, "tabular", "epochs=2,task.loss=poisson", identity)
    assert (again.path, reason) == (older.path, "finished"), "the signature decides, not the name"


def test_a_checkpoint_that_is_no_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(RunError, match="is not a dlrunner checkpoint"):
        load_weights_file(tmp_path / "list.pt")


def test_a_signature_of_digits_alone_is_no_number_of_a_repetition(tmp_path: Path) -> None:
    identity = {"signature": "12345678", "code": "c", "data": "d"}
    label_ = "model.encoder=lm-c6a0685d"  # it ends like the name of a run
    first, _ = runs.RunDirectory.claim(tmp_path, "text", label_, identity)
    first.finish({"status": "done"})
    first.release()
    again, reason = runs.RunDirectory.claim(tmp_path, "text", label_, identity)
    again.release()
    assert (again.path, reason) == (first.path, "finished")
    repeated, _ = runs.RunDirectory.claim(tmp_path, "text", label_, identity, rerun=True)
    repeated.release()
    assert repeated.path.name == f"{label_}-12345678-2"
    assert [number for number, _ in runs.folders_by_signature(tmp_path / "text")["12345678"]] == [1, 2]


def test_a_reader_of_the_lock_does_not_keep_the_writer_out(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        threading.Timer(0.01, lambda: fcntl.flock(reader, fcntl.LOCK_UN)).start()
        lock = FolderLock.take(tmp_path / ".lock")
    assert lock is not None
    lock.release()
