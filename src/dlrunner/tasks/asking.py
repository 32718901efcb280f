"""What is asked of a trained model, checked: the same from the command line and from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dlrunner.errors import RequestError

THE_TABLE = "the table"
"""What a table is called in messages where it comes from no file."""


def check_table(table: Any) -> None:
    """Refuse what is no table.

    Raises:
        RequestError: it is something else, or has no rows.
    """
    if not isinstance(table, pd.DataFrame):
        raise RequestError(f"give a table (pandas.read_csv reads one from a file), not {_kind(table)}")
    if table.empty:
        raise RequestError("the table has no rows")


def check_top(top: int) -> None:
    """Refuse fewer than one answer.

    Raises:
        RequestError: `top` is below 1.
    """
    if top < 1:
        raise RequestError(f"top: must be 1 or more, not {top}")


def listed(given: Any, what: str, kinds: tuple[type, ...]) -> list[Any]:
    """Return one thing or several as a list.

    Raises:
        RequestError: there is none, or one is of another kind.
    """
    found = [given] if isinstance(given, kinds) else list(given) if isinstance(given, Sequence | pd.Series) else given
    if not isinstance(found, list):
        raise RequestError(f"give {what}, one or a list of them, not {_kind(given)}")
    for place, each in enumerate(found):
        if not isinstance(each, kinds):
            raise RequestError(f"give {what}; number {place + 1} of the list is {_kind(each)}")
    if not found:
        raise RequestError(f"the list is empty; give {what}")
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
