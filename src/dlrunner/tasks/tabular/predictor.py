"""Predictions of a trained tabular model for new rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dlrunner.data.core.input_columns import beside, input_columns
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.new_rows import row_names, rows_to_predict
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.model import Example, Model, forward_pass
from dlrunner.models.tabular_layers import TabularDims
from dlrunner.prediction_table import with_notes, with_problems
from dlrunner.predictor import Predictor
from dlrunner.predictor_inputs import check_table, table_name
from dlrunner.row_blocks import in_blocks


class TablePredictor(Predictor):
    """Predicts rows of a table; an ensemble averages its models."""

    example = 'predictor.predict(pandas.read_csv("new.csv"))'
    limits = (
        "Categories not seen in training count as missing; missing numbers become the median of the training rows.",
    )

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> TabularDims:
        """Cardinalities, number of continuous columns and of outputs."""
        return dims_of(TabularPreprocessor.from_state(state["preparation"]), Target.from_state(state["target"]))

    def examples(self, count: int) -> Mapping[str, Example]:
        """Rows of random categories, missing ones included, and standardised numbers."""
        generator = torch.Generator().manual_seed(count)
        preparation = TabularPreprocessor.from_state(self.state["preparation"])
        cardinalities = torch.tensor(list(preparation.cardinalities.values()))
        codes = (torch.rand(count, len(cardinalities), generator=generator) * cardinalities).to(torch.int32)
        numbers = torch.randn(count, preparation.num_numbers, generator=generator)
        return {"codes": Example(codes, ("rows", None)), "numbers": Example(numbers, ("rows", None))}

    def predict(self, table: pd.DataFrame, *, id: str | None = None, only: list[str] | None = None) -> pd.DataFrame:
        """Predict each row of a table: its columns and the prediction; one that cannot be read has a reason.

            predictor.predict(pandas.read_csv("new.csv"), only=["nr"])

        Args:
            table: new rows with the columns of the training table except the target.
            id: column of row ids, which then stands alone beside the predictions.
            only: columns of the input beside the predictions, instead of all; none: predictions alone.

        Raises:
            ConfigError: a column does not exist, or the argument is not a table.
            DataError: a column that the run was trained on is missing.
        """
        check_table(table)
        name = id or self.state["id"] or next(iter(row_names(self.state["recipe"])), None)
        if id and id not in table.columns:
            raise ConfigError(f"id: {table_name(table)} has no column {id!r}; {did_you_mean(id, map(str, table))}")
        inputs = input_columns(table, [id] if id and only is None else only, name)
        preparation = TabularPreprocessor.from_state(self.state["preparation"])
        names = list(dict.fromkeys([*preparation.levels, *preparation.means]))
        rows = rows_to_predict(table, self.state["recipe"], names, Path(table_name(table)))
        # A category that is no number, where all others are, is one that was not seen.
        problems = [(each.row, each.reason) for each in rows.bad if each.column not in preparation.levels]
        unseen = [each for each in rows.bad if each.column in preparation.levels]
        notes = [
            f"{name}: {sum(each.column == name for each in unseen):,} row(s) with categories not seen in training "
            f"({next(each.reason for each in unseen if each.column == name)})"
            for name in dict.fromkeys(each.column for each in unseen)
        ]
        predicted = self._predict_rows(rows.frame, rows.rows, table.columns)
        answer = with_notes(beside(inputs, predicted), [*filter(None, [predicted.attrs.get("note")])])
        own, where = list(answer.columns[: inputs.shape[1]]), RowLocations.within_files(table)
        return with_notes(with_problems(answer, own, problems, where), [*rows.notes, *notes])

    def _predict_rows(self, rows: pd.DataFrame, place: RowLocations, given: Collection[str]) -> pd.DataFrame:
        """Predict rows with all training columns; notes list unseen categories.

        A single prediction has the name of the target, unless a given column has it.
        """
        state = self.state
        preparation, target = TabularPreprocessor.from_state(state["preparation"]), Target.from_state(state["target"])
        notes = preparation.check(rows, place)
        outputs = predict_rows(preparation, target, self.models, rows)
        name = "prediction" if target.names[0] in given else target.names[0]
        return with_notes(target.answers(outputs, name if len(target.names) == 1 else "", state["correction"]), notes)


def dims_of(preparation: TabularPreprocessor, target: Target) -> TabularDims:
    """Return the sizes that a tabular model needs."""
    fitted = target.statistics()
    return TabularDims(
        cardinalities=preparation.cardinalities,
        num_continuous=len(preparation.continuous),
        num_outputs=target.num_outputs,
        continuous=preparation.continuous,
        target_low=fitted.get("low"),
        target_high=fitted.get("high"),
        target_mean=fitted.get("middle", 0.0),
        quantiles=[preparation.quantiles.get(name, []) for name in preparation.continuous],
        target=target,
        has_base=preparation.base is not None,
    )


@torch.inference_mode()
def predict_rows(
    preparation: TabularPreprocessor,
    target: Target,
    models: Sequence[Model],
    rows: pd.DataFrame,
) -> Tensor:
    """Return the outputs for rows, averaged over the models of an ensemble, of shape [rows] or [rows, outputs]."""
    device = next(models[0].parameters()).device
    codes = torch.from_numpy(preparation.codes(rows)).to(device)
    numbers = torch.from_numpy(preparation.numbers(rows)).to(device)
    for model in models:
        model.eval()

    def averaged(*inputs: Tensor) -> Tensor:
        return target.average([forward_pass(model, *inputs).outputs.float() for model in models])

    return in_blocks(averaged, codes, numbers).cpu()
