"""Trackers beside a run: they are told what metrics.jsonl holds, and nothing that they do is noticed by the run."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dlrunner.cli.compose import compose
from dlrunner.comparison.diff import NOT_COMPARED
from dlrunner.config.plan import plan
from dlrunner.runs.directory import RunDirectory
from dlrunner.tracking.relay import MARGIN, numbers
from dlrunner.training import Trainer
from tests.conftest import QUICK, Dlrun, start

WORDS = ("task=collab", "data.path=my.csv", "epochs=5", "batch_size=200", *QUICK)


def watched(name: str, *settings: str) -> list[str]:
    """Return the words that let a tracker of tests.fake_trackers watch a run."""
    place = "log.trackers.fake"
    return [
        *WORDS,
        "plugins=[tests.fake_trackers]",
        f"+{place}._target_=tests.fake_trackers.{name}",
        f"+{place}.to=told.jsonl",
        *[f"+{place}.{setting}" for setting in settings],
        *([] if any("patience" in setting for setting in settings) else ["log.tracker_timeout=60"]),
    ]


def told(call: str | None = None) -> list[dict[str, Any]]:
    """Return what the tracker was told, in order."""
    calls = [json.loads(line) for line in Path("told.jsonl").read_text().splitlines()]
    return [each for each in calls if call in (None, each["call"])]


def rows(run: Path = Path("runs/latest")) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def results(run: Path = Path("runs/latest")) -> list[dict[str, Any]]:
    """Return the epochs without their times."""
    return [{key: value for key, value in row.items() if key not in NOT_COMPARED} for row in rows(run)]


def summary(run: Path = Path("runs/latest")) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def test_a_tracker_is_told_settings_rows_figures_and_pictures(ratings_csv: Path, dlrun: Dlrun) -> None:
    words = [*watched("Recording"), "log.plots=true", "epochs=3", "optim.lr=[0.01,0.02]"]
    status, _, err = dlrun(*words)
    assert (status, err) == (0, "")
    run = Path("runs/latest").resolve()
    (begun,), logged, (ended,) = told("start"), told("log"), told("finish")
    assert (begun["name"], begun["folder"], begun["known"]) == (run.name, str(run), None)
    assert begun["typed"] == " ".join(word for word in words if "log.trackers" not in word)
    assert {"optim": "adamw", "optim.lr": [0.01, 0.02], "epochs": 3, "seed": 0}.items() <= begun["values"].items()
    assert [call["row"] for call in logged] == [numbers(row) for row in rows()]
    assert [call["step"] for call in logged] == [row["step"] for row in rows()]
    assert {"lr/0", "lr/1", "valid/rmse"} <= set(logged[0]["row"])
    assert ended["status"] == "done"
    assert ended["figures"]["final/valid/rmse"] == summary()["final"]["valid/rmse"]
    assert ended["figures"]["best/valid/rmse"] == summary()["best"]["valid/rmse"]
    assert ended["step"] == rows()[-1]["step"]
    assert ended["pictures"] == sorted(file.name for file in (run / "plots").glob("*.png"))
    assert ended["modules"] == []  # they would take three seconds of a core from the run


@pytest.fixture
def without(ratings_csv: Path, dlrun: Dlrun) -> tuple[list[dict[str, Any]], float]:
    """The epochs of a run without trackers, and its seconds."""
    started = time.monotonic()
    assert dlrun(*WORDS, "runs_dir=without")[0] == 0
    return results(Path("without/latest")), time.monotonic() - started


@pytest.mark.parametrize(
    ("at", "received"),
    [("start", "0 of 5 epochs"), ("log", "0 of 5 epochs"), ("finish", "5 of 5 epochs")],
)
def test_a_tracker_that_raises_changes_nothing(
    at: str, received: str, without: tuple[list[dict[str, Any]], float], dlrun: Dlrun
) -> None:
    status, out, err = dlrun(*watched("Raising", f"at={at}"))
    assert (status, err) == (0, "")
    assert summary()["status"] == "done"
    assert results() == without[0]
    (line,) = (line for line in out.splitlines() if "failed" in line)
    assert f"fake failed: ConnectionError: no answer at {at}; " in line
    assert "metrics.jsonl" in line
    assert received in line or "the run continues" in line
    assert Path("runs/latest/run.log").read_text().count(line.removeprefix("warning: ")) == 1
    assert "Traceback" in Path("runs/latest/trackers/fake.log").read_text()


def test_a_failed_tracker_is_reported_during_the_run(
    ratings_csv: Path, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_epoch = Trainer.train_epoch

    def slow_epoch(trainer: Trainer, task: Any, model: Any, optimizer: Any, state: Any, *others: Any) -> None:
        if state.epoch:  # after the first epoch the tracker fails; it is noticed at the end of a later one
            until(Path("told.jsonl").exists)
            time.sleep(0.05)
        train_epoch(trainer, task, model, optimizer, state, *others)

    monkeypatch.setattr(Trainer, "train_epoch", slow_epoch)
    status, out, _ = dlrun(*watched("Raising", "at=start"), "epochs=20")
    assert status == 0
    before, _, after = out.partition("fake failed: ConnectionError: no answer at start; the run continues; ")
    assert "\n   20 " in after
    assert "\n    1 " in before


def test_a_tracker_whose_process_exits_is_reported(ratings_csv: Path, dlrun: Dlrun) -> None:
    status, out, _ = dlrun(*watched("Leaving"))
    assert status == 0
    assert "fake failed: its process exited with status 3; " in out


def test_a_tracker_that_hangs_is_killed(without: tuple[list[dict[str, Any]], float], dlrun: Dlrun) -> None:
    started = time.monotonic()
    status, out, err = dlrun(*watched("Sleeping"), "log.tracker_timeout=2")
    seconds = time.monotonic() - started
    assert (status, err) == (0, "")
    assert results() == without[0]
    assert seconds < 2 * without[1] + 2 + 5  # of 60 for each call
    for text in (out, Path("runs/latest/run.log").read_text()):
        assert "fake did not finish within 2 s" in text
        assert "received 0 of 5 epochs" in text
    with pytest.raises(ProcessLookupError):
        os.kill(told()[0]["pid"], 0)


def test_a_library_that_keeps_its_process_alive_does_not_keep_the_run(ratings_csv: Path, dlrun: Dlrun) -> None:
    started = time.monotonic()
    status, out, _ = dlrun(*watched("Lingering"))
    assert status == 0
    assert time.monotonic() - started < 40
    assert "fake" not in out.partition("run  ")[0].replace("fake_trackers", "")


def test_a_stop_signal_ends_the_wait_and_the_run_is_done(here: Path, ratings_csv: Path) -> None:
    process = start(*watched("Sleeping"), cwd=here)
    until(lambda: (here / "runs/latest/summary.json").exists() and (here / "told.jsonl").exists())
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert summary()["status"] == "done"
    assert "was killed" in out, err
    assert process.returncode in (0, 143)  # where it came between the summary and the wait


def test_a_stop_signal_as_the_summary_is_written_ends_the_wait_too(
    ratings_csv: Path, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = RunDirectory.finish

    def finish_and_stop(directory: RunDirectory, values: dict[str, Any]) -> None:
        finish(directory, values)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunDirectory, "finish", finish_and_stop)
    started = time.monotonic()
    status, out, _ = dlrun(*watched("Sleeping"))
    assert time.monotonic() - started < 20  # of 60
    assert (status, summary()["status"]) == (143, "done")
    assert "was killed" in out


def until(arrived: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not arrived():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_resumed_run_goes_on_where_its_tracker_stood(
    sent: signal.Signals, here: Path, ratings_csv: Path, dlrun: Dlrun
) -> None:
    words = [*watched("Recording"), "epochs=100"]
    process = start(*words, cwd=here)
    until(lambda: list(here.glob("runs/*/*/metrics.jsonl")))
    process.send_signal(sent)
    process.communicate()
    until(lambda: (here / "told.jsonl").exists() and told("finish"))  # a killed run does not wait for it
    assert 1 <= len(told("log")) < 100
    status, _, err = dlrun(*words)
    assert (status, err) == (0, "")
    assert len(rows()) == 100
    assert [call["row"] for call in told("log")] == [numbers(row) for row in rows()]
    assert [call["known"] for call in told("start")] == [None, "an id"]
    stopped = "killed" if sent is signal.SIGKILL else "interrupted"
    assert [call["status"] for call in told("finish")] == [stopped, "done"]


@pytest.mark.slow  # waits for its patience; a hanging tracker is killed above
def test_a_tracker_that_hangs_outlives_a_killed_run_by_its_patience_only(
    here: Path, ratings_csv: Path, dlrun: Dlrun
) -> None:
    process = start(*watched("Sleeping"), "log.tracker_timeout=0.1", "epochs=100", cwd=here)
    until((here / "told.jsonl").exists)
    until(lambda: list(here.glob("runs/*/*/metrics.jsonl")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    pid = told("start")[0]["pid"]
    assert is_running(pid)
    until(lambda: not is_running(pid), 0.1 + MARGIN + 5)
    status, out, _ = dlrun(*watched("Recording"), "epochs=100")
    assert status == 0
    assert "failed" not in out
    assert [call["row"] for call in told("log")] == [numbers(row) for row in rows()]
    assert [call["status"] for call in told("finish")] == ["done"]
    first, again = (call["key"] for call in told("start"))
    assert first == again


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_request_may_be_long_and_is_in_no_list_of_processes(ratings_csv: Path, dlrun: Dlrun) -> None:
    secret = 15_000 * "mysecret_"  # more than an argument of a process may hold
    status, out, _ = dlrun(*watched("Recording", f"note={secret}"), "epochs=1")
    assert status == 0
    assert "failed" not in out
    (begun,) = told("start")
    assert begun["note"] == len(secret)
    assert "mysecret" not in " ".join(begun["argv"])
    assert "mysecret" not in json.dumps([begun["typed"], begun["values"]])


def test_a_finished_run_that_is_asked_for_again_sends_what_a_tracker_lacks(ratings_csv: Path, dlrun: Dlrun) -> None:
    assert dlrun(*watched("Raising", "at=log"))[0] == 0
    failed = len(told("log"))
    status, out, err = dlrun(*watched("Raising", "at=start"))
    assert (status, err) == (0, "")
    assert "sending missing results to fake" in out
    (line,) = (line for line in out.splitlines() if "fake failed" in line)
    assert "ConnectionError: no answer at start; it received 0 of 5 epochs" in line
    assert line.removeprefix("warning: ") in Path("runs/latest/run.log").read_text()

    status, out, err = dlrun(*watched("Recording"))
    assert (status, err) == (0, "")
    assert "already finished" in out
    assert "failed" not in out
    assert told("start")[-1]["known"] == "an id"
    assert [call["row"] for call in told("log")[failed:]] == [numbers(row) for row in rows()]
    assert [call["status"] for call in told("finish")] == ["done"]

    before = Path("told.jsonl").read_text()
    status, out, _ = dlrun(*watched("Recording"))
    assert status == 0
    assert "sending missing" not in out
    assert Path("told.jsonl").read_text() == before


def test_a_run_that_was_not_tracked_is_sent_when_a_tracker_is_asked_for(ratings_csv: Path, dlrun: Dlrun) -> None:
    assert dlrun(*WORDS, "plugins=[tests.fake_trackers]")[0] == 0
    assert dlrun(*watched("Recording"))[0] == 0
    assert [call["row"] for call in told("log")] == [numbers(row) for row in rows()]
    assert [call["status"] for call in told("finish")] == ["done"]


def test_a_sweep_that_is_given_again_sends_what_a_tracker_lacks(ratings_csv: Path, dlrun: Dlrun) -> None:
    assert dlrun("-m", *watched("Raising", "at=start"), "seed=0,1")[0] == 0
    planned = dlrun("-m", *watched("Recording"), "seed=0,1", "sweep.dry_run=true")[1]
    assert planned.count("done, but a tracker is incomplete") == 2
    assert "2 of 2 jobs are finished" in planned
    status, out, err = dlrun("-m", *watched("Recording"), "seed=0,1")
    assert status == 0, err
    assert "2 of 2 jobs done" in out
    assert [call["status"] for call in told("finish")] == ["done", "done"]
    names = {run.name for run in Path("runs/collab").iterdir() if run.is_dir()}
    assert {call["name"] for call in told("start")} == names
    assert len(told("log")) == 10
    assert "finished: 2 of 2" in dlrun("-m", *watched("Recording"), "seed=0,1")[1]


def test_a_run_that_is_done_already_tells_nothing_new(ratings_csv: Path, dlrun: Dlrun) -> None:
    assert dlrun(*watched("Recording"))[0] == 0
    before = Path("told.jsonl").read_text()
    status, out, _ = dlrun(*watched("Recording"))
    assert status == 0
    assert "already finished" in out
    assert Path("told.jsonl").read_text() == before


def test_trackers_are_no_part_of_what_a_run_is(ratings_csv: Path) -> None:
    signatures = {
        plan(compose([*WORDS, *words])).signature
        for words in (
            [],
            ["log=mlflow"],
            ["log=[tensorboard,wandb]", "log.trackers.wandb.group=mine", "log.tracker_timeout=1"],
        )
    }
    assert len(signatures) == 1


def test_the_members_of_an_ensemble_are_told_apart(ratings_csv: Path, dlrun: Dlrun) -> None:
    assert dlrun(*watched("Recording"), "ensemble=2", "epochs=2")[0] == 0
    run = Path("runs/latest")
    expected = [numbers(row, f"members/{index}/") for index in (0, 1) for row in rows(run / f"members/{index}")]
    assert [call["row"] for call in told("log")] == expected
    (ended,) = told("finish")
    assert ended["figures"]["final/valid/rmse"] == summary()["final"]["valid/rmse"]


def test_a_failed_run_is_told_as_failed(ratings_csv: Path, dlrun: Dlrun) -> None:
    status, _, _ = dlrun(*watched("Recording"), "optim=sgd", "optim.lr=1e30")
    assert status == 1
    (ended,) = told("finish")
    assert (ended["status"], ended["pictures"]) == ("failed", [])


def test_a_missing_package_is_told_before_anything_is_read(ratings_csv: Path, dlrun: Dlrun) -> None:
    for more in ([], ["-m", "seed=0,1"]):
        status, out, err = dlrun(*watched("Lacking"), *more)
        assert (status, out) == (2, "")
        assert err.startswith("dlrun: log=fake needs a package that is not installed: pip install 'no-such-package'")
        assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_each_tracker_names_the_extra_that_it_needs(
    name: str, ratings_csv: Path, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.tracking.supervisor.find_spec", lambda module: None)
    status, _, err = dlrun(*WORDS, f"log={name}")
    assert (status, err) == (
        2,
        f"dlrun: log={name} needs a package that is not installed: pip install 'dlrunner[{name}]'\n",
    )


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("log=mlflo", "log=mlflo: there is no such log; did you mean mlflow?"),
        ("log=[mlflow,tensorbord]", "log=tensorbord: there is no such log; did you mean tensorboard?"),
        ("log.trackers=[mlflow,wandb]", "choose them by log=[mlflow,wandb]"),
        ("+log.trackers.mine._target_=os.Mine", "os.Mine is not allowed"),
        ("+log.trackers.mine._target_=dlrunner.trackers.mlflow.Path", "is not a Tracker"),
        ("+log.trackers.wandb.projekt=x", "did you mean project?"),
    ],
)
def test_a_tracker_that_does_not_exist_is_refused(word: str, told: str, ratings_csv: Path, dlrun: Dlrun) -> None:
    more = ["log=wandb"] if "wandb.projekt" in word else []
    status, _, err = dlrun(*WORDS, *more, word)
    assert status == 2
    assert told in err


def test_a_replay_is_not_tracked(ratings_csv: Path, dlrun: Dlrun) -> None:
    assert dlrun(*watched("Recording"))[0] == 0
    before = Path("told.jsonl").read_text()
    status, out, err = dlrun("replay", "runs/latest", "--plugins", "tests.fake_trackers")
    assert status == 0, err
    assert "replay: identical" in out
    assert Path("told.jsonl").read_text() == before
