"""What a terminal of 80 columns shows of comparisons and rankings: columns are left out, numbers are not cut."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from dlrunner.comparison.groups import compare
from dlrunner.reporting.terminal import comparison as looks
from dlrunner.reporting.terminal import tables
from tests.comparison.test_importance import make_row
from tests.fake_runs import write_run
from tests.reporting.test_comparison import two_optimizers


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setattr(tables, "console", lambda: Console(width=80, soft_wrap=True))


@pytest.mark.usefixtures("narrow")
def test_a_narrow_table_leaves_out_columns_instead_of_breaking_numbers(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {"valid/mae": 0.5123, "valid/r2": 0.8123, "valid/medae": 0.4123}
    found = two_optimizers(here, [0.80, 0.81, 0.82], [0.9, 0.91, 0.93], others=others)
    looks.print_comparison(found, looks.groups_frame(found), [], top=10)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines[:5])
    assert "0.8100 ± 0.0100  0.7852 to 0.8348" in lines[3]
    assert lines[5] == "… no room for valid/medae, valid/loss; --csv FILE writes all"


@pytest.mark.usefixtures("narrow")
def test_many_settings_share_one_column_without_what_most_have(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"task.setting_{letter}" for letter in "abcdef"]
    rows = [make_row(0.5, {name: int(name == other) for name in names}) for other in names]
    found = compare(rows)
    looks.print_comparison(found, looks.groups_frame(found), [], top=10)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == "n  valid/rmse  seconds  settings"
    assert lines[3] == "1  0.5000               task.setting_a=1"
    assert lines[9].startswith("… the others: task.setting_a=0 task.setting_b=0")
    assert not any("…" in line for line in lines[:9]), "no value is cut"


@pytest.mark.usefixtures("narrow")
def test_a_ranking_leaves_out_metrics_before_it_breaks_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {f"valid/metric_{letter}": 0.123456 for letter in "abcdef"}
    job = {"status": "done", "optim.lr": 0.01, "seed": 0, "valid/rmse": 0.5, **metrics, "best epoch": 3}
    end = {"metric": "valid/rmse", "higher_is_better": False, "seconds": 1.0, "folder": "x", "error": None}
    tables.print_ranking(pd.DataFrame([{"job": number, **job, **end} for number in range(2)]), tmp_path)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert all(len(line) <= 80 for line in lines[:5])
    assert not any("…" in line for line in lines[:5])
    assert any(line.startswith("… no room for valid/metric_") for line in lines)


def test_the_means_of_a_sweep_leave_out_what_has_no_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end = {"metric": "valid/rmse", "higher_is_better": False, "seconds": 1.0, "folder": "x", "error": None}
    jobs = [("a", 0, 0.5), ("b", 0, 0.7), ("b", 1, 0.9), ("c", 0, math.nan), ("c", 1, math.nan)]
    rows = [
        {"job": number, "status": "done", "task": task, "seed": seed, "valid/rmse": value, **end}
        for number, (task, seed, value) in enumerate(jobs)
    ]
    tables.print_ranking(pd.DataFrame(rows), tmp_path)
    means = [line.strip() for line in capsys.readouterr().out.splitlines() if "over seed" in line]
    assert means[0] == "task=a: over seed 0: valid/rmse 0.5000"
    assert means[1].startswith("task=b: over seed 0, 1: valid/rmse 0.8000 ± 0.1414, 95 % interval")
    assert len(means) == 2


def test_a_ranking_keeps_tasks_experiments_and_metrics_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for number, (experiment, task, metric, value, rows) in enumerate(
        [
            ("wide", "rossmann", "valid/rmspe", 0.10, "six weeks"),
            ("honest", "rossmann", "valid/rmspe", 0.13, "the last weeks"),
            ("wide-long", "rossmann", "valid/rmspe", 0.09, "six weeks"),
            ("dogs", "dogbreeds", "valid/accuracy", 0.8, "dogs"),
            ("other-dogs", "dogbreeds", "valid/accuracy", 0.9, "dogs"),
            ("reviews", "imdb-sentiment", "valid/accuracy", 0.85, "dogs"),  # never of the same set: another task
        ]
    ):
        higher = metric == "valid/accuracy"
        data = {"name": "d", "release": "own", "source": "real", "sha256": "a" * 64, "validation": rows}
        settings = {"task": task, "experiment": experiment}
        run = write_run(
            tmp_path / "runs" / str(number), value, settings, metric=metric, higher_is_better=higher, data=data
        )
        end = {"metric": metric, "higher_is_better": higher, "seconds": 1.0, "folder": str(run), "error": None}
        found.append({"job": number, "status": "done", "experiment": experiment, metric: value, **end})
    results = pd.DataFrame(found)
    metrics = ["valid/rmspe", "valid/accuracy"]
    results = results[["job", "status", "experiment", *metrics, *list(end)]]
    tables.print_ranking(results, tmp_path)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1].startswith("ranking by valid/rmspe, by valid/accuracy within each set of validation rows")
    assert [line.split()[:2] for line in lines[3:9]] == [
        ["1", "wide-long"],
        ["1", "wide"],
        ["2", "honest"],
        ["3", "other-dogs"],
        ["3", "dogs"],
        ["4", "reviews"],
    ]


def test_the_seeds_of_a_fold_are_averaged_before_the_interval_over_folds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end = {"metric": "valid/rmse", "higher_is_better": False, "seconds": 1.0, "folder": "x", "error": None}
    rows = [
        {"job": 2 * n, "status": "done", "data.fold": n // 2, "seed": n % 2, "valid/rmse": value, **end}
        for n, value in enumerate((0.5, 0.7, 0.7, 0.9))
    ]
    tables.print_ranking(pd.DataFrame(rows), tmp_path)
    out = " ".join(capsys.readouterr().out.split())
    assert "over data.fold 0, 1 and seed 0, 1: valid/rmse 0.7000 ± 0.1414, 95 % interval -0.5706 to 1.9706" in out


def test_a_ranking_reads_no_run_where_only_the_model_and_its_training_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.comparison.collect.read_row", lambda path: pytest.fail("a run was read"))
    end = {"metric": "valid/rmse", "higher_is_better": False, "seconds": 1.0, "folder": "x", "error": None}
    rows = [
        {"job": n, "status": "done", "optim.lr": 0.1, "model": "net", "seed": n, "valid/rmse": 0.5, **end}
        for n in (0, 1)
    ]
    tables.print_ranking(pd.DataFrame(rows), tmp_path)
    assert "validation set" not in capsys.readouterr().out
