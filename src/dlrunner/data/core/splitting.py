"""Which rows of a table are for validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.columns import date_column, quoted
from dlrunner.data_audit import Digests
from dlrunner.errors import ConfigError, DataError, did_you_mean

Split = Literal["random", "stratified", "folds", "dates", "last_rows", "last_days", "column"]
Mask = NDArray[np.bool_]

TRAIN, VALID, TEST, UNUSED = range(4)
PART_CODES = {"train": TRAIN, "valid": VALID, "test": TEST}


@dataclass(frozen=True)
class Splitting:
    """How validation rows are chosen; every data source has one. Names as in the `data` section."""

    split: str = "random"
    """One of `Split`; `auto`: the data's own split, else random; `inner`: the training rows of random, split again; or
    the name of a split of the publisher, which the data source defines."""
    valid: float = 0.2
    """A fraction of the rows; for last_rows and last_days, 1 or more is a number of rows or days."""
    split_seed: int = 42
    date: str | None = None
    valid_from: str | None = None
    valid_to: str | None = None
    valid_column: str | None = None
    folds: int = 5
    fold: int = 0

    @property
    def method(self) -> str:
        """How rows are chosen if the data has no split of its own."""
        return "random" if self.split in ("auto", "inner") else self.split

    def check(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: they do not fit.
        """
        wanted = {"dates": ("date",), "last_days": ("date",), "column": ("valid_column",)}.get(self.split, ())
        for name in wanted:
            if getattr(self, name) is None:
                raise ConfigError(f"data.{name}: is missing: data.split={self.split} needs it")
        if self.split == "dates" and self.valid_from is None and self.valid_to is None:
            raise ConfigError("data.valid_from: is missing: data.split=dates needs data.valid_from or data.valid_to")
        if self.split == "folds" and not 0 <= self.fold < self.folds:
            raise ConfigError(f"data.fold: must lie between 0 and {self.folds - 1}, not {self.fold}")
        if self.method in ("random", "stratified") and not 0 < self.valid < 1:
            raise ConfigError(f"data.valid: must be a fraction between 0 and 1, not {self.valid:g}")
        if self.split in ("last_rows", "last_days") and self.valid > 1 and self.valid % 1:
            raise ConfigError(f"data.valid: must be a fraction or an integer, not {self.valid:g}")
        for name in ("valid_from", "valid_to"):
            _as_date(getattr(self, name), f"data.{name}")
        first, last = (_as_date(bound, "") for bound in (self.valid_from, self.valid_to))
        if first is not None and last is not None and first > last:
            raise ConfigError(f"data.valid_from: {self.valid_from} is later than data.valid_to, {self.valid_to}")

    def assign(self, frame: pd.DataFrame, strata: NDArray[Any] | None, place: Path) -> Mask:
        """Return which rows are for validation, [rows].

        Args:
            frame: the table, with the columns that the settings name.
            strata: classes whose proportions `stratified` keeps; None without classes.
            place: for messages.

        Raises:
            ConfigError: a named column does not exist.
            DataError: no rows, or all of them, would be for validation.
        """
        valid = self._assign(frame, strata, place)
        if not valid.any() or valid.all():
            which = "no" if not valid.any() else "all"
            raise DataError(f"{place}: {self._described(frame)} selects {which} rows ({len(frame):,}) for validation")
        return valid

    def _assign(self, frame: pd.DataFrame, strata: NDArray[Any] | None, place: Path) -> Mask:
        num_rows = len(frame)
        if self.method == "random":
            return random_rows(num_rows, self.valid, self.split_seed)
        if self.split == "folds":
            order = np.random.RandomState(self.split_seed).permutation(num_rows)
            chosen = np.zeros(num_rows, dtype=bool)
            chosen[np.array_split(order, self.folds)[self.fold]] = True
            return chosen
        if self.split == "stratified":
            if strata is None:
                raise ConfigError("data.split: stratified needs classes; use random or folds for a numeric target")
            return _stratified(strata, self.valid, self.split_seed)
        if self.split == "last_rows":
            return np.arange(num_rows) >= num_rows - self._count(num_rows)
        if self.split == "column":
            return _marked(self.column(frame, "valid_column", place), str(self.valid_column), place)
        dates = date_column(self.column(frame, "date", place), str(self.date), place)
        if self.split == "last_days":
            days = dates.dt.normalize()
            count = self._count((days.max() - days.min()).days + 1)
            return np.asarray(days > days.max() - pd.Timedelta(days=count))
        return between(dates, self.valid_from, self.valid_to)

    def of_test(self, frame: pd.DataFrame) -> Mask:
        """Return which rows the validation column calls test, [rows]; `assign` puts them into validation."""
        if self.split != "column":
            return np.zeros(len(frame), dtype=bool)
        return np.asarray(frame[self.valid_column].astype(str).str.strip().str.lower() == "test")

    def _count(self, total: int) -> int:
        return int(self.valid if self.valid >= 1 else self.valid * total)

    def column(self, frame: pd.DataFrame, setting: str, place: Path) -> pd.Series[Any]:
        """Return the column named by a setting."""
        name = getattr(self, setting)
        if name not in frame.columns:
            raise ConfigError(f"data.{setting}: {place} has no column {name!r}; {did_you_mean(name, frame.columns)}")
        column: pd.Series[Any] = frame[name]
        return column

    def _described(self, frame: pd.DataFrame) -> str:
        if self.split == "dates":
            days = pd.to_datetime(frame[self.date])
            period = f"{days.min():%Y-%m-%d} to {days.max():%Y-%m-%d}"
            return f"data.valid_from={self.valid_from} data.valid_to={self.valid_to} (the data covers {period})"
        if self.split == "column":
            return f"data.valid_column={self.valid_column}"
        return f"data.split={self.method} data.valid={self.valid:g}"


