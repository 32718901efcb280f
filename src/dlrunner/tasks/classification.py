"""Base of the classification tasks: one class or several labels per example; tables and plots of classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.classification_metrics import metrics_by_class
from dlrunner.data.core.targets import Target
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.metrics import Metric
from dlrunner.plot import Plot
from dlrunner.ranges import Positive
from dlrunner.system.transfer import to_device
from dlrunner.task import ResultTable, Task

ClassWeights = Literal["balanced"] | dict[str | int | float | bool, Positive]
"""`balanced`: all classes weigh the same; or a weight by class."""

MOST_NAMED = 8
"""Classes without training examples that a note names."""


class Classification(Task):
    """Cross entropy, and the default metrics of the target or those in `task.metrics`."""

    metric_names: list[str] | None
    class_weights: ClassWeights | None = None

    @property
    @abstractmethod
    def target(self) -> Target:
        """The classes or labels."""

    @abstractmethod
    def valid_values(self) -> NDArray[Any]:
        """Return class codes, or 0/1 by label, of the validation examples in the order of their outputs."""

    def tables(self, outputs: Tensor) -> Sequence[ResultTable]:
        """Precision, recall and F1 by class."""
        return [class_table(self.target, self.valid_values(), outputs)]

    @abstractmethod
    def train_values(self) -> NDArray[Any]:
        """Return class codes, or 0/1 by label, of the training examples."""

    @cached_property
    def _weights(self) -> Tensor | None:
        """The weight of each class, on the CPU."""
        return None if self.class_weights is None else weights_of(self.class_weights, self.target, self.train_values())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy, each example weighted by its class."""
        if self._weights is None:
            return self.target.loss(outputs, targets)
        return weighted_loss(outputs, targets, to_device(self._weights, outputs.device))

    def metrics(self) -> Mapping[str, Metric]:
        """The default metrics of the target, or those in `task.metrics`."""
        return self.target.metrics(self.metric_names)

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Average the probabilities."""
        return self.target.average(outputs)

    def check_target(self, target: Target, what: str) -> None:
        """Refuse metrics and class weights that do not fit the target.

        Raises:
            ConfigError: one does not fit.
        """
        check_class_weights(self.class_weights, target)
        known = target.known_metrics
        for name in self.metric_names or []:
            if name not in known:
                raise ConfigError(
                    f"task.metrics: {name} is not a metric for {target.kind} {what}; {did_you_mean(name, known)}"
                )


def absent_classes(target: Target, train: NDArray[Any]) -> list[str]:
    """Return a note that names the classes, or labels, that no training example has; empty if there are none.

    Args:
        target: of classes or labels.
        train: class codes, or 0/1 by label, of the training examples.
    """
    if not target.classes:
        return []
    codes = np.asarray(train).astype(np.int64)
    counts = np.bincount(codes, minlength=len(target.classes)) if target.has_one_class else codes.sum(axis=0)
    names = [str(target.classes[code]) for code in np.flatnonzero(counts == 0)]
    what = "class" if target.has_one_class else "label"
    some = ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
    return [f"no training example has the {what} {some}: it cannot be learned"] if names else []


def weights_of(setting: ClassWeights, target: Target, train: NDArray[Any]) -> Tensor:
    """Return the weight of each class, scaled so that the training examples have a mean weight of 1.

    Source of `balanced`: King and Zeng, Logistic regression in rare events data, 2001.

    Args:
        setting: `balanced`, so that all classes weigh the same, or weights by class; others have a weight of 1.
        target: of one class per example.
        train: class codes of the training examples.

    Raises:
        ConfigError: the target has no such class, or several labels.
    """
    check_class_weights(setting, target)
    names = [str(each) for each in target.classes]
    counts = np.bincount(np.asarray(train).astype(np.int64), minlength=len(names))
    if setting == "balanced":
        weights = np.where(counts > 0, 1 / np.maximum(counts, 1), 0)
    else:
        assert isinstance(setting, dict)
        known = {_name(key, names): float(value) for key, value in setting.items()}
        weights = np.array([known.get(name, 1.0) for name in names])
    return torch.from_numpy(weights * counts.sum() / (weights @ counts)).float()


def check_class_weights(setting: ClassWeights | None, target: Target) -> None:
    """Refuse weights of a target without classes, or of classes that it does not have.

    Raises:
        ConfigError: the weights do not fit.
    """
    if setting is None:
        return
    if not target.has_one_class:
        raise ConfigError(f"task.class_weights: is for targets of one class per row, not for {target.kind}")
    names = [str(each) for each in target.classes]
    for key in setting if isinstance(setting, dict) else ():
        if _name(key, names) not in names:
            listed = ", ".join(names[:10]) + (" …" if len(names) > 10 else "")
            raise ConfigError(f"task.class_weights: {key} is not a class; the classes are {listed}")


def _name(key: object, names: Sequence[str]) -> str:
    """Return the class that a key of YAML means, where true and 1.0 are not written as in the data.

    >>> _name(True, ["false", "true"]), _name(1.0, ["0", "1"]), _name("a", ["b"])
    ('true', '1', 'a')
    """
    written = [str(key), str(key).lower(), f"{key:g}" if isinstance(key, float) else str(key)]
    return next((name for name in written if name in names), str(key))


def weighted_loss(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the mean cross entropy of logits, each row multiplied by the weight of its class.

    It is divided by the number of rows and not by their weights, so that parts of a batch add up.
    """
    if targets.is_floating_point():
        losses = F.binary_cross_entropy_with_logits(outputs.float(), targets, reduction="none")
    else:
        losses = F.cross_entropy(outputs.float(), targets, reduction="none")
    return (losses * weights[targets.long()]).mean()


