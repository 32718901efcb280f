"""Rows of a ratings table that cannot be used, and pairs that occur more than once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.ratings.user_table import HIGHEST_RATING
from dlrunner.errors import DataError
from dlrunner.row_blocks import blocks_of


def checked_rows(
    frame: pd.DataFrame,
    place: RowLocations,
    *,
    skip_bad: bool,
    needs_times: bool,
    may_be_equal: bool = False,
) -> tuple[pd.DataFrame, NDArray[np.bool_], list[str]]:
    """Return the ratings as numbers, without those that cannot be used, which rows are left, and notes.

    Args:
        frame: the ratings; it is used up.
        place: where they stand, for messages.
        skip_bad: leave bad rows out; by default the first one is an error.
        needs_times: a row needs a time.
        may_be_equal: all ratings may be the same, since it counts that there is one.

    Raises:
        DataError: a row has no user, item or rating, or its rating is not a valid number.
    """
    if frame.empty:
        raise DataError(f"{place} holds no ratings")
    given = frame["rating"]
    if given.dtype != np.float64:
        frame["rating"] = pd.to_numeric(given, errors="coerce").to_numpy(np.float64)
    ratings = frame["rating"].to_numpy()
    invalid = np.concatenate([~(np.abs(ratings[block]) <= HIGHEST_RATING) for block in blocks_of(len(ratings))])
    reasons = {role: frame[role].isna().to_numpy() for role in ("user", "item")}
    reasons["rating"] = invalid & given.isna().to_numpy()
    if needs_times and "timestamp" in frame:
        reasons["timestamp"] = frame["timestamp"].isna().to_numpy()
    bad = invalid | np.logical_or.reduce(list(reasons.values()))
    notes = []
    if bad.any():
        first = int(bad.argmax())
        missing = [role for role, mask in reasons.items() if mask[first]]
        limits = f"a number from {-HIGHEST_RATING:,.0f} to {HIGHEST_RATING:,.0f}"
        reason = f"the {missing[0]} is missing" if missing else f"{given.iloc[first]} is not a valid rating ({limits})"
        example = f"{place.at(first)}: {reason}"
        if not skip_bad:
            raise DataError(f"{example}; {bad.sum():,} such row(s) in all (data.skip_bad=true leaves them out)")
        if bad.all():
            raise DataError(f"{example}; no other row is left")
        notes.append(f"{bad.sum():,} of {len(bad):,} rows are left out (data.skip_bad): {example}")
    kept = rows_of(frame, ~bad)
    ratings = kept["rating"].to_numpy()
    low, high = ratings.min(), ratings.max()
    if low == high and not may_be_equal:
        raise DataError(f"{place}: all {len(kept):,} ratings are {low:g}; there is nothing to learn")
    return kept, ~bad, notes


def latest_rows(frame: pd.DataFrame, *, are_choices: bool = False) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which rows are the latest of their user and item (the last ones without times), and notes.

    Args:
        frame: the rows.
        are_choices: they are no ratings.
    """
    users, items = frame["user"].to_numpy(), frame["item"].to_numpy()
    order = _repeated(users, items)
    if "timestamp" in frame:
        order = order[np.argsort(frame["timestamp"].to_numpy()[order], kind="stable")]
    kept = np.ones(len(frame), dtype=bool)
    kept[order] = ~pd.DataFrame({"user": users[order], "item": items[order]}).duplicated(keep="last").to_numpy()
    which = "latest" if "timestamp" in frame else "last"
    count = "each pair counts once" if are_choices else f"the {which} rating counts"
    note = f"{(~kept).sum():,} row(s) repeat a user and an item: {count}"
    return kept, [] if kept.all() else [note]


def rated_from(ratings: NDArray[Any], lowest: float, place: RowLocations) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which ratings are at least the lowest one, in their own precision, and a note.

    >>> from pathlib import Path
    >>> rated_from(np.array([4.1, 4], np.float32), 4.1, RowLocations(Path("r.csv")))[0].tolist()
    [True, False]

    Raises:
        DataError: none is.
    """
    enough = ratings >= ratings.dtype.type(lowest)
    if not enough.any():
        raise DataError(f"{place}: no rating is at least {lowest:g} (data.min_rating)")
    return enough, [f"{(~enough).sum():,} of {len(enough):,} rows are left out: they lie below data.min_rating"]


def _repeated(users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the rows whose user and item occur in several rows."""
    num_items = int(items.max()) + 1
    pairs = users.astype(np.int64)
    pairs *= num_items
    pairs += items
    pairs.sort()  # in place: a second copy of all rows needs too much memory
    repeated = pd.Index(np.unique(pairs[1:][pairs[1:] == pairs[:-1]]))
    found = [
        np.flatnonzero(repeated.get_indexer(users[block].astype(np.int64) * num_items + items[block]) >= 0)
        for block in blocks_of(len(users))
    ]
    return np.concatenate([rows + block.start for rows, block in zip(found, blocks_of(len(users)), strict=True)])


def in_32_bits(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ratings in 32 bits, and times if they are whole seconds of the years 1901 to 2038.

    >>> in_32_bits(pd.DataFrame({"rating": [4.5], "timestamp": [8e8]})).dtypes.astype(str).tolist()
    ['float32', 'int32']
    """
    frame["rating"] = frame["rating"].to_numpy(np.float32)
    if "timestamp" in frame:
        times = frame["timestamp"].to_numpy(np.float64)
        is_near = times.min() >= -(2**31) and times.max() < 2**31
        frame["timestamp"] = seconds if is_near and (times == (seconds := times.astype(np.int32))).all() else times
    return frame


def rows_of(frame: pd.DataFrame, kept: NDArray[np.bool_]) -> pd.DataFrame:
    """Return the rows that a mask marks; columns leave the given frame one by one: two copies need too much memory.

    >>> frame = pd.DataFrame({"user": [3, 4], "rating": [1.0, 2.0]})
    >>> rows_of(frame, np.array([False, True])), frame.shape
    (   user  rating
    0     4     2.0, (2, 0))
    """
    if kept.all():
        return frame
    return pd.DataFrame({name: frame.pop(str(name)).array[kept] for name in list(frame)}, copy=False)
