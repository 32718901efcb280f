"""Checks of the tables, texts and images that are passed to a predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dlrunner.errors import ConfigError


def table_name(table: pd.DataFrame) -> str:
    """Return the name of a table in messages: the file it was read from, or "the table"."""
    return str(table.attrs.get("file", "the table"))


def check_table(table: Any) -> None:
    """Check that a table is a DataFrame with rows.

    Raises:
        ConfigError: it is not a DataFrame, has no rows, or two of its columns have one name.
    """
    if not isinstance(table, pd.DataFrame):
        raise ConfigError(f"give a table (pandas.read_csv reads one from a file), not {_kind(table)}")
    if table.empty:
        raise ConfigError("the table has no rows")
    if not table.columns.is_unique:
        name = table.columns[table.columns.duplicated()][0]
        raise ConfigError(f"{table_name(table)} has two columns named {name!r}; rename one of them")


def table_of_dicts(given: Any) -> Any:
    """Return the table of a row as a dict, or of several in a list; anything else as it is.

    Raises:
        ConfigError: the list has something else too.
    """
    if isinstance(given, Mapping):
        return pd.DataFrame([given])
    if isinstance(given, list) and any(isinstance(each, Mapping) for each in given):
        return frame_of_rows(listed(given, "dicts", (Mapping,)))
    return given


def frame_of_rows(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Return rows as a table; whole numbers keep all their digits next to missing ones.

    >>> frame_of_rows([{"user": 1234567890123456789}, {"item": "a"}])["user"].tolist()
    [1234567890123456789, None]
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: exact([row.get(name) for row in rows]) for name in names}, index=range(len(rows)))


def exact(values: Any) -> Any:
    """Return the values of a column; whole numbers next to missing ones as objects: a float has 15 digits."""
    if not isinstance(values, list | tuple) or {type(value) for value in values} != {int, type(None)}:
        return values
    return np.array(values, dtype=object)


def listed(given: Any, what: str, kinds: tuple[type, ...]) -> list[Any]:
    """Return one value or several as a list.

    Args:
        given: one value or a sequence.
        what: plural noun for messages.
        kinds: accepted types.

    Raises:
        ConfigError: the list is empty, or a value has another type.
    """
    values = [given] if isinstance(given, kinds) else list(given) if isinstance(given, Sequence | pd.Series) else given
    if not isinstance(values, list):
        raise ConfigError(f"give {what}, one or a list of them, not {_kind(given)}")
    for number, each in enumerate(values, start=1):
        if not isinstance(each, kinds):
            raise ConfigError(f"give {what}; number {number} of the list is {_kind(each)}")
    if not values:
        raise ConfigError(f"the list is empty; give {what}")
    return values


def _kind(given: Any) -> str:
    name = type(given).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
