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
from dlrunner.errors import DataError
from dlrunner.tasks.common.inputs import check_table, file_of, with_notes
from dlrunner.tasks.tabular.predictor import TablePredictor
from dlrunner.tasks.tabular.task import Tabular


class SalesPredictor(TablePredictor):
    """Answers about days of stores, for which the run keeps stores, weather, trends, holidays and promotions."""

    def predict(self, table: pd.DataFrame, *, id: str | None = None) -> pd.DataFrame:
        """Return Id and Sales of each row.

            predictor.predict(pandas.read_csv("test.csv"))

        Args:
            table: rows like those of test.csv: Id, Store, Date, Promo, Open …; without Id, store and date name them.
            id: the column that names the rows in the answer.

        Raises:
            DataError: a column is missing, or holds what it should not.
        """
        check_table(table)
        place = file_of(table)
        lacking = [name for name in (*ROW_COLUMNS, *([id] if id else [])) if name not in table.columns]
        if lacking:
            raise DataError(f"{place} lacks the column(s) {', '.join(lacking)}; it must look like Rossmann's test.csv")
        table = table.assign(Date=date_column(table["Date"], "Date", Path(place)))
        rows = features(table, surroundings_from(self.state["recipe"]).with_rows(table))
        ids = table[[id]] if id else table[["Id"]] if "Id" in table.columns else table[["Store", "Date"]]
        found = self._of_rows(rows, ids, place)
        notes = []
        if "Open" in table.columns:
            opened = pd.to_numeric(table["Open"], errors="coerce")
            if opened.isna().any():
                shops = ", ".join(map(str, pd.unique(table["Store"][opened.isna()])))
                notes.append(
                    f"{int(opened.isna().sum())} rows do not say whether the store is open (store {shops}): "
                    "they are taken as open"
                )
            closed = (opened == 0).to_numpy()
            found["Sales"] = np.where(closed, 0.0, found["Sales"])
            notes.append(f"{int(closed.sum()):,} rows are of closed stores: 0")
        found["Sales"] = found["Sales"].round(2)
        return with_notes(found, notes)


class Rossmann(Tabular):
    """The tabular task, which answers for test.csv as Kaggle wants it: Id and Sales, 0 for closed days."""

    predictor = SalesPredictor

    def level_name(self, column: str, level: Any) -> str:
        """Call weekdays and months by their names."""
        if column == "DayOfWeek":
            return calendar.day_abbr[int(level) - 1]
        return calendar.month_abbr[int(level)] if column == "Month" else str(level)
