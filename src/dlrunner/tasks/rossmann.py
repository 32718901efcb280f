"""Rossmann Store Sales: what a store sells on a day."""

from __future__ import annotations

import argparse
import calendar
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dlrunner.data.columns import date_column
from dlrunner.data.rossmann import surroundings_from
from dlrunner.data.rossmann_features import ROW_COLUMNS, features
from dlrunner.data.tables import read_table
from dlrunner.errors import DataError
from dlrunner.model import Model
from dlrunner.tasks.tabular import Tabular


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

    @classmethod
    def predict(
        cls, state: Mapping[str, Any], models: Sequence[Model], arguments: argparse.Namespace
    ) -> pd.DataFrame | None:
        """Answer with Id and Sales."""
        place = Path(arguments.file)
        table = read_table(place)
        lacking = [name for name in ROW_COLUMNS if name not in table.columns]
        if lacking:
            raise DataError(f"{place} lacks the column(s) {', '.join(lacking)}; it must look like Rossmann's test.csv")
        table["Date"] = date_column(table["Date"], "Date", place)
        rows = features(table, surroundings_from(state["recipe"]).with_rows(table))
        ids = table[["Id"]] if "Id" in table.columns else table[["Store", "Date"]]
        found = cls.answer({**state, "recipe": {"dates": []}}, models, rows, ids, place)
        notes = [found.attrs["note"]] if "note" in found.attrs else []
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
        if notes:
            found.attrs["note"] = "\n".join(notes)
        return found
