"""Predictions of daily sales for rows in the format of Kaggle's test.csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dlrunner.data.core.columns import date_column
from dlrunner.data.core.input_columns import append_predictions, input_columns
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.rossmann.dataset import surroundings_from
from dlrunner.data.rossmann.features import ROW_COLUMNS, Surroundings, day_numbers, features
from dlrunner.data.tables.inference import Hints, commonest_dates, infer
from dlrunner.data.tables.raw import table_from_frame
from dlrunner.data.tables.reading import BadRow, bad_mask
from dlrunner.data.tables.schema import Column, Schema
from dlrunner.data.tables.table import Table, read_frame
from dlrunner.data.tabular.history_columns import add_history, without_history
from dlrunner.data.tabular.new_rows import NO_HISTORY
from dlrunner.errors import DataError
from dlrunner.prediction_table import with_notes, with_problems
from dlrunner.predictor import RowField
from dlrunner.predictor_inputs import check_table, table_name
from dlrunner.tasks.tabular.predictor import TablePredictor

NUMBERS = ("Store", "DayOfWeek", "Promo", "SchoolHoliday", "Open")
"""Columns of test.csv."""
NEEDED = ("Store", "DayOfWeek", "Date", "Promo", "SchoolHoliday")
"""Columns without which a row has no prediction."""
FARTHEST = 3653
"""Days from those of the training tables; the calendar in memory has all days between."""


class SalesPredictor(TablePredictor):
    """Predicts daily sales; the run stores the stores, weather, trends, holidays and promotions it needs."""

    def predict(self, table: pd.DataFrame, *, only: list[str] | None = None) -> pd.DataFrame:
        """Predict the Sales of each row, next to its columns; with only Id in Kaggle's submission format.

            predictor.predict(pandas.read_csv("test.csv"), only=["Id"])

        Args:
            table: rows in the format of test.csv: Id, Store, Date, Promo, Open …
            only: columns of the input next to the predictions, instead of all; none: predictions alone.

        Raises:
            DataError: a column is missing, or no row can be read.
        """
        check_table(table)
        name = table_name(table)
        missing = [column for column in ROW_COLUMNS if column not in table.columns]
        if missing:
            raise DataError(f"{name} is missing the column(s) {', '.join(missing)}; expected the format of test.csv")
        given, inputs = table.columns, input_columns(table, only, "Id")
        known = surroundings_from(self.state["recipe"])
        read, where = _read(table, Path(name)), RowLocations.within_files(table)
        table, used = read.frame, [bad for bad in read.bad if bad.column in (*ROW_COLUMNS, "Open")]
        used = sorted([*used, *_impossible(table, known, self.state["recipe"], used)], key=lambda bad: bad.row)
        is_bad = bad_mask(used, len(table))
        if is_bad.all():
            raise DataError(f"{read.rows.at(used[0].row)}: {used[0].reason}; no other row is left")
        # In place of a bad row another one is predicted, which changes no event of its store.
        table = table.iloc[np.where(is_bad, is_bad.argmin(), np.arange(len(table)))].reset_index(drop=True)
        table["Date"] = date_column(table["Date"], "Date", read.rows)
        chosen = {name: bool(self.state["recipe"].get(name)) for name in ("lesson", "open_days")}
        rows = features(table, known.with_rows(table), **chosen)
        rows = add_history(rows, day_numbers(table["Date"]), self.state["recipe"])
        answer = self._predict_rows(rows, read.rows, given)
        sales = list(map(str, answer))  # one column, or one for each quantile
        notes = list(filter(None, [answer.attrs.get("note")]))
        if "Open" in table.columns:
            opened = pd.to_numeric(table["Open"], errors="coerce")
            if opened.isna().any():
                stores = ", ".join(map(str, pd.unique(table["Store"][opened.isna()])))
                notes.append(f"{int(opened.isna().sum())} rows have no value in Open (store {stores}): assumed open")
            closed = (opened == 0).to_numpy()
            for each in sales:
                answer[each] = np.where(closed, 0.0, answer[each])
            notes.append(f"{int(closed.sum()):,} rows of closed stores: Sales set to 0")
        for each in sales:
            answer[each] = answer[each].round(2)
        problems = [(bad.row, bad.reason) for bad in used]
        answer = with_notes(append_predictions(inputs, answer), notes)
        return with_problems(answer, list(answer.columns[: inputs.shape[1]]), problems, where)

    def _ids(self, rows: pd.DataFrame) -> list[str]:
        return ["Id"] if "Id" in rows else []

    def row_fields(self) -> Sequence[RowField]:
        """Return the columns of test.csv."""
        examples = {"Store": 1, "DayOfWeek": 5, "Promo": 1, "SchoolHoliday": 0}
        texts = {"Date": "2015-09-04", "StateHoliday": "0"}
        return [
            *(RowField(name, "text", example=texts[name]) for name in ROW_COLUMNS if name in texts),
            *(RowField(name, "number", example=examples[name]) for name in ROW_COLUMNS if name in examples),
            RowField("Open", "number", True, is_optional=True, example=1),
            RowField("Id", "number", is_optional=True, description="of the row, in the answer", example=1),
        ]


def _impossible(
    table: pd.DataFrame, known: Surroundings, recipe: Mapping[str, Any], bad: Sequence[BadRow]
) -> Iterator[BadRow]:
    """Yield what keeps rows whose values can be read from a prediction."""
    listed = {(each.row, each.column) for each in bad}
    for name in NEEDED:
        for row in map(int, np.flatnonzero(table[name].isna())):
            if (row, name) not in listed:
                yield BadRow(row, name, f"{name} is missing")
    unknown = table["Store"].notna() & ~table["Store"].isin(known.stores["Store"])
    for row in map(int, np.flatnonzero(unknown)):
        yield BadRow(row, "Store", f"store.csv has no row for store {table['Store'].iloc[row]:g}")
    assert known.calendar is not None
    first, num_days = known.calendar.first_day, known.calendar.events.shape[2]
    dates = pd.to_datetime(table["Date"], errors="coerce")
    days = day_numbers(dates)
    far = (days < first - FARTHEST) | (days >= first + num_days + FARTHEST)
    for row in map(int, np.flatnonzero(far & dates.notna().to_numpy())):
        yield BadRow(row, "Date", f"Date is {dates.iloc[row]:%Y-%m-%d}, years away from all days that are known")
    if "history" in recipe:
        early = without_history(days, recipe) & ~far & dates.notna().to_numpy()
        for row in map(int, np.flatnonzero(early)):
            yield BadRow(row, "Date", NO_HISTORY)


def _read(table: pd.DataFrame, place: Path) -> Table:
    """Return rows in the format of test.csv, whose dates and numbers are none of text because of a bad value."""
    names = list(map(str, table.columns))
    try:
        read = read_frame(table, None, names, place, dates=["Date"])
    except DataError:
        with table_from_frame(table, place) as raw:
            found = commonest_dates(raw, "Date") if raw.type_of("Date") == "VARCHAR" else None
            if found is None:
                raise
            schema = infer(raw, Hints(text=["Date"])).with_column(found[0])
        read = read_frame(table, Schema(schema.columns), names, place)
    texts = [name for name in NUMBERS if name in names and read.schema[name].type == "text"]
    if not texts:
        return read
    columns = [Column(each.name, "integer") if each.name in texts else each for each in read.schema.columns]
    return read_frame(table, Schema(tuple(columns)), names, place)
