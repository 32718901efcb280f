"""Settings of ratings that a part of the training rows decides."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.csv
import pytest

from benchmarks import planted_ratings
from dlrunner.config.plan import Plan
from dlrunner.data.core.splitting import TRAIN, UNUSED, VALID
from dlrunner.data.ratings.dataset import RatingsData
from dlrunner.errors import RunError
from dlrunner.tasks.collab.task import Collab
from tests.conftest import QUICK, Dlrun

WORDS = ("task=collab", "data.path=planted.csv", *QUICK)


@pytest.fixture(autouse=True)
def cache(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from other tests."""
    monkeypatch.setenv("DLRUNNER_CACHE", str(here / "cache"))


def planted(strength: float, num_users: int = 150, num_items: int = 60, num_rows: int = 4_000) -> pd.DataFrame:
    """Return ratings of three factors with a standard deviation each, and noise of .5."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation(num_users * num_items)[:num_rows]
    users, items = pairs // num_items, pairs % num_items
    of_users, of_items = (rng.normal(0, strength**0.5, (count, 3)) for count in (num_users, num_items))
    ratings = 3 + (of_users[users] * of_items[items]).sum(axis=1) + rng.normal(0, 0.5, num_rows)
    return pd.DataFrame({"user": users, "item": items, "rating": ratings.clip(1, 5).round(2)})


def summary_of(here: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((here / "runs" / "latest" / "summary.json").read_text())
    return found


def test_ratings_that_factors_explain_get_less_decay_and_beat_similar_items(dlrun: Dlrun, here: Path) -> None:
    planted(0.7).to_csv(here / "planted.csv", index=False)
    status, out, err = dlrun(*WORDS)
    assert status == 0, err
    assert "auto: optim.weight_decay by valid/rmse on a part of the training rows: [12.5,0.3]" in " ".join(out.split())
    summary = summary_of(here)
    assert summary["auto"]["optim.weight_decay"][0] < 5
    assert summary["metric"]["value"] < summary["baselines"]["similar items (kNN)"]["valid/rmse"]
    assert "by valid/rmse on a part" not in dlrun(*WORDS)[1]  # remembered


def test_ratings_that_only_biases_explain_keep_the_recommended_decay(dlrun: Dlrun, here: Path) -> None:
    planted(0.01).to_csv(here / "planted.csv", index=False)
    assert dlrun(*WORDS)[0] == 0
    assert summary_of(here)["auto"]["optim.weight_decay"] == [12.5, 0.3]


def test_decays_are_tried_at_the_rate_of_the_range_test(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def noted(checked: Plan, *_: Any) -> None:
        rates.append(checked.phases[0].lr)

    planted(0.7).to_csv(here / "planted.csv", index=False)
    monkeypatch.setattr("dlrunner.execution.selection._result", noted)
    monkeypatch.setattr("dlrunner.execution.auto_settings.find_rate", lambda *_: SimpleNamespace(suggestion=0.02))
    status, out, err = dlrun(*WORDS, "optim.lr=auto", "epochs=1")
    assert status == 0, out + err
    assert rates == [(0.02,)]
    said = "auto: optim.weight_decay: training on a part of the rows diverges with [12.5,0.3]; no other is tried"
    assert said in " ".join(out.split())


def test_values_are_tried_in_the_batches_of_the_run(dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def noted(checked: Plan, task: Collab, *_: Any) -> None:
        tried.append((checked.batch_size, task.batch_size))
        raise RunError("seen enough")

    planted(0.7, num_users=200, num_rows=9_000).to_csv(here / "planted.csv", index=False)
    monkeypatch.setattr("dlrunner.execution.selection.train_member", noted)
    assert dlrun(*WORDS)[0] == 0
    assert tried == [(128, 128)]
    assert summary_of(here)["auto"]["batch_size"] == 128


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 1), (60.0, 0)])
def test_long_trials_are_announced(
    seconds: float, expected: int, dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(0.7, num_users=80, num_rows=3_000).to_csv(here / "planted.csv", index=False)
    monkeypatch.setattr("dlrunner.execution.selection.LONG", seconds)
    monkeypatch.setattr("dlrunner.execution.selection._result", lambda *_: 1.0)
    status, out, err = dlrun(*WORDS)
    assert status == 0, err
    assert (
        " ".join(out.split()).count("auto: trying values of optim.weight_decay on a part of the training rows")
        == expected
    )


def test_values_with_which_training_diverges_are_not_chosen(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*args: Any) -> None:
        raise RunError("the loss is nan")

    planted(0.7).to_csv(here / "planted.csv", index=False)
    monkeypatch.setattr("dlrunner.execution.selection.train_member", diverge)
    assert dlrun(*WORDS)[0] == 0
    assert summary_of(here)["auto"]["optim.weight_decay"] == [12.5, 0.3]


def test_neither_validation_nor_test_rows_decide(here: Path) -> None:
    import torch

    planted(0.7).to_csv(here / "planted.csv", index=False)
    data = RatingsData(here, path="planted.csv", test=0.1)
    task = Collab(data, 64, 0, torch.device("cpu"))
    inner = task.on_training_rows().table.split
    assert set(np.unique(inner[task.table.split != TRAIN])) == {UNUSED}
    assert (inner[task.table.train] == VALID).mean() == pytest.approx(0.2, abs=0.001)


@pytest.mark.slow
def test_many_ratings_of_each_user_are_predicted_better_than_by_biases(dlrun: Dlrun, here: Path) -> None:
    pyarrow.csv.write_csv(planted_ratings.ratings(500_000, 300.0, 0.14), here / "planted.csv")
    assert dlrun(*WORDS)[0] == 0
    summary = summary_of(here)
    assert summary["metric"]["value"] < 0.99 * summary["baselines"]["biases of users and items"]["valid/rmse"]
