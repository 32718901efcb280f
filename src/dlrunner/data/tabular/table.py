"""A table that is read and split, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.columns import Roles
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.splitting import Parts, SplitRows
from dlrunner.data.core.targets import Target
from dlrunner.task import Data


@dataclass(frozen=True)
class TabularTable(SplitRows):
    """A table that is read and split: what a task prepares, trains on and draws."""

    frame: pd.DataFrame
    """The input columns as they were read, dates as their parts; the row names stand in `ids`."""
    roles: Roles
    target: Target
    values: NDArray[Any]
    """Targets: float64 of shape [rows], int64 class codes, or 0/1 of shape [rows, labels]."""
    split: Parts
    """TRAIN, VALID or TEST, [rows]."""
    dates: pd.Series[Any] | None = None
    """The day of each row, where the table has one."""
    series: list[str] = field(default_factory=list)
    """Columns that identify the rows of one series, such as a store, where the user named them."""
    ids: pd.DataFrame | None = None
    """What names the rows in predictions.csv."""
    rows: RowLocations = field(default_factory=lambda: RowLocations(Path("the table")))
    """Where they stand in the file."""
    notes: list[str] = field(default_factory=list)
    marked_by: str | None = None
    """The column that says which rows validate."""
    columns: list[dict[str, Any]] = field(default_factory=list)
    """How each column was read and is used (see `data.tables.description`)."""
    of_test: NDArray[np.bool_] | None = None
    """Rows that it calls test, [rows]; if no others are for validation, these are."""
    base: str | None = None
    """A column that the model's outputs are added to, in units of the transformed target (see `history`)."""
    history: list[str] = field(default_factory=list)
    """Columns of numbers that are features of the history."""
    trends: list[str] = field(default_factory=list)
    """Columns of numbers that are larger in each validation row than in training (see `trend`)."""
    fits_on_all: bool = False
    """Statistics are those of all rows, as in a lesson, which the audit reports."""

    @property
    def fitted(self) -> NDArray[np.bool_]:
        """Which rows statistics are computed from, [rows]."""
        return np.ones(len(self.split), dtype=bool) if self.fits_on_all else self.train


class TableSource(Data):
    """The data of a tabular task."""

    def read(self) -> TabularTable:
        """Read the table and split it."""
        raise TypeError(f"{type(self).__name__} must define read()")

    def recipe(self) -> dict[str, Any]:
        """Return what is needed to make inputs of new rows: tensors and plain values."""
        return {}
