"""Which rows of a table are for validation, and which for a test."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.columns import date_column, quoted
from dlrunner.data.core.periods import counted, period_numbers, period_of
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data_audit import Digests
from dlrunner.errors import ConfigError, DataError, did_you_mean

Split = Literal["random", "stratified", "folds", "dates", "last_rows", "last_days", "rolling", "column"]
Mask = NDArray[np.bool_]
Parts = NDArray[np.int8]
"""The part of each row: TRAIN, VALID, TEST or UNUSED, [rows]."""

TRAIN, VALID, TEST, UNUSED = range(4)
PART_CODES = {"train": TRAIN, "valid": VALID, "test": TEST}


class SplitRows:
    """A table whose rows have a part each."""

    split: Parts

    @property
    def train(self) -> Mask:
        """Which rows are for training, [rows]."""
        return np.asarray(self.split == TRAIN)

    @property
    def valid(self) -> Mask:
        """Which rows are for validation, [rows]."""
        return np.asarray(self.split == VALID)


@dataclass(frozen=True)
class Splitting:
    """How validation and test rows are chosen; every data source has one. Names as in the `data` section.

    Test rows are chosen in the same way as validation rows, which they leave unchanged: further rows of the same
    permutation, or the last rows or days, with validation before them. Their metrics are computed once, after training.
    """

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
    test: float | None = None
    """As `valid`; None: no test rows, or those that the data itself calls so."""
    test_from: str | None = None
    """The first day of the test rows, with `dates`."""
    horizon: int | None = None
    """With `rolling`: periods (days; weeks or months where the data has a row for each) in a validation window."""

    @property
    def method(self) -> str:
        """How rows are chosen if the data has no split of its own."""
        return "random" if self.split in ("auto", "inner") else self.split

    def check(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: they do not fit.
        """
        wanted: dict[str, Sequence[str]] = {
            "dates": ("date",),
            "last_days": ("date",),
            "rolling": ("horizon",),
            "column": ("valid_column",),
        }
        for name in wanted.get(self.split, ()):
            if getattr(self, name) is None:
                raise ConfigError(f"data.{name}: is missing: data.split={self.split} needs it")
        if self.split == "dates" and self.valid_from is None and self.valid_to is None:
            raise ConfigError("data.valid_from: is missing: data.split=dates needs data.valid_from or data.valid_to")
        if self.split in ("folds", "rolling") and not 0 <= self.fold < self.folds:
            raise ConfigError(f"data.fold: must lie between 0 and {self.folds - 1}, not {self.fold}")
        if self.method in ("random", "stratified") and not 0 < self.valid < 1:
            raise ConfigError(f"data.valid: must be a fraction between 0 and 1, not {self.valid:g}")
        if self.split in ("last_rows", "last_days") and self.valid > 1 and self.valid % 1:
            raise ConfigError(f"data.valid: must be a fraction or an integer, not {self.valid:g}")
        _as_date(self.test_from, "data.test_from")
        check_days(self.valid_from, self.valid_to, "data.valid_from", "data.valid_to")
        self._check_test()

    def _check_test(self) -> None:
        if self.test is not None:
            other = {
                "dates": "data.test_from=2015-06-01 says where the test rows start",
                "column": f"the column {self.valid_column} marks them with the word test",
                "inner": "it is for model selection, and leaves out the rows that are reported",
                "rolling": "each of its windows is newer than its training rows, as a test would be",
            }.get(self.split)
            if other is None and self.split not in (*typing.get_args(Split), "auto", "time"):
                other = f"{self.split} is a split of the publisher"
            if other:
                raise ConfigError(f"data.test: cannot be used with data.split={self.split}: {other}")
            counted = self.split in ("last_rows", "last_days")
            if not (0 < self.test < 1 or (counted and self.test >= 1 and self.test % 1 == 0)):
                what = "a fraction or an integer" if counted else "a fraction between 0 and 1"
                raise ConfigError(f"data.test: must be {what}, not {self.test:g}")
            if self.valid < 1 and self.test < 1 and self.split != "folds" and self.valid + self.test >= 1:
                raise ConfigError(f"data.test: with data.valid={self.valid:g}, {self.test:g} leaves no training rows")
        if self.test_from is not None and self.split != "dates":
            raise ConfigError("data.test_from: is for data.split=dates; data.test is a fraction of the rows")
        start, end = _as_date(self.test_from, ""), _as_date(self.valid_to, "")
        if start is not None and (end is None or start <= end):
            raise ConfigError("data.test_from: data.valid_to must be an earlier day")

    def assign(self, frame: pd.DataFrame, strata: NDArray[Any] | None, place: RowLocations) -> Parts:
        """Return the part of each row: TRAIN, VALID or TEST, [rows].

        Args:
            frame: the table, with the columns that the settings name.
            strata: classes whose proportions `stratified` keeps; None without classes.
            place: for messages.

        Raises:
            ConfigError: a named column does not exist.
            DataError: no rows are left for one of the parts.
        """
        parts = self._assign(frame, strata, place)
        wanted = {VALID: "validation", TRAIN: "training"}
        if self.test is not None or self.test_from is not None:
            wanted[TEST] = "the test"
        for part, what in wanted.items():
            if not (parts == part).any():
                raise DataError(f"{place}: {self._described(frame)} leaves no rows of {len(frame):,} for {what}")
        return parts

    def _assign(self, frame: pd.DataFrame, strata: NDArray[Any] | None, place: RowLocations) -> Parts:
        num_rows, test = len(frame), self.test or 0.0
        if self.method == "random":
            return random_parts(num_rows, self.valid, test, self.split_seed)
        if self.split == "folds":
            order = np.random.RandomState(self.split_seed).permutation(num_rows)
            num_test = int(test * num_rows)
            fold = np.array_split(order[num_test:], self.folds)[self.fold]
            return _parts(num_rows, fold, order[:num_test])
        if self.split == "stratified":
            if strata is None:
                raise ConfigError("data.split: stratified needs classes; use random or folds for a numeric target")
            return _stratified(strata, self.valid, test, self.split_seed)
        if self.split == "last_rows":
            end = num_rows - _count(test, num_rows)
            rows = np.arange(num_rows)
            return _parts(num_rows, (rows < end) & (rows >= end - _count(self.valid, num_rows)), rows >= end)
        if self.split == "column":
            marked = _marked(self.column(frame, "valid_column", place), str(self.valid_column), place)
            of_test = self.of_test(frame)
            alone = not (marked & ~of_test).any()  # then the test rows validate, which the audit reports
            return _parts(num_rows, marked & (alone | ~of_test), of_test & (not alone))
        dates = date_column(self.column(frame, "date", place), str(self.date), place)
        if self.split == "last_days":
            days = dates.dt.normalize()
            total = (days.max() - days.min()).days + 1
            end = days.max() - pd.Timedelta(days=_count(test, total))
            first = end - pd.Timedelta(days=_count(self.valid, total))
            return _parts(num_rows, np.asarray((days > first) & (days <= end)), np.asarray(days > end))
        if self.split == "rolling":
            return self._rolling(dates, place)
        of_test = np.zeros(num_rows, dtype=bool) if self.test_from is None else between(dates, self.test_from, None)
        return _parts(num_rows, between(dates, self.valid_from, self.valid_to) & ~of_test, of_test)

    def _rolling(self, dates: pd.Series[Any], place: RowLocations) -> Parts:
        """Return the parts of a fold: one of the last windows, trained on all rows before it; later ones are unused.

        Source: Tashman, Out-of-sample tests of forecasting accuracy: rolling origins, 2000.
        """
        horizon, period = int(self.horizon or 0), period_of(dates)
        numbers = period_numbers(dates, period)
        covered = int(numbers.max() - numbers.min()) + 1
        if covered < (self.folds + 1) * horizon:
            raise DataError(
                f"{place}: data.folds={self.folds} windows of data.horizon={horizon} and as many periods before them "
                f"are {counted((self.folds + 1) * horizon, period)}; the data covers {counted(covered, period)}"
            )
        first = int(numbers.max()) + 1 - (self.folds - self.fold) * horizon
        parts = _parts(len(dates), (numbers >= first) & (numbers < first + horizon), np.zeros(len(dates), dtype=bool))
        parts[numbers >= first + horizon] = UNUSED
        return parts

    def of_test(self, frame: pd.DataFrame) -> Mask:
        """Return which rows the validation column calls test, [rows]; without others, they validate."""
        if self.split != "column":
            return np.zeros(len(frame), dtype=bool)
        return np.asarray(frame[self.valid_column].astype(str).str.strip().str.lower() == "test")

    def column(self, frame: pd.DataFrame, setting: str, place: RowLocations) -> pd.Series[Any]:
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
            test = "" if self.test_from is None else f" data.test_from={self.test_from}"
            return f"data.valid_from={self.valid_from} data.valid_to={self.valid_to}{test} (the data covers {period})"
        if self.split == "column":
            return f"data.valid_column={self.valid_column}"
        if self.split == "rolling":
            return f"data.split=rolling data.horizon={self.horizon} data.fold={self.fold}"
        test = "" if self.test is None else f" data.test={self.test:g}"
        return f"data.split={self.method} data.valid={self.valid:g}{test}"


