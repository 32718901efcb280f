"""A sweep that is given again: until it ends, what is shown of it is what its jobs have done since."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dlrunner
from dlrunner.cli.sweep_files import frozen, write_down
from dlrunner.runs.tags import Tags, read_tags
from dlrunner.sweeps.folder import JobStatus, SweepDirectory, status_of
from tests.conftest import QUICK, Dlrun, Forked, ratings_table, start

PLUGIN = """
import os
import time
from pathlib import Path
from dlrunner.tasks.collab.task import Collab

class Stalling(Collab):
    def batches(self, split, epoch, phase, start=0):
        while Path(f"stall{self.seed}").exists():
            time.sleep(0.02)
        return super().batches(split, epoch, phase, start)
"""
WORDS = ("-m", "task=collab", "data.path=my.csv", "epochs=1", "seed=0,1", "plugins=[stalls]", *QUICK)


@pytest.fixture
def words(ratings_csv: Path, here: Path) -> Iterator[tuple[str, ...]]:
    """A sweep of two seeds, whose job N waits while the file stallN exists."""
    (here / "stalls.py").write_text(PLUGIN)
    yield (*WORDS, "task._target_=stalls.Stalling")
    for file in here.glob("stall?"):
        file.unlink()


def sweep_folder(here: Path) -> Path:
    (folder,) = (here / "runs" / "sweeps").iterdir()
    return folder


def wait_until(is_true: Callable[[], bool], process: Forked | None = None) -> None:
    deadline = time.monotonic() + 60
    while not is_true():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def status_of_job(here: Path, number: int) -> str:
    """Return the recorded status of a job, empty if there is none."""
    try:
        status: str = json.loads((sweep_folder(here) / "jobs" / str(number) / "record.json").read_text())["status"]
    except (OSError, ValueError):
        return ""
    return status


def start_and_kill(words: tuple[str, ...], here: Path) -> None:
    """Start a sweep, and kill it when its first job is done and its second one stalls."""
    (here / "stall1").touch()
    process = start(*words, cwd=here)
    wait_until(lambda: status_of_job(here, 0) == "done" and status_of_job(here, 1) == "started", process)
    second = json.loads((sweep_folder(here) / "jobs" / "1" / "record.json").read_text())["folder"]
    wait_until((Path(second) / "config.yaml").exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_sweep_that_starts_again_shows_no_earlier_results(dlrun: Dlrun, words: tuple[str, ...], here: Path) -> None:
    assert dlrun(*words)[0] == 0
    earlier = dlrunner.load_sweep(sweep_folder(here))
    ratings_table(seed=1).to_csv("my.csv", index=False)
    start_and_kill(words, here)
    table = dlrunner.load_sweep(sweep_folder(here))
    assert table["status"].tolist() == ["done", "running"]
    assert not set(table["path"]) & set(earlier["path"])
    assert table["valid/rmse"][0] not in earlier["valid/rmse"].tolist()
    (here / "stall1").unlink()
    wait_until(lambda: status_of_job(here, 1) == "interrupted")  # the job has saved its state
    status, _, err = dlrun("compare", str(sweep_folder(here)))
    assert (status, "job 1" not in err, "interrupted: stopped by signal 15" in err) == (2, True, True), err
    assert dlrun("report", str(sweep_folder(here)))[0] == 0
    assert "1 of 2 jobs are not finished: 1 interrupted" in (sweep_folder(here) / "report.html").read_text()
    assert dlrun(*words)[0] == 0
    table = dlrunner.load_sweep(sweep_folder(here))
    assert table["status"].tolist() == ["done", "done"]
    assert not set(table["path"]) & set(earlier["path"])


def test_what_is_done_already_is_recorded_before_the_rest_starts(
    dlrun: Dlrun, words: tuple[str, ...], here: Path
) -> None:
    single = [word for word in words if word not in ("-m", "seed=0,1")]
    assert dlrun(*single, "seed=0")[0] == 0
    start_and_kill(words, here)
    (here / "stall1").unlink()
    assert dlrunner.load_sweep(sweep_folder(here))["valid/rmse"].notna().tolist() == [True, False]


def test_the_runs_of_unfinished_jobs_belong_to_their_sweep(dlrun: Dlrun, words: tuple[str, ...], here: Path) -> None:
    (here / "stall1").touch()
    process = start(*words, cwd=here)
    wait_until(lambda: status_of_job(here, 1) == "started", process)
    assert len(json.loads(dlrun("ls", "--jobs", "--json")[1])) == 2
    process.send_signal(signal.SIGTERM)
    (here / "stall1").unlink()
    process.communicate()
    assert dlrunner.load_sweep(sweep_folder(here))["status"].tolist() == ["done", "interrupted"]
    path, jobs = frozen(words[1:])
    with SweepDirectory(path) as folder:  # the same command, killed before the turn of the interrupted job
        folder.freeze(jobs, status_of(jobs))
    table = dlrunner.load_sweep(path)
    assert table["status"].tolist() == ["done", "interrupted"]
    assert dlrun("rm", str(path), "--yes")[0] == 0
    assert not any(Path(run).exists() for run in table["path"])


def test_a_job_that_is_killed_keeps_its_run_folder(dlrun: Dlrun, words: tuple[str, ...], here: Path) -> None:
    (here / "killing.py").write_text(PLUGIN.replace("time.sleep(0.02)", "os.kill(os.getpid(), 9)"))
    (here / "stall1").touch()
    assert dlrun(*[word.replace("stalls", "killing") for word in words])[0] == 1
    table = dlrunner.load_sweep(sweep_folder(here))
    assert table["status"].tolist() == ["done", "failed"]
    assert table["error"].str.contains("killed by signal 9")[1]
    assert Path(table["path"][1]).is_dir()


def test_finished_jobs_get_the_name_tags_and_note_too(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    words = ("-m", "task=collab", "data.path=my.csv", "epochs=1", *QUICK)
    assert dlrun(*words, "seed=0,1")[0] == 0
    status, out, _ = dlrun(*words, "seed=0,1", "name=x", "tags=[a]", "note=old data")
    assert (status, "finished: 2 of 2" in out) == (0, True)
    tags = [read_tags(Path(run)) for run in dlrunner.load_sweep(sweep_folder(here))["path"]]
    assert tags == [Tags("x", ("a",), "old data")] * 2


def test_a_sweep_from_the_latest_run_starts_from_the_one_that_is_the_latest_now(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    words = ("task=collab", "data.path=my.csv", "epochs=1", *QUICK)
    latest = here / "runs" / "latest"
    for count, seed in enumerate((7, 8), start=1):
        assert dlrun(*words, f"seed={seed}")[0] == 0
        first = latest.resolve()
        assert dlrun("-m", *words, "init=null,runs/latest")[0] == 0
        assert len(list((here / "runs" / "sweeps").iterdir())) == count, "another run is another sweep"
        jobs = sorted((here / "runs" / "sweeps").iterdir(), key=lambda path: path.stat().st_mtime)[-1] / "jobs"
        assert json.loads((jobs / "1" / "request.json").read_text())["config"]["init"] == str(first.relative_to(here))


def test_the_jobs_of_a_sweep_over_initial_weights_are_known_as_done(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    words = ("task=collab", "data.path=my.csv", "epochs=1", *QUICK)
    assert dlrun(*words, "seed=7")[0] == 0
    sweep = ("-m", *words, f"init=null,{(here / 'runs' / 'latest').resolve().name[-8:]}")
    assert dlrun(*sweep)[0] == 0
    assert "finished: 2 of 2" in dlrun(*sweep)[1]
    assert "2 of 2 jobs are finished" in dlrun(*sweep, "sweep.dry_run=true")[1]


def test_jobs_are_stored_for_the_values_of_the_environment_variables_that_were_typed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["task=collab", "precision=${oc.env:PRECISION}", "seed=0,1"]
    monkeypatch.setenv("PRECISION", "fp32")
    path, jobs = frozen(words)
    with SweepDirectory(path) as folder:
        write_down(folder, words, jobs, {job.number: JobStatus("new", job.signature) for job in jobs})
    assert frozen(words)[0] == path
    monkeypatch.setenv("PRECISION", "bf16")
    assert [job.config["precision"] for job in frozen(words)[1]] == ["bf16", "bf16"]
