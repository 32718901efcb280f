"""Metrics of classes against scikit-learn's, which are computed on all rows at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from dlrunner.classification_metrics import (
    AveragePrecision,
    LogLoss,
    RocAuc,
    average_precision,
    metrics_by_class,
    roc_auc,
)
from dlrunner.metrics import Metric

RANDOM = np.random.default_rng(0)
SCORES = torch.from_numpy(RANDOM.normal(size=(80, 3)).round(1))  # with ties
CODES = torch.from_numpy(RANDOM.integers(0, 3, 80))
LABELS = torch.from_numpy(RANDOM.integers(0, 2, (80, 3)).astype(np.float32))


def computed(metric: Metric, outputs: torch.Tensor, targets: torch.Tensor) -> float:
    for part in (slice(0, 30), slice(30, 80)):
        metric.update(outputs[part], targets[part])
    return metric.compute()


def test_log_loss_is_that_of_scikit_learn() -> None:
    expected = sklearn_metrics.log_loss(CODES, SCORES.softmax(1))
    assert computed(LogLoss(), SCORES, CODES) == pytest.approx(expected)
    expected = sklearn_metrics.log_loss(LABELS[:, 0], SCORES[:, 0].sigmoid())
    assert computed(LogLoss(), SCORES[:, 0], LABELS[:, 0]) == pytest.approx(expected)


def test_average_precision_is_that_of_scikit_learn() -> None:
    expected = sklearn_metrics.average_precision_score(LABELS, SCORES)
    assert computed(AveragePrecision(), SCORES, LABELS) == pytest.approx(expected)
    expected = sklearn_metrics.average_precision_score(np.eye(3)[CODES], SCORES.softmax(1))
    assert computed(AveragePrecision(), SCORES, CODES) == pytest.approx(expected)
    assert np.isnan(AveragePrecision().compute())


def test_the_auc_of_several_classes_is_their_mean_against_all_others() -> None:
    expected = sklearn_metrics.roc_auc_score(CODES, SCORES.softmax(1), multi_class="ovr")
    assert computed(RocAuc(), SCORES, CODES) == pytest.approx(expected)


def test_metrics_by_class_are_those_of_scikit_learn() -> None:
    truth, p = np.eye(3, dtype=bool)[CODES], SCORES.softmax(1).numpy()
    predicted = np.eye(3, dtype=bool)[p.argmax(axis=1)]
    found = metrics_by_class(truth, predicted, p)
    expected = sklearn_metrics.precision_recall_fscore_support(CODES, p.argmax(axis=1))
    for name, values in zip(("precision", "recall", "f1", "rows"), expected, strict=True):
        np.testing.assert_allclose(found[name], values)
    for code in range(3):
        assert found["roc_auc"][code] == pytest.approx(sklearn_metrics.roc_auc_score(truth[:, code], p[:, code]))


def test_a_class_without_rows_has_no_area() -> None:
    none, scores = np.zeros(4, dtype=bool), np.arange(4.0)
    assert np.isnan(roc_auc(none, scores))
    assert np.isnan(average_precision(none, scores))
    assert np.isnan(roc_auc(np.empty(0, bool), np.empty(0)))
