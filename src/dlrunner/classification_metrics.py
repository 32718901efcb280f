"""Exact metrics of classes and labels from their probabilities: log loss, areas under curves, counts by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.metrics import Mean, exact_dtype
from dlrunner.row_blocks import KeptRows

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]


class LogLoss(Mean):
    """The mean negative logarithm of the probability of the true class, or of each label's true value.

    Not affected by class weights, unlike the loss that is trained.

    >>> import torch
    >>> metric = LogLoss()
    >>> metric.update(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    >>> round(metric.compute(), 4)
    0.6931
    """

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return one value per row, or per row and label."""
        outputs = outputs.to(exact_dtype(outputs))
        if targets.is_floating_point():
            return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype), reduction="none")
        return F.cross_entropy(outputs, targets, reduction="none")


class _Ranking:
    """Metrics of the order of the rows, by class or label: they need all outputs."""

    higher_is_better = True
    undefined: float

    def __init__(self) -> None:
        self._outputs, self._targets = KeptRows(), KeptRows()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Store the batch."""
        if not targets.is_floating_point():
            targets, outputs = F.one_hot(targets, outputs.shape[1]), outputs.to(exact_dtype(outputs)).softmax(dim=1)
        self._outputs.add(outputs.reshape(len(outputs), -1))
        self._targets.add(targets.reshape(len(targets), -1))

    def _mean(self, metric: Callable[[Bools, Floats], float]) -> float:
        """Return the mean over the classes of which a metric is a number, else `undefined`; NaN without rows."""
        if not len(self._outputs):
            return float("nan")
        scores = self._outputs.joined().double().cpu().numpy()
        positive = self._targets.joined().cpu().numpy() > 0.5
        found = np.array([metric(positive[:, i], scores[:, i]) for i in range(scores.shape[1])])
        known = found[~np.isnan(found)]
        return float(known.mean()) if len(known) else self.undefined


class RocAuc(_Ranking):
    """The probability that a positive row has a higher output than a negative one; ties count half.

    For several labels the mean over labels with both classes (macro), for several classes over the classes, each
    against all others, by their probabilities.

    >>> import torch
    >>> metric = RocAuc()
    >>> metric.update(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, 1.0]))
    >>> metric.compute()
    0.5
    """

    undefined = 0.5

    def compute(self) -> float:
        """Return the area under the ROC curve; `undefined` if a class is absent."""
        return self._mean(roc_auc)


class AveragePrecision(_Ranking):
    """The area under the precision-recall curve, without interpolation: mean over the classes or labels that occur.

    >>> import torch
    >>> metric = AveragePrecision()
    >>> metric.update(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, 1.0]))
    >>> round(metric.compute(), 4)
    0.8333
    """

    undefined = 0.0

    def compute(self) -> float:
        """Return the mean over the classes with a row; `undefined` if there is none."""
        return self._mean(average_precision)


def counts_by_threshold(positive: Bools, scores: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the true and false positives at each distinct score as threshold, from the highest down, from 0 on.

    >>> counts_by_threshold(np.array([True, False, True]), np.array([0.9, 0.5, 0.5]))
    (array([0, 1, 2]), array([0, 0, 1]))
    """
    order = np.argsort(-scores, kind="stable")
    hits = positive[order].cumsum()
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1) if len(scores) else np.empty(0, np.int64)
    true = np.append(0, hits[ends])
    return true, np.append(0, ends + 1) - true


def average_precision(positive: Bools, scores: Floats) -> float:
    """Return Σ (recall - recall before) · precision over the thresholds; NaN without a positive row."""
    true, false = counts_by_threshold(positive, scores)
    if not true[-1]:
        return float("nan")
    return float((np.diff(true) / true[-1] * (true[1:] / (true[1:] + false[1:]))).sum())


def roc_auc(positive: Bools, scores: Floats) -> float:
    """Return the area under the ROC curve, ties counting half; NaN where one class is absent."""
    true, false = counts_by_threshold(positive, scores)
    if not (true[-1] and false[-1]):
        return float("nan")
    return float(np.trapezoid(true / true[-1], false / false[-1]))


def metrics_by_class(truth: Bools, predicted: Bools, probabilities: Floats) -> dict[str, NDArray[Any]]:
    """Return precision, recall, F1, ROC AUC, average precision and rows of each class or label.

    Args:
        truth: which rows have the class, [rows, classes].
        predicted: which rows it is predicted for, likewise.
        probabilities: of each class, likewise.

    >>> found = metrics_by_class(np.eye(2) > 0, np.array([[True, False], [True, False]]), np.eye(2))
    >>> found["precision"].tolist(), found["recall"].tolist(), found["rows"].tolist()
    ([0.5, nan], [1.0, 0.0], [1, 1])
    """
    rows, chosen, both = (each.sum(axis=0) for each in (truth, predicted, truth & predicted))
    columns: Sequence[int] = range(truth.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": both / chosen,
            "recall": both / rows,
            "f1": 2 * both / (chosen + rows),
            "roc_auc": np.array([roc_auc(truth[:, i], probabilities[:, i]) for i in columns]),
            "average_precision": np.array([average_precision(truth[:, i], probabilities[:, i]) for i in columns]),
            "rows": rows,
            "predicted": chosen,
        }
