"""Tables of predictions: notes on them, and the names of their columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
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


def with_problems(
    frame: pd.DataFrame,
    ids: Sequence[str],
    problems: Sequence[tuple[int, str]],
    where: Callable[[int], str] | None = None,
) -> pd.DataFrame:
    """Return a table of predictions without those of the rows that cannot be read; a column says why.

    Args:
        frame: the predictions.
        ids: columns that say which row it is, and stay.
        problems: number and reason of the rows; their number is `attrs["num_bad"]`.
        where: returns the file of a row and its number there, for tables in several files.
    """
    reasons: dict[int, list[str]] = {}
    for row, reason in problems:
        reasons.setdefault(row, []).append(reason)
    if not reasons:
        return frame
    rows = list(reasons)
    problem = pd.Series(None, index=range(len(frame)), dtype="str")
    places = [f"{where(row)}: " if where else "" for row in rows]
    problem.iloc[rows] = [place + "; ".join(each) for place, each in zip(places, reasons.values(), strict=True)]
    predictions = [name for name in frame.columns if name not in ids]
    mask = np.zeros(len(frame), dtype=bool)
    mask[rows] = True
    blanked = {name: frame[name].mask(mask) for name in predictions}
    new = frame.assign(**blanked, problem=problem.to_numpy())
    new.attrs |= frame.attrs | {"num_bad": len(rows)}
    first = problem.iloc[min(rows)]
    counts = f"{len(rows):,} of {len(frame):,} rows"
    return with_notes(new, [f"{counts} cannot be read and have no prediction; see problem (the first: {first})"])
