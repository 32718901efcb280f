"""Counts and sales by Poisson and Tweedie losses, and quantiles of numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import mean_pinball_loss, mean_poisson_deviance, mean_tweedie_deviance

from dlrunner.data.core.regression import Regression
from dlrunner.data.core.targets import Target
from dlrunner.errors import DataError
from dlrunner.metrics import Metric
from dlrunner.regression_metrics import MeanDeviance, PinballLoss, deviance
from tests.conftest import QUICK, Dlrun

COUNTS = np.array([0.0, 1.0, 7.0, 2.0])


def computed(metric: Metric, outputs: torch.Tensor, targets: torch.Tensor) -> float:
    metric.update(outputs, targets)
    return metric.compute()


def test_deviances_and_pinball_losses_are_those_of_scikit_learn() -> None:
    truth, means = torch.from_numpy(COUNTS), torch.tensor([0.5, 0.1, 9.0, 2.0], dtype=torch.float64)
    assert computed(MeanDeviance(1), means, truth) == pytest.approx(mean_poisson_deviance(truth, means))
    expected = mean_tweedie_deviance(truth, means, power=1.3)
    assert computed(MeanDeviance(1.3), means, truth) == pytest.approx(expected)
    both = torch.stack([means - 0.2, means + 1], dim=1)
    expected = np.mean([mean_pinball_loss(truth, both[:, i], alpha=a) for i, a in enumerate((0.1, 0.8))])
    assert computed(PinballLoss([0.1, 0.8]), both, truth) == pytest.approx(expected)


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_a_deviance_is_least_at_the_mean_and_has_a_gradient_at_zero(power: float) -> None:
    targets = torch.from_numpy(COUNTS)
    output = targets.mean().log().requires_grad_()
    deviance(output.expand(4), targets, power).mean().backward()  # type: ignore[no-untyped-call]
    assert float(output.grad) == pytest.approx(0, abs=1e-9)  # type: ignore[arg-type]


def test_outputs_of_a_distribution_are_logarithms_relative_to_the_mean() -> None:
    target = Regression(["y"], power=1.0).fit(COUNTS)
    assert isinstance(target, Regression)
    assert target.decode(torch.zeros(1)).item() == pytest.approx(COUNTS.mean())
    encoded = target.encode(COUNTS)
    np.testing.assert_allclose(target.decode_targets(encoded), COUNTS, rtol=1e-6)
    np.testing.assert_allclose(target.decode(target.outputs_of(encoded)), COUNTS, rtol=1e-6, atol=1e-6)
    assert target.decode(torch.tensor([99.0])).item() == pytest.approx(7 * np.e, rel=1e-5)
    members = [torch.tensor([0.0]), torch.tensor([1.0])]
    mean = target.decode(target.average(members))
    torch.testing.assert_close(mean, torch.stack([target.decode(each) for each in members]).mean(dim=0))
    assert Target.from_state(target.state()) == target


def test_quantiles_never_cross_and_are_in_the_targets_unit() -> None:
    fitted = Regression(["y"], transform="log1p", quantiles=[0.1, 0.5, 0.9]).fit(COUNTS)
    assert isinstance(fitted, Regression)
    outputs = torch.tensor([[3.0, 1.0, 2.0], [-1.0, 0.0, 0.5]])
    answers = fitted.answers(outputs, "y")
    assert list(answers) == ["y_q0.1", "y_q0.5", "y_q0.9"]
    np.testing.assert_allclose(answers.iloc[0], np.expm1([1, 2, 3]), rtol=1e-6)
    assert answers["y_q0.1"][1] == 0  # no target is negative
    np.testing.assert_allclose(fitted.decode(outputs), answers["y_q0.5"])
    assert Target.from_state(fitted.state()) == fitted


@pytest.fixture
def visits(here: Path) -> Path:
    """Counts, most of them 0, whose mean grows by a factor with x."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=500), "city": rng.choice(["Bonn", "Ulm"], 500)})
    table["visits"] = rng.poisson(np.exp(table["x"] - 0.5 + (table["city"] == "Ulm")))
    table["balance"] = 2 * table["x"] + rng.normal(size=500)
    table.to_csv("visits.csv", index=False)
    table[["x", "city"]].head(9).to_csv("new.csv", index=False)
    return here / "visits.csv"


RUN = ("task=tabular", "data.path=visits.csv", "data.continuous=[x]", "data.categorical=[city]", "epochs=5")


def summary() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("runs/latest/summary.json").read_text())
    return found


