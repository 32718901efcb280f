"""Searches: Optuna proposes, trials are jobs like any other, and the best one is an experiment at once."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
import sqlalchemy
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from dlrunner.cli.compose import compose, parse
from dlrunner.cli.search import distribution
from dlrunner.config.plan import Plan, plan
from dlrunner.errors import ConfigError
from dlrunner.sweeps.search import Search
from dlrunner.sweeps.slots import ResourceSlot
from tests.cli.test_sweep import sweep_folder, wait_for
from tests.conftest import QUICK, Dlrun, flats, start
from tests.scaling import documented

WORDS = ("-m", "hydra/sweeper=optuna", "task=collab", "data.path=my.csv", "epochs=1", *QUICK)
DRY = "sweep.dry_run=true"
RATE = "optim.lr=tag(log,interval(1e-3,1e-1))"


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    search = Search(folder, {}, higher_is_better=False)
    found = search.study.trials
    search.close()
    return found


def test_a_study_is_stored_in_its_own_folder_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a?b %41"
    folder.mkdir()
    assert trials(folder) == []
    assert (folder / "search.db").is_file()


def test_ranges_are_written_in_hydras_grammar() -> None:
    written = {
        "x=interval(0,0.5)": FloatDistribution(0, 0.5),
        "x=tag(log,interval(1e-4,1e-1))": FloatDistribution(1e-4, 1e-1, log=True),
        "x=int(interval(1,8))": IntDistribution(1, 8),
        "x=int(tag(log,interval(1,64)))": IntDistribution(1, 64, log=True),
        "x=range(2,9,3)": IntDistribution(2, 8, step=3),
        "x=range(10,1,-1)": IntDistribution(2, 10),
        "x=range(1,0,-0.25)": FloatDistribution(0.25, 1, step=0.25),
        "x=tag(log,range(1,9))": IntDistribution(1, 8, log=True),
        "x=range(0.5,2,0.5)": FloatDistribution(0.5, 1.5, step=0.5),
        "x=choice([10],[100,50])": CategoricalDistribution(["[10]", "[100,50]"]),
        "x=a,b,a": CategoricalDistribution(["a", "b"]),
    }
    for word, expected in written.items():
        assert distribution(OverridesParser.create().parse_override(word)) == expected, word
    for wrong in ("x=interval(2,1)", "x=tag(log,interval(0,1))", "x=range(0)", "x=tag(log,range(1,9,2))"):
        with pytest.raises(ConfigError, match="x="):
            distribution(parse([wrong])[0])


@pytest.mark.slow  # ten trials; the best one of a short search is written below
def test_the_best_configuration_is_an_experiment_that_is_already_finished(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    words = (*documented("sweep.best=")[1:], *QUICK)
    status, out, err = dlrun(*(word for word in words if not word.startswith("sweep.")), "sweep.trials=4")
    assert status == 0, (out, err)
    assert "the same command with sweep.best=NAME" in out
    assert (sweep_folder(here) / "best.yaml").read_text().startswith("# @package _global_\n# dlrun experiment=best\n")

    # More trials go on from there; the name makes an experiment of the best one.
    status, out, _ = dlrun(*words)
    assert status == 0
    assert "finished: 4 of 6" in out
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert len(results) == 6
    assert results["optim.lr"].between(1e-3, 1e-1).all()
    assert set(results["model.factors"]) <= {5, 20}
    best = results.sort_values("valid/rmse").iloc[0]
    status, out, err = dlrun(*documented("experiment=found")[1:], *QUICK)
    assert status == 0, err
    assert f"in a new folder\n{best['folder']}" in out

    # Training again gives the same results.
    assert dlrun("experiment=found", *QUICK, "runs_dir=fresh")[0] == 0
    summary = json.loads((here / "fresh" / "latest" / "summary.json").read_text())
    assert summary["final"]["valid/rmse"] == best["valid/rmse"]
    assert [trial.value for trial in trials(sweep_folder(here))] == list(results["valid/rmse"])


@pytest.mark.slow  # processes for nine trials; values that fail a trial are tested above and below
def test_failed_trials_are_counted_and_do_not_end_the_search(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "infinite.py").write_text(
        "from dlrunner.tasks.collab.task import Collab\nfrom dlrunner.metrics import RootMeanSquaredError\n"
        "import os, signal\n"
        "class Infinite(RootMeanSquaredError):\n    def compute(self):\n        return float('inf')\n"
        "class Odd(Collab):\n    def metrics(self):\n"
        "        if self.seed == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return {'rmse': Infinite()} if self.seed == 3 else super().metrics()\n"
    )
    # At 1e12 training diverges; seed 2 is killed, seed 3 has a metric that is no number.
    odd = ("plugins=[infinite]", "task._target_=infinite.Odd")
    words = (*WORDS, *odd, "sweep.trials=12", "sweep.sampler=random", "sweep.sampler_seed=1")
    status, out, err = dlrun(*words, "optim.lr=choice(0.02,1e12)", "seed=range(1,4)", "sweep.jobs=2")
    assert status == 0, (out, err)
    found = trials(sweep_folder(here))
    assert len(found) == 12
    for trial in found:
        good = trial.params["optim.lr"] == "0.02" and trial.params["seed"] == 1
        assert trial.state.name == ("COMPLETE" if good else "FAIL"), trial
    assert {trial.state.name for trial in found} == {"COMPLETE", "FAIL"}
    assert "the loss is nan" in out or "the loss is inf" in out
    assert "killed by signal 9" in out
    (best,) = {line for line in (sweep_folder(here) / "best.yaml").read_text().splitlines() if "lr:" in line}
    assert best == "  lr: 0.02"

    status, out, _ = dlrun(*words, "optim.lr=choice(1e12,1e13)", "seed=1", "sweep.trials=2")
    assert status == 1
    assert "best " not in out


@pytest.mark.slow  # four programs; a search killed during a suggestion is given again below
def test_a_killed_search_resumes_with_the_same_trials(ratings_csv: Path, here: Path) -> None:
    words = (*WORDS, RATE, "model.factors=range(5,25,5)", "batch_size=200", "sweep.trials=12")
    start(*words, "runs_dir=whole", cwd=here).communicate()
    for number, sent in ((2, signal.SIGKILL), (10, signal.SIGINT)):  # while it draws at random, and when it has learnt
        process = start(*words, cwd=here)
        wait_for(here, f"runs/sweeps/*/jobs/{number}/output.txt", process)
        process.send_signal(sent)
        out, err = process.communicate()
        assert process.returncode == (130 if sent == signal.SIGINT else -9), (out, err)
    last = start(*words, cwd=here)
    out, err = last.communicate()
    assert last.returncode == 0, (out, err)
    (whole,) = (here / "whole" / "sweeps").iterdir()
    same = ["job", "status", "optim.lr", "model.factors", "valid/rmse", "valid/loss", "best epoch"]
    expected, found = (pd.read_csv(folder / "results.csv")[same] for folder in (whole, sweep_folder(here)))
    assert len(expected) == 12
    assert expected["optim.lr"].nunique() == 12
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert [t.state.name for t in trials(sweep_folder(here))] == ["COMPLETE"] * 12


def test_a_search_killed_during_a_suggestion_repeats_it(here: Path) -> None:
    space: dict[str, Any] = {name: FloatDistribution(0, 1) for name in "abc"}
    expected = []
    (here / "whole").mkdir()
    search = Search(here / "whole", space, higher_is_better=False)
    for number in range(3):
        expected.append(search.ask())
        search.tell(number, {"status": "done", "metric": {"value": float(number)}})
    search.close()

    found: list[tuple[int, dict[str, Any]]] = []
    for number in range(3):
        for moment in itertools.count():  # the process ends instead of the first, the second … change of the study
            search = Search(here, space, higher_is_better=False)
            left = itertools.count()

            def end(*_: Any, left: Any = left, moment: int = moment) -> None:
                if next(left) == moment:
                    raise KeyboardInterrupt

            begun = search.unfinished()
            assert not begun or begun == {number: expected[number][1]}
            if begun:
                break
            sqlalchemy.event.listen(search._storage.engine, "commit", end)
            with contextlib.suppress(KeyboardInterrupt):
                search.ask()
            search.close()
        found += begun.items()
        search.tell(number, {"status": "done", "metric": {"value": float(number)}})
        search.close()
    assert found == expected


def test_a_search_shares_gpus_and_needs_a_number_of_jobs_with_an_engine(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ResourceSlot] = []

    def run_jobs(jobs: Any, folder: Any, slots: Sequence[ResourceSlot], *others: Any) -> None:
        seen.extend(slots)

    monkeypatch.setattr("dlrunner.sweeps.pool.run_jobs", run_jobs)
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
    monkeypatch.setattr("dlrunner.sweeps.slots.torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    dlrun(*WORDS, RATE, "sweep.jobs=auto", "sweep.gpu_share=0.5")
    assert [slot.gpu for slot in seen] == ["3", "5", "3", "5"]
    status, _, err = dlrun(*WORDS, RATE, "sweep.jobs=auto", "hydra/launcher=submitit_local")
    assert status == 2
    assert "sweep.jobs: must be a number for a search with hydra/launcher=submitit_local" in err


def test_a_search_maximises_if_higher_is_better_and_repeats_no_finished_trial(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    (here / "climbing.py").write_text(
        "from dlrunner.tasks.collab.task import Collab\nfrom dlrunner.metrics import RootMeanSquaredError\n"
        "class High(RootMeanSquaredError):\n    higher_is_better = True\n"
        "class Climb(Collab):\n    def metrics(self):\n        return {'rmse': High()}\n"
    )
    words = (*WORDS, "plugins=[climbing]", "task._target_=climbing.Climb", "sweep.trials=5")
    status, out, err = dlrun(*words, "optim.lr=1e-4,1e-2", "sweep.best=worst")
    assert status == 0, (out, err)
    assert out.count("the same run as") == 3
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert results["folder"].nunique() == 2
    assert compose(["experiment=worst"])["optim"]["lr"] == results.sort_values("valid/rmse")["optim.lr"].iloc[-1]


def test_a_search_of_an_experiment_writes_the_complete_experiment(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: net\n  - override /optim: sgd\n"
        "data:\n  path: my.csv\nmodel:\n  hidden: [9, 7]\ntrainer:\n  clip: 0.5\nepochs: 1\nbatch_size: 64\n"
        "claim:\n  metric: valid/rmse\n  value: 9\n  source: made up\n"
    )
    words = ("-m", "hydra/sweeper=optuna", "experiment=mine", "optim.lr=0.01", "model.hidden=[4],[8]", *QUICK)
    status, out, err = dlrun(*words, "sweep.trials=1", "sweep.best=better")
    assert status == 0, (out, err)
    (run,) = (here / "runs" / "collab").glob("*-????????")
    assert run.name.endswith(plan(compose(["experiment=better"])).signature)
    assert compose(["experiment=better"])["trainer"]["clip"] == 0.5
    assert compose(["experiment=better"])["claim"] is None


def test_errors_are_reported_before_the_first_trial(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    wrong = {
        "optim.lr=interval(0,1)": "optim.lr: must be greater than 0",
        "optim.lrr=interval(0.1,1)": "did you mean lr?",
        "optim.lr=interval(1,0.5)": "optim.lr=interval(1,0.5)",
        "optim=adam,admaw": "did you mean adamw?",
        "optim.lr=0.1": "a search needs a range",
        "hydra.sweeper.n_trials=3": "the settings of a search are sweep.trials",
    }
    for word, said in wrong.items():
        status, _, err = dlrun(*WORDS, word)
        assert status == 2
        assert said in err
    assert "a search evaluates single runs" in dlrun(*WORDS, RATE, "seeds=3")[2]
    for name, said in {
        "a/b": "must be a name",
        "movielens-best": "there already is an experiment movielens-best",
    }.items():
        status, _, err = dlrun(*WORDS, RATE, f"sweep.best={name}")
        assert status == 2
        assert said in err
    status, _, err = dlrun("-m", "hydra/sweeper=optune", "task=collab", "seed=0,1")
    assert status == 2
    assert "did you mean optuna?" in err
    status, out, _ = dlrun(*WORDS, RATE, "sweep.dry_run=true")
    assert status == 0
    assert "search of 20 trials over optim.lr" in out
    assert not (here / "runs").exists()


def test_a_search_over_validation_rows_is_refused(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    for word in ("data.split_seed=range(3)", "data.valid=interval(0.1,0.3)", "data.split=random,folds"):
        status, out, err = dlrun(*WORDS, RATE, word)
        assert (status, out) == (2, "")
        assert f"{word.partition('=')[0]}: a search ranks its trials" in err
        assert "optim.lr" not in err
    assert not (here / "runs").exists()
    (here / "t.csv").write_text("a,b,y\n" + "".join(f"{i},{i % 7},{i % 3}\n" for i in range(40)))
    table = ("-m", "hydra/sweeper=optuna", "task=tabular", "data.path=t.csv", "data.target=y", "sweep.dry_run=true")
    status, _, err = dlrun(*table, "data.continuous=choice([a],[a,b])", "data.categorical=[]")
    assert status == 0, err


def test_an_invalid_value_inside_of_a_range_fails_only_its_trial(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(config: Any) -> Plan:
        if 5 < config["model"]["factors"] < 7:
            raise ConfigError("model.factors: 6 is too few for one and too many for the other")
        return plan(config)

    monkeypatch.setattr("dlrunner.config.plan.plan", picky)
    status, out, _ = dlrun(*WORDS, "model.factors=range(5,8)", "sweep.trials=6")
    assert status == 0
    assert "FAILED: model.factors: 6 is too few" in out
    assert "5 of 6" in out, "the failed one and duplicates are counted: one trial is left"
    results = pd.read_csv(sweep_folder(here) / "results.csv")
    assert (results["status"] == "failed").equals(results["model.factors"] == 6)


def test_settings_of_a_search_are_refused_in_a_sweep(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    words = ("-m", "task=collab", "data.path=my.csv", "epochs=1", "optim.lr=0.01,0.02", *QUICK)
    for word in ("sweep.trials=1", "sweep.best=mine", "sweep.sampler=tpe", "sweep.sampler_seed=1", "sweep={trials:1}"):
        status, _, err = dlrun(*words, word)
        assert (status, f"{word}: is a setting of a search" in " ".join(err.split())) == (2, True), err
        assert "hydra/sweeper=optuna" in err
    assert not (here / "runs").exists()
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nsweep:\n  trials: 3\n")
    assert dlrun(*words, "experiment=mine", "sweep.dry_run=true")[0] == 0


def test_the_trials_so_far_are_shown_without_running_and_tagged_when_given_again(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    assert "0 of 2 trials are finished; no finished trial" in dlrun(*WORDS, RATE, "sweep.trials=2", DRY)[1]
    assert not (here / "runs").exists()
    assert dlrun(*WORDS, RATE, "sweep.trials=2")[0] == 0
    files = {file: file.stat().st_mtime_ns for file in (here / "runs").rglob("*")}
    status, out, _ = dlrun(*WORDS, RATE, "sweep.trials=5", DRY)
    assert (status, "2 of 5 trials are finished; the other 3 take about" in out) == (0, True)
    assert [line.split()[2] for line in out.splitlines()[3:5]] == ["done", "done"]
    assert all(line.split()[3].startswith("runs/collab/") for line in out.splitlines()[3:5])
    assert {file: file.stat().st_mtime_ns for file in (here / "runs").rglob("*")} == files
    assert dlrun(*WORDS, RATE, "sweep.trials=2", "tags=[mine]")[0] == 0
    assert len(json.loads(dlrun("ls", "tag=mine", "--jobs", "--json")[1])) == 2


def test_a_value_that_auto_stands_for_is_the_same_run_in_a_search_too(dlrun: Dlrun, here: Path) -> None:
    flats(200).to_csv("flats.csv", index=False)
    table = ("task=tabular", "data.path=flats.csv", "data.target=price", "model=linear", "task.baseline=false")
    words = ("-m", "hydra/sweeper=optuna", *table, "epochs=1", "batch_size=auto,32", "sweep.trials=6", *QUICK)
    status, out, err = dlrun(*words)
    assert status == 0, err
    assert out.count("the same run as") == 5
    assert set(pd.read_csv(sweep_folder(here) / "results.csv")["status"]) == {"done"}
    assert "1 of 1 jobs done" in out
