"""Runs and sweeps that are started in Python: the same as on the command line."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch

import dlrunner
from dlrunner.errors import ConfigError, DataError, Interrupted
from dlrunner.execution import run as runner
from dlrunner.sweeps.pool import start_fork_server
from tests.conftest import QUICK, Dlrun

WORDS = ("task=collab", "data.path=my.csv", "epochs=1", *QUICK)


def test_a_run_is_that_of_the_command(ratings_csv: Path, dlrun: Dlrun, capfd: pytest.CaptureFixture[str]) -> None:
    run = dlrunner.run(*WORDS, seed=3, **{"optim.lr": 0.01, "data.path": ratings_csv.name})
    assert "already finished" not in capfd.readouterr().out
    assert "valid/rmse" in run.metrics
    assert len(run.recommend("1", top=2)) == 2
    status, out, _ = dlrun(*WORDS, "seed=3", "optim.lr=0.01")
    assert status == 0
    assert f"already finished; rerun=true trains again in a new folder\n{run.path.relative_to(Path.cwd())}" in out
    assert dlrunner.run(*WORDS, "seed=3", "optim.lr=0.01").path == run.path
    assert capfd.readouterr().out.count("already finished") == 1


def test_a_run_without_checkpoints_has_its_record(ratings_csv: Path) -> None:
    metrics = dlrunner.run(*WORDS).metrics
    for file in Path("runs").glob("collab/*/*.pt"):
        file.unlink()
    run = dlrunner.run(*WORDS)
    assert run.metrics == metrics
    with pytest.raises(ConfigError, match=r"has no task\.pt"):
        run.predict([{"user": "1", "item": "i1"}])


def test_a_run_trains_in_float32_whatever_torchs_default_is(ratings_csv: Path) -> None:
    expected, before = dlrunner.run(*WORDS).metrics, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert dlrunner.run(*WORDS, rerun=True).metrics == expected
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)


def test_errors_are_those_of_the_command(ratings_csv: Path, here: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean lr"):
        dlrunner.run(*WORDS, **{"optim.lrr": 1})
    with pytest.raises(ConfigError, match=r"one seed; dlrunner\.sweep takes several"):
        dlrunner.run(*WORDS, seeds=3)
    with pytest.raises(ConfigError, match="names several values"):
        dlrunner.run(*WORDS, "seed=0,1")
    with pytest.raises(ConfigError, match="is no number, text, boolean, list or dict"):
        dlrunner.run(*WORDS, seed=object())
    with pytest.raises(ConfigError, match="this is one run, not a sweep"):
        dlrunner.run(*WORDS, **{"sweep.jobs": 2})
    with pytest.raises(ConfigError, match="shows a plan on the command line"):
        dlrunner.sweep(*WORDS, **{"sweep.dry_run": True})
    assert not (here / "runs").exists()
    ratings_csv.write_text("user,item,rating\na,b,x\nb,c,1\n")
    with pytest.raises(DataError, match="rating"):
        dlrunner.run(*WORDS)


@pytest.mark.parametrize(("signum", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_stop_signal_is_the_exception_of_python(
    ratings_csv: Path, monkeypatch: pytest.MonkeyPatch, signum: int, error: type[BaseException]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise Interrupted(signum)

    monkeypatch.setattr(runner, "run", stopped)
    with pytest.raises(error):
        dlrunner.run(*WORDS)


def test_a_script_without_a_guard_runs_a_sweep_once(ratings_csv: Path, here: Path) -> None:
    (here / "script.py").write_text(
        "import dlrunner, multiprocessing\n"
        f"words = {WORDS!r}\n"
        "table = dlrunner.sweep(*words, 'optim=sgd,adam', seed=range(2))\n"
        "print(table.attrs['settings'], table['status'].tolist(), multiprocessing.get_start_method(allow_none=True))\n"
    )
    words = [sys.executable, "script.py"]
    done = subprocess.run(words, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sweep of 4 jobs") == 1
    assert f"['optim', 'seed'] {['done'] * 4} None" in done.stdout


def test_a_failed_job_is_a_row_with_its_error(ratings_csv: Path) -> None:
    table = dlrunner.sweep(*WORDS, "optim=sgd", **{"optim.lr": (0.01, 1e30)})
    assert table["status"].tolist() == ["done", "failed"]
    assert "training diverged" in table["error"][1]


def test_runs_in_threads_wait_for_each_other(ratings_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed, running, together = runner._execute, list[int](), list[int]()

    def execute(*arguments: Any) -> runner.Outcome:
        running.append(1)
        together.append(len(running))
        time.sleep(0.2)
        try:
            return executed(*arguments)
        finally:
            running.pop()

    def metrics(seed: int) -> dict[str, float]:
        return dlrunner.run(*WORDS, seed=seed, rerun=True).metrics

    monkeypatch.setattr(runner, "_execute", execute)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(metrics, (1, 2)))
    assert together == [1, 1]
    assert found == [metrics(1), metrics(2)]


def test_a_sweep_may_be_started_by_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(multiprocessing, "set_start_method", lambda name, force: None)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: started.append(signal.getsignal(signal.SIGINT)))
    with ThreadPoolExecutor(1) as thread:
        thread.submit(start_fork_server).result()
    start_fork_server()
    assert started == [signal.getsignal(signal.SIGINT), signal.SIG_IGN]
