"""Split statistics of a table, for the data audit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.splitting import digests_by_part, num_test_rows
from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.data.tabular.table import TabularTable
from dlrunner.data_audit import Digests, SplitStatistics, rows_digest


def table_statistics(table: TabularTable, preparation: TabularPreprocessor, target: Target) -> SplitStatistics:
    """Return row digests (target included), dates, and everything that is fitted.

    Unique columns, the id column and the column that marks validation rows are left out: with them no two rows
    would be duplicates.
    """
    inputs = {*table.roles.categorical, *table.roles.continuous}
    names, frame = {table.roles.id, table.marked_by}, table.frame
    kept = [name for name in frame if name in inputs or (name not in names and _repeats(frame[name]))]
    target_columns = pd.DataFrame(table.values, index=frame.index).add_prefix("target ")
    rows = pd.concat([frame[kept], target_columns], axis=1)
    digests: Digests = np.asarray(pd.util.hash_pandas_object(rows, index=False), dtype=np.uint64)
    train = table.train
    columns = TabularPreprocessor.fit(frame, table.roles.categorical, table.roles.continuous, rows=train)
    targets = table.target.fit(table.values[train])
    times = {} if table.dates is None else {"train": table.dates[train], "valid": table.dates[table.valid]}
    return SplitStatistics(
        "rows",
        digests_by_part(digests, table.split),
        {part: days.to_numpy("datetime64[s]") for part, days in times.items()},
        _fitted_on_columns(preparation, columns) | _fitted_on_target(target, targets),
        num_test_rows(table.of_test, table.valid),
        time_split="last_days",
        validation=rows_digest(
            target_columns.assign(row=_positions(table))[table.valid],
            *table.target.names,
            *map(str, table.target.classes),
        ),
    )


def _positions(table: TabularTable) -> NDArray[np.int64]:
    """Return the position of each row in its file, [rows]: it is the same with other rows dropped."""
    known = table.rows.positions
    return np.arange(len(table.frame)) if known is None or len(known) != len(table.frame) else known


def _repeats(column: pd.Series[Any]) -> bool:
    try:
        return not column.is_unique
    except TypeError:  # lists (in parquet files) are not hashable
        return False


def _fitted_on_columns(used: TabularPreprocessor, refitted: TabularPreprocessor) -> dict[str, tuple[Any, Any]]:
    kinds = {"categories": "categories of", "medians": "median of", "means": "mean of", "deviations": "std of"}
    found: dict[str, tuple[Any, Any]] = {
        f"{label} {name}": (value, getattr(refitted, kind).get(name, []))
        for kind, label in kinds.items()
        for name, value in getattr(used, kind).items()
    }
    return {**found, "columns with missing values": (used.flagged, refitted.flagged)}


def _fitted_on_target(used: Target, refitted: Target) -> dict[str, tuple[Any, Any]]:
    expected = refitted.statistics()
    return {f"{name} of the target": (value, expected[name]) for name, value in used.statistics().items()}
