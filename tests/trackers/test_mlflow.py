"""MLflow's SQLite store, read back by SQL."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dlrunner.tracker import TrackedRun
from dlrunner.trackers.mlflow import MlflowTracker
from dlrunner.tracking.relay import numbers
from tests.conftest import QUICK, Dlrun, ratings_table, start
from tests.trackers.conftest import fork_relays

pytestmark = [
    pytest.mark.slow,  # imports MLflow; what trackers are told is tested in test_tracking.py
    pytest.mark.skipif(
        any(find_spec(module) is None for module in MlflowTracker.modules),
        reason="needs MLflow: pip install 'dlrunner[mlflow]'",
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow's own
]
WORDS = ("task=collab", "data.path=my.csv", "epochs=3", "batch_size=200", "log=mlflow", "log.tracker_timeout=120")


def ask(question: str, *values: Any, store: str = "runs/mlflow.db") -> list[Any]:
    connection = sqlite3.connect(store)
    try:
        return connection.execute(question, values).fetchall()
    finally:
        connection.close()


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def metrics(run_id: str, name: str) -> list[tuple[int, float]]:
    return ask("SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step", run_id, name)


TRACKED = [*WORDS, "log.report=false", "optim.lr=[0.01,0.02]"]


@pytest.fixture(scope="module")
def imported_store() -> None:
    """Import MLflow's store once, and not in each process of a tracker."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


@pytest.fixture
def mlflow_store(forked_relay: None, imported_store: None) -> None:
    """Fork the processes of trackers, with MLflow's store imported."""


