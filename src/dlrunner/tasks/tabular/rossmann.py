"""Rossmann Store Sales: what a store sells on a day."""

from __future__ import annotations

import calendar
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dlrunner.data.core.columns import date_column
from dlrunner.data.rossmann.dataset import surroundings_from
from dlrunner.data.rossmann.features import ROW_COLUMNS, features
from dlrunner.data.tables.reading import bad_mask
from dlrunner.data.tables.schema import Column, Schema
from dlrunner.data.tables.table import Table, read_frame
from dlrunner.errors import DataError
from dlrunner.prediction_table import with_notes, with_problems
from dlrunner.predictor_inputs import check_table, table_name
from dlrunner.tasks.tabular.predictor import TablePredictor
from dlrunner.tasks.tabular.task import Tabular

NUMBERS = ("Store", "DayOfWeek", "Promo", "SchoolHoliday", "Open")
"""Columns of test.csv."""


class SalesPredictor(TablePredictor):
    """Predicts daily sales; the run stores the stores, weather, trends, holidays and promotions it needs."""

    def predict(self, table: pd.DataFrame, *, id: str | None = None) -> pd.DataFrame:
        """Predict Id and Sales of each row, in Kaggle's submission format.

            predictor.predict(pandas.read_csv("test.csv"))

        Args:
            table: rows in the format of test.csv: Id, Store, Date, Promo, Open …; without Id, store and date are ids.
            id: column of row ids in the output.

        Raises:
            DataError: a column is missing, a date is none, or no row can be read.
        """
        check_table(table)
        name = table_name(table)
        missing = [column for column in (*ROW_COLUMNS, *([id] if id else [])) if column not in table.columns]
        if missing:
            raise DataError(f"{name} is missing the column(s) {', '.join(missing)}; expected the format of test.csv")
        read = _read(table, Path(name))
        table, used = read.frame, [bad for bad in read.bad if bad.column in (*ROW_COLUMNS, "Open")]
        table["Date"] = date_column(table["Date"], "Date", Path(name))
        ids = table[[id]] if id else table[["Id"]] if "Id" in table.columns else table[["Store", "Date"]]
        is_bad = bad_mask(used, len(table))
        if is_bad.all():
            raise DataError(f"{name}, row {used[0].row + 2}: {used[0].reason}; no other row is left")
        # In place of a bad row another one is predicted, which changes no event of its store.
        table = table.iloc[np.where(is_bad, is_bad.argmin(), np.arange(len(table)))].reset_index(drop=True)
        rows = features(table, surroundings_from(self.state["recipe"]).with_rows(table))
        answer = self._predict_rows(rows, ids, name)
        sales = [str(name) for name in answer if name not in ids]  # one column, or one for each quantile
        notes = []
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
        return with_problems(with_notes(answer, notes), list(ids.columns), problems)


def _read(table: pd.DataFrame, place: Path) -> Table:
    """Return rows in the format of test.csv, whose columns of numbers are none of text because of a bad value."""
    names = list(map(str, table.columns))
    read = read_frame(table, None, names, place, dates=["Date"])
    texts = [name for name in NUMBERS if name in names and read.schema[name].type == "text"]
    if not texts:
        return read
    columns = [Column(each.name, "integer") if each.name in texts else each for each in read.schema.columns]
    return read_frame(table, Schema(tuple(columns)), names, place)


class Rossmann(Tabular):
    """The tabular task with predictions in Kaggle's format: Id and Sales, 0 for closed days."""

    predictor = SalesPredictor

    def category_name(self, column: str, category: Any) -> str:
        """Return names of weekdays and months."""
        if column == "DayOfWeek":
            return calendar.day_abbr[int(category) - 1]
        return calendar.month_abbr[int(category)] if column == "Month" else str(category)
