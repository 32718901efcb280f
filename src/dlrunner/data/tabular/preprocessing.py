"""What is fitted on the training rows of a table and used again on every other row.

Source: fast.ai deep learning part 1, lesson 4 (2018): missing numbers become the median, with a column that says so;
a category that is missing or was never seen is number 0; numbers are standardised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.columns import category_values, quoted
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.variation import standard_deviation
from dlrunner.errors import DataError

MOST_RATIO = 300
"""Of the medians of new rows and training rows: a unit that changed by a factor of a thousand."""
NUM_QUANTILES = 129
"""Kept of each column: the edges of up to 128 bins."""
MAX_RANKED = 200_000
"""Training rows from which they are taken, evenly spaced: sorting a million takes longer than a column is worth."""
PARTS = 32
"""A single value counts for at most this part of the rows in their quantiles."""
MANY_CATEGORIES = 20
"""Of more, a category with a single training row counts as unseen: nothing can be learned about it, and unseen ones are
then represented by what such rows have in common."""
HISTORY = "history_"
"""Start of the names of the features of a history."""
MOST_DEVIATIONS = 6
"""Of a feature of the history from its mean: one that hardly varies in training rows may jump after them."""
FARTHEST = 1e6
"""Of any number from the mean, in deviations. None of n training rows is farther than the square root of n; of new rows
one may be too large for 32 bits."""
MOST_SHIFT = 3
"""Of the medians of new rows and training rows, in deviations: a column around 0 has medians of any ratio."""
ENOUGH = 20
"""New rows, for a median that says something."""

Rows = NDArray[np.bool_]
"""Which rows of a table: taken from one column at a time, since a copy of all columns may not fit in memory."""


@dataclass(frozen=True)
class TabularPreprocessor:
    """Categories, medians, means and standard deviations of the training rows."""

    categories: dict[str, list[Any]]
    """By categorical column, in order: the category at index i has code i + 1; 0 is missing or unseen."""
    medians: dict[str, float]
    means: dict[str, float]
    deviations: dict[str, float]
    """0 of a column without variation, whose numbers are then 0 in all rows."""
    flagged: list[str]
    """Continuous columns with missing values in the training rows: each has a column that marks them."""
    quantiles: dict[str, list[float]] = field(default_factory=dict)
    """Of the standardised numbers, by continuous column; empty in the state of an older version."""
    base: str | None = None
    """A column that the model's outputs are added to, in units of the transformed target."""
    history: list[str] = field(default_factory=list)
    """Continuous columns that are features of the history: residuals."""

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        categorical: Sequence[str],
        continuous: Sequence[str],
        base: str | None = None,
        *,
        history: Sequence[str] = (),
        trends: Sequence[str] = (),
        rows: Rows | None = None,
    ) -> TabularPreprocessor:
        """Learn from the training rows alone: those that `rows` marks, or all. `trends` have no quantiles, for bins."""
        categories = {name: _learnable(_column(frame, name, rows)) for name in categorical}
        medians, means, deviations, flagged, quantiles = {}, {}, {}, [], {}
        ranks = np.linspace(0, 1, NUM_QUANTILES)
        for name in continuous:
            numbers = _column(frame, name, rows).to_numpy(np.float64, na_value=np.nan)
            missing = ~np.isfinite(numbers)
            medians[name] = float(np.median(numbers[~missing])) if not missing.all() else 0.0
            if missing.any():
                flagged.append(name)
                numbers = np.where(missing, medians[name], numbers)
            means[name], deviations[name] = float(numbers.mean()), standard_deviation(numbers)
            if name not in trends:
                ranked = numbers[:: -(-len(numbers) // MAX_RANKED)]
                quantiles[name] = ((_quantiles(ranked, ranks) - means[name]) / (deviations[name] or 1.0)).tolist()
        return cls(categories, medians, means, deviations, flagged, quantiles, base, list(history))

    @property
    def cardinalities(self) -> dict[str, int]:
        """Codes of each categorical column: its categories, and one for missing or unseen values."""
        return {name: len(categories) + 1 for name, categories in self.categories.items()}

    @property
    def continuous(self) -> list[str]:
        """The columns of numbers, in order, the marks of missing values last."""
        return [*self.means, *(f"{name}_na" for name in self.flagged)]

    @property
    def num_numbers(self) -> int:
        """Columns of `numbers`."""
        return len(self.continuous) + (self.base is not None)

    def of_column(self, name: str) -> TabularPreprocessor:
        """Return what concerns a single column."""
        numbers = [name] if name in self.means else []
        return replace(
            self,
            categories={name: self.categories[name]} if name in self.categories else {},
            means={each: self.means[each] for each in numbers},
            flagged=[each for each in numbers if each in self.flagged],
            base=None,
        )

    def codes(self, frame: pd.DataFrame, rows: Rows | None = None) -> NDArray[np.int32]:
        """Return the categorical columns of all rows, or of the marked ones, as codes, of shape [rows, columns]."""
        codes = np.empty((_count(frame, rows), len(self.categories)), dtype=np.int32)
        for place, (name, categories) in enumerate(self.categories.items()):
            codes[:, place] = _codes(_column(frame, name, rows), categories)
        return codes

    def numbers(self, frame: pd.DataFrame, rows: Rows | None = None) -> NDArray[np.float32]:
        """Return the continuous columns, standardised, the marks of missing values, and the base, [rows, columns].

        Args:
            frame: the table.
            rows: which rows; all by default.
        """
        numbers = np.empty((_count(frame, rows), self.num_numbers), dtype=np.float32)
        if self.base is not None:
            numbers[:, -1] = _column(frame, self.base, rows)
        for place, name in enumerate(self.means):
            values = _column(frame, name, rows).to_numpy(np.float64, na_value=np.nan)
            missing = ~np.isfinite(values)
            filled = np.where(missing, self.medians[name], values)
            most = MOST_DEVIATIONS if name in self.history else FARTHEST
            numbers[:, place] = self._standardised(name, filled).clip(-most, most)
            if name in self.flagged:
                numbers[:, len(self.means) + self.flagged.index(name)] = missing
        return numbers

    def _standardised(self, name: str, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        deviation = self.deviations[name]
        return (numbers - self.means[name]) / deviation if deviation else np.zeros_like(numbers)

    def check(self, frame: pd.DataFrame, place: RowLocations, counted: Rows | None = None) -> list[str]:
        """Compare new rows with the training rows, and return notes on the differences.

        Args:
            frame: the rows.
            place: where they stand.
            counted: which of them the notes are about; None: all.

        Raises:
            DataError: a column is missing, or a continuous one is not numeric.
        """
        missing = [name for name in (*self.categories, *self.means) if name not in frame.columns]
        if missing:
            raise DataError(
                f"{place} is missing {len(missing)} column(s) that the run was trained on: {', '.join(missing)}"
            )
        notes = []
        for name, categories in self.categories.items():
            column = frame[name]
            unseen = column.notna().to_numpy() & (_codes(column, categories) == 0)
            unseen &= True if counted is None else counted
            if unseen.any():
                examples = ", ".join(dict.fromkeys(str(v) for v in column[unseen].iloc[:1000]))
                shown = examples if len(examples) < 60 else examples[:60] + " …"
                notes.append(f"{name}: {int(unseen.sum()):,} row(s) with categories not seen in training ({shown})")
        for name in self.means:
            numbers = pd.to_numeric(frame[name], errors="coerce")
            bad = (numbers.isna() & frame[name].notna()).to_numpy()
            if bad.any():
                row = int(bad.argmax())
                raise DataError(f"{place.at(row)}: {name} is {quoted(frame[name].iloc[row])}, which is not a number")
            frame[name] = numbers
            numbers = _column(frame, name, counted)
            known = numbers.dropna()
            if len(known) >= ENOUGH and name not in self.history and self._is_in_another_unit(name, known):
                notes.append(
                    f"{name}: the median is {known.median():g}, in training {self.medians[name]:g}: in another unit?"
                )
            if note := self._far_note(name, known.to_numpy(np.float64)):
                notes.append(note)
            if numbers.isna().any() and name not in self.flagged:
                notes.append(f"{name}: {int(numbers.isna().sum()):,} missing value(s) replaced by the training median")
        return notes

    def _is_in_another_unit(self, name: str, numbers: pd.Series[Any]) -> bool:
        """Return whether medians differ by a factor of hundreds, and by more than the numbers of either part vary."""
        old, new, deviation = self.medians[name], float(numbers.median()), self.deviations[name]
        if not deviation:  # that has a note of its own
            return False
        if not old:
            return abs(new) > MOST_RATIO * deviation
        if not new or 1 / MOST_RATIO < abs(new / old) < MOST_RATIO:
            return False
        return abs(new - old) > MOST_SHIFT * min(deviation, float(numbers.std()))

    def _far_note(self, name: str, numbers: NDArray[np.float64]) -> str | None:
        """Return a note on numbers that are not used as they are: far from those of training, or from the only one."""
        if self.deviations[name]:
            are_far = np.abs(self._standardised(name, numbers)) > FARTHEST
            what = f"are more than {FARTHEST:,.0f} standard deviations from the mean in training, and count as so many"
        else:
            are_far = ~np.isclose(numbers, self.medians[name], rtol=1e-9)
            what = f"are not {self.medians[name]:g}, the only number in training, and count as it"
        if not are_far.any():
            return None
        return f"{name}: {are_far.sum():,} number(s), such as {numbers[are_far][0]:g}, {what}"

    def state(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TabularPreprocessor:
        """Return what `state` was made from."""
        found = {("categories" if key == "levels" else key): value for key, value in state.items()}  # an old name
        found.setdefault("history", [name for name in found["means"] if name.startswith(HISTORY)])
        return cls(**found)


def _column(frame: pd.DataFrame, name: str, rows: Rows | None) -> pd.Series[Any]:
    column: pd.Series[Any] = frame[name]
    return column if rows is None else column[rows]


def _count(frame: pd.DataFrame, rows: Rows | None) -> int:
    return len(frame) if rows is None else int(rows.sum())


def _quantiles(numbers: NDArray[np.float64], ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return quantiles for which no single value counts for more than a part of the rows.

    Of a column of which nine in ten values are 0 nearly all bins would else have no width.

    >>> _quantiles(np.array([0.0] * 97 + [1, 2, 3]), np.linspace(0, 1, 4)).tolist()
    [0.0, 0.0, 1.0, 3.0]
    """
    values, counts = np.unique(numbers, return_counts=True)
    most = -(-len(numbers) // PARTS)
    return np.quantile(np.repeat(values, np.minimum(counts, most)), ranks)


def _learnable(column: pd.Series[Any]) -> list[Any]:
    """Return the categories of a column; of many, those with several rows, so that the others train the unseen one."""
    categories = _categories(column)
    if len(categories) <= MANY_CATEGORIES:
        return categories
    counts = np.bincount(_codes(column, categories), minlength=len(categories) + 1)[1:]
    return [category for category, count in zip(categories, counts, strict=True) if count > 1]


def _categories(column: pd.Series[Any]) -> list[Any]:
    """Return the categories that occur, in order, as plain numbers or text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        present = np.bincount(column.cat.codes + 1, minlength=len(column.cat.categories) + 1)[1:] > 0
        categories = column.cat.categories[present].tolist()
    else:
        categories = pd.unique(category_values(column).dropna()).tolist()
    try:
        return sorted(categories)
    except TypeError:  # numbers and text
        return sorted(map(str, categories))


def _codes(column: pd.Series[Any], categories: Sequence[Any]) -> NDArray[np.int32]:
    """Return 1 + the index of each value among the categories, 0 if it is not among them."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        code_of = pd.Index(categories).get_indexer(column.cat.categories).astype(np.int32) + 1
        return np.asarray(np.append(code_of, np.int32(0))[column.cat.codes])
    index = pd.Index(categories)
    values = category_values(column)
    if not categories:
        return np.zeros(len(column), dtype=np.int32)
    if isinstance(categories[0], str):
        values = values.where(values.isna(), values.astype(str))
    elif not pd.api.types.is_numeric_dtype(values):
        values = pd.to_numeric(values, errors="coerce")
    if values.dtype == "Int64":
        values = values.astype("float64")
    return np.asarray(index.get_indexer(values), dtype=np.int32) + 1
