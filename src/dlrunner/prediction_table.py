"""Tables of predictions: notes on them, and the names of their columns."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def with_notes(frame: pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    """Prepend notes to `attrs["note"]`, which is shown with the table."""
    lines = [*notes, *([frame.attrs["note"]] if "note" in frame.attrs else [])]
    if lines:
        frame.attrs["note"] = "\n".join(lines)
    return frame


def with_distinct_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Make column names unique: a repeated name gets a number.

    >>> with_distinct_names(pd.DataFrame([[1, 2, 3]], columns=["text", "text", "p"])).columns.tolist()
    ['text', 'text_2', 'p']
    """
    names: list[str] = []
    for name in map(str, frame.columns):
        number = 2
        while (each := name if number == 2 and name not in names else f"{name}_{number}") in names:
            number += 1
        names.append(each)
    return frame.set_axis(names, axis=1)
