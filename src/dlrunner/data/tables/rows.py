"""Rows of a table without a value where one is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dlrunner.data.tables.table import Table
from dlrunner.errors import DataError


def without_missing(table: Table, needed: Mapping[str, str], skip_bad: bool) -> Table:
    """Return the table without the rows that have no value in one of some columns.

    Args:
        table: the table.
        needed: the columns where a value is needed, with the noun for messages.
        skip_bad: leave such rows out; by default the first one is an error.

    Raises:
        DataError: there is such a row, or no other.
    """
    missing = table.frame[list(needed)].isna().to_numpy()
    mask: NDArray[np.bool_] = np.asarray(missing.any(axis=1))
    if not mask.any():
        return table
    row = int(mask.argmax())
    noun = list(needed.values())[int(missing[row].argmax())]
    where = f"{table.rows.at(row)}: the {noun} is missing"
    if not skip_bad:
        raise DataError(f"{where}; {int(mask.sum()):,} such row(s) in all (data.skip_bad=true leaves them out)")
    if mask.all():
        raise DataError(f"{where}; no other row is left")
    note = f"{int(mask.sum()):,} of {len(mask):,} rows are left out (data.skip_bad): {where}"
    return replace(only(table, ~mask), notes=(*table.notes, note))


def only(table: Table, kept: NDArray[np.bool_]) -> Table:
    """Return some rows of a table."""
    return replace(table, frame=table.frame[kept].reset_index(drop=True), rows=table.rows.only(kept))
