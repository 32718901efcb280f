"""Simple models beside every run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from dlrunner.data.core.regression import Regression
from dlrunner.data.core.targets import MultiClass, Target
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.execution.baselines import verdict
from dlrunner.reporting.terminal.baselines import baseline_lines
from dlrunner.tasks.tabular.baselines import MOST_ROWS, TableBaselines, naive_forecasts
from tests.conftest import QUICK, Dlrun, flats

RUN = ("task=tabular", "data.path=flats.csv", "data.categorical=[city,rooms]", "data.continuous=[area]", "epochs=1")


@pytest.fixture(autouse=True)
def table(here: Path) -> pd.DataFrame:
    """A table in the working directory."""
    frame = flats(300)
    frame.to_csv(here / "flats.csv", index=False)
    return frame


def summary_of(here: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((here / "runs" / "latest" / "summary.json").read_text())
    return found


def test_a_regression_is_compared_with_a_mean_a_line_and_trees(dlrun: Dlrun, here: Path, table: pd.DataFrame) -> None:
    status, out, err = dlrun(*RUN, "data.target=price", "data.test=0.1", *QUICK)
    assert status == 0, err
    baselines = summary_of(here)["baselines"]
    assert list(baselines) == ["mean", "ridge regression", "gradient boosting"]
    assert {"valid/rmse", "test/rmse", "seconds"} <= baselines["mean"].keys()
    order = np.random.RandomState(42).permutation(300)  # data.split=random: the first fifth validates, then the test
    valid, train = table.iloc[order[:60]], table.iloc[np.sort(order[90:])]
    mean = np.sqrt(((valid["price"] - train["price"].mean()) ** 2).mean())
    assert baselines["mean"]["valid/rmse"] == pytest.approx(mean, rel=1e-5)
    assert baselines["gradient boosting"]["valid/rmse"] < 0.7 * mean
    assert "compared with" in out
    assert "is behind the baseline" in out  # after one epoch


def test_the_report_has_them_with_their_times_last(dlrun: Dlrun, here: Path) -> None:
    assert dlrun(*RUN, "data.target=price", "log.plots=false")[0] == 0
    summary, page = summary_of(here), (here / "runs" / "latest" / "report.html").read_text()
    table = page[page.index("This run and the baselines") :]
    headings = [part.partition("<")[0] for part in table[: table.index("</thead>")].split("<th")[1:]]
    assert "seconds" in headings[-1]
    assert page.count("Behind the baseline") == 1
    assert "is behind the baseline" not in page, "the head has said it"
    for seconds in (summary["training_seconds"], summary["baselines"]["gradient boosting"]["seconds"]):
        assert f">{seconds:.2f}<" in table


def test_the_correction_of_the_run_is_not_applied_to_them(dlrun: Dlrun, here: Path) -> None:
    errors = []
    for correction in (1, 0.5):
        assert dlrun(*RUN, "data.target=price", f"task.correction={correction}", *QUICK)[0] == 0
        errors.append({name: found["valid/rmse"] for name, found in summary_of(here)["baselines"].items()})
    assert errors[0] == errors[1]


def test_trees_have_the_error_that_scikit_learn_has(dlrun: Dlrun, here: Path, table: pd.DataFrame) -> None:
    words = ("task=tabular", "data.path=flats.csv", "data.target=price", "data.continuous=[area,rooms]", "epochs=1")
    assert dlrun(*words, "data.split=last_rows", "data.valid=60", *QUICK)[0] == 0
    train, valid = table.iloc[:240], table.iloc[240:]
    inputs = ["area", "rooms"]
    numbers = table[inputs].fillna(train[inputs].median())
    scaled = (numbers - numbers.iloc[:240].mean()) / numbers.iloc[:240].std(ddof=0)
    marks = table[inputs].isna().loc[:, train[inputs].isna().any()]
    matrix = pd.concat([scaled, marks], axis=1).to_numpy(np.float32)
    model = HistGradientBoostingRegressor(random_state=0).fit(matrix[:240], train["price"])
    error = np.sqrt(((model.predict(matrix[240:]) - valid["price"]) ** 2).mean())
    found = summary_of(here)["baselines"]["gradient boosting"]["valid/rmse"]
    assert found == pytest.approx(error, rel=1e-4)  # the target is standardised in float32


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("size", ["class frequencies", "logistic regression", "gradient boosting"]),
        ("[big,roomy]", ["class frequencies"]),
    ],
)
def test_classes_and_labels_have_theirs(target: str, names: list[str], dlrun: Dlrun, here: Path) -> None:
    status, _, err = dlrun(*RUN, f"data.target={target}", *QUICK)
    assert status == 0, err
    assert list(summary_of(here)["baselines"]) == names


def test_they_are_computed_once_for_a_sweep(dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dlrun(*RUN, "data.target=price", *QUICK)[0] == 0
    first = summary_of(here)["baselines"]
    monkeypatch.setattr("dlrunner.tasks.tabular.task.Tabular.baselines", None)
    assert dlrun(*RUN, "data.target=price", "seed=1", *QUICK)[0] == 0
    assert summary_of(here)["baselines"] == first


def test_a_baseline_that_fails_does_not_lose_the_run(dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise ValueError("no such solver")

    monkeypatch.setattr("dlrunner.tasks.tabular.baselines.TableBaselines.all", fails)
    status, out, err = dlrun(*RUN, "data.target=price", "data.valid=0.3", *QUICK)
    assert status == 0, err
    assert "the baselines could not be computed: no such solver" in out
    assert "baselines" not in summary_of(here)


def test_warnings_of_a_library_are_in_the_log_and_not_on_the_terminal(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def baselines(*args: object) -> dict[str, dict[str, float]]:
        warnings.warn("lbfgs failed to converge", stacklevel=1)
        return {"mean": {"valid/rmse": 9.0}}

    monkeypatch.setattr("dlrunner.tasks.tabular.baselines.TableBaselines.all", baselines)
    status, out, err = dlrun(*RUN, "data.target=price", "data.valid=0.35", *QUICK)
    assert status == 0, err
    assert "compared with" in out
    assert "lbfgs" not in out + err
    assert "lbfgs failed to converge" in (here / "runs" / "latest" / "run.log").read_text()


def _classes(here: Path, labels: Any) -> None:
    rng = np.random.default_rng(0)
    pd.DataFrame({"x": rng.normal(size=len(labels)), "c": labels}).to_csv(here / "c.csv", index=False)


CLASSES = ("task=tabular", "data.path=c.csv", "data.target=c", "data.split=last_rows", "epochs=1", "batch_size=4096")


def test_a_class_of_a_single_row_takes_no_baseline_away(dlrun: Dlrun, here: Path) -> None:
    labels = np.array(["no", "yes"])[np.arange(10_400) % 2]
    labels[5] = "perhaps"
    _classes(here, labels)
    status, out, err = dlrun(*CLASSES, "data.valid=200", *QUICK)
    assert status == 0, err
    assert list(summary_of(here)["baselines"]) == ["class frequencies", "logistic regression", "gradient boosting"]
    assert "could not" not in out + err


def test_rows_of_one_class_have_their_frequency_and_a_note(dlrun: Dlrun, here: Path) -> None:
    _classes(here, ["no"] * 100 + ["yes"] * 30)
    status, out, err = dlrun(*CLASSES, "data.valid=30", *QUICK)
    assert status == 0, err
    assert list(summary_of(here)["baselines"]) == ["class frequencies"]
    assert "note: no training example has the class yes" in out


def test_boosting_is_left_out_of_many_classes_with_a_note(dlrun: Dlrun, here: Path) -> None:
    _classes(here, [f"c{number % 51:02}" for number in range(500)])
    status, out, err = dlrun(*CLASSES, "data.valid=100", *QUICK)
    assert status == 0, err
    assert list(summary_of(here)["baselines"]) == ["class frequencies", "logistic regression"]
    assert "the baseline gradient boosting is left out: 51 classes" in out


def test_many_rows_have_quantiles_and_many_classes_a_smaller_sample() -> None:
    def baselines(targets: torch.Tensor, target: Target) -> TableBaselines:
        return TableBaselines({}, {"train": targets}, target, [], lambda outputs, split: {})

    numbers = torch.arange(2**24 + 1) / 2**24  # torch.quantile takes one less
    found = baselines(numbers, Regression(["y"], quantiles=[0.25, 0.5]))._constant()("train")
    assert found[0].tolist() == [0.25, 0.5]
    codes = torch.arange(200_000)
    for classes, rows in ((2, MOST_ROWS), (20, MOST_ROWS), (400, 5000)):
        target = MultiClass(["y"], [str(code) for code in range(classes)])
        assert len(baselines(codes % classes, target)._sample()) == rows


def test_one_baseline_that_fails_leaves_the_others(dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise ValueError("no such solver")

    monkeypatch.setattr("dlrunner.tasks.tabular.baselines.TableBaselines._linear", fails)
    status, _, err = dlrun(*RUN, "data.target=price", "data.valid=0.32", *QUICK)
    assert status == 0, err
    assert list(summary_of(here)["baselines"]) == ["mean", "gradient boosting"]
    assert "note: the baseline ridge regression could not be computed: no such solver" in err


def test_they_can_be_left_out(dlrun: Dlrun, here: Path) -> None:
    assert dlrun(*RUN, "data.target=price", "task.baseline=false", *QUICK)[0] == 0
    assert "baselines" not in summary_of(here)


def test_a_forecast_is_compared_with_the_last_same_weekday(dlrun: Dlrun, here: Path) -> None:
    days = pd.date_range("2020-01-06", periods=70)
    frames = [pd.DataFrame({"day": days, "shop": shop, "sold": days.day_of_week + 10 * shop}) for shop in (1, 2)]
    pd.concat(frames).assign(shop=lambda f: "s" + f["shop"].astype(str)).to_csv(here / "s.csv", index=False)
    words = ("task=tabular", "data.path=s.csv", "data.target=sold", "epochs=1", *QUICK)
    status, _, err = dlrun(*words, "data.date=day", "data.split=last_days", "data.valid=14")
    assert status == 0, err
    assert summary_of(here)["baselines"]["last same weekday"]["valid/rmse"] == pytest.approx(0, abs=1e-4)
    assert dlrun(*words, "data.split=random")[0] == 0
    assert "last same weekday" not in summary_of(here)["baselines"]
    # A shop that is missing in one row takes no baseline away.
    gap = pd.read_csv(here / "s.csv")
    gap.loc[3, "shop"] = None
    gap.to_csv(here / "s.csv", index=False)
    assert dlrun(*words, "data.date=day", "data.split=last_days", "data.valid=14")[0] == 0
    assert {"mean", "ridge regression", "last same weekday"} <= {*summary_of(here)["baselines"]}


def test_a_year_of_months_is_enough_for_the_same_month_last_year(here: Path) -> None:
    months = pd.date_range("2020-01-01", periods=14, freq="MS")
    pd.DataFrame({"day": months, "sold": np.arange(14.0)}).to_csv(here / "m.csv", index=False)
    table = TabularData(here, path="m.csv", target="sold", date="day", split="last_days", valid=40).read()
    found = naive_forecasts(table, table.valid)
    assert found["last month"].tolist() == [11.0, 11.0]
    assert found["same month last year"].tolist() == [0.0, 1.0]


def test_a_run_that_is_no_better_than_a_baseline_says_so() -> None:
    baselines = {"trees": {"valid/accuracy": 0.9}, "mean": {"valid/accuracy": 0.5}}
    assert "behind the baseline trees (0.9000)" in verdict(0.8, 1, baselines, "valid/accuracy", higher_is_better=True)
    for value in (0.895, 0.9):
        sentence = verdict(value, 99, baselines, "valid/accuracy", higher_is_better=True)
        assert sentence == f"this run (valid/accuracy {value:.4f}) is no better than the baseline trees (0.9000)"
    assert verdict(0.901, 99, baselines, "valid/accuracy", higher_is_better=True) == ""  # no time to compare
    assert verdict(0.95, 1, baselines, "valid/accuracy", higher_is_better=True) == ""
    assert verdict(0.95, 1, {"words": {"valid/perplexity": 3.0}}, "valid/accuracy", higher_is_better=True) == ""


@pytest.mark.parametrize(
    ("value", "seconds", "is_better_buy"),
    [(0.9, 30.0, True), (0.905, 30.0, True), (0.905, 15.0, False), (0.95, 30.0, False)],
)
def test_a_slower_run_has_to_be_better(value: float, seconds: float, is_better_buy: bool) -> None:
    baselines = {"words": {"valid/accuracy": 0.9, "seconds": 9.0}, "mean": {"valid/accuracy": 0.5, "seconds": 0.0}}
    found = verdict(value, seconds, baselines, "valid/accuracy", higher_is_better=True)
    assert ("the baseline words is the better buy: valid/accuracy 0.9000 in 9 s" in found) == is_better_buy
    behind = verdict(0.8, 30.0, baselines, "valid/accuracy", higher_is_better=True)
    assert "is behind the baseline words (0.9000), the better buy: 9 s instead of 30 s" in behind
    quick = {"words": {"valid/accuracy": 0.9, "seconds": 0.1}}
    found = verdict(0.9, 5.0, quick, "valid/accuracy", higher_is_better=True)
    assert found == "this run (valid/accuracy 0.9000) is no better than the baseline words (0.9000)"  # 5 s are cheap


def test_the_best_is_listed_first() -> None:
    baselines = {"trees": {"valid/rmse": 1.0, "seconds": 0.5}, "mean": {"valid/rmse": 3.0}}
    lines = baseline_lines(2.0, 4.0, baselines, "valid/rmse", higher_is_better=False)
    assert [line.split()[0] for line in lines] == ["compared", "trees", "this", "mean"]
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[-1] == "0.50"
    assert lines[-1].split() == ["mean", "3.0000"]  # a time that nobody measured is not shown


def test_a_unit_stands_in_the_table_and_in_the_verdict() -> None:
    baselines, shown = {"mean": {"valid/mae": 2.0}}, lambda value: f"{value:.1f} km"
    lines = baseline_lines(3.0, 4.0, baselines, "valid/mae", shown, higher_is_better=False)
    assert [line.split() for line in lines[1:]] == [["mean", "2.0", "km"], ["this", "run", "3.0", "km", "4.00"]]
    assert "(valid/mae 3.0 km) is behind the baseline mean (2.0 km)" in verdict(
        3.0, 4.0, baselines, "valid/mae", shown, higher_is_better=False
    )


def test_a_forecast_is_compared_with_the_same_weekday_of_last_year(dlrun: Dlrun, here: Path) -> None:
    days = pd.date_range("2020-01-06", periods=450)
    sold = np.random.default_rng(0).normal(10, 3, 364)
    frames = [
        pd.DataFrame({"day": days, "shop": shop, "aisle": aisle, "sold": np.resize(sold, 450) + shop + 5 * aisle})
        for shop in (1, 2)
        for aisle in (1, 2)
    ]
    pd.concat(frames).to_csv(here / "s.csv", index=False)
    words = ("task=tabular", "data.path=s.csv", "data.target=sold", "epochs=1", "data.split=rolling", *QUICK)
    status, _, err = dlrun(*words, "data.horizon=14", "data.lags=[14]", "data.group=[shop,aisle]", "data.folds=2")
    assert status == 0, err
    found = summary_of(here)["baselines"]
    assert found["same weekday last year"]["valid/rmse"] == pytest.approx(0, abs=1e-4)
    assert found["last same weekday"]["valid/rmse"] > 1


def test_the_days_of_a_single_series_are_found_in_last_year(dlrun: Dlrun, here: Path) -> None:
    days = pd.date_range("2020-01-05", periods=150, freq="7D")
    sold = np.resize(np.random.default_rng(0).normal(10, 3, 52), 150)
    pd.DataFrame({"day": days, "sold": sold, "promotion": np.arange(150) % 2}).to_csv(here / "s.csv", index=False)
    words = ("task=tabular", "data.path=s.csv", "data.target=sold", "epochs=1", "data.split=rolling", *QUICK)
    status, _, err = dlrun(*words, "data.horizon=4", "data.folds=2", "data.fold=1")
    assert status == 0, err
    found = summary_of(here)["baselines"]
    assert found["same week last year"]["valid/rmse"] == pytest.approx(0, abs=1e-4)
    assert found["last week"]["valid/mae"] == pytest.approx(abs(sold[-5] - sold[-4:]).mean(), abs=1e-4)
