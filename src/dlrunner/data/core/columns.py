"""The role of each column of a table (categorical, continuous, date, or unused), and the reason."""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.variation import is_constant
from dlrunner.errors import ConfigError, DataError, did_you_mean

Role = Literal["categorical", "continuous", "categorical and continuous", "left out"]

MAX_CATEGORIES = 20
"""Integers with more distinct values than this are continuous (fastai's `max_card`)."""

ROWS_PER_CATEGORY = 20
"""Training rows for each category of a part of a date; with fewer of them the part is a number alone: an embedding of
366 days of the year learns single rows by heart. Chosen on generated tables of 700 to 2,400 rows."""

ENDS = ("Is_month_start", "Is_month_end", "Is_quarter_start", "Is_quarter_end", "Is_year_start", "Is_year_end")
PARTS = ("Year", "Month", "Week", "Day", "Dayofweek", "Dayofyear", *ENDS, "Hour", "Elapsed")
"""Of a date."""


@dataclass
class Roles:
    """The columns by their role."""

    categorical: list[str] = field(default_factory=list)
    continuous: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    id: str | None = None
    """The column that identifies the rows, if there is one."""
    reasons: dict[str, str] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()
    """Columns that are parts of dates."""
    inferred: bool = False

    def uses(self) -> dict[str, str]:
        """Return what each column is used as, with the reason where that was inferred."""
        found: dict[str, str] = {}
        for use, names in (
            ("categorical", self.categorical),
            ("continuous", self.continuous),
            ("left out", self.left_out),
        ):
            found |= {name: f"{use}: {self.reasons[name]}" if self.inferred else use for name in names}
        for name in set(self.categorical) & set(self.continuous):
            found[name] = f"categorical and continuous: {self.reasons[name]}"
        return found


def quoted(value: Any) -> str:
    """Format a value of a table for a message: text in quotes, numbers as they are.

    >>> quoted("soon"), quoted(np.float64("inf"))
    ("'soon'", 'inf')
    """
    return repr(value) if isinstance(value, str) else str(value)