def split_by_parts(
    parts: Sequence[str | None] | None,
    splitting: Splitting,
    frame: pd.DataFrame,
    strata: NDArray[Any] | None,
    place: RowLocations,
) -> tuple[NDArray[np.int8], Mask]:
    """Return the split of each row (TRAIN, VALID or TEST), and which rows are test rows.

    Args:
        parts: train, valid or test by row, if the folders define it.
        splitting: how validation rows are chosen; `auto`: by `parts` if there are any.
        frame, strata, place: see `Splitting.assign`.
    """
    found = np.array([PART_CODES[part or "train"] for part in parts or [None] * len(frame)], dtype=np.int8)
    of_test = found == TEST
    if splitting.test is not None and (of_test.any() or (splitting.split == "auto" and parts is not None)):
        what = "has test examples of its own" if of_test.any() else "is split by its folders: add a folder test"
        raise ConfigError(f"data.test: {place} {what}")
    if splitting.split == "auto" and parts is not None:
        if not (found == VALID).any():
            found[of_test] = VALID
        return found, of_test
    rest = np.flatnonzero(found != TEST)  # test/ is evaluated once, whatever the split of the others
    chosen = None if strata is None else strata[rest]
    others = frame.iloc[rest].reset_index(drop=True)
    found[rest] = splitting.assign(others, chosen, place)
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
    """Mark the first `int(fraction·n)` rows of a random permutation, as fast.ai's `get_cv_idxs` does."""
    chosen = np.zeros(num_rows, dtype=bool)
    chosen[np.random.RandomState(seed).permutation(num_rows)[: int(fraction * num_rows)]] = True
    return chosen


