"""Sweeps: every job runs, failures are shown when they happen, given again only what is missing is done."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import QUICK, Dlrun, start

WORDS = ("-m", "task=collab", "data.path=my.csv", "epochs=1", *QUICK)


def sweep_folder(here: Path) -> Path:
    (folder,) = (here / "runs" / "sweeps").iterdir()
    return folder


@pytest.mark.slow
def test_a_sweep_runs_every_job_even_when_one_fails(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    # At 1e12 training diverges; the other rates are fine.
    words = (*WORDS, "optim=sgd,adamw", "optim.lr=0.01,1e12,0.02")
    status, out, _ = dlrun(*words)
    assert status == 1
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert len(results) == 6
    assert set(results["optim"]) == {"sgd", "adamw"}
    failed = results[results["status"] == "failed"]
    assert not failed.empty
    assert (failed["optim.lr"] == 1e12).all()
    assert failed["error"].str.contains("diverged").all()
    done = results[results["status"] == "done"]
    assert done["valid/rmse"].notna().all()
    assert done["best valid/rmse"].notna().all()
    assert done["seconds"].notna().all()
    assert done["folder"].map(lambda folder: Path(folder, "summary.json").exists()).all()
    # Each failure is shown when it happens, before the next job starts, and in that job's own log.
    number = int(failed["job"].iloc[0])
    assert out.index(f"[{number}] FAILED") < out.index(f"[{number + 1}] ")
    logs = [Path(folder, "run.log").read_text() for folder in failed["folder"]]
    assert all("diverged" in log for log in logs)
    ranking = out[out.index("ranking by valid/rmse") :]
    ranked = [float(line.split()[-3]) for line in ranking.splitlines() if line.startswith(("sgd", "adamw"))]
    best = done.sort_values("valid/rmse")
    assert f"{best['valid/rmse'].iloc[0]:.4f}" in ranking.splitlines()[2]
    assert len(ranked) == len(done)

    status, out, _ = dlrun(*words)  # given again: what is done is skipped, what failed is repeated
    assert status == 1
    assert out.count("done already") == len(done)
    assert out.count("FAILED") == len(failed)


@pytest.mark.slow
def test_a_sweep_whose_jobs_all_succeed_ends_with_0_and_leaks_nothing_from_job_to_job(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    assert dlrun(*WORDS, "seed=0,1")[0] == 0
    results = pd.read_csv(sweep_folder(here) / "results.csv").set_index("seed")
    alone = start("task=collab", "data.path=my.csv", "epochs=1", "seed=1", "runs_dir=alone", *QUICK, cwd=here)
    alone.communicate()
    (run,) = (here / "alone" / "collab").glob("*-????????")
    assert json.loads((run / "summary.json").read_text())["final"]["valid/rmse"] == results.loc[1, "valid/rmse"]
    assert results["valid/rmse"].nunique() == 2


def test_a_sweep_over_an_unknown_key_starts_nothing(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    status, _, err = dlrun(*WORDS, "optim.lrr=1,2")
    assert status == 2
    assert "did you mean lr?" in err
    status, _, err = dlrun(*WORDS, "optim=adam,admaw")
    assert status == 2
    assert "did you mean adamw?" in err
    status, _, err = dlrun(*WORDS, "optim.lr=0.1,-1")
    assert status == 2
    assert "optim.lr: must be greater than 0, not -1" in err
    assert "optim.lr=-1" in err
    assert not (here / "runs").exists()


@pytest.mark.slow
def test_a_job_that_is_killed_ends_nothing_but_itself(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "deadly.py").write_text(
        "import os, signal\nfrom dlrunner.tasks.collab import Collab\n"
        "class Deadly(Collab):\n    def metrics(self):\n"
        "        if self.seed == 1: os.kill(os.getpid(), signal.SIGKILL)\n        return super().metrics()\n"
    )
    status, out, _ = dlrun(*WORDS, "plugins=[deadly]", "task._target_=deadly.Deadly", "seed=0,1,2")
    assert status == 1
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert list(results["status"]) == ["done", "failed", "done"]
    assert "killed by signal 9" in out


@pytest.mark.slow
def test_joblib_runs_jobs_side_by_side_with_divided_threads(ratings_csv: Path, here: Path) -> None:
    words = (*WORDS, "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.num_threads=null")
    process = start(*words, cwd=here, OMP_NUM_THREADS="7")
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert list(results["status"]) == ["done", "done"]

    cores = len(os.sched_getaffinity(0))
    for folder in results["folder"]:
        assert json.loads(Path(folder, "summary.json").read_text())["num_threads"] == max(1, cores // 2)


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on_when_it_is_given_again(ratings_csv: Path, here: Path) -> None:
    words = ("-m", "task=collab", "data.path=my.csv", "epochs=400", "seed=0,1", *QUICK)
    process = start(*words, cwd=here)
    deadline = time.monotonic() + 60
    while not list((here / "runs" / "collab").glob("*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    out, err = process.communicate()
    assert process.returncode == 143, (out, err)
    assert "the same command goes on" in err
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert list(results["status"]) == ["interrupted", "not started"]
    again = start(*words, cwd=here)
    again.communicate()
    assert again.returncode == 0
    assert list(pd.read_csv(sweep_folder(here) / "results.csv")["status"]) == ["done", "done"]
    broken = json.loads(next((here / "runs" / "collab").glob("*seed=0*/summary.json")).read_text())
    alone = start("task=collab", "data.path=my.csv", "epochs=400", "runs_dir=alone", *QUICK, cwd=here)
    alone.communicate()
    unbroken = json.loads((here / "alone" / "latest" / "summary.json").read_text())
    assert broken["final"] == unbroken["final"]
