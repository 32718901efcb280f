"""Predictions of a trained tabular model for new rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dlrunner.data.core.input_columns import append_predictions, input_columns
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.targets import Target
from dlrunner.data.tables.schema import Schema
from dlrunner.data.tables.table import read_frame
from dlrunner.data.tabular.new_rows import lag_target, needed_columns, part_names, row_names, rows_to_predict
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.model import Example, Model, forward_pass
from dlrunner.models.tabular_layers import TabularDims
from dlrunner.prediction_table import with_notes, with_problems
from dlrunner.predictor import Predictor, RowField
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
        return TabularDims.of(TabularPreprocessor.from_state(state["preparation"]), Target.from_state(state["target"]))

    def examples(self, count: int) -> Mapping[str, Example]:
        """Rows of random categories, missing ones included, and standardised numbers."""
        generator = torch.Generator().manual_seed(count)
        preparation = TabularPreprocessor.from_state(self.state["preparation"])
        cardinalities = torch.tensor(list(preparation.cardinalities.values()))
        codes = (torch.rand(count, len(cardinalities), generator=generator) * cardinalities).to(torch.int32)
        numbers = torch.randn(count, preparation.num_numbers, generator=generator)
        return {"codes": Example(codes, ("rows", None)), "numbers": Example(numbers, ("rows", None))}

    def predict(self, table: pd.DataFrame, *, only: list[str] | None = None) -> pd.DataFrame:
        """Predict each row of a table: its columns and the prediction; one that cannot be read has a reason.

            predictor.predict(pandas.read_csv("new.csv"), only=["nr"])

        Args:
            table: new rows with the columns of the training table except the target.
            only: columns of the input next to the predictions, instead of all; none: predictions alone.

        Raises:
            ConfigError: a column does not exist, or the argument is not a table.
            DataError: a column that the run was trained on is missing.
        """
        check_table(table)
        inputs = input_columns(table, only, self.state["id"] or next(iter(row_names(self.state["recipe"])), None))
        preparation = TabularPreprocessor.from_state(self.state["preparation"])
        rows = rows_to_predict(table, self.state["recipe"], self._trained_columns(), Path(table_name(table)))
        # A category that is no number, where all others are, is one that was not seen.
        problems = [(each.row, each.reason) for each in rows.bad if each.column not in preparation.categories]
        unseen = [each for each in rows.bad if each.column in preparation.categories]
        notes = [
            f"{name}: {sum(each.column == name for each in unseen):,} row(s) with categories not seen in training "
            f"({next(each.reason for each in unseen if each.column == name)})"
            for name in dict.fromkeys(each.column for each in unseen)
        ]
        refused = [row for row, _ in problems]
        answer = self._with_columns(inputs, rows.frame, rows.rows, table.columns, refused)
        own, where = list(answer.columns[: inputs.shape[1]]), RowLocations.within_files(table)
        return with_notes(with_problems(answer, own, problems, where), [*rows.notes, *notes])

    @property
    def output_formula(self) -> str:
        """Of the target."""
        return Target.from_state(self.state["target"]).formula(self.state["correction"])

    @property
    def text_columns(self) -> Sequence[str]:
        """Ids, the groups of a forecast, and names of classes."""
        recipe, classes = self.state["recipe"], Target.from_state(self.state["target"]).class_columns
        if "schema" not in recipe:
            return classes
        schema, names = Schema.from_state(recipe["schema"]), row_names(recipe)
        ids = [name] if (name := self.state["id"]) else [each for each in names if schema[each].type == "text"]
        return list(dict.fromkeys([*ids, *classes]))

    def with_types(self, answer: pd.DataFrame) -> pd.DataFrame:
        """Return an answer whose columns of the input that the model reads as numbers are numbers.

        One with a value that is none stays as it is in the file.
        """
        recipe = self.state["recipe"]
        if "schema" not in recipe:  # of a run of an older version
            return answer
        schema = Schema.from_state(recipe["schema"])
        are_numbers = {each.name for each in schema.columns if each.type in ("integer", "number")} - {self.state["id"]}
        inputs = answer.iloc[:, : answer.attrs.get("num_inputs", 0)]
        texts = [name for name in inputs if name in are_numbers and pd.api.types.is_string_dtype(inputs[name])]
        if not texts:
            return answer
        known = pd.DataFrame({name: inputs[name].to_numpy() for name in texts})
        read = read_frame(known, schema, texts, Path("the table"))
        bad = {each.column for each in read.bad}
        typed = answer.assign(**{name: read.frame[name].to_numpy() for name in texts if name not in bad})
        typed.attrs |= answer.attrs
        return typed

    def row_fields(self) -> Sequence[RowField]:
        """Return the columns that the model needs, with their types in the training table, and that of ids."""
        recipe, preparation = self.state["recipe"], TabularPreprocessor.from_state(self.state["preparation"])
        if "schema" not in recipe:  # of a run of an older version
            return ()
        schema = Schema.from_state(recipe["schema"])
        fields = []
        for name in needed_columns(recipe, self._trained_columns())[1]:
            column = schema[name]
            kind: Any = {"integer": "number", "number": "number", "boolean": "boolean"}.get(column.type, "text")
            categories = preparation.categories.get(name) or [None]
            example = categories[0] if name in preparation.categories else preparation.medians.get(name)
            if kind == "text" and example is not None:
                example = str(example)
            described = column.described() if kind == "text" and column.type != "text" else ""
            fields.append(RowField(name, kind, name != recipe.get("date"), description=described, example=example))
        if target := lag_target(recipe):
            known = "where it is known: later rows of the request use it"
            fields.append(RowField(target, "number", True, is_optional=True, description=known))
        taken = {each.name for each in fields}
        if (name := self.state["id"]) and name not in taken:
            fields.append(RowField(name, "id", True, is_optional=True, description="of the row, in the answer"))
        return fields

    def predict_request(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Predict the rows of a request, with its ids."""
        return self.predict(rows, only=self._ids(rows))

    def predict_requests(self, requests: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
        """Read the rows of all requests at once, which takes as long as reading one of them.

        Requests are read one by one where rows depend on others of their table (forecasts), and where any is reported.
        """
        recipe = self.state["recipe"]
        if len(requests) == 1 or "date" in recipe or type(self).predict is not TablePredictor.predict:
            return super().predict_requests(requests)
        names = self._trained_columns()
        needed = needed_columns(recipe, names)[1]
        together = pd.concat([rows[needed] for rows in requests], ignore_index=True)
        read = rows_to_predict(together, recipe, names, Path(table_name(together)))
        if read.bad or read.notes:
            return super().predict_requests(requests)
        whole = {each.name for each in read.schema.columns if each.type == "integer"} | part_names(recipe)
        answers, start = [], 0
        for rows in requests:
            part = read.frame.iloc[start : start + len(rows)].reset_index(drop=True)
            start += len(rows)
            # A column of whole numbers holds floats where another request has a missing value.
            floats = [name for name in whole if name in part and part[name].dtype == "float64"]
            part = part.astype({name: "int64" for name in floats if part[name].notna().all()})
            inputs = input_columns(rows, self._ids(rows), None)
            answers.append(self._with_columns(inputs, part, RowLocations.of_frame(rows), rows.columns))
        return answers

    def _trained_columns(self) -> list[str]:
        """Return the columns that the model was trained on, parts of dates among them."""
        preparation = TabularPreprocessor.from_state(self.state["preparation"])
        return list(dict.fromkeys([*preparation.categories, *preparation.means]))

    def _ids(self, rows: pd.DataFrame) -> list[str]:
        """Return the columns of a request that say which row a prediction is of."""
        names = [name] if (name := self.state["id"]) else row_names(self.state["recipe"])
        return [name for name in names if name in rows]

    def _with_columns(
        self,
        inputs: pd.DataFrame,
        rows: pd.DataFrame,
        place: RowLocations,
        given: Collection[str],
        refused: Sequence[int] = (),
    ) -> pd.DataFrame:
        """Return predictions next to columns of the input, with their notes."""
        predicted = self._predict_rows(rows, place, given, refused)
        return with_notes(append_predictions(inputs, predicted), [*filter(None, [predicted.attrs.get("note")])])

    def _predict_rows(
        self, rows: pd.DataFrame, place: RowLocations, given: Collection[str], refused: Sequence[int] = ()
    ) -> pd.DataFrame:
        """Predict rows with all training columns; notes tell what is new in those that are not refused.

        A single prediction has the name of the target, unless a given column has it.
        """
        state = self.state
        preparation, target = TabularPreprocessor.from_state(state["preparation"]), Target.from_state(state["target"])
        counted = np.ones(len(rows), dtype=bool)
        counted[[*refused]] = False
        notes = preparation.check(rows, place, counted)
        outputs = predict_rows(preparation, target, self.models, rows)
        name = "prediction" if target.names[0] in given else target.names[0]
        return with_notes(target.answers(outputs, name if len(target.names) == 1 else "", state["correction"]), notes)


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
