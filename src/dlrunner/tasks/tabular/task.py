"""Tables: predict a number, a class or labels from categories and numbers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dlrunner.data.core.batching import TensorLoader, by_split, epoch_order
from dlrunner.data.core.tables import read_table
from dlrunner.data.core.targets import Loss, Regression, Target
from dlrunner.data.tabular.dataset import TableSource, TabularTable, rows_to_predict
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.data_audit import SplitStatistics
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.metrics import Metric
from dlrunner.model import Example, Model, forward_pass
from dlrunner.models.tabular import TabularDims
from dlrunner.plot import Plot
from dlrunner.ranges import Count, Positive
from dlrunner.schedules import Phase
from dlrunner.task import Loader, Split, Task
from dlrunner.tasks.common.inputs import THE_TABLE, check_table, with_notes
from dlrunner.tasks.tabular.audit import of_table


class Tabular(Task):
    """A table in, a number, a class or labels out.

    Args:
        data: the table.
        batch_size: training rows in a batch.
        seed: of the order of the training rows.
        device: where the table lives (800,000 rows of 40 columns take 140 MB).
        loss: of a target of numbers: mse, mae or huber of the transformed target, or squared_percentage, the square
            of the relative error in the target's own unit; `auto` is mse, and cross entropy for classes and labels.
        metrics: the first one judges; by default the usual ones of the target's kind.
        correction: predictions of numbers are multiplied by this, in the target's own unit.
        error_by: columns by whose levels the error is drawn; by default those where it differs most.
        embeddings: columns whose embeddings are drawn; by default those with 4 to 60 levels.
        valid_batch_size: validation rows at once; it changes nothing but the speed.
    """

    def __init__(
        self,
        data: TableSource,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        loss: Loss = "auto",
        metrics: list[str] | None = None,
        correction: Positive = 1.0,
        error_by: list[str] | None = None,
        embeddings: list[str] | None = None,
        valid_batch_size: Count = 8192,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.loss_name, self.metric_names, self.correction = loss, metrics, correction
        self.error_by, self.embeddings, self.valid_batch_size = error_by, embeddings, valid_batch_size

    @cached_property
    def table(self) -> TabularTable:
        """The table, read once."""
        table = self.data.read()
        self._check_settings(table)
        return table

    @cached_property
    def target(self) -> Target:
        """The target with the statistics of its training rows."""
        return self.table.target.fit(self.table.values[~self.table.valid])

    @cached_property
    def preparation(self) -> TabularPreprocessor:
        """What is fitted on the training rows."""
        table = self.table
        return TabularPreprocessor.fit(table.frame[~table.valid], table.roles.categorical, table.roles.continuous)

    @property
    def dims(self) -> TabularDims:
        """Sizes of the categories, numbers and outputs."""
        return _dims(self.preparation, self.target)

    @cached_property
    def _tensors(self) -> dict[Split, tuple[list[Tensor], Tensor]]:
        """Codes, numbers and targets of each split, on the device."""
        table = self.table
        inputs = [self.preparation.codes(table.frame), self.preparation.numbers(table.frame)]
        return by_split(list(map(torch.from_numpy, inputs)), self.target.encode(table.values), table.valid, self.device)

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Rows of the table on the device."""
        inputs, targets = self._tensors[split]
        if split == "train":
            return TensorLoader(inputs, targets, self.batch_size, epoch_order(len(targets), self.seed, epoch), start)
        return TensorLoader(inputs, targets, self.valid_batch_size, start=start)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss over the rows."""
        return self.target.loss(outputs, targets, self.loss_name)

    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of the target's kind, or those that were asked for; numbers in the target's own unit."""
        return self.target.metrics(self.metric_names, self.correction)

    def decode(self, outputs: Tensor) -> Tensor:
        """Return outputs in the target's own unit, corrected."""
        return self.target.decode(outputs) * self.correction

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Average outputs of numbers, and the probabilities of classes and labels."""
        return self.target.average(outputs)

    def sizes(self) -> Mapping[str, int]:
        """Rows and columns."""
        table = self.table
        return {
            "train": int((~table.valid).sum()),
            "valid": int(table.valid.sum()),
            "categorical": len(table.roles.categorical),
            "continuous": len(self.preparation.continuous),
        }

    def notes(self) -> Sequence[str]:
        """What each column became, and what the validation rows hold that the training rows do not."""
        table = self.table
        unseen = self.preparation.check(table.frame[table.valid].copy(deep=False), "the validation part")
        marks = [f"{name}_na" for name in self.preparation.flagged]
        told = [f"continuous too, marks of missing values: {', '.join(marks)}"] if marks else []
        return [*table.notes, *told, *(f"validation: {note}" for note in unseen)]

    def split_statistics(self) -> SplitStatistics:
        """Whole rows, their days, and all that is fitted."""
        return of_table(self.table, self.preparation, self.target)

    def predictions(self, outputs: Tensor) -> pd.DataFrame:
        """The validation rows with what was predicted."""
        table = self.table
        rows = np.flatnonzero(table.valid)
        place = rows if table.rows is None else table.rows[rows]
        found = table.ids.iloc[rows].reset_index(drop=True) if table.ids is not None else pd.DataFrame({"row": place})
        target = self.target
        predicted = target.answers(outputs, "prediction", self.correction)
        return pd.concat([found, target.truth(table.values[rows]), predicted], axis=1)

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Predictions, errors by group, the largest errors, importance of the columns, embeddings."""
        from dlrunner.tasks.tabular.analysis import Inspection

        return Inspection(self, models, outputs).draw(folder)

    def level_name(self, column: str, level: Any) -> str:
        """Return what to call a level of a categorical column in pictures."""
        return str(level)

    def state(self, phase: Phase) -> dict[str, Any]:
        """What was fitted on the training rows, and how new rows are made inputs."""
        return {
            "preparation": self.preparation.state(),
            "target": self.target.state(),
            "correction": self.correction,
            "id": self.table.roles.id,
            "recipe": self.data.recipe(),
        }

    @classmethod
    def dims_of(cls, state: Mapping[str, Any]) -> TabularDims:
        """Return `dims` from a stored state."""
        return _dims(TabularPreprocessor.from_state(state["preparation"]), Target.from_state(state["target"]))

    @classmethod
    def add_predict_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """What can be asked of a run."""
        parser.add_argument("file", metavar="FILE", help="a table of new rows, with the columns of the training table")
        parser.add_argument("--id", metavar="COLUMN", help="the column that names the rows in the answer")

    @classmethod
    def predict(
        cls, state: Mapping[str, Any], models: Sequence[Model], arguments: argparse.Namespace
    ) -> pd.DataFrame | None:
        """Answer with the rows' ids and what is predicted for them."""
        table = read_table(user_path(arguments.file))
        return cls.answers(state, models).predict(table, id=arguments.id, place=arguments.file)

    @classmethod
    def answers(cls, state: Mapping[str, Any], models: Sequence[Model]) -> TableAnswers:
        """Answer with the rows' ids and what is predicted for them."""
        return TableAnswers(state, models)

    @classmethod
    def examples(cls, state: Mapping[str, Any], count: int) -> Mapping[str, Example]:
        """Rows of any levels, missing ones among them, and of standardised numbers."""
        preparation, generator = (
            TabularPreprocessor.from_state(state["preparation"]),
            torch.Generator().manual_seed(count),
        )
        levels = torch.tensor(list(preparation.cardinalities.values()))
        codes = (torch.rand(count, len(levels), generator=generator) * levels).to(torch.int32)
        numbers = torch.randn(count, len(preparation.continuous), generator=generator)
        return {"codes": Example(codes, ("rows", None)), "numbers": Example(numbers, ("rows", None))}

    def _check_settings(self, table: TabularTable) -> None:
        """Compare the task's settings with the kind of the target, which is known only now."""
        target = table.target
        known = target.known_metrics
        for name in self.metric_names or []:
            if name not in known:
                raise ConfigError(
                    f"task.metrics: {name} is no metric of a {target.kind} target; {did_you_mean(name, known)}"
                )
        if self.loss_name not in target.losses:
            raise ConfigError(f"task.loss: {self.loss_name} is for numbers; a {target.kind} target has cross entropy")
        if not isinstance(target, Regression) and self.correction != 1:
            raise ConfigError("task.correction: is for targets that are numbers; set it to 1")
        if self.loss_name == "squared_percentage" and (table.values == 0).any():
            zeros = int((table.values == 0).sum())
            raise DataError(f"task.loss: {zeros:,} targets are 0, of which there are no percentages; leave them out")