def random_parts(num_rows: int, valid: float, test: float, seed: int) -> Parts:
    """Return the part of each row: the first `int(valid·n)` rows of a random permutation validate, then test rows."""
    order = np.arange(num_rows, dtype=np.int32 if num_rows < 2**31 else np.int64)
    np.random.RandomState(seed).shuffle(order)  # as permutation(num_rows), in half the memory
    num_valid, num_test = int(valid * num_rows), int(test * num_rows)
    return _parts(num_rows, order[:num_valid], order[num_valid : num_valid + num_test])


def _parts(num_rows: int, valid: NDArray[Any], test: NDArray[Any]) -> Parts:
    """Return the part of each row from the rows for validation and for the test, as masks or positions."""
    parts = np.full(num_rows, TRAIN, dtype=np.int8)
    parts[valid] = VALID
    parts[test] = TEST
    return parts


def _count(wanted: float, total: int) -> int:
    """Return a number of rows or days: given as a number, or as a fraction of all."""
    return int(wanted if wanted >= 1 else wanted * total)


def between(dates: pd.Series[Any], first: str | None, last: str | None) -> Mask:
    """Return which rows lie between two days, both included; None: unbounded."""
    days = dates.dt.normalize()
    low, high = _as_date(first, ""), _as_date(last, "")
    return np.asarray((days >= (low or days.min())) & (days <= (high or days.max())))


def check_days(first: str | None, last: str | None, setting: str, other: str | None = None) -> None:
    """Check the first and the last day of a period.

    Args:
        setting: that says the first day.
        other: that says the last day; None: the same.

    Raises:
        ConfigError: one of them is not a date, or the first is later than the last.
    """
    low, high = _as_date(first, setting), _as_date(last, other or setting)
    if low is not None and high is not None and low > high:
        raise ConfigError(f"{setting}: {first} is later than {f'{other}, {last}' if other else last}")


ISO_DAY = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([T ].*)?|\d{8}")
"""Of 01.08.2014 pandas makes the 8th of January, of 13.08.2014 the 13th of August, and of 2014-08 its first day."""


def _as_date(text: str | None, name: str) -> pd.Timestamp | None:
    if text is None:
        return None
    try:
        if not ISO_DAY.fullmatch(text):
            raise ValueError
        return pd.Timestamp(text).tz_localize(None).normalize()  # local time, as written
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is not a day; write it as 2014-08-01") from None


def _stratified(strata: NDArray[Any], fraction: float, test: float, seed: int) -> Parts:
    """Sample the same fractions of each class.

    A class of two rows has one for training and one for validation, one of three or more also one for the test.
    """
    random = np.random.RandomState(seed)
    parts = np.full(len(strata), TRAIN, dtype=np.int8)
    for stratum in np.unique(strata):
        rows = random.permutation(np.flatnonzero(strata == stratum))
        count = round(fraction * len(rows))
        if len(rows) > 1:
            count = min(max(count, 1), len(rows) - 1)
        num_test = round(test * len(rows))
        if test and len(rows) > 2:
            num_test = max(num_test, 1)
        parts[rows[:count]] = VALID
        parts[rows[count : count + max(0, min(num_test, len(rows) - 1 - count))]] = TEST
    return parts


def _marked(column: pd.Series[Any], name: str, place: RowLocations) -> Mask:
    """Parse a validation column: true, 1, yes, valid, validation, test, dev."""
    text = column.astype(str).str.strip().str.lower().str.removesuffix(".0").fillna("")
    yes = text.isin(["true", "1", "yes", "valid", "validation", "val", "dev", "test"])
    no = text.isin(["false", "0", "no", "train", "training", "nan", "none", "<na>", ""])
    if not (yes | no).all():
        row = int((~(yes | no)).to_numpy().argmax())
        raise DataError(
            f"{place.at(row)}: {name} is {quoted(column.iloc[row])}; it must be true or false, 1 or 0, train or valid"
        )
    return np.asarray(yes)
