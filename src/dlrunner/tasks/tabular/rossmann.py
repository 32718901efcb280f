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
from dlrunner.data.tables.table import read_frame
from dlrunner.errors import DataError
from dlrunner.prediction_table import with_notes
from dlrunner.predictor_inputs import check_table, table_name
from dlrunner.tasks.tabular.predictor import TablePredictor
from dlrunner.tasks.tabular.task import Tabular


class SalesPredictor(TablePredictor):
    """Predicts daily sales; the run stores the stores, weather, trends, holidays and promotions it needs."""

    def predict(self, table: pd.DataFrame, *, id: str | None = None) -> pd.DataFrame:
        """Predict Id and Sales of each row, in Kaggle's submission format.

            predictor.predict(pandas.read_csv("test.csv"))

        Args:
            table: rows in the format of test.csv: Id, Store, Date, Promo, Open …; without Id, store and date are ids.
            id: column of row ids in the output.

        Raises:
            DataError: a column is missing or invalid.
        """
        check_table(table)
        name = table_name(table)
        missing = [column for column in (*ROW_COLUMNS, *([id] if id else [])) if column not in table.columns]
        if missing:
            raise DataError(f"{name} is missing the column(s) {', '.join(missing)}; expected the format of test.csv")
        table = read_frame(table, None, list(map(str, table.columns)), Path(name), dates=["Date"]).frame
        table["Date"] = date_column(table["Date"], "Date", Path(name))
        rows = features(table, surroundings_from(self.state["recipe"]).with_rows(table))
        ids = table[[id]] if id else table[["Id"]] if "Id" in table.columns else table[["Store", "Date"]]
        answer = self._predict_rows(rows, ids, name)
        notes = []
        if "Open" in table.columns:
            opened = pd.to_numeric(table["Open"], errors="coerce")
            if opened.isna().any():
                stores = ", ".join(map(str, pd.unique(table["Store"][opened.isna()])))
                notes.append(f"{int(opened.isna().sum())} rows have no value in Open (store {stores}): assumed open")
            closed = (opened == 0).to_numpy()
            answer["Sales"] = np.where(closed, 0.0, answer["Sales"])
            notes.append(f"{int(closed.sum()):,} rows of closed stores: Sales set to 0")
        answer["Sales"] = answer["Sales"].round(2)
        return with_notes(answer, notes)


class Rossmann(Tabular):
    """The tabular task with predictions in Kaggle's format: Id and Sales, 0 for closed days."""

    predictor = SalesPredictor

    def category_name(self, column: str, category: Any) -> str:
        """Return names of weekdays and months."""
        if column == "DayOfWeek":
            return calendar.day_abbr[int(category) - 1]
        return calendar.month_abbr[int(category)] if column == "Month" else str(category)
