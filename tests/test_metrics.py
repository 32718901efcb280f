"""Metrics are exact over a split, however it is cut into batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from dlrunner import metrics
from dlrunner.classification_metrics import AveragePrecision, RocAuc
from dlrunner.errors import ConfigError
from dlrunner.metrics import (
    F1,
    R2,
    Accuracy,
    InOriginalUnits,
    Mean,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    RootMeanSquaredError,
    RootMeanSquaredPercentageError,
    leave_undefined,
)
from dlrunner.regression_metrics import RmspeByBatch


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_the_root_is_taken_once_over_the_whole_split(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(1000, generator=generator), torch.randn(1000, generator=generator)
    metric = RootMeanSquaredError()
    for output, target in zip(torch.split(outputs, batch_size), torch.split(targets, batch_size), strict=True):
        metric.update(output, target)
    assert metric.compute() == pytest.approx(float((outputs - targets).double().square().mean().sqrt()), rel=1e-7)


def test_an_average_of_batch_averages_would_differ() -> None:
    outputs, targets = torch.tensor([0.0, 0.0, 3.0]), torch.zeros(3)
    metric = RootMeanSquaredError()
    metric.update(outputs[:2], targets[:2])
    metric.update(outputs[2:], targets[2:])
    assert metric.compute() == pytest.approx(math.sqrt(3.0))


def test_small_errors_survive_among_many() -> None:
    metric = MeanAbsoluteError()
    for _ in range(2000):
        metric.update(torch.full((1000,), 0.1), torch.zeros(1000))
    assert metric.compute() == pytest.approx(float(torch.tensor(0.1)), rel=1e-9)


def test_a_metric_in_another_unit_keeps_its_direction_unit_and_format() -> None:
    class HitRate(Mean):
        higher_is_better, unit, format = True, "km", ".1%"

    known = metrics.describe(
        {"hits": InOriginalUnits(HitRate(), torch.exp, torch.exp), "mae": MeanAbsoluteError()}, ["valid"]
    )
    assert known["valid/hits"] == {"higher_is_better": True, "unit": "km", "format": ".1%"}
    assert known["valid/mae"] == known["valid/loss"] == {"higher_is_better": False, "unit": "", "format": ""}


def test_an_invalid_number_format_is_refused() -> None:
    class HitRate(Mean):
        format = "banana"

    with pytest.raises(ConfigError, match="banana"):
        metrics.describe({"hits": HitRate()}, ["valid"])


def test_the_mean_of_no_examples_is_nan() -> None:
    assert math.isnan(MeanSquaredError().compute())


@pytest.mark.parametrize("mean", [0.0, 1e8])
def test_the_explained_variance_does_not_depend_on_the_mean_of_the_targets(mean: float) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(1000, generator=generator, dtype=torch.float64)
    outputs = targets + 0.1 * torch.randn(1000, generator=generator, dtype=torch.float64)
    expected = 1 - float((outputs - targets).square().sum() / (targets - targets.mean()).square().sum())
    metric = R2()
    for output, target in zip(torch.split(outputs, 64), torch.split(targets, 64), strict=True):
        metric.update(output + mean, target + mean)
    assert metric.compute() == pytest.approx(expected, rel=1e-7)


def test_r2_of_constant_targets_is_zero() -> None:
    metric = R2()
    for _ in range(3):
        metric.update(torch.randn(7), torch.full((7,), 0.1))
    assert metric.compute() == 0
    assert math.isnan(R2().compute())


def test_a_percentage_error_ignores_targets_of_zero_and_keeps_nan() -> None:
    outputs, targets = torch.tensor([110.0, math.inf, 90.0, math.nan]), torch.tensor([100.0, 0.0, 100.0, 0.0])
    metric = RootMeanSquaredPercentageError()
    metric.update(outputs, targets)
    assert metric.compute() == pytest.approx(0.1)
    metric.update(outputs[3:], targets[:1])
    assert math.isnan(metric.compute())
    none = RootMeanSquaredPercentageError()
    none.update(outputs[1:2], targets[1:2])
    assert math.isnan(none.compute())


def test_the_percentage_error_of_no_batch_is_nan() -> None:
    assert math.isnan(RmspeByBatch().compute())
    metric = RmspeByBatch()
    metric.update(torch.ones(2), torch.zeros(2))
    assert math.isnan(metric.compute())


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_f1_is_that_of_scikit_learn(batch_size: int) -> None:
    from sklearn.metrics import f1_score

    generator = torch.Generator().manual_seed(0)
    scores, classes = torch.randn(100, 5, generator=generator), torch.randint(4, (100,), generator=generator)
    logits, labels = torch.randn(100, 3, generator=generator), torch.rand(100, 3, generator=generator).round()
    macro, micro = F1(), F1()
    for rows in torch.split(torch.arange(100), batch_size):
        macro.update(scores[rows], classes[rows])
        micro.update(logits[rows], labels[rows])
    assert macro.compute() == pytest.approx(f1_score(classes, scores.argmax(dim=1), average="macro"), rel=1e-12)
    assert micro.compute() == pytest.approx(f1_score(labels, logits > 0, average="micro"), rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_mean_iou_and_pixel_accuracy_are_those_of_scikit_learn_over_all_pixels_that_count(batch_size: int) -> None:
    from sklearn.metrics import accuracy_score, jaccard_score

    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(10, 5, 6, 7, generator=generator)
    truth = torch.randint(4, (10, 6, 7), generator=generator)  # the last class is only predicted
    truth[:3, :2] = 255
    iou, accuracy = metrics.MeanIoU(5, ignore_index=255), metrics.PixelAccuracy(ignore_index=255)
    for rows in torch.split(torch.arange(10), batch_size):
        iou.update(scores[rows], truth[rows])
        accuracy.update(scores[rows], truth[rows])
    counted = truth != 255
    known, predicted = truth[counted], scores.argmax(dim=1)[counted]
    assert iou.compute() == pytest.approx(jaccard_score(known, predicted, average="macro", zero_division=0), rel=1e-12)
    assert accuracy.compute() == pytest.approx(accuracy_score(known, predicted), rel=1e-12)
    absent = metrics.MeanIoU(9)
    absent.count(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert absent.compute() == 0.25
    assert math.isnan(metrics.MeanIoU(3).compute())


METRICS: dict[str, Callable[[], Metric]] = {
    name: found
    for name, found in vars(metrics).items()
    if isinstance(found, type) and hasattr(found, "update") and hasattr(found, "compute")
    if found not in (Metric, metrics.Mean, InOriginalUnits)
}
METRICS["MeanIoU"] = lambda: metrics.MeanIoU(3, ignore_index=255)
METRICS["InOriginalUnits"] = lambda: InOriginalUnits(R2(), torch.exp, torch.exp)
"""All metric classes except abstract ones and wrappers."""


@pytest.mark.parametrize("name", METRICS)
def test_no_metric_waits_for_the_device_while_it_is_updated(name: str) -> None:
    """The meta device refuses to read values, and shapes that depend on them."""
    numbers, labels = torch.empty(8, device="meta"), torch.empty(8, 3, device="meta")
    classes = torch.empty(8, dtype=torch.int64, device="meta")
    pixels = (torch.empty(2, 3, 4, 4, device="meta"), torch.empty(2, 4, 4, dtype=torch.int64, device="meta"))
    kinds = {"MeanIoU": [pixels], "PixelAccuracy": [pixels]}
    kinds |= {"F1": [(labels, labels), (labels, classes)], "Accuracy": [(labels, labels), (labels, classes)]}
    for outputs, targets in kinds.get(name, [(numbers, numbers)]):
        metric = METRICS[name]()
        for _ in range(2):  # the second one is merged with the first
            metric.update(outputs, targets)


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "usual"),
    [
        (RocAuc(), [-9.0, -8.0], [0.0, 0.0], 0.5),
        (AveragePrecision(), [-9.0, -8.0], [0.0, 0.0], 0.0),
        (F1(), [-9.0, -8.0], [0.0, 0.0], 0.0),
        (R2(), [3.0, 3.0], [3.0, 3.0], 0.0),
        (InOriginalUnits(R2(), lambda x: x, lambda x: x), [3.0, 3.0], [3.0, 3.0], 0.0),
    ],
)
def test_a_metric_that_its_rows_do_not_define_is_a_number_or_none_on_request(
    metric: Metric, outputs: list[float], targets: list[float], usual: float
) -> None:
    metric.update(torch.tensor(outputs), torch.tensor(targets))
    assert metric.compute() == usual
    leave_undefined(metric)
    assert math.isnan(metric.compute())
    accuracy = Accuracy()
    accuracy.update(torch.tensor(outputs), torch.tensor(targets))
    leave_undefined(accuracy)  # defined by any row
    assert math.isfinite(accuracy.compute())
