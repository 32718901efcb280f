"""The verbs compare and diff, on planted run folders and on real ones."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import QUICK, Dlrun
from tests.fake_runs import write_run, write_seeds, write_sweep

WORDS = ("task=collab", "data.path=my.csv", "epochs=2", *QUICK)


@pytest.fixture
def two_groups(here: Path) -> Path:
    """Three seeds each of two optimizers, and one run that failed."""
    write_seeds(here / "runs" / "collab", [0.80, 0.81, 0.82], {"optim": "adamw"}, others={"valid/mae": 0.7})
    write_seeds(here / "runs" / "collab", [0.90, 0.91, 0.93], {"optim": "sgd"}, others={"valid/mae": 0.6})
    write_run(here / "runs" / "collab" / "bad", 0.1, status="failed", error="the loss is not finite")
    return here / "runs"


def test_a_comparison_prints_table_verdict_and_skipped_runs(dlrun: Dlrun, two_groups: Path) -> None:
    status, out, err = dlrun("compare", "runs/collab/*")
    assert (status, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[1:] == [
        "6 runs in 2 groups, by valid/rmse, averaged over seed",
        "optim n valid/rmse 95 % interval valid/mae valid/loss seconds",
        "adamw 3 0.8100 ± 0.0100 0.7852 to 0.8348 0.7000 0.6000 1.00",
        "sgd 3 0.9133 ± 0.0153 0.8754 to 0.9513 0.6000 0.6000 1.00",
        "optim=adamw is better than optim=sgd: valid/rmse lower by 0.103 (95 % interval 0.089 to 0.118, 3 pairs of seeds)",
        "skipped: bad: failed: the loss is not finite",
    ]


def test_runs_are_listed_sorted_and_compared_by_another_metric(dlrun: Dlrun, two_groups: Path) -> None:
    _, out, _ = dlrun("compare", "runs/collab/*", "--runs", "--metric", "mae", "--sort", "-seed", "--top", "2")
    lines = [line.split() for line in out.splitlines()]
    assert [line[:3] for line in lines[3:5]] == [["sgd", "2", "0.6000"], ["adamw", "2", "0.7000"]]
    assert "lower valid/mae is assumed to be better" in out


@pytest.mark.parametrize("name", ["csv", "json", "md", "latex"])
def test_a_table_on_standard_output_is_the_only_output_there(name: str, dlrun: Dlrun, two_groups: Path) -> None:
    status, out, err = dlrun("compare", "runs/collab/*", f"--{name}", "-", "--curves", "c.png")
    assert status == 0
    assert "curves" in err
    if name == "csv":
        assert pd.read_csv(StringIO(out))["n"].tolist() == [3, 3]
        assert "is better than" in err
    elif name == "json":
        assert json.loads(out)["verdict"]["better"] == "optim=adamw"
    elif name == "latex":
        assert out.startswith("\\begin{table}")
        assert "is better than" in err
    else:
        assert out.startswith("| optim | n |")
        assert "optim=adamw is better" in out


def test_tables_and_plots_are_written(dlrun: Dlrun, two_groups: Path, here: Path) -> None:
    words = [word for name in ("csv", "json", "md", "latex") for word in (f"--{name}", f"t.{name}")]
    words += ["--curves", "c.svg", "--intervals", "n.pdf", "--importance", "i.png"]
    status, out, _ = dlrun("compare", "runs/collab/*", *words)
    assert status == 0
    for name in ("t.csv", "t.json", "t.md", "t.latex", "c.svg", "n.pdf", "i.png"):
        assert (here / name).stat().st_size > 100
        assert name in out
    assert "warning: 6 runs are few for a random forest" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs/nothing/*"], "no run folder matches 'runs/nothing/*'"),
        (
            ["runs/collab"],
            "runs/collab is neither a run folder nor a sweep folder; it holds run folders (7): 'runs/collab/*'",
        ),
        (["runs/collab/bad"], "a comparison needs at least two finished runs; found none"),
        (["runs/collab/*", "--by", "optmi"], "did you mean optim?"),
        (["runs/collab/*", "--sort", "secnds"], "--sort: there is no 'secnds' among these runs; did you mean seconds?"),
        (["runs/collab/*", "--metric", "valid/rms"], "did you mean valid/rmse?"),
        (["runs/collab/*", "--curves", "c.jpg"], "--curves: c.jpg must end in .png, .svg or .pdf"),
        (["runs/collab/*", "--csv", "no/c.csv"], "--csv: there is no folder no"),
        (["runs/collab/*", "--json", "runs"], "--json: runs is a folder; name a file"),
        (["runs/collab/*", "--csv", "-", "--md", "-"], "only one table can go to standard output"),
        (["runs/collab/*", "--top", "0"], "--top: must be 1 or more, not 0"),
        (["runs/collab/*optim=sgd*", "--importance", "i.png"], "--importance: needs 5 or more runs, not 3"),
    ],
)
def test_an_invalid_request_ends_with_status_2_and_a_message(
    words: list[str], said: str, dlrun: Dlrun, two_groups: Path
) -> None:
    status, _, err = dlrun("compare", *words)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) <= 2


def test_no_importance_across_different_validation_rows(dlrun: Dlrun, here: Path) -> None:
    for valid in (0.1, 0.2):
        write_seeds(here / "runs" / "collab", [0.8, 0.9, 0.7], {"data.valid": valid})
    status, _, err = dlrun("compare", "runs/collab/*", "--importance", "i.png")
    assert status == 2
    assert "--importance: these runs validated on different rows" in err


@pytest.mark.slow  # five hundred jobs
def test_a_sweep_of_500_jobs_is_a_short_table(dlrun: Dlrun, here: Path) -> None:
    runs = [write_run(here / "runs" / "collab" / str(i), 0.8 + i / 1e4, {"optim.lr": float(i)}) for i in range(500)]
    write_sweep(here / "runs" / "sweeps" / "big", runs, failed=["out of memory"] * 20)
    status, out, _ = dlrun("compare", "runs/sweeps/big", "--curves", "c.png")
    assert status == 0
    assert len(out.splitlines()) < 60
    assert "500 runs in 500 groups" in out
    assert "skipped: 15 more" in out


def test_a_real_sweep_is_compared_with_importance_and_plots(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun("-m", *WORDS, "optim=sgd,adamw", "seed=0,1,2")[0] == 0
    (sweep,) = (here / "runs" / "sweeps").glob("*")
    status, out, _ = dlrun("compare", str(sweep), "--curves", "c.png", "--importance", "i.png")
    assert status == 0
    assert out.splitlines()[2].split()[:3] == ["optim", "n", "valid/rmse"]  # not lr, momentum and betas too
    assert "optim=sgd is better than optim=adamw: valid/rmse lower by" in out
    assert "best: optim = sgd" in out


def test_two_real_runs_differ_in_the_changed_setting(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    for seed in (0, 1):
        assert dlrun(*WORDS, f"seed={seed}")[0] == 0
    a, b = map(str, sorted((here / "runs" / "collab").glob("*seed=*")))
    status, out, _ = dlrun("diff", a, b)
    assert status == 0
    assert ["seed", "0", "1"] in [line.split() for line in out.splitlines()]
    assert "code, data, versions, device: the same" in out
    assert "metrics: first difference in epoch 1, by more than rounding" in out
    status, out, _ = dlrun("diff", a, a)
    assert (status, out.splitlines()[-1]) == (0, "metrics: identical in epochs 1 to 2")


def test_a_difference_needs_two_run_folders(dlrun: Dlrun, two_groups: Path) -> None:
    status, _, err = dlrun("diff", "runs/collab/bad", "runs/nowhere")
    assert status == 2
    assert "there is no run folder runs/nowhere" in err
    assert dlrun("diff", "runs/collab/bad")[0] == 2