@pytest.mark.usefixtures("visits")
@pytest.mark.parametrize(
    ("loss", "metric", "linear"),
    [("poisson", "poisson_deviance", "Poisson regression"), ("tweedie", "tweedie_deviance", "Tweedie regression")],
)
def test_counts_are_learned(loss: str, metric: str, linear: str, dlrun: Dlrun) -> None:
    status, out, err = dlrun(*RUN, "data.target=visits", f"task.loss={loss}", *QUICK)
    assert status == 0, out + err
    found = summary()
    assert list(found["baselines"]) == ["mean", linear, "gradient boosting"]
    assert found["final"][f"valid/{metric}"] < 0.8 * found["baselines"]["mean"][f"valid/{metric}"]
    assert found["baselines"][linear][f"valid/{metric}"] < 0.8 * found["baselines"]["mean"][f"valid/{metric}"]
    table = pd.read_csv("runs/latest/predictions.csv")
    error = ((table["prediction"] - table["visits"]) ** 2).mean() ** 0.5
    assert error == pytest.approx(found["final"]["valid/rmse"], rel=1e-5)
    assert (table["prediction"] > 0).all()
    assert dlrun("predict", "runs/latest", "new.csv", "--out", "answer.csv")[0] == 0
    assert (pd.read_csv("answer.csv")["visits"] > 0).all()


def test_a_metric_is_the_same_whatever_the_loss() -> None:
    truth, means = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])
    expected = mean_tweedie_deviance(truth, means, power=1.5)
    for target in (Regression(["y"], power=1.0), Regression(["y"], power=1.9), Regression(["y"])):
        fitted = target.fit(truth.numpy())
        metric = fitted.metrics(["tweedie_deviance"])["tweedie_deviance"]
        encoded = fitted.encode(means.numpy())
        outputs = fitted.outputs_of(encoded) if isinstance(fitted, Regression) else encoded
        assert computed(metric, outputs, fitted.encode(truth.numpy())) == pytest.approx(expected, rel=1e-5)


def test_counts_that_are_all_zero_in_training_have_no_distribution() -> None:
    with pytest.raises(DataError, match="the target y is 0 in all training rows"):
        Regression(["y"], power=1.0).fit(np.zeros(5))


@pytest.mark.usefixtures("visits")
def test_quantiles_are_predicted_with_their_coverage(dlrun: Dlrun) -> None:
    status, out, err = dlrun(*RUN, "data.target=balance", "task.quantiles=[.1,.5,.9]", "log.plots=true", "epochs=15")
    assert status == 0, out + err
    assert "80% of the rows should be between the quantiles 0.1 and 0.9" in out
    found, table = summary(), pd.read_csv("runs/latest/predictions.csv")
    assert found["metric"]["name"] == "valid/pinball_loss"
    low, middle, high = (table[f"prediction_q{level}"] for level in (0.1, 0.5, 0.9))
    assert (low <= middle).all()
    assert (middle <= high).all()
    covered = ((low <= table["balance"]) & (table["balance"] <= high)).mean()
    assert found["final"]["valid/coverage"] == pytest.approx(covered)
    assert 0.6 < covered < 0.95
    assert list(found["baselines"]) == ["quantiles", "gradient boosting"]
    drawn = {path.name for path in Path("runs/latest/plots").iterdir()}
    assert {"intervals.svg", "residuals.svg", "partial_dependence.svg"} <= drawn
    assert dlrun("predict", "runs/latest", "new.csv", "--out", "answer.csv")[0] == 0
    assert list(pd.read_csv("answer.csv"))[-3:] == ["balance_q0.1", "balance_q0.5", "balance_q0.9"]


@pytest.mark.usefixtures("visits")
@pytest.mark.parametrize(
    ("target", "words", "message"),
    [
        ("balance", ("task.loss=poisson",), "task.loss: poisson is for counts, sales and other numbers from 0 on"),
        ("balance", ("task.metrics=[rmse,poisson_deviance]",), "task.metrics: poisson_deviance is for counts"),
        ("visits", ("task.loss=poisson", "data.target_transform=log1p"), "does not go with task.loss=poisson"),
        ("visits", ("task.tweedie_power=1.2",), "is for task.loss=tweedie"),
        ("visits", ("task.loss=tweedie", "task.tweedie_power=2.5"), "task.tweedie_power"),
        ("visits", ("task.quantiles=[.5,.1]",), "is not in ascending order"),
        ("visits", ("task.quantiles=[.1,1.5]",), "task.quantiles"),
        ("visits", ("task.quantiles=[.1,.9]", "task.loss=mae"), "does not go with task.quantiles"),
        ("city", ("data.categorical=[]", "task.quantiles=[.1]"), "is for regression; the target is read as binary"),
        ("city", ("data.categorical=[]", "task.loss=poisson"), "a binary target uses cross entropy"),
        ("visits", ("task.metrics=[coverage]",), "coverage is not a metric for a regression target"),
    ],
)
def test_what_does_not_fit_ends_in_a_sentence(target: str, words: tuple[str, ...], message: str, dlrun: Dlrun) -> None:
    status, _, err = dlrun(*RUN, f"data.target={target}", *words, *QUICK)
    assert status == (1 if target == "balance" else 2), err  # 1: the data is wrong, not the request
    assert message in err
    assert "Traceback" not in err
