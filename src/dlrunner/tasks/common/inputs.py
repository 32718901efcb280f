"""What is asked of a trained model, checked: the same from the command line and from Python."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from dlrunner.errors import ConfigError

THE_TABLE = "the table"
"""What a table is called in messages where it comes from no file."""


def check_table(table: Any) -> None:
    """Refuse what is no table.

    Raises:
        ConfigError: it is something else, or has no rows.
    """
    if not isinstance(table, pd.DataFrame):
        raise ConfigError(f"give a table (pandas.read_csv reads one from a file), not {_kind(table)}")
    if table.empty:
        raise ConfigError("the table has no rows")


def check_top(top: Any) -> None:
    """Refuse what is no number of answers.

    Raises:
        ConfigError: `top` is below 1, or no whole number.
    """
    if not isinstance(top, Integral) or isinstance(top, bool):
        raise ConfigError(f"top: must be a whole number, not {top!r:.40}")
    if int(top) < 1:
        raise ConfigError(f"top: must be 1 or more, not {top}")


def check_id(given: Any, what: str) -> None:
    """Refuse what nobody is named by.

    Raises:
        ConfigError: it is neither a text nor a number.
    """
    if not isinstance(given, str | int | float | np.generic):
        raise ConfigError(f"give {what}, not {_kind(given)}")


def check_text(given: Any) -> None:
    """Refuse what is no text.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(given, str):
        raise ConfigError(f"give a text, not {_kind(given)}")


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