@pytest.fixture(scope="module")
def tracked(imported_store: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a run was tracked; to be read only."""
    folder = tmp_path_factory.mktemp("tracked")
    ratings_table().to_csv(folder / "my.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        fork_relays(patch)
        process = start(*TRACKED, cwd=folder)
    told = process.communicate()
    assert process.returncode == 0, told
    return folder


def test_the_store_holds_what_the_folder_holds(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tracked)
    run = Path("runs/latest").resolve()
    ((run_id, name, status, place, artifacts),) = ask(
        "SELECT run_uuid, r.name, status, e.name, artifact_uri "
        "FROM runs r JOIN experiments e ON r.experiment_id = e.experiment_id"
    )
    assert (name, status, place) == (run.name, "FINISHED", "collab")
    for key in numbers(rows(run)[0]):
        assert metrics(run_id, key) == [(row["step"], numbers(row)[key]) for row in rows(run)]
    final = json.loads((run / "summary.json").read_text())["final"]["valid/rmse"]
    assert [value for _, value in metrics(run_id, "final/valid/rmse")] == [final]
    params = dict(ask("SELECT key, value FROM params"))
    assert {"optim": "adamw", "optim.lr": "[0.01, 0.02]", "epochs": "3"}.items() <= params.items()
    tags = dict(ask("SELECT key, value FROM tags"))
    assert (tags["folder"], tags["overrides"]) == (str(run), " ".join(TRACKED))
    kept = Path(artifacts.removeprefix("file://")) / "plots"
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == {
        file.name: file.read_bytes() for file in (run / "plots").glob("*.png")
    }


@pytest.mark.usefixtures("mlflow_store")
def test_a_resumed_run_is_one_run_there(here: Path, ratings_csv: Path, dlrun: Dlrun) -> None:
    words = [*WORDS, *QUICK, "epochs=60"]
    process = start(*words, cwd=here)
    while not list(here.glob("runs/*/*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    ((run_id, status),) = ask("SELECT run_uuid, status FROM runs")
    assert status == "KILLED"
    assert 1 <= len(metrics(run_id, "valid/rmse")) < 60
    assert dlrun(*words)[0] == 0
    assert ask("SELECT run_uuid, status FROM runs") == [(run_id, "FINISHED")]
    run = Path("runs/latest")
    assert metrics(run_id, "valid/rmse") == [(row["step"], row["valid/rmse"]) for row in rows(run)]


@pytest.mark.usefixtures("mlflow_store")
def test_a_store_that_was_removed_gets_the_whole_run_again(tracked: Path, here: Path, dlrun: Dlrun) -> None:
    shutil.copytree(tracked, here, symlinks=True, dirs_exist_ok=True)
    run = Path("runs/latest").resolve()
    assert run.is_relative_to(here)
    (run / "summary.json").unlink()  # as if it had been killed
    Path("runs/mlflow.db").unlink()
    status, out, _ = dlrun(*TRACKED, "log.plots=false")
    assert status == 0
    assert Path("runs/latest").resolve() == run
    assert "resuming after epoch 3" in out
    ((run_id,),) = ask("SELECT run_uuid FROM runs")
    assert len(metrics(run_id, "valid/rmse")) == 3


@pytest.mark.slow  # two programs that import MLflow; a single one is tested above
def test_jobs_side_by_side_write_one_store(ratings_csv: Path, dlrun: Dlrun) -> None:
    status, out, err = dlrun("-m", *WORDS, *QUICK, "seed=0,1", "sweep.jobs=2")
    assert status == 0, err
    assert "failed" not in out
    found = ask("SELECT name, run_uuid FROM runs WHERE status = 'FINISHED'")
    assert len(found) == 2
    for name, run_id in found:
        wanted = [(row["step"], row["valid/rmse"]) for row in rows(Path("runs/collab") / name)]
        assert metrics(run_id, "valid/rmse") == wanted
    assert ask("SELECT count(*) FROM experiments WHERE name = 'collab'") == [(1,)]


@pytest.mark.usefixtures("mlflow_store")
def test_the_environment_may_name_another_store(
    ratings_csv: Path, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mine.db")
    words = [*WORDS, *QUICK, "epochs=1", "log.trackers.mlflow.experiment=mine"]
    assert dlrun(*words)[0] == 0
    assert not list(Path("runs").glob("*mlflow*"))
    assert (tmp_path / ".mine.db.lock").exists()
    store = str(tmp_path / "mine.db")
    assert ask("SELECT name FROM experiments WHERE name != 'Default'", store=store) == [("mine",)]
    assert ask("SELECT status FROM runs", store=store) == [("FINISHED",)]


VALUES = {"optim": "sgd", "columns.net price (€)": 1, "/a//b": 2, "x" * 300: 3, "y": "z" * 9000}


def some_run() -> TrackedRun:
    return TrackedRun(Path("runs/collab/some").resolve(), "collab", VALUES, "optim=sgd", "0a1b2c")


@pytest.mark.usefixtures("mlflow_store")
def test_a_store_that_was_not_made_to_its_end_is_made_again(here: Path) -> None:
    (here / "runs").mkdir()
    new, store = Path("runs/mlflow.db.new"), Path("runs/mlflow.db")
    pid = os.fork()
    if pid == 0:
        try:
            MlflowTracker().start(some_run(), None)
        finally:
            os._exit(0)
    while not (new.exists() and new.stat().st_size) and not store.exists():
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not store.exists()
    Path("runs/mlflow.db.new-journal").write_bytes(b"of a transaction that was not brought to its end")
    MlflowTracker().start(some_run(), None)
    assert ask("SELECT name, status FROM runs") == [("some", "RUNNING")]
    assert ask("PRAGMA integrity_check") == [("ok",)]
    assert not list(Path("runs").glob("mlflow.db.new*"))


def test_a_start_that_was_cut_short_is_taken_up_and_leaves_no_second_run(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tracker: MlflowTracker, values: Mapping[str, Any]) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(MlflowTracker, "_log_params", fail)
        with pytest.raises(ConnectionError):
            MlflowTracker().start(some_run(), None)
    begun = MlflowTracker().start(some_run(), None)
    assert MlflowTracker().start(some_run(), begun) == begun
    assert ask("SELECT name FROM runs") == [("some",)]
    params = dict(ask("SELECT key, value FROM params"))
    assert {key: value for key, value in params.items() if key != "y"} == {
        "optim": "sgd", "columns.net price ___": "1", "a/b": "2", 250 * "x": "3",
    }  # fmt: skip
    assert len(params["y"]) == 6000