def date_column(column: pd.Series[Any], name: str, place: RowLocations) -> pd.Series[Any]:
    """Return a column as dates; strings are ISO 8601.

    Raises:
        DataError: a value is not a date; the message names the row of the file.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        dates = column
    else:
        distinct = pd.Series(pd.unique(column.astype("str")), dtype="str")
        parsed = pd.to_datetime(distinct, errors="coerce", format="ISO8601")
        dates = column.astype("str").map(pd.Series(parsed.to_numpy(), index=distinct))
    missing = dates.isna().to_numpy()
    if missing.any():
        row = int(missing.argmax())
        value = column.iloc[row]
        problem = "is missing" if pd.isna(value) else f"is {quoted(value)}, which is not a date"
        raise DataError(f"{place.at(row)}: {name} {problem}; {int(missing.sum())} such row(s) in all")
    return dates


def part_prefixes(names: Sequence[str], others: Iterable[str]) -> dict[str, str]:
    """Return what the names of the parts of each date column begin with.

    `saleDate` gives `saleYear`, as in fast.ai's `add_datepart`, unless that is also the part of another date, or a
    column: then it is the whole name.

    >>> part_prefixes(["Date", "created", "created_date"], ["Year"])
    {'Date': 'Date_', 'created': 'created_', 'created_date': 'created_date_'}
    >>> part_prefixes(["Date"], ["Store"])
    {'Date': ''}
    """
    names_of_columns = set(others)
    short = {}
    for name in names:
        stem = name.removesuffix("Date").removesuffix("date").removesuffix("_")
        short[name] = f"{stem}_" if stem else ""
    prefixes = {}
    for name, prefix in short.items():
        is_shared = sum(each == prefix for each in short.values()) > 1
        is_column = any(f"{prefix}{part}" in names_of_columns for part in PARTS)
        prefixes[name] = f"{name}_" if is_shared or is_column else prefix
    return prefixes


def date_parts(dates: pd.Series[Any], prefix: str) -> pd.DataFrame:
    """Return the parts of dates as columns: fast.ai's `add_datepart`; a missing date has missing parts.

    Year, Month, Week (ISO), Day, Dayofweek (Monday is 0), Dayofyear; whether it starts or ends a month, a quarter,
    a year; Hour, 0 where there is no time; and Elapsed, days since 1970 (fractions of a day where there is a time),
    which is continuous.
    """
    values: list[Any] = [
        dates.dt.year,
        dates.dt.month,
        dates.dt.isocalendar().week.astype("Float64" if dates.isna().any() else "int64"),
        dates.dt.day,
        dates.dt.day_of_week,
        dates.dt.day_of_year,
        *(getattr(dates.dt, end.lower()) for end in ENDS),
        dates.dt.hour,
        np.where(dates.isna(), np.nan, dates.to_numpy("datetime64[us]").astype(np.int64) / 86_400e6),
    ]
    return pd.DataFrame(
        {f"{prefix}{part}": value for part, value in zip(PARTS, values, strict=True)}, index=dates.index
    )


def part_label(part: str, value: Any) -> str:
    """Return a value of a date part for people: weekdays and months by name.

    >>> part_label("Dayofweek", 0), part_label("Month", 12.0), part_label("Day", 12)
    ('Mon', 'Dec', '12')
    """
    names = {"Dayofweek": list(calendar.day_abbr), "Month": list(calendar.month_abbr)}.get(part)
    return names[int(value)] if names and not pd.isna(value) else str(value)


def is_quantity(part: str) -> bool:
    """Return whether a date part is continuous; the others are categorical."""
    return part.endswith("Elapsed")


def assign(
    frame: pd.DataFrame,
    place: RowLocations,
    *,
    categorical: Sequence[str] | None,
    continuous: Sequence[str] | None,
    parts: Sequence[str],
    reserved: Sequence[str],
    id: str | None,
    train: NDArray[np.bool_],
) -> Roles:
    """Return the role of each column: as named, or, without either list, inferred from its values.

    Args:
        frame: the table, with dates already replaced by their parts.
        place: its file and rows, for messages.
        categorical, continuous: the columns named by the user, or None.
        parts: columns that came from dates; they are used in any case.
        reserved: targets, dates, the validation column: never inputs.
        id: the column that identifies the rows, if the user named it.
        train: which rows are training rows, [rows]: a column that does not vary there is left out.

    Raises:
        ConfigError: a named column does not exist, is named twice, or is the target.
        DataError: a column named as continuous is not numeric, or no input is left.
    """
    roles = Roles(id=id, parts=frozenset(parts), inferred=categorical is None and continuous is None)
    if roles.inferred:
        _infer(frame, roles, {*reserved, *parts}, train)
    else:
        _as_named(frame, place, roles, categorical or [], continuous or [], reserved, train)
    for part in parts:
        reason = "constant" if frame[part].nunique() < 2 else without_variation(frame[part], train)
        if reason is None:
            is_number = is_quantity(part) or train.sum() < ROWS_PER_CATEGORY * frame[part].nunique()
            if not is_number:
                roles.categorical.append(part)
            if is_number or (roles.inferred and not pd.api.types.is_bool_dtype(frame[part])):
                roles.continuous.append(part)
            roles.reasons[part] = "part of a date"
        else:
            roles.left_out.append(part)
            roles.reasons[part] = f"part of a date, {reason}"
    if not roles.categorical and not roles.continuous:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in roles.reasons.items())
        raise DataError(f"{place}: no input column is left; {reasons or 'name some: data.continuous=[a,b]'}")
    return roles


def without_variation(column: pd.Series[Any], train: NDArray[np.bool_]) -> str | None:
    """Return why a model cannot learn from a column: it is empty or constant; None if it varies in the training rows.

    A value that is missing in some rows varies.

    >>> fee = pd.Series([0.1, 0.1, 0.1, 0.2])
    >>> without_variation(fee, np.array([True, True, True, False]))
    'constant in the training rows'
    >>> without_variation(fee, np.ones(4, bool))
    """
    if (reason := _without_variation(column[train])) is None:
        return None
    return reason if _without_variation(column) == reason else f"{reason} in the training rows"


def _without_variation(column: pd.Series[Any]) -> str | None:
    known = column.dropna()
    if not len(known):
        return "empty"
    if len(known) < len(column):
        return None
    if pd.api.types.is_numeric_dtype(known):
        return "constant" if is_constant(known.to_numpy(np.float64)) else None
    return "constant" if known.nunique() == 1 else None


def _as_named(
    frame: pd.DataFrame,
    place: RowLocations,
    roles: Roles,
    categorical: Sequence[str],
    continuous: Sequence[str],
    reserved: Sequence[str],
    train: NDArray[np.bool_],
) -> None:
    for role, names in (("categorical", categorical), ("continuous", continuous)):
        for name in names:
            if name not in frame.columns:
                raise ConfigError(f"data.{role}: {place} has no column {name!r}; {did_you_mean(name, frame.columns)}")
            if names.count(name) > 1:
                raise ConfigError(f"data.{role}: the column {name} is named twice")
            if name in reserved:
                raise ConfigError(
                    f"data.{role}: {name} is the target, a date or the validation column; it cannot be an input too"
                )
    for name in continuous:
        column = frame[name]
        if pd.api.types.is_datetime64_any_dtype(column):
            raise DataError(f"{place}: {name} holds dates, not numbers (data.dates=[{name}] uses their parts)")
        if not pd.api.types.is_numeric_dtype(column):
            numbers = pd.to_numeric(column, errors="coerce")
            bad = (numbers.isna() & column.notna()).to_numpy()
            if bad.any():
                row = int(bad.argmax())
                raise DataError(
                    f"{place.at(row)}: {name} is {quoted(column.iloc[row])}, which is not a number; "
                    f"is it a category? ({int(bad.sum())} such row(s))"
                )
            frame[name] = numbers
    for role, names in (("categorical", categorical), ("continuous", continuous)):
        for name in names:
            if reason := without_variation(frame[name], train):
                roles.left_out += [name] if name not in roles.left_out else []
                roles.reasons[name] = reason
                continue
            (roles.categorical if role == "categorical" else roles.continuous).append(name)
            roles.reasons[name] = "as named"


def _infer(frame: pd.DataFrame, roles: Roles, skipped: set[str], train: NDArray[np.bool_]) -> None:
    for name in frame.columns:
        if name in skipped or name == roles.id:
            continue
        role, roles.reasons[name] = _guess(frame[name], train)
        if "categorical" in role:
            roles.categorical.append(name)
        if "continuous" in role:
            roles.continuous.append(name)
        if role == "left out":
            roles.left_out.append(name)
            if roles.id is None and roles.reasons[name].startswith("a different"):
                roles.id = name


def _guess(column: pd.Series[Any], train: NDArray[np.bool_]) -> tuple[Role, str]:
    """Return the role of a column and the reason."""
    if reason := without_variation(column, train):
        return "left out", reason
    known = column.dropna()
    num_values = known.nunique()
    if pd.api.types.is_bool_dtype(known) or set(map(type, known.unique())) == {bool}:
        return "categorical", "true or false"
    if pd.api.types.is_numeric_dtype(known):
        are_integers = bool(np.all(np.equal(np.mod(known.to_numpy(np.float64), 1), 0)))
        if are_integers and num_values == len(column) and len(column) > MAX_CATEGORIES and _is_count(known):
            return "left out", "a different integer in every row"
        if are_integers and num_values <= MAX_CATEGORIES:
            return "categorical" if num_values == 2 else "categorical and continuous", f"{num_values} integers"
        return "continuous", f"integers, {num_values:,} distinct values" if are_integers else "numbers"
    if num_values == len(column) and len(column) > MAX_CATEGORIES:
        return "left out", "a different text in every row"
    return "categorical", f"text, {num_values:,} categories"


def _is_count(column: pd.Series[Any]) -> bool:
    """Return whether a column counts its rows: it fills its range without gaps."""
    return float(column.max() - column.min()) + 1 == len(column)


def high_cardinality_notes(frame: pd.DataFrame, roles: Roles, num_train: int) -> list[str]:
    """Return a note for each categorical column with about as many categories as rows."""
    notes = []
    for name in roles.categorical:
        num_values = frame[name].nunique()
        if num_values > max(MAX_CATEGORIES, num_train / 2):
            notes.append(
                f"the column {name} has {num_values:,} categories in {len(frame):,} rows: an embedding of it learns "
                "next to nothing (leave it out, or name it in data.continuous)"
            )
    return notes


def category_values(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column's values as integers, floats or strings, independent of how the file was read.

    Dates are strings of their own, whatever times the other rows have.

    >>> category_values(pd.Series([1.0, None, 2.0])).tolist(), category_values(pd.Series([True, False])).tolist()
    ([1, <NA>, 2], ['True', 'False'])
    """
    if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_integer_dtype(column):
        return column
    if pd.api.types.is_bool_dtype(column):
        return column.astype(str)
    if pd.api.types.is_float_dtype(column):
        are_integers = (column.dropna() % 1 == 0).all()
        return column.astype("Int64") if are_integers else column
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.map({each: str(each).removesuffix(" 00:00:00") for each in column.dropna().unique()}).astype(
            object
        )
    return column.where(column.isna(), column.astype(str))
