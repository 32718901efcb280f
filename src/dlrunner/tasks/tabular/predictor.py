"""What a trained model of a table predicts for new rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.dataset import rows_to_predict
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.model import Example, Model, forward_pass
from dlrunner.models.tabular import TabularDims
from dlrunner.predictor import Predictor
from dlrunner.tasks.common.inputs import check_table, file_of, with_notes


class TablePredictor(Predictor):
    """Answers about the rows of tables; those of several models are averaged."""

    example = 'predictor.predict(pandas.read_csv("new.csv"))'
    limits = (
        "Levels that training has not seen are taken as missing, missing numbers as the median of the training rows.",
    )

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> TabularDims:
        """Sizes of the categories, numbers and outputs."""
        return dims_of(TabularPreprocessor.from_state(state["preparation"]), Target.from_state(state["target"]))

    def examples(self, count: int) -> Mapping[str, Example]:
        """Rows of any levels, missing ones among them, and of standardised numbers."""
        generator = torch.Generator().manual_seed(count)
        preparation = TabularPreprocessor.from_state(self.state["preparation"])
        levels = torch.tensor(list(preparation.cardinalities.values()))
        codes = (torch.rand(count, len(levels), generator=generator) * levels).to(torch.int32)
        numbers = torch.randn(count, len(preparation.continuous), generator=generator)
        return {"codes": Example(codes, ("rows", None)), "numbers": Example(numbers, ("rows", None))}

    def predict(self, table: pd.DataFrame, *, id: str | None = None) -> pd.DataFrame:
        """Return a row for each row of a table: its id, or its number, and what is predicted.

            predictor.predict(pandas.read_csv("new.csv"), id="nr")

        Args:
            table: new rows, with the columns of the training table without the target.
            id: the column that names the rows in the answer; by default that of the run.

        Raises:
            ConfigError: there is no such column, or it is no table.
            DataError: a column that the run was trained on is missing, or holds no numbers.
        """
        check_table(table)
        name = id or self.state["id"]
        if id and id not in table.columns:
            raise ConfigError(f"id: {file_of(table)} has no column {id!r}; {did_you_mean(id, map(str, table))}")
        ids = table[[name]] if name in table.columns else pd.DataFrame({"row": np.arange(len(table))}, table.index)
        rows = rows_to_predict(table, self.state["recipe"], Path(file_of(table)))
        return self._of_rows(rows, ids, file_of(table))

    def _of_rows(self, rows: pd.DataFrame, ids: pd.DataFrame, place: str) -> pd.DataFrame:
        """Predict for rows that have all columns the run was trained on, and tell what training had not seen."""
        state = self.state
        preparation, target = TabularPreprocessor.from_state(state["preparation"]), Target.from_state(state["target"])
        notes = preparation.check(rows, place)
        outputs = predict_rows(preparation, target, self.models, rows)
        taken = target.answers(outputs, target.names[0] if len(target.names) == 1 else "", state["correction"])
        return with_notes(pd.concat([ids, taken.set_axis(ids.index)], axis=1), notes)


def dims_of(preparation: TabularPreprocessor, target: Target) -> TabularDims:
    """Return the sizes that a model of a table needs."""
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
