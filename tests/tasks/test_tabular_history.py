"""Runs with `data.history`: learned, predicted for new rows, without knowing what only the future knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dlrunner.data.tabular.dataset import TabularData
from dlrunner.errors import ConfigError
from dlrunner.models.tabular import MLP, EmbeddingNet, Linear
from dlrunner.models.tabular_layers import TabularDims
from tests.conftest import QUICK, Dlrun

NUM_STORES, NUM_DAYS, BLOCK = 20, 360, 30
NOISE, DAY_EFFECT = 0.05, 0.3
HISTORY = "data.history={by: [store], within: [weekday], block: 30, base: true%s}"
SETTINGS = (
    *("task=tabular", "data.path=sales.csv", "data.target=sold", "data.target_transform=log", "data.date=day"),
    *("data.categorical=[store]", "data.continuous=[weekday]", "data.split=last_days", f"data.valid={BLOCK}"),
    *(
        "epochs=4",
        "batch_size=64",
        "optim.lr=5e-3",
        "optim.weight_decay=0.1",
        "model.hidden=[32]",
        "model.dropouts=0.0",
    ),
    *("model.bins=0", "model.num_nets=1", "task.metrics=[rmspe]", "task.baseline=false"),
)


def sales() -> pd.DataFrame:
    """Rows of stores whose days have effects of their own, which nothing but the sales of the day shows."""
    rng = np.random.default_rng(0)
    day, store = (each.ravel() for each in np.meshgrid(np.arange(NUM_DAYS), np.arange(NUM_STORES), indexing="ij"))
    worth = 4 + 0.1 * (store % 7) + 0.05 * (day % 7) + rng.normal(0, DAY_EFFECT, NUM_DAYS)[day]
    return pd.DataFrame(
        {
            "day": pd.to_datetime("2014-01-01") + pd.to_timedelta(day, "D"),
            "store": [f"s{number:02d}" for number in store],
            "weekday": day % 7,
            "sold": np.exp(worth + rng.normal(0, NOISE, len(day))),
        }
    )


@pytest.fixture
def sales_csv(here: Path) -> pd.DataFrame:
    table = sales()
    table.to_csv("sales.csv", index=False)
    return table


def value() -> float:
    return float(json.loads(Path("runs/latest/summary.json").read_text())["metric"]["value"])


@pytest.mark.parametrize("more", ["", ", past: true"])
def test_an_effect_that_only_the_predicted_days_know_is_not_found(
    more: str, sales_csv: pd.DataFrame, dlrun: Dlrun
) -> None:
    status, out, err = dlrun(*SETTINGS, HISTORY % more, *QUICK)
    assert status == 0, out + err
    assert ("data.history.past=true" in out) == (not more)
    # What is left when level and weekday are known is the effect of the day: a smaller error would come from a leak.
    last = sales_csv.tail(NUM_STORES * BLOCK)
    logs = np.log(last["sold"]) - np.log(last["sold"]).groupby([last["store"]]).transform("mean")
    by_day = logs.groupby(last["day"]).mean()
    assert value() > 0.7 * by_day.std()
    assert by_day.std() > 4 * NOISE


def test_predictions_for_the_validation_rows_are_those_of_the_run(sales_csv: pd.DataFrame, dlrun: Dlrun) -> None:
    dlrun(*SETTINGS, HISTORY % "", *QUICK)
    new = sales_csv.tail(NUM_STORES * BLOCK).drop(columns="sold").reset_index(drop=True)
    new.to_csv("new.csv", index=False)
    status, _, err = dlrun("predict", "runs/latest", "new.csv", "--out", "answer.csv")
    assert status == 0, err
    expected, answer = pd.read_csv("runs/latest/predictions.csv"), pd.read_csv("answer.csv")
    np.testing.assert_allclose(answer["sold"], expected["prediction"], rtol=1e-6)
    new["day"] = new["day"].astype(str)
    new.loc[3, "day"] = None
    new.to_csv("new.csv", index=False)
    dlrun("predict", "runs/latest", "new.csv", "--out", "answer.csv")
    some = pd.read_csv("answer.csv")
    assert some["problem"].dropna().tolist() == ["day is missing"]
    others = [row for row in range(len(new)) if row != 3]
    np.testing.assert_allclose(some["sold"][others], expected["prediction"][others], rtol=1e-6)


def test_the_base_of_the_outputs_is_the_most_important_column(sales_csv: pd.DataFrame, dlrun: Dlrun) -> None:
    from dlrunner.inference.models import load_models
    from dlrunner.runs.reader import FinishedRun
    from dlrunner.tasks.tabular.analysis import TableAnalysis
    from dlrunner.tasks.tabular.predictor import predict_rows

    dlrun(*SETTINGS, HISTORY % "", "epochs=1", *QUICK)
    checked, _, models = load_models(FinishedRun.read(Path("runs/latest")))
    task: Any = checked.build_task(checked.build_data(), 0)
    outputs = predict_rows(task.preparation, task.target, models, task.table.frame[task.table.valid])
    names, increases, _ = TableAnalysis(task, models, outputs).importance()
    assert names[int(np.argmax(increases))] == "history_base"


def test_rows_before_all_training_rows_have_no_forecast(sales_csv: pd.DataFrame, dlrun: Dlrun) -> None:
    status, out, err = dlrun(*SETTINGS, HISTORY % ", past: true", "epochs=1", *QUICK)
    assert status == 0, err
    assert f"{NUM_STORES * BLOCK} training and 0 validation row(s) have no history" in " ".join(out.split())
    new = pd.DataFrame({"day": ["2013-05-01", "2014-12-27", "2020-01-01"], "store": "s00", "weekday": 2})
    new.to_csv("new.csv", index=False)
    status, _, _ = dlrun("predict", "runs/latest", "new.csv", "--out", "answer.csv")
    assert status == 1
    answer = pd.read_csv("answer.csv")
    assert answer["sold"].isna().tolist() == answer["problem"].notna().tolist() == [True, False, False]


def test_the_base_is_in_the_units_of_the_target_after_a_warmup(sales_csv: pd.DataFrame) -> None:
    closed = sales_csv[sales_csv["day"] < "2014-02-15"].assign(store="closed", sold=90_000.0)
    pd.concat([sales_csv, closed]).to_csv("sales.csv", index=False)
    history: Any = {"by": ["store"], "within": ["weekday"], "block": 30, "base": True, "warmup": 60}
    data = TabularData(
        Path(),
        path="sales.csv",
        target="sold",
        target_transform="standard",
        date="day",
        split="last_days",
        valid=30,
        history=history,
        categorical=["store"],
        continuous=["weekday"],
    )
    table = data.read()
    assert table.base is not None
    encoded = table.target.fit(table.values[table.train]).encode(table.values).numpy()
    base = table.frame[table.base].to_numpy()
    assert base[table.valid].std() > 0.3 * encoded[table.valid].std()  # in the units of all rows a thousandth


def test_an_own_column_with_the_name_of_a_feature_is_refused(sales_csv: pd.DataFrame, dlrun: Dlrun) -> None:
    sales_csv.assign(history_level=1).to_csv("sales.csv", index=False)
    status, _, err = dlrun(*SETTINGS, HISTORY % "", "epochs=1", *QUICK)
    assert status == 2
    assert "its features are called history_…; rename the column history_level" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("data.history={by: [shop]}",), "shop"),
        (("data.history={by: [store], blok: 3}",), "did you mean block"),
        (("data.history={by: [store, sold]}",), "sold is the target"),
        (("data.history={by: [store], within: [sold]}",), "sold is the target"),
        (("data.history=true",), "must be a section, not"),
        (("data.history={by: [store]}", "data.date=null", "data.split=random", "data.valid=0.2"), "data.date"),
        (("data.history={by: [store], base: true}", "model.y_range=auto"), "y_range"),
        (("data.history={by: [store], base: true}", "data.target_transform=auto", "task.loss=poisson"), "base"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    words: tuple[str, ...], expected: str, sales_csv: pd.DataFrame, dlrun: Dlrun
) -> None:
    status, out, err = dlrun(*SETTINGS, *words, *QUICK)
    assert status == 2, out + err
    assert expected in err


def test_stores_sales_are_predicted_from_their_history(here: Path, dlrun: Dlrun) -> None:
    from dlrunner.data.rossmann.synthetic import write_synthetic_rossmann

    history = "data.history={by: [Store], within: [DayOfWeek, Promo], peers: StoreType, region: State, base: true}"
    settings = ("task=rossmann", "data.source=synthetic", "data.open_days=true", "data.exclude=[Year]", "epochs=2")
    model = ("model.hidden=[32]", "model.dropouts=[0.0]", "model.y_range=null", "model.max_embedding_size=10")
    status, out, err = dlrun(*settings, *model, history, "task.baseline=false", "batch_size=128", *QUICK)
    assert status == 0, out + err
    summary: dict[str, Any] = json.loads(Path("runs/latest/summary.json").read_text())
    best = summary["data"]["best_achievable"]
    assert best * 0.97 < value() < best * 1.5
    folder, _ = write_synthetic_rossmann(Path("chain"))
    train = pd.read_csv(folder / "train.csv")
    recorded = pd.read_csv("runs/latest/predictions.csv")
    rows = train[(train["Sales"] > 0) & (train["Date"] >= recorded["Date"].min())]
    rows.to_csv("again.csv", index=False)
    status, _, err = dlrun("predict", "runs/latest", "again.csv", "--out", "answer.csv")
    assert status == 0, err
    both = pd.read_csv("answer.csv").merge(recorded, on=["Store", "Date"])
    assert len(both) == len(recorded)
    np.testing.assert_allclose(both["prediction_x"], both["prediction_y"].round(2), rtol=1e-4)


def test_a_stores_row_before_all_training_rows_has_a_problem(here: Path, dlrun: Dlrun) -> None:
    from dlrunner.data.rossmann.synthetic import write_synthetic_rossmann

    settings = ("task=rossmann", "data.source=synthetic", "epochs=1", "model=linear", "task.baseline=false")
    status, out, err = dlrun(*settings, "data.history={by: [Store], past: true}", *QUICK)
    assert status == 0, out + err
    rows = pd.read_csv(write_synthetic_rossmann(Path("chain"))[0] / "test.csv").head(3)
    rows.loc[1, "Date"] = "2012-06-01"
    rows.to_csv("new.csv", index=False)
    status, out, err = dlrun("predict", "runs/latest", "new.csv", "--out", "answer.csv")
    assert status == 1
    assert "no training row is before it" in out + err
    assert pd.read_csv("answer.csv")["Sales"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("kind", [EmbeddingNet, MLP, Linear])
@pytest.mark.parametrize("num_outputs", [1, 3])
def test_outputs_are_added_to_their_base(kind: Any, num_outputs: int) -> None:
    dims = TabularDims({"store": 5}, 2, num_outputs, target_low=0.0, target_high=9.0, has_base=True)
    torch.manual_seed(0)
    model = kind(dims).eval()
    codes, numbers = torch.tensor([[1], [2], [3]], dtype=torch.int32), torch.randn(3, 3)
    raised = numbers.clone()
    raised[:, -1] += torch.tensor([1.0, 10.0, 100.0])
    difference = (model(codes, raised) - model(codes, numbers)).detach().reshape(3, num_outputs)
    torch.testing.assert_close(difference, torch.tensor([[1.0], [10.0], [100.0]]).expand(3, num_outputs))
    with pytest.raises(ConfigError, match="y_range"):
        kind(dims, y_range="auto")
