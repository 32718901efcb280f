"""Runs that continue a shorter one, and runs that start from another one's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import dlrunner
from dlrunner.errors import ConfigError
from dlrunner.runs.reader import read_history
from tests.conftest import QUICK, Dlrun
from tests.training.test_loop import numbers

CONSTANT = (
    "task=collab",
    "data.path=my.csv",
    "model=dot_bias",
    "model.factors=4",
    "schedule=constant",
    "batch_size=256",
    *QUICK,
)


def newest(here: Path) -> Path:
    return (here / "runs" / "latest").resolve()


def weights(run: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / name, weights_only=True)["model"]
    return found


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("extra", [(), ("trainer.keep=best", "data.test=0.1"), ("ensemble=2",)])
def test_more_epochs_at_a_constant_rate_continue_fewer(
    extra: tuple[str, ...], dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    assert dlrun(*CONSTANT, *extra, "epochs=4", "runs_dir=whole")[0] == 0
    whole = (here / "whole" / "latest").resolve()
    assert dlrun(*CONSTANT, *extra, "epochs=2")[0] == 0
    shorter = newest(here)
    status, out, err = dlrun(*CONSTANT, *extra, "epochs=4")
    assert status == 0, err
    assert "continuing a run of fewer epochs" in out
    assert str(shorter.name) in out.replace("\n", "")
    folders = ["members/0", "members/1"] if "ensemble=2" in extra else [""]
    for folder in folders:
        assert numbers(read_history(newest(here) / folder)) == numbers(read_history(whole / folder))
        for name in ("last.pt", "best.pt"):
            assert_same(weights(newest(here) / folder, name), weights(whole / folder, name))
    before, after = (json.loads((run / "summary.json").read_text()) for run in (whole, newest(here)))
    assert before["final"] == after["final"]


@pytest.mark.parametrize(
    "words",
    [("schedule=one_cycle",), ("trainer.early_stopping=9",), ("seed=1",), ("optim.lr=0.02",), ("rerun=true",)],
)
def test_other_runs_start_afresh(words: tuple[str, ...], dlrun: Dlrun, ratings_csv: Path) -> None:
    shared = [word for word in words if word.startswith(("schedule", "trainer"))]
    assert dlrun(*CONSTANT, "epochs=1", *shared)[0] == 0
    if "rerun=true" in words:
        assert dlrun(*CONSTANT, "epochs=2")[0] == 0
    status, out, err = dlrun(*CONSTANT, "epochs=2", *words)
    assert status == 0, err
    assert "continuing" not in out


def test_a_run_whose_last_checkpoint_was_pruned_is_passed_over(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    words = (*CONSTANT, "trainer.keep=best")
    folders = []
    for epochs in (1, 2):
        assert dlrun(*words, f"epochs={epochs}")[0] == 0
        folders.append(newest(here))
    (folders[1] / "best.pt").touch()
    (folders[1] / "last.pt").unlink()
    out = dlrun(*words, "epochs=3")[1].replace("\n", "")
    assert "continuing a run of fewer epochs" in out
    assert folders[0].name in out
    assert folders[1].name not in out


def test_a_run_of_changed_data_starts_afresh(dlrun: Dlrun, ratings_csv: Path) -> None:
    assert dlrun(*CONSTANT, "epochs=1")[0] == 0
    pd.read_csv(ratings_csv).iloc[:1400].to_csv(ratings_csv, index=False)
    assert "continuing" not in dlrun(*CONSTANT, "epochs=2")[1]


def test_a_damaged_folder_or_checkpoint_is_not_continued(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun(*CONSTANT, "epochs=1", "seed=5")[0] == 0
    (newest(here) / "run.json").write_text("{")
    assert dlrun(*CONSTANT, "epochs=1")[0] == 0
    (newest(here) / "last.pt").write_bytes(b"nothing")
    status, out, err = dlrun(*CONSTANT, "epochs=2")
    assert status == 0, err
    assert "a run of fewer epochs is not continued" in " ".join(out.split())
    assert [row["epoch"] for row in read_history(newest(here))] == [1, 2]
    (newest(here) / "last.pt").write_bytes(b"nothing")
    status, _, err = dlrun(*CONSTANT, "epochs=1", f"init={newest(here)}")
    assert (status, "train the run again" in " ".join(err.split())) == (1, True), err


def test_a_run_starts_from_the_weights_of_another(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun(*CONSTANT, "epochs=2")[0] == 0
    first = newest(here)
    words = (*CONSTANT, f"init={first}", "epochs=1", "seed=1")
    status, out, err = dlrun(*words, "optim.lr=1e-12", "optim.weight_decay=0")
    assert status == 0, err
    assert "init: 4 of 4 tensors are those of" in out
    before, after = weights(first), weights(newest(here))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert dlrun(*words)[0] == 0
    assert "already finished" in dlrun(*words)[1]
    assert dlrun("tag", str(first), "--name", "start")[0] == 0
    for named in ("start", first.name, first.name[-8:], str(first.relative_to(here))):
        words = (*CONSTANT, f"init={named}", "epochs=1", "seed=1")
        status, out, err = dlrun(*words)
        assert (status, "already finished" in out) == (0, True), out + err
    assert dlrunner.load("start").path == first
    with pytest.raises(ConfigError, match="there is no run folder stat"):
        dlrunner.load("stat")


def test_the_weights_are_those_that_the_run_was_evaluated_with(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun(*CONSTANT, "epochs=2", "trainer.keep=best", "data.test=0.1")[0] == 0
    first = newest(here)
    checkpoint = torch.load(first / "best.pt", weights_only=True)
    checkpoint["model"] = {name: value + 1 for name, value in checkpoint["model"].items()}  # so that it differs
    torch.save(checkpoint, first / "best.pt")
    still = ("optim.lr=1e-12", "optim.weight_decay=0")
    assert dlrun(*CONSTANT, f"init={first}", "epochs=1", *still)[0] == 0
    after = weights(newest(here))
    assert all(torch.allclose(value, after[name], atol=1e-6) for name, value in checkpoint["model"].items())


def test_shapes_that_differ_are_named_and_start_at_random(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun(*CONSTANT, "epochs=1")[0] == 0
    words: list[Any] = [word for word in CONSTANT if not word.startswith("model.factors")]
    status, out, err = dlrun(*words, "model.factors=5", f"init={newest(here)}", "epochs=1")
    assert status == 0, err
    text = " ".join(out.split())
    assert "init: 2 of 4 tensors" in text
    assert "5, there" in text


def test_a_changed_source_is_another_run(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun(*CONSTANT, "epochs=1")[0] == 0
    source = newest(here)
    assert dlrun(*CONSTANT, f"init={source}", "epochs=1", "seed=3")[0] == 0
    checkpoint = torch.load(source / "last.pt", weights_only=True)
    checkpoint["model"] = {name: value + 1 for name, value in checkpoint["model"].items()}
    torch.save(checkpoint, source / "last.pt")
    out = dlrun(*CONSTANT, f"init={source}", "epochs=1", "seed=3")[1]
    assert "the data changed" in " ".join(out.split())


def test_a_start_that_is_no_run_or_fits_nowhere_is_refused(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    status, _, err = dlrun(*CONSTANT, "init=nowhere", "epochs=1")
    assert status == 2
    assert "init: there is no run folder nowhere" in err
    assert dlrun(*CONSTANT, "epochs=1")[0] == 0
    source = newest(here)
    table = ("task=tabular", "data.path=my.csv", "data.target=rating", "epochs=1", *QUICK)
    status, _, err = dlrun(*table, f"init={source}")
    assert status == 2
    assert "no weights of this model's names and shapes" in " ".join(err.split())
