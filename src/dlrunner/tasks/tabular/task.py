"""Tabular data: predict a number, a class or labels from categorical and continuous columns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from dlrunner.data.core.batching import TensorLoader, by_split, epoch_order
from dlrunner.data.core.columns import PARTS, part_label
from dlrunner.data.core.input_columns import ROW
from dlrunner.data.core.regression import Loss, Regression
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.splitting import PART_CODES, TEST, split_sizes
from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.data.tabular.table import TableSource, TabularTable
from dlrunner.data_audit import SplitStatistics
from dlrunner.errors import ConfigError
from dlrunner.metrics import Metric
from dlrunner.model import Model
from dlrunner.models.tabular_layers import TabularDims
from dlrunner.plot import Plot
from dlrunner.prediction_table import with_distinct_names
from dlrunner.predictor import Predictor
from dlrunner.ranges import Count, Fraction, Positive
from dlrunner.schedules import Phase
from dlrunner.system.transfer import to_device
from dlrunner.task import Loader, ResultTable, Split, Task
from dlrunner.tasks.classification import ClassWeights, absent_classes, class_table, weighted_loss, weights_of
from dlrunner.tasks.tabular.audit import table_statistics
from dlrunner.tasks.tabular.checks import DEFAULT_POWER, check_plotted, check_relative, check_settings, learned_target
from dlrunner.tasks.tabular.defaults import recommended_for
from dlrunner.tasks.tabular.predictor import TablePredictor


class Tabular(Task):
    """Predicts a column of a table: a number, a class or labels.

    Args:
        data: the table.
        batch_size: training rows per batch.
        seed: of the shuffling.
        device: where the table is kept (800,000 rows of 40 columns take 140 MB).
        loss: for regression: mse, mae or huber of the transformed target, or squared_percentage, the squared relative
            error in original units, or poisson or tweedie, the deviance of a mean whose logarithm is predicted; `auto`
            is mse, or cross entropy for classes and labels.
        tweedie_power: with the Tweedie loss the variance is proportional to mean ** power.
        quantiles: quantiles of a number to predict instead of its mean, ascending, such as [0.1, 0.5, 0.9].
        metrics: the first one is monitored; by default those of the target's kind.
        class_weights: `balanced`, or weights by class, of the rows in the loss, of all splits.
        correction: factor for regression predictions, in original units.
        error_by: columns by whose categories the error is plotted; by default those where it differs most.
        embeddings: columns whose embeddings are plotted; by default the important ones with 4 to 60 categories.
        baseline: fit a constant, a linear model and boosted trees for comparison.
        valid_batch_size: validation rows per batch; affects only the speed.
    """

    predictor: ClassVar[type[Predictor] | None] = TablePredictor
    optional_columns: ClassVar[Sequence[str]] = ()
    """Columns that the data can leave out."""
    auto_settings = ("batch_size", "epochs", "model.bins", "model.dropouts", "model.num_nets", "optim.weight_decay")

    def __init__(
        self,
        data: TableSource,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        loss: Loss = "auto",
        tweedie_power: Annotated[float, Field(gt=1, lt=2)] = DEFAULT_POWER,
        quantiles: Annotated[list[Fraction], Field(min_length=1)] | None = None,
        metrics: list[str] | None = None,
        class_weights: ClassWeights | None = None,
        correction: Positive = 1.0,
        error_by: list[str] | None = None,
        embeddings: list[str] | None = None,
        baseline: bool = True,
        valid_batch_size: Count = 8192,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.tweedie_power, self.quantiles = tweedie_power, quantiles
        self.loss_name, self.metric_names, self.correction = loss, metrics, correction
        self.error_by, self.embeddings, self.valid_batch_size = error_by, embeddings, valid_batch_size
        self.class_weights, self.baseline = class_weights, baseline

    @classmethod
    def check(cls, settings: Mapping[str, Any], phases: Sequence[Phase]) -> None:
        """Refuse quantiles that are not ascending, and losses that they or the power do not go with."""
        loss, quantiles = settings.get("loss", "auto"), settings.get("quantiles")
        if quantiles and any(low >= high for low, high in itertools.pairwise(quantiles)):
            raise ConfigError(f"task.quantiles: {quantiles} is not in ascending order")
        if quantiles and loss != "auto":
            raise ConfigError(f"task.loss: {loss} does not go with task.quantiles, which have the pinball loss")
        if loss != "tweedie" and settings.get("tweedie_power", DEFAULT_POWER) != DEFAULT_POWER:
            raise ConfigError("task.tweedie_power: is for task.loss=tweedie")

    @cached_property
    def table(self) -> TabularTable:
        """The table, read once, with its target as it is learned."""
        table = self.data.read()
        learned = learned_target(table, self.loss_name, self.quantiles, self.tweedie_power)
        if table.base and getattr(learned, "power", None):
            raise ConfigError(
                f"data.history.base: cannot be used with task.loss={self.loss_name}, whose outputs are logarithms"
            )
        table = replace(table, target=learned)
        check_settings(table, self.loss_name, self.metric_names, self.class_weights, self.correction)
        check_plotted(table, self.error_by, self.embeddings, self.optional_columns)
        return table

    @cached_property
    def target(self) -> Target:
        """The target, fitted on the training rows."""
        target = self.table.target.fit(self.table.values[self.table.fitted])
        check_relative(self.table, target, self.loss_name, self.metric_names)
        return target

    @cached_property
    def preparation(self) -> TabularPreprocessor:
        """The preprocessing, fitted on the training rows."""
        table = self.table
        columns = table.frame, table.roles.categorical, table.roles.continuous, table.base
        return TabularPreprocessor.fit(*columns, history=table.history, trends=table.trends, rows=table.fitted)

    def recommended(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Choose by the number of training rows (see `recommended_for`)."""
        return recommended_for(int(self.table.train.sum()), is_packed="model.num_nets" in settings)

    @property
    def dims(self) -> TabularDims:
        """Cardinalities, number of continuous columns and of outputs."""
        return TabularDims.of(self.preparation, self.target)

    @cached_property
    def _tensors(self) -> dict[Split, tuple[list[Tensor], Tensor]]:
        """Categorical codes, continuous values and targets of each split, on the device.

        Each split is made of the columns of the table: tensors of all rows would be a copy of those of the splits.
        """
        table, made, device = self.table, self.preparation, self.device
        targets = by_split([], self.target.encode(table.values), table.split, device)
        splits: dict[Split, tuple[list[Tensor], Tensor]] = {}
        for name, (_, of_split) in targets.items():
            rows = table.split == PART_CODES[name]
            inputs = made.codes(table.frame, rows), made.numbers(table.frame, rows)
            splits[name] = ([torch.from_numpy(each).to(device) for each in inputs], of_split)
        return splits

    def tensors(self, split: Split) -> tuple[list[Tensor], Tensor]:
        """Return inputs and targets of a split, on the device."""
        return self._tensors[split]

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Rows of the table on the device."""
        inputs, targets = self.tensors(split)
        if split == "train":
            return TensorLoader(inputs, targets, self.batch_size, epoch_order(len(targets), self.seed, epoch), start)
        return TensorLoader(inputs, targets, self.valid_batch_size, start=start)

    def has_test(self) -> bool:
        """Return whether there are test rows."""
        return bool((self.table.split == TEST).any())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss over the rows, and over the nets where a model trains several."""
        if outputs.ndim > (2 if self.target.num_outputs > 1 else 1):
            targets = targets.repeat(len(outputs), *[1] * (targets.ndim - 1))
            outputs = outputs.flatten(0, 1)
        if self._weights is not None:
            return weighted_loss(outputs, targets, to_device(self._weights, outputs.device))
        return self.target.loss(outputs, targets, self.loss_name)

    @cached_property
    def _weights(self) -> Tensor | None:
        """The weight of each class, on the CPU."""
        table = self.table
        train = table.values[table.train]
        return None if self.class_weights is None else weights_of(self.class_weights, table.target, train)

    def purpose(self) -> str:
        """Predict the target."""
        return f"Predict {', '.join(self.target.names[:3])}{' …' * (len(self.target.names) > 3)}"

    def metrics(self) -> Mapping[str, Metric]:
        """The default metrics of the target, or those in `task.metrics`; regression in original units."""
        return self.target.metrics(self.metric_names, self.correction)

    def decode(self, outputs: Tensor) -> Tensor:
        """Return outputs in original units, times the correction."""
        return self.target.decode(outputs) * self.correction

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Average regression outputs, or the probabilities of classes and labels."""
        return self.target.average(outputs)

    def sizes(self) -> Mapping[str, int]:
        """Rows and columns."""
        table = self.table
        return {
            **split_sizes(table.split),
            "categorical": len(table.roles.categorical),
            "continuous": len(self.preparation.continuous),
        }

    def notes(self) -> Sequence[str]:
        """How each column is used, and unseen categories of the validation rows."""
        table = self.table
        unseen = self.preparation.check(
            table.frame[table.valid].copy(deep=False), RowLocations(Path("the validation set"))
        )
        marks = [f"{name}_na" for name in self.preparation.flagged]
        indicators = [f"continuous indicators of missing values: {', '.join(marks)}"] if marks else []
        low, *_, high = self.quantiles if self.quantiles and len(self.quantiles) > 1 else (0, 0)
        between = f"{high - low:.0%} of the rows should be between the quantiles {low:g} and {high:g} (valid/coverage)"
        quantiles = [between] if high else []
        absent = absent_classes(table.target, table.values[table.train])
        return [
            *table.notes,
            *indicators,
            *quantiles,
            *absent,
            *self._left_out(),
            *(f"validation: {n}" for n in unseen),
        ]

    def _left_out(self) -> Sequence[str]:
        from dlrunner.tasks.tabular.baselines import BOOSTING, MOST_BOOSTED_CLASSES

        classes = len(self.table.target.classes)
        if not self.baseline or not self.table.target.has_one_class or classes <= MOST_BOOSTED_CLASSES:
            return []
        return [f"the baseline {BOOSTING} is left out: {classes} classes are more than {MOST_BOOSTED_CLASSES}"]

    def data_columns(self) -> Sequence[Mapping[str, Any]]:
        """The columns of the file."""
        return self.table.columns

    def split_statistics(self) -> SplitStatistics:
        """Row digests, dates, and everything that is fitted."""
        return table_statistics(self.table, self.preparation, self.target)

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """A constant, a linear model, boosted trees; of a forecast, the last same weekday and that of last year."""
        if not self.baseline:
            return {}
        from dlrunner.tasks.tabular.baselines import TableBaselines, naive_forecasts

        splits = {split: self.tensors(split) for split in self._tensors}
        inputs = {
            split: (codes.cpu().numpy(), numbers.cpu().numpy()) for split, ((codes, numbers), _) in splits.items()
        }
        targets = {split: encoded for split, (_, encoded) in splits.items()}
        sizes = list(self.preparation.cardinalities.values())
        found = TableBaselines(inputs, targets, self.target, sizes, self._score, self._weights).all()
        if isinstance(self.target, Regression) and not self.target.quantiles:
            started = time.perf_counter()
            for name, forecast in naive_forecasts(self.table, self.table.valid).items():
                metrics = self._score(self.target.outputs_of(self.target.encode(forecast)), "valid")
                found[name] = {f"valid/{metric}": value for metric, value in metrics.items()}
                found[name]["seconds"] = round(time.perf_counter() - started, 2)
        return found

    def _score(self, outputs: Tensor, split: Split) -> Mapping[str, float]:
        """Return the metrics of a baseline's outputs, which need no correction, for the rows of a split, by name."""
        targets = self.tensors(split)[1].cpu()
        found = {}
        for name, metric in self.target.metrics(self.metric_names).items():
            metric.update(outputs, targets)
            found[name] = metric.compute()
        return found

    def predictions(self, outputs: Tensor) -> pd.DataFrame:
        """The validation rows with their predictions."""
        table = self.table
        rows = np.flatnonzero(table.valid)
        if table.ids is not None:
            ids = table.ids.iloc[rows].reset_index(drop=True)
        else:
            ids = pd.DataFrame({ROW: table.rows.only(table.valid).numbers(len(rows))})
        target = self.target
        predicted = target.answers(outputs, "prediction", self.correction)
        return with_distinct_names(pd.concat([ids, target.truth(table.values[rows]), predicted], axis=1))

    def tables(self, outputs: Tensor) -> Sequence[ResultTable]:
        """Precision, recall and F1 by class or label."""
        target, table = self.target, self.table
        return [class_table(target, table.values[table.valid], outputs)] if target.classes else []

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Predictions, errors by category, largest errors, permutation importance, embeddings."""
        from dlrunner.tasks.tabular.analysis import TableAnalysis

        return TableAnalysis(self, models, outputs).draw(folder)

    def category_name(self, column: str, category: Any) -> str:
        """Return the label of a category in plots."""
        prefixes = self.data.recipe()["dates"].values()
        parts = (column.removeprefix(each) for each in prefixes if column.startswith(each))
        return part_label(next((part for part in parts if part in PARTS), ""), category)

    def date_of(self, column: str) -> str | None:
        """Return the column of dates that a column is a part of: None for other columns."""
        prefixes = self.data.recipe().get("dates", {}).items()
        parts = ((date, part) for date, prefix in prefixes for part in PARTS if column == f"{prefix}{part}")
        return next((date for date, _ in parts), None)

    def state(self, phase: Phase) -> dict[str, Any]:
        """Preprocessing and target as fitted on the training rows."""
        return {
            "preparation": self.preparation.state(),
            "target": self.target.state(),
            "correction": self.correction,
            "id": self.table.roles.id,
            "recipe": self.data.recipe(),
        }
