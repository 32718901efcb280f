"""Simple classifiers with which a run is compared: class frequencies, and a logistic regression on given inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.targets import Target
from dlrunner.metrics import Metric
from dlrunner.task import Split

Predict = Callable[[Split], Tensor]
"""Returns the outputs for a split, as those of a net: logits, [rows] or [rows, classes]."""


def frequencies(target: Target, encoded: Tensor) -> Tensor:
    """Return outputs that predict the frequency of each class or label, for one row.

    Args:
        target: of one class or several labels.
        encoded: targets of the training rows.
    """
    if target.kind == "multiclass":
        counts = torch.bincount(encoded, minlength=target.num_outputs).float()
        return (counts / counts.sum()).clamp(min=1e-9).log()
    return torch.logit(encoded.mean(dim=0), eps=1e-6)


@dataclass(frozen=True)
class ClassBaselines:
    """Fits simple classifiers on the training rows and computes the metrics of the task.

    Args:
        target: of one class or several labels.
        targets: encoded targets of each split.
        metrics: returns fresh metrics by name.
        class_weights: of the training rows by their class.
    """

    target: Target
    targets: Mapping[Split, Tensor]
    metrics: Callable[[], Mapping[str, Metric]]
    class_weights: Tensor | None = None

    def timed(self, fit: Callable[[], Predict]) -> dict[str, float]:
        """Return the metrics of the classifier that a function fits, and the seconds that it takes."""
        started = time.perf_counter()
        predict = fit()
        found: dict[str, float] = {}
        for split in self.targets:
            if split == "train":
                continue
            outputs = predict(split)
            for name, metric in self.metrics().items():
                metric.update(outputs, self.targets[split])
                found[f"{split}/{name}"] = metric.compute()
        return {**found, "seconds": round(time.perf_counter() - started, 2)}

    def constant(self) -> Predict:
        """Predict the class frequencies of the training rows."""
        row = frequencies(self.target, self.targets["train"])
        return lambda split: row.expand(len(self.targets[split]), *row.shape)

    def logistic(self, inputs: Callable[[Split], Any], rows: NDArray[np.int64], **settings: Any) -> Predict:
        """Fit a logistic regression, for several labels one for each.

        Args:
            inputs: returns the inputs of a split, [rows, columns], dense or sparse.
            rows: the training rows to fit it on.
            settings: of scikit-learn's `LogisticRegression`.
        """
        from sklearn.linear_model import LogisticRegression

        matrix, truth = inputs("train")[rows], self.targets["train"].numpy()[rows]
        weights = None if self.class_weights is None else self.class_weights.numpy()[truth.astype(int)]
        columns = [truth] if self.target.has_one_class else list(truth.T)
        # A label that all or none of the rows have is predicted as such: there is nothing to fit.
        models = [
            LogisticRegression(**settings).fit(matrix, column, weights)
            if len(np.unique(column)) > 1
            else float(column[0])
            for column in columns
        ]
        return lambda split: self._outputs(models, inputs(split))

    def _outputs(self, models: Sequence[Any], inputs: Any) -> Tensor:
        if not self.target.has_one_class:
            return torch.stack([_logits(model, inputs) for model in models], dim=1)
        (model,) = models
        if self.target.kind == "binary":
            return _logits(model, inputs)
        # Classes without a training row are never predicted.
        scores = torch.full((inputs.shape[0], len(self.target.classes)), -1e9)
        if isinstance(model, float):
            scores[:, int(model)] = 0
        else:
            scores[:, model.classes_.astype(int)] = torch.from_numpy(model.predict_log_proba(inputs)).float()
        return scores


def _logits(model: Any, inputs: Any) -> Tensor:
    """Return the logit of the second of two classes."""
    if isinstance(model, float):
        return torch.logit(torch.full((inputs.shape[0],), model), eps=1e-6)
    return torch.from_numpy(model.decision_function(inputs)).float()
