"""Tabular runs from the command line: every kind of target is learned, plotted and predicted for new rows."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dlrunner.comparison.diff import NOT_COMPARED
from dlrunner.data.core.regression import Regression
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.metrics import RootMeanSquaredPercentageError
from dlrunner.model import Model
from dlrunner.models.tabular import EmbeddingNet
from dlrunner.models.tabular_layers import TabularDims
from dlrunner.runs.checkpoints import load_weights_file, weights_digest
from dlrunner.tasks.tabular.analysis import TableAnalysis, important
from dlrunner.tasks.tabular.partial_dependence import PartialDependence
from dlrunner.tasks.tabular.task import Tabular
from tests.conftest import QUICK, Dlrun, flats
from tests.small_runs import SmallRuns

NET = ("model.hidden=[32]", "model.dropouts=[0.0]")
LEARNED = ("epochs=16", "optim.lr=2e-2", "batch_size=32", *NET)
SMALL = ("epochs=2", "optim.lr=2e-2", "batch_size=32", *NET)


@pytest.fixture
def flats_csv(here: Path) -> Path:
    flats().to_csv("flats.csv", index=False)
    flats(200, seed=1).drop(columns=["price", "dear", "size", "big", "roomy"]).to_csv("new.csv", index=False)
    return here / "flats.csv"


INPUTS = ("data.path=flats.csv", "data.categorical=[city,rooms]", "data.continuous=[area]")


def summary() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("runs/latest/summary.json").read_text())
    return found


@pytest.mark.parametrize(
    ("words", "metric", "bound"),
    [
        (("data.target=price", "data.target_transform=log", "task.metrics=[rmspe,rmse,r2]"), "valid/rmspe", 0.08),
        (("data.target=price",), "valid/rmse", 6.0),
        (("data.target=price", "task.loss=mae", "task.metrics=[mae]"), "valid/mae", 4.2),
        (("data.target=price", "task.loss=huber"), "valid/rmse", 6.0),
        (("data.target=price", "task.loss=squared_percentage", "task.metrics=[rmspe]"), "valid/rmspe", 0.1),
        (("data.target=dear",), "valid/accuracy", 0.9),
        (("data.target=size",), "valid/accuracy", 0.93),
        (("data.target=[big,roomy]",), "valid/f1", 0.95),
    ],
)
def test_every_kind_of_target_is_learned(
    words: tuple[str, ...], metric: str, bound: float, flats_csv: Path, dlrun: Dlrun
) -> None:
    status, out, err = dlrun("task=tabular", *INPUTS, *LEARNED, *words, *QUICK)
    assert status == 0, out + err
    found = summary()["metric"]
    assert found["name"] == metric
    assert (found["value"] > bound) if found["higher_is_better"] else (found["value"] < bound)


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_linear_models_are_available_for_comparison(model: str, flats_csv: Path, dlrun: Dlrun) -> None:
    words = (
        "data.target=price",
        "data.target_transform=log",
        "task.metrics=[rmspe]",
        "epochs=15",
        "optim.lr=3e-2",
        "batch_size=32",
    )
    status, out, err = dlrun("task=tabular", *INPUTS, f"model={model}", *words, *QUICK)
    assert status == 0, out + err
    assert summary()["metric"]["value"] < 0.08, (
        "the logarithm of the price is linear: the noise of .05 is the best achievable error"
    )


def test_metrics_are_exact_and_in_the_targets_own_unit(flats_csv: Path, dlrun: Dlrun) -> None:
    dlrun(
        "task=tabular", *INPUTS, *SMALL, "data.target=price", "task.metrics=[rmse,rmspe,mae,r2]", "data.id=nr", *QUICK
    )
    final, rows = summary()["final"], pd.read_csv("runs/latest/predictions.csv")
    assert list(rows.columns) == ["nr", "price", "prediction"]
    error, truth = rows["prediction"] - rows["price"], rows["price"]
    expected = {
        "rmse": np.sqrt((error**2).mean()),
        "rmspe": np.sqrt(((error / truth) ** 2).mean()),
        "mae": error.abs().mean(),
        "r2": 1 - (error**2).sum() / ((truth - truth.mean()) ** 2).sum(),
    }
    for name, value in expected.items():
        assert final[f"valid/{name}"] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("word", ["task.metrics=[rmspe]", "task.loss=squared_percentage"])
def test_relative_errors_of_targets_that_32_bits_do_not_hold_are_refused(word: str, here: Path, dlrun: Dlrun) -> None:
    amounts = np.exp(np.random.default_rng(0).normal(7, 6, 300))
    pd.DataFrame({"x": np.log(amounts), "amount": amounts}).to_csv("r.csv", index=False)
    words = ("task=tabular", "data.path=r.csv", "data.target=amount", word, "epochs=1", *NET, *QUICK)
    status, _, err = dlrun(*words, "data.target_transform=standard")
    assert status == 1
    assert "32 bits" in err
    assert "data.target_transform=log" in err
    status, _, err = dlrun(*words, "data.target_transform=log")
    assert status == 0, err


def test_a_correction_multiplies_predictions(flats_csv: Path, dlrun: Dlrun) -> None:
    words = ("task=tabular", *INPUTS, *SMALL, "data.target=price", "data.target_transform=log", "data.id=nr", *QUICK)
    predictions, answers = [], []
    for factor in (1.0, 0.9):
        assert dlrun(*words, f"task.correction={factor}")[0] == 0
        predictions.append(pd.read_csv("runs/latest/predictions.csv")["prediction"])
        assert dlrun("predict", "runs/latest", "new.csv", "--out", "out.csv")[0] == 0
        answers.append(pd.read_csv("out.csv")["price"])
    for plain, corrected in (predictions, answers):
        np.testing.assert_allclose(corrected, 0.9 * plain, rtol=1e-6)


def test_predict_returns_the_ids_of_the_table(flats_csv: Path, dlrun: Dlrun) -> None:
    dlrun("task=tabular", *INPUTS, *SMALL, "data.target=dear", "data.id=nr", *QUICK)
    status, _, err = dlrun("predict", "runs/latest", "new.csv", "--out", "out.csv")
    assert status == 0, err
    answer = pd.read_csv("out.csv")
    new = pd.read_csv("new.csv")
    assert list(answer.columns) == [*new.columns, "dear" if "dear" not in new else "prediction", "p(yes)"]
    assert answer["nr"].tolist() == flats(200, seed=1)["nr"].tolist()
    assert set(answer["dear"]) == {"yes", "no"}
    assert ((answer["p(yes)"] > 0.5) == (answer["dear"] == "yes")).all()


def test_predictions_for_the_validation_rows_are_those_of_the_run(flats_csv: Path, dlrun: Dlrun) -> None:
    """What is stored in the run and used on new rows is what was fitted on the training rows."""
    dlrun("task=tabular", *INPUTS, *SMALL, "data.target=price", "data.id=nr", "ensemble=2", *QUICK)
    dlrun("predict", "runs/latest", "flats.csv", "--out", "out.csv")
    both = pd.read_csv("runs/latest/predictions.csv").merge(pd.read_csv("out.csv"), on="nr")
    assert len(both) == 180
    np.testing.assert_allclose(both["prediction_x"], both["prediction_y"], rtol=1e-5)


def test_prediction_data_that_does_not_fit_is_refused_or_noted(flats_csv: Path, dlrun: Dlrun) -> None:
    dlrun("task=tabular", *INPUTS, *SMALL, "data.target=price", *QUICK)
    new = pd.read_csv("new.csv")
    new.drop(columns="area").to_csv("missing.csv", index=False)
    status, _, err = dlrun("predict", "runs/latest", "missing.csv")
    assert (status, "area" in err) == (1, True)
    new.assign(city="Rom").to_csv("unseen.csv", index=False)
    status, out, _ = dlrun("predict", "runs/latest", "unseen.csv")
    assert status == 0
    assert re.search(r"city: 200 row.*\(Rom\)", out)
    status, _, err = dlrun("predict", "runs/latest", "nowhere.csv")
    assert (status, "there is no file nowhere.csv" in err) == (2, True)
    status, _, err = dlrun("predict", "runs/latest", "new.csv", "--only", "number")
    assert (status, "has no column 'number'" in err) == (2, True)


def test_a_bad_row_of_a_part_to_predict_is_named_by_its_part_and_row(flats_csv: Path, dlrun: Dlrun, here: Path) -> None:
    dlrun("task=tabular", *INPUTS, *SMALL, "data.target=price", *QUICK)
    new = pd.read_csv("new.csv").astype({"area": object})
    new.loc[150, "area"] = "large"
    Path("parts").mkdir()
    new.iloc[:100].to_json("parts/1.jsonl", orient="records", lines=True)
    new.iloc[100:].to_json("parts/2.jsonl.gz", orient="records", lines=True)
    status, out, _ = dlrun("predict", "runs/latest", "parts", "--out", "out.csv")
    assert status == 1
    assert "2.jsonl.gz, row 51: area is 'large'" in out
    assert pd.read_csv("out.csv")["problem"].dropna().tolist() == [
        "2.jsonl.gz, row 51: area is 'large', which is not a number"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.target=dear", "task.loss=mae"), "task.loss: mae is for regression"),
        (("data.target=dear", "task.metrics=[rmse]"), "task.metrics: rmse is not a metric for a binary target"),
        (("data.target=dear", "task.correction=0.9"), "task.correction: is for regression"),
        (("data.target=price", "task.metrics=[rmspee]"), "did you mean rmspe?"),
        (("data.target=price", "task.loss=msee"), "task.loss: must be 'auto', 'mse', 'mae'"),
        (("data.target=price", "model.dropouts=[0.1,0.1]", "model.hidden=[5]"), "model.dropouts: 2 for 1 hidden layer"),
        (("data.target=price", "model.y_range=[2,1]"), "model.y_range: 2 is not below 1"),
        (("data.target=price", "model=dot_bias"), "does not fit task tabular"),
        (("data.target=price", "data.valid=0"), "data.valid: must be"),
        (("data.target=prices",), "did you mean price?"),
    ],
)
def test_invalid_settings_are_refused_with_a_message(
    words: tuple[str, ...], message: str, flats_csv: Path, dlrun: Dlrun
) -> None:
    status, _, err = dlrun("task=tabular", *INPUTS, *words, *QUICK)
    assert status == 2, err
    assert message in err
    assert "Traceback" not in err


def test_a_net_of_columns_that_the_table_does_not_have_is_refused_without_a_folder(
    flats_csv: Path, dlrun: Dlrun, here: Path
) -> None:
    words = ("task=tabular", *INPUTS, "data.target=price", "model=blend", "model.nets=[{},{exclude: [town]}]", *QUICK)
    status, _, err = dlrun(*words)
    assert (status, "no column is called town" in err) == (2, True), err
    assert not list((here / "runs").glob("*/*/"))
    assert not (here / "runs" / "latest").is_symlink(), "it would point nowhere"


def test_without_a_table_an_example_command_is_shown(here: Path, dlrun: Dlrun) -> None:
    status, _, err = dlrun("task=tabular")
    assert (status, "dlrun task=tabular data.path=my.csv data.target=y" in err) == (2, True)
    assert not Path("runs").exists()


def test_folds_are_a_sweep_with_mean_and_std(flats_csv: Path, dlrun: Dlrun) -> None:
    words = ("data.target=price", "data.split=folds", "data.folds=3", "data.fold=range(3)", "epochs=1")
    status, out, err = dlrun("-m", "task=tabular", *INPUTS, *SMALL[1:], *words, *QUICK)
    assert status == 0, err
    results = pd.read_csv(next(Path("runs/sweeps").glob("*/results.csv")))
    values = results["valid/rmse"]
    assert len(set(values)) == 3
    assert f"over data.fold 0, 1, 2: valid/rmse {values.mean():.4f} ± {values.std():.4f}" in out


def test_an_ensemble_averages_probabilities(here: Path) -> None:
    table = flats()
    table.to_csv("flats.csv", index=False)
    for target, shape in (("dear", (5,)), ("size", (5, 3)), ("price", (5,))):
        task = Tabular(TabularData(here, path="flats.csv", target=target), 64, 0, torch.device("cpu"))
        members = [torch.randn(shape) for _ in range(3)]
        mean = task.target.average(members)
        if target == "price":
            torch.testing.assert_close(mean, torch.stack(members).mean(0))
        elif target == "dear":
            torch.testing.assert_close(mean.sigmoid(), torch.stack([m.sigmoid() for m in members]).mean(0))
        else:
            torch.testing.assert_close(mean.softmax(1), torch.stack([m.softmax(1) for m in members]).mean(0))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.error_by=[citty]",), "task.error_by: there is no column citty; did you mean city?"),
        (("task.embeddings=[area]",), "task.embeddings: there is no categorical column area; known: city, rooms"),
    ],
)
def test_columns_to_plot_must_exist(words: tuple[str, ...], expected: str, flats_csv: Path, dlrun: Dlrun) -> None:
    status, _, err = dlrun("task=tabular", *INPUTS, *SMALL, "data.target=price", *words, *QUICK)
    assert status == 2
    assert expected in err


def test_plots_tables_and_report_are_written(flats_csv: Path, dlrun: Dlrun) -> None:
    for target, first in (("price", "predictions.svg"), ("dear", "confusion.svg"), ("[big,roomy]", "labels.svg")):
        words = ("task=tabular", *INPUTS, *SMALL, f"data.target={target}", "data.id=nr", "task.error_by=[city,rooms]")
        status, out, err = dlrun(*words)
        assert status == 0, out + err
        drawn = {path.name for path in Path("runs/latest/plots").iterdir()}
        assert {first, "losses.svg", "error_by.svg", "importance.svg"} <= drawn
        assert "worse when a column is shuffled" in Path("runs/latest/report.html").read_text()
        if target == "price":
            worst = pd.read_csv("runs/latest/largest_errors.csv")
            assert list(worst.columns)[:3] == ["nr", "city", "rooms"]
            assert list(worst.columns)[-3:] == ["truth", "prediction", "relative error"]
            assert worst["relative error"].abs().is_monotonic_decreasing


def test_precision_recall_and_counts_of_each_class_are_in_a_table_and_in_the_report(
    flats_csv: Path, dlrun: Dlrun
) -> None:
    for target, name in (("size", "class"), ("dear", "class"), ("[big,roomy]", "label")):
        assert dlrun("task=tabular", *INPUTS, *SMALL, f"data.target={target}", "epochs=1", "log.plots=false")[0] == 0
        found = pd.read_csv("runs/latest/classes.csv").set_index(name)
        answers = pd.read_csv("runs/latest/predictions.csv")
        page = Path("runs/latest/report.html").read_text()
        assert f"Precision, recall and F1 by {name}" in page
        if name == "label":
            assert found["rows"].tolist() == answers[["big", "roomy"]].sum().tolist()
            continue
        for label, row in found.iterrows():
            is_true, is_predicted = answers[target] == label, answers["prediction"] == label
            assert (row["rows"], row["predicted"]) == (is_true.sum(), is_predicted.sum())
            assert row["recall"] == pytest.approx((is_true & is_predicted).sum() / is_true.sum(), abs=1e-6)
        assert summary()["final"]["valid/roc_auc"] == pytest.approx(found["roc_auc"].mean(), abs=1e-5)


@pytest.mark.parametrize("num_files", [1, 2])
def test_rows_have_the_same_numbers_in_a_run_and_in_predictions(num_files: int, here: Path, dlrun: Dlrun) -> None:
    table = pd.DataFrame({"x": np.arange(80) % 13, "z": np.arange(80) % 7, "y": np.arange(80.0)})
    Path("parts").mkdir()
    for number in range(num_files):
        part = table[number * 80 // num_files : (number + 1) * 80 // num_files]
        part.to_csv(f"parts/{number}.csv", index=False)
    given = "parts" if num_files > 1 else "parts/0.csv"
    assert dlrun("task=tabular", f"data.path={given}", "data.target=y", "epochs=1", *QUICK)[0] == 0
    assert dlrun("predict", "runs/latest", given, "--out", "all.csv")[0] == 0
    recorded, every = pd.read_csv("runs/latest/predictions.csv"), pd.read_csv("all.csv")
    both = recorded.merge(every, on="row", validate="one_to_one")
    assert len(both) == len(recorded) == 16
    assert both["y_x"].tolist() == both["y_y"].tolist()


@pytest.mark.parametrize("members", [(), ("ensemble=2",)])
def test_predictions_are_those_of_the_epoch_at_which_training_stopped(
    members: tuple[str, ...], flats_csv: Path, dlrun: Dlrun
) -> None:
    stopping = ("epochs=30", "optim.lr=0.05", "trainer.early_stopping=1", "trainer.keep=last")
    status, out, err = dlrun("task=tabular", *INPUTS, "data.target=price", *stopping, *members, *QUICK)
    assert status == 0, out + err
    table = pd.read_csv("runs/latest/predictions.csv")
    error = ((table["prediction"] - table["price"]) ** 2).mean() ** 0.5
    assert summary()["final"]["valid/rmse"] == pytest.approx(error, rel=1e-5)
    assert summary()["weights"]["epoch"] < 30


def test_partial_dependence_follows_the_effect_of_each_column(flats_csv: Path, dlrun: Dlrun) -> None:
    from dlrunner.inference.models import load_models
    from dlrunner.runs.reader import FinishedRun
    from dlrunner.tasks.tabular.predictor import predict_rows

    dlrun("task=tabular", *INPUTS, *LEARNED, "data.target=price", *QUICK)
    checked, _, models = load_models(FinishedRun.read(Path("runs/latest")))
    task: Any = checked.build_task(checked.build_data(), 0)
    frame = task.table.frame[task.table.valid]
    analysis = TableAnalysis(task, models, predict_rows(task.preparation, task.target, models, frame))
    city, area = PartialDependence(analysis).curves(["city", "area"])
    assert city.values == ["Bonn", "Köln", "Ulm"]
    assert city.means[2, 0] > 1.2 * city.means[0, 0]  # exp(.3) times as much
    assert (np.diff(area.means[:, 0]) > 0).all()
    same = frame.assign(city="Ulm")
    mean = task.decode(predict_rows(task.preparation, task.target, models, same)).mean().item()
    assert city.means[2, 0] == pytest.approx(mean, rel=1e-5)  # 180 rows: all of them


def test_permutation_importance_finds_the_columns_that_matter(flats_csv: Path, dlrun: Dlrun) -> None:
    from dlrunner.inference.models import load_models
    from dlrunner.runs.reader import FinishedRun
    from dlrunner.tasks.tabular.predictor import predict_rows

    table = flats()
    table["noise"] = np.random.default_rng(5).normal(size=len(table))
    table.to_csv("flats.csv", index=False)
    dlrun("task=tabular", *INPUTS[:2], "data.continuous=[area,noise]", *LEARNED, "data.target=price", *QUICK)
    checked, _, models = load_models(FinishedRun.read(Path("runs/latest")))
    task: Any = checked.build_task(checked.build_data(), 0)
    frame = task.table.frame[task.table.valid]
    outputs = predict_rows(task.preparation, task.target, models, frame)
    analysis = TableAnalysis(task, models, outputs)
    names, increases, stds = analysis.importance()
    by_name = dict(zip(names, increases, strict=True))
    assert list(by_name) == ["city", "rooms", "area", "noise"]
    assert by_name["area"] > 5 * abs(by_name["noise"])
    assert by_name["city"] > 5 * abs(by_name["noise"])
    matter = important(names, increases, stds)
    assert set(matter) >= {"city", "area"}
    assert "noise" not in matter
    worst = analysis.worst(matter)
    assert worst is not None
    assert list(worst.columns) == [*matter, "truth", "prediction", "relative error"], "the columns of the row itself"
    assert {name for name, *_ in analysis.embeddings(["rooms", "area"])} <= {"rooms"}, "of columns that matter alone"


def test_weekdays_and_months_of_a_date_have_names_in_plots(here: Path) -> None:
    days = pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")
    pd.DataFrame({"Sold": days, "Dayofweek": range(60), "price": range(60)}).to_csv("days.csv", index=False)
    task = Tabular(TabularData(here, path="days.csv", target="price"), 8, 0, torch.device("cpu"))
    assert "Sold_Dayofweek" in task.table.frame
    assert task.category_name("Sold_Dayofweek", 0) == "Mon"
    assert task.category_name("Sold_Month", 2) == "Feb"
    assert task.category_name("Sold_Day", 2) == "2"
    assert task.category_name("Dayofweek", 2) == "2", "a column of the file's own"


class WeekdayModel(Model):
    """Predicts by the weekday alone."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column

    def forward(self, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return codes[:, self.column].float()

    def layer_groups(self) -> list[torch.nn.Module]:
        return [self]


def test_plots_show_the_date_of_a_row_and_the_names_of_its_parts(here: Path) -> None:
    days = pd.date_range("2024-01-01", periods=700)
    table = pd.DataFrame({"sold": days.strftime("%Y-%m-%d"), "x": np.arange(700) % 7, "price": 1.0 + days.day_of_week})
    table.to_csv("days.csv", index=False)
    task = Tabular(TabularData(here, path="days.csv", target="price"), 8, 0, torch.device("cpu"))
    weekday = WeekdayModel(list(task.preparation.categories).index("sold_Dayofweek"))
    outputs = weekday(*task.tensors("valid")[0]).flip(0)
    analysis = TableAnalysis(task, [weekday], outputs)
    names, increases, stds = analysis.importance()
    assert important(names, increases, stds) == ["sold_Dayofweek"]
    assert {increases[i] for i, name in enumerate(names) if name != "sold_Dayofweek"} == {0.0}
    worst = analysis.worst(["sold_Dayofweek", "x"])
    assert worst is not None
    assert list(worst.columns)[:2] == ["sold", "x"], "the row's own columns"
    assert set(worst["sold"]) <= set(table["sold"])
    (weekdays,) = PartialDependence(analysis).curves(["sold_Dayofweek"])
    assert weekdays.values == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    assert task.date_of("x") is None


@pytest.mark.parametrize(("lowest", "name"), [(1.0, "relative error"), (-9.0, "error_2")])
def test_columns_of_the_file_keep_their_names_among_the_largest_errors(lowest: float, name: str, here: Path) -> None:
    values = np.arange(200) % 9
    table = pd.DataFrame({"truth": values, "error": values * 3, "prediction": values + 0.5, "y": lowest + values})
    table.to_csv("own.csv", index=False)
    task = Tabular(TabularData(here, path="own.csv", target="y"), 8, 0, torch.device("cpu"))
    worst = TableAnalysis(task, [], torch.zeros(len(task.tensors("valid")[1]))).worst(["truth", "error", "prediction"])
    assert worst is not None
    assert worst.columns.tolist() == ["truth", "error", "prediction", "truth_2", "prediction_2", name]
    assert (worst["error"].astype(int) == worst["truth"].astype(int) * 3).all()


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "f1"])
def test_a_category_without_a_positive_row_has_no_error_where_the_metric_has_no_value(metric: str, here: Path) -> None:
    rows = np.arange(600)
    shops = np.array(["a", "b", "closed"])[rows % 3]
    table = pd.DataFrame(
        {"shop": shops, "even": rows % 2, "x": rows % 7, "sold": np.where(shops == "closed", 0, rows % 5 > 2)}
    )
    table.to_csv("shops.csv", index=False)
    data = TabularData(here, path="shops.csv", target="sold", categorical=["shop", "even"], continuous=["x"])
    task = Tabular(data, 8, 0, torch.device("cpu"), metrics=[metric])
    logits = task.tensors("valid")[1] * 2 - 1  # all rows are right
    in_a = torch.tensor((task.table.frame["shop"][task.table.valid] == "a").to_list())
    logits[in_a] *= torch.where(torch.arange(int(in_a.sum())) % 4 == 0, -1, 1)  # but some of one shop
    groups = TableAnalysis(task, [], logits).groups
    assert [name for name, *_ in groups] == ["shop", "even"], "the one in which it differs most is first"
    _, labels, errors, _ = groups[0]
    assert labels == ["a", "b", "closed"]
    assert errors[0] > 0.1
    assert errors[1] == 0
    assert np.isnan(errors[2])