def split_by_parts(
    parts: Sequence[str | None] | None,
    splitting: Splitting,
    frame: pd.DataFrame,
    strata: NDArray[Any] | None,
    place: Path,
) -> tuple[NDArray[np.int8], Mask]:
    """Return the split of each row (TRAIN, VALID or TEST), and which rows are test rows.

    Args:
        parts: train, valid or test by row, if the folders define it.
        splitting: how validation rows are chosen; `auto`: by `parts` if there are any.
        frame, strata, place: see `Splitting.assign`.
    """
    found = np.array([PART_CODES[part or "train"] for part in parts or [None] * len(frame)], dtype=np.int8)
    of_test = found == TEST
    if splitting.split == "auto" and parts is not None:
        if not (found == VALID).any():
            found[of_test] = VALID
        return found, of_test
    rest = np.flatnonzero(found != TEST)  # test/ is evaluated once, whatever the split of the others
    chosen = None if strata is None else strata[rest]
    others = frame.iloc[rest].reset_index(drop=True)
    found[rest] = np.where(splitting.assign(others, chosen, place), VALID, TRAIN)
    of_test[rest] = splitting.of_test(others)
    return found, of_test


def split_again(split: NDArray[np.int8], splitting: Splitting) -> NDArray[np.int8]:
    """Split the training rows again, for model selection without the reported rows."""
    rest = np.flatnonzero(split == TRAIN)
    inner = np.full(len(split), UNUSED, dtype=np.int8)
    inner[rest] = np.where(random_rows(len(rest), splitting.valid, splitting.split_seed), VALID, TRAIN)
    return inner


def sampled(split: NDArray[np.int8], counts: Mapping[int, int | None], seed: int, what: str) -> NDArray[np.int8]:
    """Return the split with a random sample of its parts; the others are unused.

    Raises:
        ConfigError: there are fewer.
    """
    names = {TRAIN: "data.sample", VALID: "data.sample_valid", TEST: "data.sample_test"}
    left = split.copy()
    for part, count in counts.items():
        rows = np.flatnonzero(split == part)
        if count is not None and count > len(rows):
            raise ConfigError(f"{names[part]}: {count:,} {what} requested, but there are only {len(rows):,}")
        if count is not None:
            left[np.random.RandomState(seed).permutation(rows)[count:]] = UNUSED
    return left


def split_sizes(split: NDArray[np.int8]) -> dict[str, int]:
    """Return the number of rows of `train`, `valid` and `test`; a part without rows is left out.

    >>> split_sizes(np.array([TRAIN, VALID, TRAIN, UNUSED], dtype=np.int8))
    {'train': 2, 'valid': 1}
    """
    counts = {name: int((split == part).sum()) for name, part in PART_CODES.items()}
    return {name: count for name, count in counts.items() if count}


def digests_by_part(digests: Digests, split: NDArray[np.int8]) -> dict[str, Digests]:
    """Return the row digests of `train`, `valid` and, if it has rows, `test`, for the data audit."""
    found = {name: digests[split == part] for name, part in PART_CODES.items()}
    return {name: rows for name, rows in found.items() if name != "test" or len(rows)}


def num_test_rows(of_test: Mask | None, valid: Mask) -> int:
    """Return the number of validation rows that belong to the publisher's test set."""
    return 0 if of_test is None else int((of_test & valid).sum())


def random_rows(num_rows: int, fraction: float, seed: int) -> Mask:
    """Mark the first `int(share·n)` rows of a random permutation, as fast.ai's `get_cv_idxs` does."""
    chosen = np.zeros(num_rows, dtype=bool)
    chosen[np.random.RandomState(seed).permutation(num_rows)[: int(fraction * num_rows)]] = True
    return chosen


def between(dates: pd.Series[Any], first: str | None, last: str | None) -> Mask:
    """Return which rows lie between two days, both included; None: unbounded."""
    days = dates.dt.normalize()
    low, high = _as_date(first, "a date"), _as_date(last, "a date")
    return np.asarray((days >= (low or days.min())) & (days <= (high or days.max())))


def _as_date(text: str | None, name: str) -> pd.Timestamp | None:
    if text is None:
        return None
    try:
        return pd.Timestamp(text).tz_localize(None).normalize()  # local time, as written
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is not a date; write it as 2014-08-01") from None


def _stratified(strata: NDArray[Any], fraction: float, seed: int) -> Mask:
    """Sample the same fraction of each class; a class with two or more rows has at least one row in each split."""
    random = np.random.RandomState(seed)
    chosen = np.zeros(len(strata), dtype=bool)
    for stratum in np.unique(strata):
        rows = random.permutation(np.flatnonzero(strata == stratum))
        count = round(fraction * len(rows))
        if len(rows) > 1:
            count = min(max(count, 1), len(rows) - 1)
        chosen[rows[:count]] = True
    return chosen


def _marked(column: pd.Series[Any], name: str, place: Path) -> Mask:
    """Parse a validation column: true, 1, yes, valid, validation, test, dev."""
    text = column.astype(str).str.strip().str.lower().str.removesuffix(".0")
    yes = text.isin(["true", "1", "yes", "valid", "validation", "val", "dev", "test"])
    no = text.isin(["false", "0", "no", "train", "training", "nan", "none", "<na>", ""])
    if not (yes | no).all():
        row = int((~(yes | no)).to_numpy().argmax())
        raise DataError(
            f"{place}, row {row + 2}: {name} is {quoted(column.iloc[row])}; "
            "it must be true or false, 1 or 0, train or valid"
        )
    return np.asarray(yes)
