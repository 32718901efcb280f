"""The columns of a table that are shown next to the predictions of its rows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dlrunner.data.core.row_locations import RowLocations
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.prediction_table import with_distinct_names
from dlrunner.predictor_inputs import table_name

ROW = "row"
"""The number of a row, as messages have it."""


def input_columns(table: pd.DataFrame, only: Sequence[str] | None, id: str | None) -> pd.DataFrame:
    """Return the columns of a table that are shown next to the predictions.

    >>> table = pd.DataFrame({"city": ["Ulm"], "area": [80]})
    >>> [list(input_columns(table, only, None)) for only in (None, ["area"], ["row", "city"], [])]
    [['row', 'city', 'area'], ['area'], ['row', 'city'], []]

    Args:
        table: the input.
        only: their names, several in a text separated by commas; `row` is the number of the row. None: all.
        id: column that identifies the rows; a table without it gets the numbers of its rows too.

    Raises:
        ConfigError: there is no such column.
    """
    names = [*([] if id in table.columns else [ROW]), *map(str, table.columns)] if only is None else []
    for text in only or ():
        names += [text] if text in table.columns else [each.strip() for each in text.split(",") if each.strip()]
    known = {str(name): table[name] for name in table.columns}
    numbers = pd.Series(RowLocations.of_frame(table).numbers(len(table)), table.index)
    for name in names:
        if name not in known and name != ROW:
            raise ConfigError(f"only: {table_name(table)} has no column {name!r}; {did_you_mean(name, [*known, ROW])}")
    chosen = [known.get(name, numbers) for name in names]
    if only is None and names[:1] == [ROW] and ROW in known:  # a column of the input has this name
        chosen[0] = numbers
    found = pd.concat(chosen, axis=1) if chosen else pd.DataFrame(index=table.index)
    return with_distinct_names(found.set_axis(names, axis=1))


def append_predictions(inputs: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """Return columns of the input and predictions as one table, whose names differ; it keeps the input's index.

    The number of columns of the input is `attrs["num_inputs"]`.
    """
    found = with_distinct_names(pd.concat([inputs, predicted.set_axis(inputs.index)], axis=1))
    found.attrs = {"num_inputs": inputs.shape[1]}
    return found