def test_a_stopped_run_resumes_bit_for_bit(flats_csv: Path, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("task=tabular", *INPUTS, *SMALL, "data.target=price", "epochs=3", "model.dropouts=[0.1]", *QUICK)
    assert dlrun(*words)[0] == 0
    unbroken = _numbers_of(Path("runs/latest"))
    steps, loss = 0, Tabular.loss

    def stopped_at_step_40(self: Tabular, *tensors: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += torch.is_grad_enabled()
        if steps == 40:  # of 69: in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, *tensors)

    monkeypatch.setattr(Tabular, "loss", stopped_at_step_40)
    assert dlrun(*words, "runs_dir=again")[0] == 143
    assert dlrun(*words, "runs_dir=again")[0] == 0
    assert _numbers_of(Path("again/latest")) == unbroken
    assert steps == 69, "it resumed there: no step was repeated"


def _numbers_of(run: Path) -> tuple[list[Any], str]:
    """Return the epochs without their times, and the digest of the weights."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if k not in NOT_COMPARED} for row in rows]
    return kept, weights_digest(load_weights_file(run / "last.pt")["model"])


@pytest.mark.parametrize("rows", [129 * 5 // 4, 257 * 5 // 4])
def test_a_table_with_one_training_row_left_over_is_trained_at_the_usual_batch_size(
    rows: int, here: Path, dlrun: Dlrun
) -> None:
    table = pd.DataFrame({"x": np.arange(rows) / rows, "city": ["a", "b", "c"] * (rows // 3) + ["a"] * (rows % 3)})
    table.assign(y=table["x"] * 2).to_csv("one.csv", index=False)
    status, _, err = dlrun("task=tabular", "data.path=one.csv", "data.target=y", "epochs=1", *QUICK)
    assert status == 0, err
    assert int(json.loads(Path("runs/latest/summary.json").read_text())["data"]["rows"]["train"]) % 128 == 1


def test_batches_of_a_single_row_are_refused_where_batch_norm_needs_two(flats_csv: Path, dlrun: Dlrun) -> None:
    words = ("task=tabular", *INPUTS, "data.target=price", "epochs=1", "batch_size=1", *QUICK)
    status, _, err = dlrun(*words)
    assert status == 2
    assert "batch_size: batch norm needs at least two training rows" in err
    assert "Traceback" not in err
    assert dlrun(*words, "model=linear")[0] == 0


def test_rows_with_targets_of_zero_have_no_percentages() -> None:
    metric = RootMeanSquaredPercentageError()
    metric.update(torch.tensor([1.1, 5.0]), torch.tensor([1.0, 0.0]))
    assert metric.compute() == pytest.approx(0.1, rel=1e-5)


# Rossmann


CHAIN = ("task=rossmann", "data.source=synthetic", "model.hidden=[64,32]", "trainer.num_threads=1")


def test_synthetic_sales_are_learned_to_the_best_achievable_error_and_not_below(here: Path, dlrun: Dlrun) -> None:
    status, out, err = dlrun(*CHAIN, "epochs=3", "optim.lr=1e-2", "batch_size=64", *QUICK)
    assert status == 0, out + err
    assert "synthetic data" in out
    found = summary()
    best = found["data"]["best_achievable"]
    assert best * 0.97 < found["metric"]["value"] < best * 1.25


def test_the_submission_is_kaggles(here: Path, dlrun: Dlrun, runs: SmallRuns) -> None:
    from dlrunner.data.rossmann.synthetic import write_synthetic_rossmann

    folder, _ = write_synthetic_rossmann(Path("chain"))
    test = pd.read_csv(folder / "test.csv")
    status, out, err = dlrun(
        "predict", str(runs["sales"]), str(folder / "test.csv"), "--only", "Id", "--out", "submission.csv"
    )
    assert status == 0, err
    answer = pd.read_csv("submission.csv")
    assert list(answer.columns) == ["Id", "Sales"]
    assert answer["Id"].tolist() == test["Id"].tolist()
    closed = test["Open"] == 0
    assert (answer["Sales"][closed] == 0).all()
    assert (answer["Sales"][~closed] > 0).all(), "a missing value in Open means open"
    assert f"{int(test['Open'].isna().sum())} rows have no value in Open" in out
    assert f"{int(closed.sum()):,} rows of closed stores: Sales set to 0" in out
    text = (folder / "test.csv").read_text().splitlines()
    columns = text[0].replace('"', "").split(",")
    fields = text[3].split(",")
    fields[columns.index("Promo")] = "soon"
    text[3] = ",".join(fields)
    Path("bad.csv").write_text("\n".join(text) + "\n")
    status, _, err = dlrun("predict", str(runs["sales"]), "bad.csv", "--out", "some.csv")
    assert status == 1, err
    some = pd.read_csv("some.csv")
    assert some["problem"].dropna().tolist() == ["Promo is 'soon', which is not an integer"]
    assert np.isnan(some["Sales"][2])
    others = [row for row in range(len(test)) if row != 2]
    assert some["Id"].tolist() == test["Id"].tolist()
    np.testing.assert_allclose(some["Sales"][others], answer["Sales"][others], rtol=0.3)  # its promotion is unknown


@pytest.mark.parametrize("count", [8, 200])
def test_a_bad_date_or_store_of_rossmann_leaves_one_row_without_an_answer(
    count: int, here: Path, dlrun: Dlrun, runs: SmallRuns
) -> None:
    from dlrunner.data.rossmann.synthetic import write_synthetic_rossmann

    folder, _ = write_synthetic_rossmann(Path("chain"))
    test = pd.read_csv(folder / "test.csv", dtype="str").head(count)
    test.to_csv("new.csv", index=False)
    assert dlrun("predict", str(runs["sales"]), "new.csv", "--out", "good.csv")[0] == 0
    bad = {
        1: ("Date", "31.02.2015"),
        2: ("Date", None),
        4: ("Store", "4711"),
        5: ("Date", "9015-08-01"),
        6: ("Promo", None),
    }
    for row, (column, value) in bad.items():
        test.loc[row, column] = value
    test.to_csv("new.csv", index=False)
    status, _, err = dlrun("predict", str(runs["sales"]), "new.csv", "--out", "some.csv")
    assert status == 1, err
    good, some = pd.read_csv("good.csv"), pd.read_csv("some.csv")
    assert some["Id"].tolist() == good["Id"].tolist()
    reasons = dict(some["problem"].dropna().items())
    assert list(reasons) == list(bad) == np.flatnonzero(some["Sales"].isna()).tolist()
    words = [
        "Date is '31.02.2015', which is not a date",
        "Date is missing",
        "store 4711",
        "9015-08-01",
        "Promo is missing",
    ]
    assert [word in reason for word, reason in zip(words, reasons.values(), strict=True)] == [True] * 5
    others = [row for row in range(count) if row not in bad]
    np.testing.assert_allclose(some["Sales"][others], good["Sales"][others], rtol=0.5)  # some events are unknown


def test_rossmann_rows_that_cannot_be_predicted_are_refused(here: Path, dlrun: Dlrun, runs: SmallRuns) -> None:
    pd.DataFrame({"Store": [1], "Date": ["2015-08-01"]}).to_csv("short.csv", index=False)
    status, _, err = dlrun("predict", str(runs["sales"]), "short.csv")
    assert (status, "is missing the column(s) DayOfWeek, Promo, StateHoliday, SchoolHoliday" in err) == (1, True)
    row = {"DayOfWeek": 6, "Date": "2015-08-01", "Promo": 0, "StateHoliday": 0, "SchoolHoliday": 0}
    pd.DataFrame([{"Store": 4711, **row}]).to_csv("unknown.csv", index=False)
    status, _, err = dlrun("predict", str(runs["sales"]), "unknown.csv")
    assert (status, "4711" in err) == (1, True)


def test_the_recorded_average_over_batches_is_the_lessons(here: Path, dlrun: Dlrun) -> None:
    dlrun(*CHAIN, "epochs=1", *QUICK)
    rows = pd.read_csv("runs/latest/predictions.csv")
    squares = ((rows["prediction"] / rows["Sales"] - 1) ** 2).to_numpy()
    parts = [squares[start : start + 256] for start in range(0, len(squares), 256)]
    expected = sum(np.sqrt(part.mean()) * len(part) for part in parts) / len(squares)
    final = summary()["final"]
    assert final["valid/rmspe_by_batch"] == pytest.approx(expected, rel=1e-5)
    assert final["valid/rmspe"] == pytest.approx(np.sqrt(squares.mean()), rel=1e-5)
    assert final["valid/rmspe_by_batch"] < final["valid/rmspe"]


@pytest.mark.parametrize(
    ("columns", "hidden", "num_nets", "rows"),
    [(40, 200, 1, 2000), (40, 1000, 8, 328), (2000, 200, 1, 200), (40, 1000, 1, 2000)],
)
def test_large_models_are_shuffled_in_fewer_rows(columns: int, hidden: int, num_nets: int, rows: int) -> None:
    dims = TabularDims({"store": 10_000}, columns, 1, target=Regression(["y"]))
    analysis = TableAnalysis.__new__(TableAnalysis)
    analysis.targets = torch.zeros(5000)
    analysis.models = [EmbeddingNet(dims, hidden=[hidden], num_nets=num_nets)]
    assert analysis.rows_of_passes(3 * columns, 2000) == rows
    assert analysis.rows_of_passes(3 * columns, 150) == 150
