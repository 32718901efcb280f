"""Base of the classification tasks: one class or several labels per example; tables and plots of classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.classification_metrics import metrics_by_class
from dlrunner.data.core.targets import Target
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.metrics import Metric
from dlrunner.plot import Plot
from dlrunner.task import ResultTable, Task


class Classification(Task):
    """Cross entropy, and the default metrics of the target or those in `task.metrics`."""

    metric_names: list[str] | None

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

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy."""
        return self.target.loss(outputs, targets)

    def metrics(self) -> Mapping[str, Metric]:
        """The default metrics of the target, or those in `task.metrics`."""
        return self.target.metrics(self.metric_names)

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Average the probabilities."""
        return self.target.average(outputs)

    def check_metrics(self, target: Target, what: str) -> None:
        """Refuse metrics that do not fit the target.

        Raises:
            ConfigError: a metric does not fit.
        """
        known = target.known_metrics
        for name in self.metric_names or []:
            if name not in known:
                raise ConfigError(
                    f"task.metrics: {name} is not a metric for {target.kind} {what}; {did_you_mean(name, known)}"
                )


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
