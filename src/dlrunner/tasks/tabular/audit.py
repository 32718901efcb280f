"""What tells whether the split of a table is a fair one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.dataset import TabularTable
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.data_audit import Digests, SplitStatistics
from dlrunner.tasks.common.audit import count_of_test


def of_table(table: TabularTable, preparation: TabularPreprocessor, target: Target) -> SplitStatistics:
    """Return whole rows with their target, their days, and all that is fitted.

    A column that tells every row from every other is left out, as is what names the rows or says which of them
    validate: with it no row would have its like.
    """
    inputs = {*table.roles.categorical, *table.roles.continuous}
    names, frame = {table.roles.id, table.marked_by}, table.frame
    kept = [name for name in frame if name in inputs or (name not in names and _repeats(frame[name]))]
    target_columns = pd.DataFrame(table.values, index=frame.index).add_prefix("target ")
    whole = pd.concat([frame[kept], target_columns], axis=1)
    digests: Digests = np.asarray(pd.util.hash_pandas_object(whole, index=False), dtype=np.uint64)
    train = ~table.valid
    columns = TabularPreprocessor.fit(table.frame[train], table.roles.categorical, table.roles.continuous)
    targets = table.target.fit(table.values[train])
    times = {} if table.dates is None else {"train": table.dates[train], "valid": table.dates[table.valid]}
    return SplitStatistics(
        "rows",
        {"train": digests[train], "valid": digests[table.valid]},
        {part: days.to_numpy("datetime64[s]") for part, days in times.items()},
        _fitted_on_columns(preparation, columns) | _fitted_on_target(target, targets),
        count_of_test(table.of_test, table.valid),
        time_split="last_days",
    )


def _repeats(column: pd.Series[Any]) -> bool:
    try:
        return not column.is_unique
    except TypeError:  # lists, which a parquet file may hold, have no hash
        return False


def _fitted_on_columns(used: TabularPreprocessor, alone: TabularPreprocessor) -> dict[str, tuple[Any, Any]]:
    kinds = {"levels": "levels of", "medians": "median of", "means": "mean of", "deviations": "deviation of"}
    found: dict[str, tuple[Any, Any]] = {
        f"{told} {name}": (value, getattr(alone, kind).get(name, []))
        for kind, told in kinds.items()
        for name, value in getattr(used, kind).items()
    }
    return {**found, "columns with missing values": (used.flagged, alone.flagged)}


def _fitted_on_target(used: Target, alone: Target) -> dict[str, tuple[Any, Any]]:
    found = alone.statistics()
    return {f"{name} of the target": (value, found[name]) for name, value in used.statistics().items()}
