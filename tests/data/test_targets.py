"""Kinds of targets: a class each, that tasks ask and never tell apart by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.regression import Regression
from dlrunner.data.core.targets import Binary, MultiClass, MultiLabel, Target
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.data.tabular.table import TabularTable
from dlrunner.errors import DataError
from dlrunner.metrics import MeanAbsoluteError, Metric
from dlrunner.schedules import Phase, constant
from dlrunner.tasks.tabular.task import Tabular
from tests.conftest import flats

OLD = {
    "names": ["price"],
    "kind": "regression",
    "classes": [],
    "transform": "log",
    "mean": 1.0,
    "deviation": 2.0,
    "low": -1.0,
    "high": 3.0,
    "middle": 0.5,
    "separator": None,
}
"""As one class for all kinds stored it."""


def test_a_target_is_what_its_state_says() -> None:
    for target in (
        Regression(["y"], transform="log", mean=1.0, high=7.0),
        Binary(["y"], ["no", "yes"]),
        MultiClass(["y"], [1, 2, 3]),
        MultiLabel(["y"], ["a", "b"], ";"),
    ):
        assert Target.from_state(target.state()) == target


@pytest.mark.parametrize("transform", ["standard", "log1p", "none"])
@pytest.mark.parametrize("seed", range(4))
def test_targets_of_zero_are_zero_in_every_metric(transform: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.poisson(2.0, 200) * random.uniform(0.1, 9)
    quantiles = {"transform": transform, "quantiles": [0.1, 0.9]}
    interval = Regression(["y"], **quantiles).fit(truth)
    coverage = interval.metrics(["coverage"])["coverage"]
    encoded = interval.encode(truth)
    coverage.update(torch.stack([encoded - 1, encoded + 0.1], dim=1), encoded)
    assert coverage.compute() == 1.0, "0 is not below a lowest quantile of 0"
    target = Regression(["y"], transform=transform).fit(truth)
    guess = truth + 1.0
    for name in ("rmspe", "poisson_deviance", "tweedie_deviance"):
        found, expected = target.metrics([name])[name], Regression.known_metrics[name]()
        found.update(target.encode(guess), target.encode(truth))
        expected.update(torch.from_numpy(guess), torch.from_numpy(truth))
        assert found.compute() == pytest.approx(expected.compute(), rel=1e-4), name


@pytest.mark.parametrize("transform", ["standard", "none"])
def test_negative_targets_of_other_rows_count_as_they_are(transform: Any) -> None:
    """No training target is negative, so that no prediction is; validation rows may be, and then errors are larger."""
    target = Regression(["y"], transform=transform).fit(np.array([0.0, 2.0, 5.0]))
    truth = np.array([-5.0, 1.0])
    metrics = target.metrics(["rmse", "mae"])
    for metric in metrics.values():
        metric.update(target.encode(np.array([-1.0, 1.0])), target.encode(truth))
    assert metrics["rmse"].compute() == pytest.approx(np.sqrt(25 / 2), rel=1e-5)
    assert metrics["mae"].compute() == pytest.approx(2.5, rel=1e-5)


def test_states_of_older_runs_are_read() -> None:
    expected = Regression(["price"], [], "log", 1.0, 2.0, -1.0, 3.0, 0.5)
    assert Target.from_state(OLD) == expected
    labels = {**OLD, "kind": "multilabel", "classes": ["a", "b"], "separator": ";"}
    assert Target.from_state(labels) == MultiLabel(["price"], ["a", "b"], ";")
    with pytest.raises(DataError, match="of kind ranking is not supported"):
        Target.from_state({**OLD, "kind": "ranking"})


PHASE = Phase(1, constant(1), (0.1,))


@dataclass(frozen=True)
class Horizon(Target):
    """Of a user: the next two values of a series."""

    kind = "horizon"
    known_metrics: ClassVar[Mapping[str, Callable[[], Metric]]] = {"mae": MeanAbsoluteError}

    @property
    def num_outputs(self) -> int:
        return 2

    def encode(self, values: NDArray[Any]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32) / 100

    def decode(self, outputs: Tensor) -> Tensor:
        return outputs * 100

    def loss(self, outputs: Tensor, targets: Tensor, name: str = "auto") -> Tensor:
        return (outputs - targets).abs().mean()

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(outputs)).median(dim=0).values

    def answers(self, outputs: Tensor, name: str, correction: float = 1.0) -> pd.DataFrame:
        return pd.DataFrame(self.decode(outputs).numpy(), columns=[f"{name}+1", f"{name}+2"])

    def truth(self, values: NDArray[Any]) -> pd.DataFrame:
        return pd.DataFrame(values, columns=["first", "second"])

    def description(self) -> str:
        return "the next two values"


class Series(TabularData):
    """A table with two values to predict."""

    def read(self) -> TabularTable:
        table = super().read()
        return replace(table, target=Horizon(["price"]), values=np.stack([table.values, 2 * table.values], axis=1))


def test_another_kind_of_target_is_one_more_class(here: Path) -> None:
    flats().to_csv("flats.csv", index=False)
    task = Tabular(Series(here, path="flats.csv", target="price"), 64, 0, torch.device("cpu"))
    batch = next(iter(task.batches("valid", 0, PHASE)))
    assert task.dims.num_outputs == 2
    assert float(task.loss(batch.targets + 1, batch.targets)) == pytest.approx(1)
    metric = task.metrics()["mae"]
    metric.update(batch.targets + 1, batch.targets)
    assert metric.compute() == pytest.approx(1)
    assert task.average([batch.targets, batch.targets, batch.targets + 9]).equal(batch.targets)
    table = task.predictions(batch.targets)
    np.testing.assert_allclose(table["prediction+2"], table["second"], rtol=1e-5)
    assert Target.from_state(task.state(PHASE)["target"]) == Horizon(["price"])


@pytest.mark.parametrize(
    ("settings", "lowest"),
    [
        ({}, 0.0),
        ({}, -5.0),
        ({"transform": "standard"}, 0.0),
        ({"transform": "standard"}, -5.0),
        ({"transform": "log"}, 0.1),
        ({"transform": "log1p"}, 0.0),
        ({"power": 1.5}, 0.0),
        ({"transform": "standard", "quantiles": [0.1, 0.5, 0.9]}, 0.0),
    ],
)
@pytest.mark.parametrize("correction", [1.0, 0.985])
def test_the_formula_of_a_target_gives_its_answers(settings: dict[str, Any], lowest: float, correction: float) -> None:
    values = np.random.default_rng(0).gamma(2.0, 3.0, 200) + lowest
    target = Regression(["sold"], **settings).fit(values)
    outputs = torch.linspace(-3, 3, 24)
    outputs = outputs.reshape(8, 3) if "quantiles" in settings else outputs
    found, _, _ = target.formula(correction).partition("; the outputs of a row in ascending order are its quantiles")
    given = {"exp": np.exp, "max": np.maximum, "min": np.minimum, "output": outputs.double().numpy()}
    expected = target.answers(outputs, "sold", correction).to_numpy().squeeze()
    assert found.startswith("sold = ")
    np.testing.assert_allclose(eval(found.removeprefix("sold = ").replace("×", "*"), given), expected, rtol=1e-6)


def test_the_formula_of_a_target_names_its_classes() -> None:
    assert Binary(["dear"], ["no", "yes"]).formula().startswith("the probability of yes is 1 / (1 + exp(-output))")
    assert "(a, b, c) are the softmax" in MultiClass(["kind"], ["a", "b", "c"]).formula()
    assert "each label (a, b) is 1 / (1 + exp(-output))" in MultiLabel(["a", "b"], ["a", "b"]).formula()