def class_table(target: Target, values: NDArray[Any], outputs: Tensor) -> ResultTable:
    """Return precision, recall, F1, ROC AUC, average precision and rows of each class or label.

    Args:
        target: with `classes`.
        values: class codes [rows], or 0/1 [rows, labels].
        outputs: for the same rows.
    """
    probabilities = _probabilities(target, outputs)
    found = metrics_by_class(*_by_class(target, values, probabilities), probabilities)
    name = "class" if target.has_one_class else "label"
    table = pd.DataFrame({name: [str(each) for each in target.classes], **found}).round(6)
    threshold = "" if target.has_one_class else ", at a probability of .5"
    return ResultTable("classes.csv", f"Precision, recall and F1 by {name} (validation{threshold})", table)


def class_plots(target: Target, values: NDArray[Any], outputs: Tensor, folder: Path) -> list[Plot]:
    """Draw what applies to the target: confusion, calibration, precision and recall by class, ROC and PR curves.

    Args:
        target: with `classes`.
        values: class codes [rows], or 0/1 [rows, labels].
        outputs: for the same rows.
        folder: of the PNGs.
    """
    from dlrunner.reporting.plots import class_curves, classes  # importing matplotlib takes a second

    probabilities, names = _probabilities(target, outputs), [str(each) for each in target.classes]
    truth, _ = _by_class(target, values, probabilities)
    if not target.has_one_class:
        drawn = [classes.labels(values, probabilities, names, folder)]
    else:
        drawn = [classes.classes(values, probabilities, names, folder)]
        if len(names) > 2:
            drawn.append(classes.calibration(values, probabilities, folder))
            drawn.append(classes.by_class(values, probabilities, names, folder))
    return [*drawn, class_curves.curves(truth, probabilities, names, folder)]


def _probabilities(target: Target, outputs: Tensor) -> NDArray[np.float64]:
    """Return probabilities [rows, classes]; in double precision fewer of them are equal."""
    found: NDArray[np.float64] = target.decode(outputs.detach().cpu().double()).numpy()
    return found


def _by_class(
    target: Target, values: NDArray[Any], probabilities: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows have each class, and for which it is predicted, [rows, classes] each."""
    if not target.has_one_class:
        return np.asarray(values) > 0.5, probabilities > 0.5
    codes = np.arange(probabilities.shape[1])
    return np.asarray(values).astype(int)[:, None] == codes, probabilities.argmax(axis=1)[:, None] == codes