class TableAnswers:
    """Answers about the rows of tables.

    Args:
        state: what the task stored.
        models: trained models of tables; the answers of several are averaged.
    """

    example = 'predictor.predict(pandas.read_csv("new.csv"))'
    limits = (
        "Levels that training has not seen are taken as missing, missing numbers as the median of the training rows.",
    )

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        self.state, self.models = state, models

    def predict(self, table: pd.DataFrame, *, id: str | None = None, place: str = THE_TABLE) -> pd.DataFrame:
        """Return a row for each row of a table: its id, or place, and what is predicted.

        Args:
            table: with the columns of the training table, without the target.
            id: the column that names the rows; by default that of the run.
            place: what the table is called in messages.

        Raises:
            ConfigError: there is no such column, or it is no table.
            DataError: a column that the run was trained on is missing, or holds no numbers.
        """
        check_table(table)
        name = id or self.state["id"]
        if id and id not in table.columns:
            raise ConfigError(f"id: {place} has no column {id!r}; {did_you_mean(str(id), map(str, table))}")
        ids = table[[name]] if name in table.columns else pd.DataFrame({"row": np.arange(len(table))}, table.index)
        return self.of_rows(rows_to_predict(table, self.state["recipe"], Path(place)), ids, place)

    def of_rows(self, rows: pd.DataFrame, ids: pd.DataFrame, place: str) -> pd.DataFrame:
        """Predict for rows that have all columns the run was trained on, and tell what training had not seen."""
        state = self.state
        preparation, target = TabularPreprocessor.from_state(state["preparation"]), Target.from_state(state["target"])
        notes = preparation.check(rows, place)
        outputs = predict_rows(preparation, target, self.models, rows)
        taken = target.answers(outputs, target.names[0] if len(target.names) == 1 else "", state["correction"])
        return with_notes(pd.concat([ids, taken.set_axis(ids.index)], axis=1), notes)


def _dims(preparation: TabularPreprocessor, target: Target) -> TabularDims:
    fitted = target.statistics()
    return TabularDims(
        cardinalities=preparation.cardinalities,
        num_continuous=len(preparation.continuous),
        num_outputs=target.num_outputs,
        target_low=fitted.get("low"),
        target_high=fitted.get("high"),
        target_mean=fitted.get("middle", 0.0),
    )


@torch.inference_mode()
def predict_rows(
    preparation: TabularPreprocessor,
    target: Target,
    models: Sequence[Model],
    rows: pd.DataFrame,
    batch_size: int = 8192,
) -> Tensor:
    """Return the outputs for rows, averaged over the models of an ensemble, of shape [rows] or [rows, outputs]."""
    device = next(models[0].parameters()).device
    codes = torch.from_numpy(preparation.codes(rows)).to(device)
    numbers = torch.from_numpy(preparation.numbers(rows)).to(device)
    members = []
    for model in models:
        model.eval()
        parts = [
            forward_pass(model, *part).outputs
            for part in zip(torch.split(codes, batch_size), torch.split(numbers, batch_size), strict=True)
        ]
        members.append(torch.cat(parts).float().cpu())
    return target.average(members)
