"""Forecasts of tables with dates: rolling windows, lags, the next month, years that training has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import QUICK, Dlrun

NUM_STORES, NUM_DAYS, HORIZON = 12, 300, 20
NOISE, DAY_EFFECT, STEP = 0.05, 0.3, 0.05
SETTINGS = (
    *("task=tabular", "data.path=sales.csv", "data.target=sold", "data.target_transform=log", "data.split=rolling"),
    *(f"data.horizon={HORIZON}", "data.folds=2", "data.group=[store]", "data.lags=[20,28]", "data.rolling_means=[7]"),
    *("epochs=4", "batch_size=64", "optim.lr=5e-3", "optim.weight_decay=0.1", "model.hidden=[32]"),
    *("model.dropouts=0.0", "model.bins=0", "model.num_nets=1", "task.metrics=[rmspe]", *QUICK),
)


def sales(day_effect: float = DAY_EFFECT) -> pd.DataFrame:
    """Rows of stores whose days have effects of their own, which nothing but the sales of the day shows."""
    rng = np.random.default_rng(0)
    day, store = (each.ravel() for each in np.meshgrid(np.arange(NUM_DAYS), np.arange(NUM_STORES), indexing="ij"))
    level = np.cumsum(rng.normal(0, STEP, (NUM_STORES, NUM_DAYS)), axis=1)
    worth = 4 + level[store, day] + rng.normal(0, day_effect, NUM_DAYS)[day]
    return pd.DataFrame(
        {
            "day": pd.to_datetime("2023-01-01") + pd.to_timedelta(day, "D"),
            "store": [f"s{number:02d}" for number in store],
            "sold": np.exp(worth + rng.normal(0, NOISE, len(day))).round(2),
        }
    )


def summary() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("runs/latest/summary.json").read_text())
    return found


def test_an_effect_that_only_the_future_knows_is_not_found(here: Path, dlrun: Dlrun) -> None:
    sales().to_csv("sales.csv", index=False)
    for fold in range(2):
        status, out, err = dlrun(*SETTINGS, f"data.fold={fold}", "task.baseline=false")
        assert status == 0, out + err
        assert summary()["metric"]["value"] > 0.8 * DAY_EFFECT


def test_lags_follow_levels_that_no_column_shows(here: Path, dlrun: Dlrun) -> None:
    sales(0).to_csv("sales.csv", index=False)
    status, out, err = dlrun(*SETTINGS, "data.fold=1")
    assert status == 0, out + err
    drift = STEP * np.sqrt(HORIZON / 2)  # of the level since the origin, half of the window later
    assert summary()["metric"]["value"] < 2.5 * (drift + NOISE)
    assert summary()["metric"]["value"] < summary()["baselines"]["mean"]["valid/rmspe"]
    assert "nothing newer is known when a forecast is made" in " ".join((out + err).split())


def test_predictions_are_those_of_validation_and_continue_after_it(here: Path, dlrun: Dlrun) -> None:
    table = sales(0)
    table.to_csv("sales.csv", index=False)
    status, out, err = dlrun(*SETTINGS, "data.fold=1", "task.baseline=false")
    assert status == 0, out + err
    window = table[table["day"] >= table["day"].max() - pd.Timedelta(days=HORIZON - 1)]
    window.drop(columns="sold").to_csv("window.csv", index=False)
    assert dlrun("predict", "runs/latest", "window.csv", "--out", "answer.csv")[0] == 0
    recorded = pd.read_csv("runs/latest/predictions.csv")
    np.testing.assert_allclose(pd.read_csv("answer.csv")["sold"], recorded["prediction"].round(2), rtol=1e-3)
    days = table["day"].max() + pd.to_timedelta(np.arange(1, HORIZON + 3), "D")
    new = pd.DataFrame({"day": np.repeat(days, 2), "store": ["s00", "s99"] * len(days)})
    new.to_csv("new.csv", index=False)
    status, out, err = dlrun("predict", "runs/latest", "new.csv", "--out", "answer.csv")
    assert status == 0, err
    notes = " ".join((out + err).split())
    assert "4 row(s) are more than data.horizon=20 days after the last known sold" in notes
    assert "row(s) are of groups (store) without known targets" in notes
    answer = pd.read_csv("answer.csv")
    assert answer.columns.tolist() == ["day", "store", "sold"]
    assert answer["sold"].notna().all()


def test_windows_are_a_sweep_with_mean_and_std(here: Path, dlrun: Dlrun) -> None:
    sales().to_csv("sales.csv", index=False)
    status, out, err = dlrun("-m", *SETTINGS, "data.fold=range(2)", "epochs=1", "task.baseline=false")
    assert status == 0, err
    values = pd.read_csv(next(Path("runs/sweeps").glob("*/results.csv")))["valid/rmspe"]
    assert f"over data.fold 0, 1: valid/rmspe {values.mean():.4f} ± {values.std():.4f}" in out


@pytest.mark.parametrize("years", [2, 40])
def test_years_ahead_count_as_the_last_one_with_a_note(years: int, here: Path, dlrun: Dlrun) -> None:
    days = pd.date_range("2019-01-01", "2022-12-31", freq="5D")
    growing = 100 + 20 * (days.year - 2019) + np.random.default_rng(0).normal(0, 2, len(days))
    pd.DataFrame({"day": days, "sold": growing}).to_csv("sales.csv", index=False)
    words = ("task=tabular", "data.path=sales.csv", "data.target=sold", "task.baseline=false", "epochs=20", *QUICK)
    status, out, err = dlrun(*words)
    assert status == 0, out + err
    later = pd.Series(pd.to_datetime(["2022-06-01", f"{2022 + years}-06-01"])).dt.strftime("%Y-%m-%d")
    later.rename("day").to_csv("new.csv", index=False)
    status, out, err = dlrun("predict", "runs/latest", "new.csv", "--out", "answer.csv")
    assert status == 0, err
    notes = " ".join((out + err).split())
    assert f"day: 1 row(s) of years not in training ({2022 + years}) count as 2022" in notes
    assert "1 of them are more than a year outside training" in notes
    known, ahead = pd.read_csv("answer.csv")["sold"]
    assert abs(ahead - known) < 40
