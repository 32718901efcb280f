"""Sweeps: every job runs, failures are shown when they happen, given again only what is missing is done."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from dlrunner import load_sweep
from dlrunner.cli.compose import compose, compose_jobs
from dlrunner.cli.sweep import with_seeds
from dlrunner.errors import ConfigError
from dlrunner.system.parallel import num_cores
from tests.conftest import QUICK, Dlrun, Forked, flats, start
from tests.scaling import documented

WORDS = ("-m", "task=collab", "data.path=my.csv", "epochs=1", *QUICK)


def sweep_folder(here: Path) -> Path:
    (folder,) = (here / "runs" / "sweeps").iterdir()
    return folder


@pytest.mark.parametrize("more", [(), ("hydra/sweeper=optuna", "sweep.trials=2")])
def test_a_sweep_takes_generated_data_only_on_request(dlrun: Dlrun, here: Path, more: tuple[str, ...]) -> None:
    words = ("-m", "task=rossmann", "optim.lr=0.01,0.02", "epochs=1", "task.baseline=false", *more, *QUICK)
    status, out, err = dlrun(*words)
    assert (status, out) == (1, "")
    assert "`dlrun data` lists where to get it, data.source=synthetic generates it" in err
    assert not (here / "runs").exists()
    assert dlrun(*words, "sweep.dry_run=true")[0] == 0
    assert dlrun(*words, "data.source=synthetic", "data.sample=2000")[0] == 0


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
    assert f"finished: {len(done)} of 6" in out
    assert out.count("FAILED") == len(failed)
    again = pd.read_csv(sweep_folder(here) / "results.csv")
    pd.testing.assert_frame_equal(again, results)


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


def test_a_job_that_is_killed_ends_nothing_but_itself(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "deadly.py").write_text(
        "import os, signal\nfrom dlrunner.tasks.collab.task import Collab\n"
        "class Deadly(Collab):\n    def metrics(self):\n"
        "        if self.seed == 1: os.kill(os.getpid(), signal.SIGKILL)\n        return super().metrics()\n"
    )
    status, out, _ = dlrun(*WORDS, "plugins=[deadly]", "task._target_=deadly.Deadly", "seed=0,1,2")
    assert status == 1
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert list(results["status"]) == ["done", "failed", "done"]
    assert "killed by signal 9" in out


def test_jobs_that_run_in_parallel_divide_the_threads(ratings_csv: Path, here: Path) -> None:
    words = (*WORDS, "seed=0,1", "sweep.jobs=2", "trainer.rows_per_thread=null")
    process = start(*words, cwd=here, OMP_NUM_THREADS="7")
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert list(results["status"]) == ["done", "done"]

    cores = num_cores()
    for folder in results["folder"]:
        assert json.loads(Path(folder, "summary.json").read_text())["num_threads"] == max(1, cores // 2)


def test_the_same_command_resumes_a_stopped_sweep(ratings_csv: Path, here: Path) -> None:
    words = ("-m", "task=collab", "data.path=my.csv", "epochs=40", "seed=0,1", *QUICK)
    process = start(*words, cwd=here)
    deadline = time.monotonic() + 60
    while not list((here / "runs" / "collab").glob("*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    out, err = process.communicate()
    assert process.returncode == 143, (out, err)
    assert "the same command resumes" in err
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert list(results["status"]) == ["interrupted", "not started"]
    again = start(*words, cwd=here)
    again.communicate()
    assert again.returncode == 0
    assert list(pd.read_csv(sweep_folder(here) / "results.csv")["status"]) == ["done", "done"]
    broken = json.loads(next((here / "runs" / "collab").glob("*seed=0*/summary.json")).read_text())
    alone = start("task=collab", "data.path=my.csv", "epochs=40", "runs_dir=alone", *QUICK, cwd=here)
    alone.communicate()
    unbroken = json.loads((here / "alone" / "latest" / "summary.json").read_text())
    assert broken["final"] == unbroken["final"]


def test_jobs_with_a_shared_composition_have_their_own_configurations(here: Path) -> None:
    (here / "conf" / "task").mkdir(parents=True)
    (here / "conf" / "task" / "linked.yaml").write_text(
        "# @package _global_\ndefaults:\n  - collab\nepochs: 3\ntrainer:\n  early_stopping: ${epochs}\n"
    )
    jobs = [
        ["task=linked", f"epochs={epochs}", f"optim={optim}", f"seed={seed}", "model.init=[-0.1,0.1]"]
        for epochs in (2, 7)
        for optim in ("sgd", "adam")
        for seed in (0, 1)
    ]
    assert list(compose_jobs(jobs)) == [compose(job) for job in jobs]
    (wrong,) = compose_jobs([["task=linked", "optim=admaw"]])
    assert isinstance(wrong, ConfigError)


def test_seeds_are_an_axis_of_their_own(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert with_seeds(["a=1", "seeds=3", "seed=4"]) == ["a=1", "seed=4,5,6"]
    status, out, _ = dlrun("task=collab", "data.path=my.csv", "epochs=1", "seeds=3", *QUICK)
    assert status == 0
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert list(results["seed"]) == [0, 1, 2]
    values = results["valid/rmse"]
    half = 4.302653 * values.std() / 3**0.5  # Student's t, two degrees of freedom
    low, high = values.mean() - half, values.mean() + half
    assert f"over seed 0, 1, 2: valid/rmse {values.mean():.4f} ± {values.std():.4f}, 95 % interval" in out.replace(
        f"{values.std():.1e}", f"{values.std():.4f}"
    )
    assert f"{low:.4f} to {high:.4f}" in out
    for wrong in ("0", "x", "2.5"):
        status, _, err = dlrun("task=collab", f"seeds={wrong}")
        assert status == 2
        assert "seeds: must be a number from 1 to 10000" in err
    for seeds, seed, words in (
        ("2", "1,2", "starts from seed, which has several values: seed=1,2"),
        ("2", "x", "starts from seed, which is 'x'"),
        ("2,3", "0", "seeds=2,3: seeds is one number"),
    ):
        status, _, err = dlrun("-m", "task=collab", f"seeds={seeds}", f"seed={seed}")
        assert status == 2
        assert words in " ".join(err.split())


def test_the_seeds_of_an_experiment_count_in_a_sweep_too(here: Path) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    for name, text in (("three", "seeds: 3\nseed: 4\n"), ("one", "epochs: 1\n")):
        defaults = "# @package _global_\ndefaults:\n  - override /task: collab\n"
        (here / "conf" / "experiment" / f"{name}.yaml").write_text(defaults + text)
    sweep = ["optim=sgd,adam"]
    assert with_seeds(["experiment=three", *sweep]) == ["experiment=three", *sweep, "seed=4,5,6"]
    assert with_seeds(["experiment=three", "seeds=2", "seed=0"]) == ["experiment=three", "seed=0,1"]
    assert with_seeds(["experiment=three", "seeds=null", *sweep])[-1] == sweep[0]
    assert with_seeds(["experiment=one,three", "seeds=2", "seed=1"])[-1] == "seed=1,2"
    with pytest.raises(ConfigError, match="seeds: the options of this sweep set 3 and None; give one for all"):
        with_seeds(["experiment=three,one"])


def test_the_plan_of_a_sweep_is_shown_without_running(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    status, out, _ = dlrun(*WORDS, "seed=0,1,2", "sweep.dry_run=true")
    assert status == 0
    assert "0 of 3 jobs are finished; no finished job to estimate the time from" in out
    assert not (here / "runs").exists()
    dlrun(*WORDS, "seed=0,1")
    status, out, _ = dlrun(*WORDS, "seed=0,1,2", "sweep.dry_run=true")
    assert "2 of 3 jobs are finished; the other 1 take about" in out
    assert [line.split()[2] for line in out.splitlines()[3:6]] == ["done", "done", "new"]


def test_duplicate_jobs_are_run_once(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    words = (*documented("optim.lr=0.01,1e-2")[1:], *QUICK)
    planned = dlrun(*words, "sweep.dry_run=true")[1]
    assert "[1] optim.lr=0.01: the same run as [0], run once" in planned
    assert "0 of 2 jobs are finished" in planned
    status, out, _ = dlrun(*words)
    assert status == 0
    assert "[1] optim.lr=0.01: the same run as [0], run once" in out
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert results["job"].tolist() == [0, 2]
    assert results["valid/rmse"].nunique() == 2
    assert "2 of 2 jobs done" in out
    assert "2 of 2 jobs are finished" in dlrun(*words, "sweep.dry_run=true")[1]
    assert "finished: 2 of 2\n" in dlrun(*words)[1]
    assert all(folder.startswith("runs/collab/") for folder in results["folder"])  # as it is typed here
    assert all(Path(folder, "summary.json").exists() for folder in results["folder"])
    assert all(seconds == round(seconds, 2) for seconds in results["seconds"])


def test_a_value_that_auto_stands_for_is_the_same_run(dlrun: Dlrun, here: Path) -> None:
    flats(200).to_csv("flats.csv", index=False)
    table = ("task=tabular", "data.path=flats.csv", "data.target=price", "model=linear", "task.baseline=false")
    words = ("-m", *table, "epochs=1", "batch_size=auto,32", "seeds=2", *QUICK)
    status, out, err = dlrun(*words)
    assert status == 0, err
    assert "[2] batch_size=32 seed=0: the same run as [0], run once" in out
    assert "[3] batch_size=32 seed=1: the same run as [1], run once" in out
    assert "2 of 2 jobs done" in out
    assert out.count("over seed 0, 1: ") == 1
    assert pd.read_csv(sweep_folder(here) / "results.csv")["job"].tolist() == [0, 1]
    assert load_sweep(sweep_folder(here))["job"].tolist() == [0, 1]
    assert "2 of 2 jobs are finished" in dlrun(*words, "sweep.dry_run=true")[1]
    (sweep_folder(here) / "results.csv").unlink()
    assert load_sweep(sweep_folder(here))["job"].tolist() == [0, 1]
    status, out, _ = dlrun(*words)
    assert (status, "finished: 2 of 2\n" in out, out.count("run once")) == (0, True, 2)


def test_a_sweep_has_a_report_whatever_has_run_its_jobs(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    for seed in (0, 1):
        assert dlrun(*WORDS[1:], f"seed={seed}")[0] == 0
    status, out, _ = dlrun(*WORDS, "seed=0,1", "log.report=true")
    assert (status, "report   runs/sweeps/" in out) == (0, True)
    assert "2 of 2" in (sweep_folder(here) / "report.html").read_text()


def test_an_empty_range_and_sweep_settings_in_a_single_run_are_refused(dlrun: Dlrun, here: Path) -> None:
    status, _, err = dlrun("-m", "task=collab", "seed=range(0)")
    assert status == 2
    assert "seed=range(0): has no values" in err
    status, _, err = dlrun("task=collab", "sweep.dry_run=true")
    assert status == 2
    assert "this is one run, not a sweep" in err
    status, _, err = dlrun("-m", "task=collab", "seed=0,1", "sweep.jobs=0", "sweep.gpu_share=2")
    assert status == 2
    assert "sweep.jobs: must be greater than or equal to 1, not 0" in err
    assert "sweep.gpu_share: must be less than or equal to 1, not 2" in err
    assert not (here / "runs").exists()


def test_the_first_failure_ends_a_sweep_with_fail_fast(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    status, _, _ = dlrun(*WORDS, "optim.lr=0.01,1e12,0.02,0.03", "sweep.fail_fast=true")
    assert status == 1
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert list(results["status"]) == ["done", "failed", "not started", "not started"]


def test_jobs_are_of_the_plugins_that_the_sweep_started_with(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "edits_itself.py").write_text(
        "from pathlib import Path\nfrom dlrunner.tasks.collab.task import Collab\n"
        "class Edited(Collab):\n    def metrics(self):\n        found = super().metrics()\n"
        "        if self.seed == 0: Path('edits_itself.py').write_text(Path('edits_itself.py').read_text() + '# x')\n"
        "        return found\n"
    )
    status, out, _ = dlrun(*WORDS, "plugins=[edits_itself]", "task._target_=edits_itself.Edited", "seed=0,1")
    assert status == 1
    assert "the code was edited after the sweep had started" in out
    assert list(pd.read_csv(sweep_folder(here) / "results.csv")["status"]) == ["done", "failed"]


@pytest.mark.slow  # two sweeps of programs
def test_a_file_that_is_edited_meanwhile_changes_nothing(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "conf" / "optim").mkdir(parents=True)
    file = here / "conf" / "optim" / "mine.yaml"
    file.write_text("_target_: torch.optim.SGD\nlr: 0.1\n")
    process = start(*WORDS, "epochs=20", "optim=mine", "seed=0,1", cwd=here)
    wait_for(here, "runs/collab/*/metrics.jsonl", process)
    file.write_text("_target_: torch.optim.SGD\nlr: 0.2\n")
    process.communicate()
    assert process.returncode == 0
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    configs = [Path(folder, "config.yaml").read_text() for folder in results["folder"]]
    assert all("lr: 0.1" in config for config in configs)
    # Given again, the file as it is now counts: another sweep.
    assert dlrun(*WORDS, "epochs=20", "optim=mine", "seed=0,1", "sweep.dry_run=true")[1].count("new") >= 2


def wait_for(here: Path, pattern: str, process: Forked, count: int = 1) -> None:
    deadline = time.monotonic() + 60
    while len(list(here.glob(pattern))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


SAME = [
    "job",
    "status",
    "optim",
    "seed",
    "valid/rmse",
    "valid/loss",
    "train/loss",
    "best epoch",
    "best valid/rmse",
    "error",
]


@pytest.mark.slow  # three sweeps of programs; one that is stopped is resumed above, kills at each write: test_sweep_files.py
def test_a_sweep_killed_at_any_moment_ends_with_the_results_of_an_undisturbed_one(
    ratings_csv: Path, here: Path
) -> None:
    words = ("-m", "task=collab", "data.path=my.csv", "epochs=16", "optim=sgd,adam", "seed=0,1", "sweep.jobs=2", *QUICK)
    start(*words, "runs_dir=undisturbed", cwd=here).communicate()
    (whole,) = (here / "undisturbed" / "sweeps").glob("*/results.csv")
    rng = random.Random(0)
    for moment in range(4):
        process = start(*words, cwd=here)
        if moment:
            time.sleep(rng.uniform(0.2, 0.8))
        else:
            wait_for(here, "runs/collab/*/metrics.jsonl", process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    # A job is killed too.
    process = start(*words, cwd=here)
    wait_for(here, "runs/sweeps/*/jobs/*/output.txt", process)
    pids = [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and _holds_a_run(pid, here)]
    if pids:
        os.kill(int(pids[0].name), signal.SIGKILL)
    process.communicate()
    last = start(*words, cwd=here)
    out, err = last.communicate()
    assert last.returncode == 0, (out, err)
    expected, found = (pd.read_csv(file)[SAME] for file in (whole, sweep_folder(here) / "results.csv"))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def _holds_a_run(process: Path, here: Path) -> bool:
    """Tell whether a process writes a job's output of this test."""
    try:
        return str((process / "fd" / "1").readlink()).startswith(str(here / "runs" / "sweeps"))
    except OSError:
        return False


def test_jobs_on_different_validation_rows_are_ranked_apart(dlrun: Dlrun, ratings_csv: Path) -> None:
    status, out, _ = dlrun(*WORDS, "data.valid=0.2,0.5", "seed=0,1")
    assert status == 0
    lines = out[out.index("ranking by valid/rmse") :].splitlines()
    assert lines[0] == "ranking by valid/rmse within each set of validation rows: others are not comparable"
    rows = [line.split() for line in lines[2:6]]
    assert [(row[0], row[1]) for row in rows] == [("1", "0.2"), ("1", "0.2"), ("2", "0.5"), ("2", "0.5")]
