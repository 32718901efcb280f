"""Tables, texts and images that a trained model is given, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dlrunner.errors import ConfigError


def file_of(table: pd.DataFrame) -> str:
    """Return what a table is called in messages: the file that it was read from, where the terminal named one."""
    return str(table.attrs.get("file", "the table"))


def check_table(table: Any) -> None:
    """Refuse what is no table.

    Raises:
        ConfigError: it is something else, or has no rows.
    """
    if not isinstance(table, pd.DataFrame):
        raise ConfigError(f"give a table (pandas.read_csv reads one from a file), not {_kind(table)}")
    if table.empty:
        raise ConfigError("the table has no rows")


def listed(given: Any, what: str, kinds: tuple[type, ...]) -> list[Any]:
    """Return one thing or several as a list.

    Raises:
        ConfigError: there is none, or one is of another kind.
    """
    found = [given] if isinstance(given, kinds) else list(given) if isinstance(given, Sequence | pd.Series) else given
    if not isinstance(found, list):
        raise ConfigError(f"give {what}, one or a list of them, not {_kind(given)}")
    for place, each in enumerate(found):
        if not isinstance(each, kinds):
            raise ConfigError(f"give {what}; number {place + 1} of the list is {_kind(each)}")
    if not found:
        raise ConfigError(f"the list is empty; give {what}")
    return found


def with_notes(frame: pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    """Add to what is to be told about a table of answers (its `attrs["note"]`), before what is there already."""
    told = [*notes, *([frame.attrs["note"]] if "note" in frame.attrs else [])]
    if told:
        frame.attrs["note"] = "\n".join(told)
    return frame


def _kind(given: Any) -> str:
    name = type(given).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
