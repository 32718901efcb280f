"""Partial dependence of a trained tabular model: the mean prediction where one column has the same value in all rows.

Source: Friedman, Greedy function approximation, 2001, https://doi.org/10.1214/aos/1013203451.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.regression import Regression
from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.data.tabular.table import TabularTable
from dlrunner.plot import Plot
from dlrunner.reporting.plots import regression

MOST_DEPENDENT_ROWS = 500
"""Validation rows of the means."""
MOST_VALUES, MOST_BARS, MOST_CURVES = 21, 12, 4
"""Numbers, categories and classes that are drawn."""


class DependenceTask(Protocol):
    """The part of a tabular task that partial dependence uses."""

    @property
    def table(self) -> TabularTable:
        """The table with its splits."""
        ...

    @property
    def target(self) -> Target:
        """The fitted target."""
        ...

    @property
    def preparation(self) -> TabularPreprocessor:
        """The fitted preprocessing."""
        ...

    def decode(self, outputs: Tensor) -> Tensor:
        """Return outputs in original units."""
        ...

    def category_name(self, column: str, category: Any) -> str:
        """Return the label of a category in plots."""
        ...


class TrainedModel(Protocol):
    """A trained model with its validation rows."""

    inputs: list[Tensor]
    targets: Tensor
    values: NDArray[Any]

    @property
    def task(self) -> DependenceTask:
        """The task of the model."""
        ...

    def column(self, name: str) -> pd.Series[Any]:
        """Return a column of the validation rows."""
        ...

    def inputs_of_columns(self) -> Mapping[str, Sequence[tuple[int, list[int]]]]:
        """Return where each column of the table is among the inputs."""
        ...

    def predict(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return outputs for inputs, on the CPU."""
        ...

    def rows_of_passes(self, passes: int, most: int) -> int:
        """Return the number of validation rows that so many passes through the model can afford."""
        ...


class PartialDependence:
    """The effect of single columns on the predictions.

    Args:
        analysis: the trained model with its validation rows.
    """

    def __init__(self, analysis: TrainedModel) -> None:
        self.analysis = analysis

    def draw(self, names: Sequence[str], folder: Path) -> Plot:
        """Draw the curves of some columns."""
        what, _, curves = self._outputs()
        count = self._num_rows(names)
        return regression.partial_dependence(self.curves(names), folder, what=what, curves=curves, rows=count)

    def _num_rows(self, names: Sequence[str]) -> int:
        return self.analysis.rows_of_passes(MOST_VALUES * len(names), MOST_DEPENDENT_ROWS)

    def curves(self, names: Sequence[str]) -> list[regression.Dependence]:
        """Return the mean prediction of some rows where a column has one value in all of them, by column.

        Numbers take values between their quantiles .02 and .98, categories those that are most frequent.
        """
        table, inputs = self.analysis.task.table, self.analysis.inputs_of_columns()
        random = np.random.default_rng(0)
        rows = np.sort(random.choice(len(self.analysis.targets), self._num_rows(names), replace=False))
        codes, numbers = (each[torch.from_numpy(rows).to(each.device)] for each in self.analysis.inputs)
        found = []
        for name in names:
            column = self.analysis.column(name)
            is_number = name in table.roles.continuous and not self._has_names(name, column)
            values, deciles = _numbers_of(column) if is_number else (_most_frequent(column), [])
            if len(values) < 2:
                continue
            frame = pd.DataFrame({name: pd.Series(values).astype(column.dtype)})
            of_column = self.analysis.task.preparation.of_column(name)
            of_values = [torch.from_numpy(each) for each in (of_column.codes(frame), of_column.numbers(frame))]
            means = []
            for value in range(len(values)):
                changed = [codes.clone(), numbers.clone()]
                for which, places in inputs[name]:
                    changed[which][:, places] = of_values[which][value].to(changed[which])
                means.append(self._mean_prediction(self.analysis.predict(*changed)))
            found.append(
                regression.Dependence(
                    name,
                    [float(each) for each in values]
                    if is_number
                    else [self.analysis.task.category_name(name, v) for v in values],
                    np.stack(means),
                    deciles,
                )
            )
        return found

    def _has_names(self, name: str, column: pd.Series[Any]) -> bool:
        """Return whether the numbers of a column stand for names: weekdays, months."""
        known = column.dropna().iloc[:1].tolist()
        return any(self.analysis.task.category_name(name, value) != str(value) for value in known)

    def _outputs(self) -> tuple[str, list[int], list[str]]:
        """Return what partial dependence shows, which outputs, and their names if there are several."""
        target = self.analysis.task.target
        if isinstance(target, Regression):
            return target.names[0], [0], []
        if target.kind == "binary":
            return f"p({target.classes[1]})", [1], []
        values = np.asarray(self.analysis.values)
        counts = np.bincount(values.astype(int)) if values.ndim == 1 else values.sum(axis=0)
        chosen = sorted(np.argsort(-counts, kind="stable")[:MOST_CURVES].tolist())
        return "probability", chosen, [str(target.classes[i]) for i in chosen]

    def _mean_prediction(self, outputs: Tensor) -> NDArray[np.float64]:
        """Return the mean of the decoded outputs, one for each curve."""
        decoded = self.analysis.task.decode(outputs)
        means = decoded.reshape(len(decoded), -1).double().mean(dim=0).numpy()
        return np.asarray(means[self._outputs()[1]])


def _numbers_of(column: pd.Series[Any]) -> tuple[list[float], list[float]]:
    """Return some numbers of a column between its quantiles .02 and .98, and its deciles."""
    numbers = column.to_numpy(np.float64, na_value=np.nan)
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return [], []
    values = np.unique(np.quantile(known, np.linspace(0.02, 0.98, MOST_VALUES), method="nearest"))
    return values.tolist(), np.quantile(known, np.linspace(0.1, 0.9, 9)).tolist()


def _most_frequent(column: pd.Series[Any]) -> list[Any]:
    """Return the most frequent categories of a column, in order."""
    values = column.value_counts().index[:MOST_BARS].tolist()
    try:
        return sorted(values)
    except TypeError:  # numbers and text
        return sorted(values, key=str)
