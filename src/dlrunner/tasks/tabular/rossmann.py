"""Rossmann Store Sales: what a store sells on a day."""

from __future__ import annotations

import argparse
import calendar
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dlrunner.data.core.columns import date_column
from dlrunner.data.rossmann.dataset import surroundings_from
from dlrunner.data.rossmann.features import ROW_COLUMNS, features
from dlrunner.errors import DataError
from dlrunner.model import Model
from dlrunner.tasks.common.inputs import THE_TABLE, check_table, with_notes
from dlrunner.tasks.tabular.task import TableAnswers, Tabular


class Rossmann(Tabular):
    """The tabular task, which answers for test.csv as Kaggle wants it: Id and Sales, 0 for closed days."""

    def level_name(self, column: str, level: Any) -> str:
        """Call weekdays and months by their names."""
        if column == "DayOfWeek":
            return calendar.day_abbr[int(level) - 1]
        return calendar.month_abbr[int(level)] if column == "Month" else str(level)

    @classmethod
    def add_predict_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """What can be asked of a run."""
        parser.add_argument(
            "file", metavar="FILE", help=f"rows like those of test.csv: Id, {', '.join(ROW_COLUMNS)}, Open"
        )
        parser.set_defaults(id=None)  # the answers are named as Kaggle wants it

    @classmethod
    def answers(cls, state: Mapping[str, Any], models: Sequence[Model]) -> SalesAnswers:
        """Answer with Id and Sales."""
        return SalesAnswers(state, models)


class SalesAnswers(TableAnswers):
    """Answers about days of stores, for which the run keeps stores, weather, trends, holidays and promotions."""

    def predict(self, table: pd.DataFrame, *, id: str | None = None, place: str = THE_TABLE) -> pd.DataFrame:
        """Return Id and Sales of each row.

        Args:
            table: rows like those of test.csv; without Id, store and date name them.
            id: the column that names the rows.
            place: what the table is called in messages.

        Raises:
            DataError: a column is missing, or holds what it should not.
        """
        check_table(table)
        lacking = [name for name in (*ROW_COLUMNS, *([id] if id else [])) if name not in table.columns]
        if lacking:
            raise DataError(f"{place} lacks the column(s) {', '.join(lacking)}; it must look like Rossmann's test.csv")
        table = table.assign(Date=date_column(table["Date"], "Date", Path(place)))
        rows = features(table, surroundings_from(self.state["recipe"]).with_rows(table))
        ids = table[[id]] if id else table[["Id"]] if "Id" in table.columns else table[["Store", "Date"]]
        found = self.of_rows(rows, ids, place)
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
