"""What each column of a table is: a category, a number, a date, or nothing to learn from; and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dlrunner.errors import ConfigError, DataError, did_you_mean

Role = Literal["categorical", "continuous", "left out"]

MOST_LEVELS = 20
"""Whole numbers with more levels than this are taken as quantities (fastai's `max_card`)."""

ENDS = ("Is_month_start", "Is_month_end", "Is_quarter_start", "Is_quarter_end", "Is_year_start", "Is_year_end")


@dataclass
class Roles:
    """The columns by what they are taken for."""

    categorical: list[str] = field(default_factory=list)
    continuous: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    id: str | None = None
    """The column that names the rows, where one does."""
    reasons: dict[str, str] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()
    """Columns that are parts of dates."""
    inferred: bool = False

    def notes(self) -> list[str]:
        """Say what each inferred column became, and why, so that a person can correct it."""
        if not self.inferred:
            return []
        lines = []
        for role, names in (
            ("categorical", self.categorical),
            ("continuous", self.continuous),
            ("left out", self.left_out),
        ):
            told = [f"{name} ({self.reasons[name]})" for name in names if name not in self.parts]
            parts = [name for name in names if name in self.parts]
            told += [f"{', '.join(parts)} ({self.reasons[parts[0]]})"] if parts else []
            if told:
                lines.append(f"{role}: {', '.join(told)}")
        return [*lines, "another choice: data.categorical=[a,b] data.continuous=[c,d]"]


def quoted(value: Any) -> str:
    """Write a value of a table in a message: texts in quotes, numbers as they are.

    >>> quoted("soon"), quoted(np.float64("inf"))
    ("'soon'", 'inf')
    """
    return repr(value) if isinstance(value, str) else str(value)


def date_column(column: pd.Series[Any], name: str, place: Path, first_row: int = 2) -> pd.Series[Any]:
    """Return a column as dates, without their time zone.

    Raises:
        DataError: a value is no date; the message names the row as a person counts it in the file.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        dates = column
    elif pd.api.types.is_numeric_dtype(column) and not column.dropna().between(19000101, 21001231).all():
        bad = int((~column.between(19000101, 21001231)).to_numpy().argmax())
        raise DataError(f"{place}, row {bad + first_row}: {name} is {quoted(column.iloc[bad])}, which is no date")
    else:
        text = column.astype("Int64").astype("str") if pd.api.types.is_numeric_dtype(column) else column
        distinct = pd.Series(pd.unique(text))
        parsed = pd.to_datetime(distinct, errors="coerce", format="ISO8601")
        if (parsed.isna() & distinct.notna()).any():
            parsed = pd.to_datetime(distinct, errors="coerce", format="mixed", utc=True).dt.tz_localize(None)
        if parsed.dt.tz is not None:
            parsed = parsed.dt.tz_convert(None)
        dates = text.map(pd.Series(parsed.to_numpy(), index=distinct))
    if getattr(dates.dt, "tz", None) is not None:
        dates = dates.dt.tz_convert(None)
    missing = dates.isna().to_numpy()
    if missing.any():
        row = int(missing.argmax())
        value = column.iloc[row]
        said = "is missing" if pd.isna(value) else f"is {quoted(value)}, which is no date"
        raise DataError(f"{place}, row {row + first_row}: {name} {said}; {int(missing.sum())} such row(s) in all")
    return dates


def date_parts(dates: pd.Series[Any], name: str) -> pd.DataFrame:
    """Return what a date tells, as columns: fast.ai's `add_datepart`.

    Year, Month, Week (ISO), Day, Dayofweek (Monday is 0), Dayofyear; whether it starts or ends a month, a quarter,
    a year; and Elapsed, days since 1970 (fractions of a day where there is a time), which is a quantity.
    """
    prefix = name.removesuffix("Date").removesuffix("date").removesuffix("_")
    prefix = f"{prefix}_" if prefix else ""
    parts: dict[str, Any] = {
        f"{prefix}Year": dates.dt.year,
        f"{prefix}Month": dates.dt.month,
        f"{prefix}Week": dates.dt.isocalendar().week.astype("int64"),
        f"{prefix}Day": dates.dt.day,
        f"{prefix}Dayofweek": dates.dt.day_of_week,
        f"{prefix}Dayofyear": dates.dt.day_of_year,
    }
    parts |= {f"{prefix}{end}": getattr(dates.dt, end.lower()) for end in ENDS}
    parts[f"{prefix}Elapsed"] = (dates - pd.Timestamp(0)) / pd.Timedelta(days=1)
    return pd.DataFrame(parts, index=dates.index)


def is_quantity(part: str) -> bool:
    """Tell the one date part that is a quantity from those that are categories."""
    return part.endswith("Elapsed")


def looks_like_dates(column: pd.Series[Any]) -> bool:
    """Tell a column of dates: of that type, or text that is all ISO 8601 dates."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    if not (pd.api.types.is_string_dtype(column) or column.dtype == object):
        return False
    sample = column.dropna()
    if sample.empty or not isinstance(sample.iloc[0], str) or not sample.iloc[0][:4].isdigit():
        return False
    if not sample.astype(str).str.match(r"^\d{4}-\d{2}-\d{2}").all():
        return False
    return bool(pd.to_datetime(sample, errors="coerce", format="ISO8601", utc=True).notna().all())


def assign(
    frame: pd.DataFrame,
    place: Path,
    *,
    categorical: Sequence[str] | None,
    continuous: Sequence[str] | None,
    parts: Sequence[str],
    reserved: Sequence[str],
    id: str | None,
) -> Roles:
    """Decide what each column is: as named, or, without either list, as its values suggest.

    Args:
        frame: the table, its dates turned into parts already.
        place: its file, for messages.
        categorical, continuous: the columns as named; None where the person did not say.
        parts: columns that came from dates; they are used whether lists are given or not.
        reserved: targets, dates, marks of validation: nothing to learn from.
        id: the column that names the rows, where the person said it.

    Raises:
        ConfigError: a named column does not exist, is named twice, or is the target.
        DataError: a column named as continuous holds no numbers, or nothing is left to learn from.
    """
    roles = Roles(id=id, parts=frozenset(parts), inferred=categorical is None and continuous is None)
    if roles.inferred:
        _infer(frame, roles, {*reserved, *parts})
    else:
        _as_named(frame, place, roles, categorical or [], continuous or [], reserved)
    for part in parts:
        if frame[part].nunique() > 1:
            (roles.continuous if is_quantity(part) else roles.categorical).append(part)
            roles.reasons[part] = "part of a date"
        else:
            roles.left_out.append(part)
            roles.reasons[part] = "part of a date, always the same"
    if not roles.categorical and not roles.continuous:
        raise DataError(f"{place}: no column is left to learn from; {'; '.join(roles.notes()) or 'name some'}")
    return roles


def _as_named(
    frame: pd.DataFrame,
    place: Path,
    roles: Roles,
    categorical: Sequence[str],
    continuous: Sequence[str],
    reserved: Sequence[str],
) -> None:
    seen: dict[str, str] = {}
    for role, names in (("categorical", categorical), ("continuous", continuous)):
        for name in names:
            if name not in frame.columns:
                raise ConfigError(f"data.{role}: {place} has no column {name!r}; {did_you_mean(name, frame.columns)}")
            if name in seen:
                twice = f"twice in data.{role}" if seen[name] == role else f"in data.{seen[name]} and in data.{role}"
                raise ConfigError(f"data.{role}: the column {name} is named {twice}")
            if name in reserved:
                raise ConfigError(f"data.{role}: {name} is the target, a date or a mark: it cannot be an input too")
            seen[name] = role
    for name in continuous:
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column):
            numbers = pd.to_numeric(column, errors="coerce")
            bad = (numbers.isna() & column.notna()).to_numpy()
            if bad.any():
                row = int(bad.argmax())
                raise DataError(
                    f"{place}, row {row + 2}: {name} is {quoted(column.iloc[row])}, which is no number; "
                    f"is it a category? ({int(bad.sum())} such row(s))"
                )
            frame[name] = numbers
    for role, names in (("categorical", categorical), ("continuous", continuous)):
        for name in names:
            levels = frame[name].nunique()
            if levels < 2 and not (levels == 1 and frame[name].isna().any()):
                roles.left_out.append(name)
                roles.reasons[name] = "constant"
                continue
            (roles.categorical if role == "categorical" else roles.continuous).append(name)
            roles.reasons[name] = "as named"


def _infer(frame: pd.DataFrame, roles: Roles, skipped: set[str]) -> None:
    for name in frame.columns:
        if name in skipped or name == roles.id:
            continue
        role, roles.reasons[name] = _guess(frame[name])
        if role == "categorical":
            roles.categorical.append(name)
        elif role == "continuous":
            roles.continuous.append(name)
        else:
            roles.left_out.append(name)
            if roles.id is None and roles.reasons[name].startswith("a different"):
                roles.id = name


def _guess(column: pd.Series[Any]) -> tuple[Role, str]:
    """Return the role of a column and the reason, in words."""
    known = column.dropna()
    levels = known.nunique()
    if levels == 0:
        return "left out", "empty"
    if levels == 1 and len(known) == len(column):
        return "left out", "constant"
    if pd.api.types.is_bool_dtype(known) or set(map(type, known.unique())) == {bool}:
        return "categorical", "true or false"
    if pd.api.types.is_numeric_dtype(known):
        whole = bool(np.all(np.equal(np.mod(known.to_numpy(np.float64), 1), 0)))
        if whole and levels == len(column) and len(column) > MOST_LEVELS and _is_count(known):
            return "left out", "a different whole number in every row"
        if whole and levels <= MOST_LEVELS:
            return "categorical", f"{levels} whole numbers"
        return "continuous", f"whole numbers, {levels:,} levels" if whole else "numbers"
    if levels == len(column) and len(column) > MOST_LEVELS:
        return "left out", "a different text in every row"
    return "categorical", f"text, {levels:,} levels"


def _is_count(column: pd.Series[Any]) -> bool:
    """Tell row numbers from quantities: they fill their range without gaps."""
    return float(column.max() - column.min()) + 1 == len(column)


def warn_of_many_levels(frame: pd.DataFrame, roles: Roles, num_train: int) -> list[str]:
    """Warn of categories that can teach nothing: about as many levels as rows."""
    notes = []
    for name in roles.categorical:
        levels = frame[name].nunique()
        if levels > max(MOST_LEVELS, num_train / 2):
            notes.append(
                f"the column {name} has {levels:,} levels in {len(frame):,} rows: as a category it teaches next to "
                "nothing (leave it out, or name it in data.continuous)"
            )
    return notes


def levels_of(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column's values as whole numbers, numbers or text, the same however a file was read.

    >>> levels_of(pd.Series([1.0, None, 2.0])).tolist(), levels_of(pd.Series([True, False])).tolist()
    ([1, <NA>, 2], ['True', 'False'])
    """
    if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_integer_dtype(column):
        return column
    if pd.api.types.is_bool_dtype(column):
        return column.astype(str)
    if pd.api.types.is_float_dtype(column):
        whole = (column.dropna() % 1 == 0).all()
        return column.astype("Int64") if whole else column
    return column.where(column.isna(), column.astype(str))
