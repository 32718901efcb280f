"""A user's own table of ratings: its columns, and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.tables.candidates import NEARLY_ALL
from dlrunner.data.tables.description import describe_columns
from dlrunner.data.tables.formats import number_formats
from dlrunner.data.tables.inference import Hints, commonest_dates, infer
from dlrunner.data.tables.raw import RawTable, table_from_frame
from dlrunner.data.tables.schema import Column, Schema, Statistics
from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Reading, load_schema, read_known_table
from dlrunner.data.tables.totals import leave_out_totals
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import user_path

USUAL_NAMES = {
    "user": ("userId", "user_id", "user", "userid", "UserID", "uid"),
    "item": ("movieId", "itemId", "item_id", "item", "movie_id", "itemid", "MovieID", "iid", "product_id"),
    "rating": ("rating", "Rating", "ratings", "score", "stars"),
    "timestamp": ("timestamp", "Timestamp", "time", "date"),
}
HIGHEST_RATING = 1e6
UNITS = (("seconds", 1e11, 1.0), ("milliseconds", 1e14, 1e3), ("microseconds", 1e17, 1e6), ("nanoseconds", 1e20, 1e9))
"""Of times as numbers: all times of the years 1973 to 5138 lie below the bound, and above that of the unit before."""
CALENDAR = (("%Y%m%d", 19000101, 21001231), ("%Y%m%d%H%M%S", 19000101000000, 21001231235959))
"""Forms of times as numbers, with their first and last one."""
EXCEL_DAYS = (20000, 80000)
"""Of the years 1954 to 2119, counted from 1900."""


@dataclass(frozen=True)
class UserTable:
    """A user's table of ratings, as it was read."""

    frame: pd.DataFrame
    """user and item (categories: text, as in the file), rating (1 where there is no such column), timestamp (seconds
    since 1970) if there are times, and split."""
    rows: RowLocations
    """Where they stand."""
    columns: Mapping[str, str]
    """The name of the column of each role."""
    schema: Schema
    """Of these columns."""
    described: list[dict[str, Any]]
    """All columns: how they were read and are used."""
    notes: Sequence[str]


def find_columns(names: Sequence[str], given: Mapping[str, str | None], place: Path) -> dict[str, str]:
    """Return the name of the column of each role: as given, or a usual one; only timestamp may be missing.

    Raises:
        ConfigError: there is none of a given name.
        DataError: there is none of a usual name, or one column has two roles.
    """
    found = {}
    listed = ", ".join(names)
    for role, wanted in given.items():
        if wanted is not None and wanted not in names:
            raise ConfigError(
                f"data.{role}: {place} has no column {wanted!r}; its columns are: {listed}; "
                f"{did_you_mean(wanted, names)}"
            )
        name = wanted or next((usual for usual in USUAL_NAMES[role] if usual in names), None)
        if name is not None:
            found[role] = name
        elif role != "timestamp":
            other = ", or task=implicit if there are none" if role == "rating" else ""
            raise DataError(
                f"{place}: which column is the {role}? set data.{role}=NAME{other}; its columns are: {listed}"
            )
    if len(set(found.values())) < len(found):
        roles = ", ".join(f"{role} {name}" for role, name in found.items())
        raise DataError(f"{place}: one column cannot have two roles ({roles}); set data.user=NAME and so on")
    return found


def read_user_table(
    file: TableFile,
    given: Mapping[str, str | None],
    needs_times: bool,
    marks: str | None = None,
    *,
    has_ratings: bool = True,
) -> UserTable:
    """Read a user's table of ratings.

    Args:
        file: the table and its settings.
        given: the name of the column of each role, None: one of the usual names.
        needs_times: rows without a time, or with another text, are bad; by default the column is ignored, with a note.
        marks: the column that says which rows validate, which becomes `split`.
        has_ratings: a column of ratings is searched for; else all ratings are 1 unless `given` names one.

    Raises:
        ConfigError: there is no column of marks, a column could be read in two ways, or the file does not exist.
        DataError: a value cannot be read, or the table is damaged.
    """
    reading = file.reading
    if not has_ratings and given["rating"] is None:
        given = {role: name for role, name in given.items() if role != "rating"}
    with file.open() as raw:
        if note := leave_out_totals(raw):
            raw.notes.append(note)
        columns = find_columns(raw.names, given, raw.place)
        if marks is not None and marks not in raw.names:
            known = did_you_mean(marks, raw.names)
            raise ConfigError(f"data.valid_column: {raw.place} has no column {marks!r}; {known}")
        schema = _schema(raw, columns, reading)
        schema = schema.with_column(Column(columns["user"], verbatim=True))
        schema = schema.with_column(Column(columns["item"], verbatim=True))
        notes = []
        if "timestamp" in columns:
            try:
                schema = _with_times(raw, columns, schema, reading)
            except DataError as error:
                if needs_times:
                    raise
                notes.append(f"the column {columns.pop('timestamp')} is ignored: {error}")
        if "timestamp" in columns and not needs_times and (bad := _bad_example(schema, columns["timestamp"])):
            notes.append(f"the column {columns.pop('timestamp')} is ignored: some of its values are not times ({bad})")
        if "rating" in columns:
            schema = _with_numbers(raw, columns["rating"], schema, reading)
        ids = (columns["user"], columns["item"])
        table = read_known_table(raw, schema, [*columns.values(), *([marks] if marks else [])], coded=ids)
    table = table.checked(set(columns.values()), reading.skip_bad)
    frame = pd.DataFrame({role: table.frame[name] for role, name in columns.items()}, copy=False)
    if "rating" not in columns:
        frame["rating"] = 1.0
    elif frame["rating"].dtype != np.float64:
        frame["rating"] = frame["rating"].to_numpy(np.float64, na_value=np.nan)
    if marks is not None:
        frame["split"] = table.frame[marks]
    if "timestamp" in frame:
        column = schema[columns["timestamp"]]
        try:
            frame["timestamp"], understood = _seconds(frame["timestamp"], column, table.rows)
            missing = np.isnan(frame["timestamp"].to_numpy())
            if missing.any() and not needs_times:
                row = table.rows.short(int(missing.argmax()))
                raise DataError(f"it has no value in {missing.sum():,} row(s) ({row})")
            notes.append(f"the column {column.name} is read as {understood}")
        except DataError as error:
            if needs_times:
                raise
            notes.append(f"the column {column.name} is ignored: {error}")
            del columns["timestamp"], frame["timestamp"]
    used = Schema(tuple(schema[name] for name in columns.values()))
    described = describe_columns(schema, {name: role for role, name in [*columns.items(), ("split", marks)] if name})
    return UserTable(frame, table.rows, columns, used, described, (*table.notes, *notes))


def ratings_of(
    table: pd.DataFrame, name: str, columns: Sequence[Mapping[str, Any]], place: Path
) -> tuple[NDArray[np.float64], list[tuple[int, str]]]:
    """Return the ratings in a column of a table, read as in the training table, and rows and reasons of bad ones.

    Args:
        table: strings as a file has them, or values.
        name: of the column.
        columns: how those of the training table were read; of a column with another name the format is inferred.
        place: for messages.
    """
    with table_from_frame(table[[name]], place) as raw:
        known = next((each for each in Schema.from_state(columns).columns if each.name == name), None)
        schema = Schema((known,)) if known else _with_numbers(raw, name, infer(raw, Hints()), Reading())
        read = read_known_table(raw, schema)
    values = read.frame[name].to_numpy(np.float64, na_value=np.nan)
    problems = {int(row): "the rating is missing" for row in np.flatnonzero(np.isnan(values))}
    problems |= {each.row: each.reason for each in read.bad}
    return values, sorted(problems.items())


def _schema(raw: RawTable, columns: Mapping[str, str], reading: Reading) -> Schema:
    if reading.schema is not None:
        schema = load_schema(user_path(reading.schema))
        for name in columns.values():
            if name not in schema.names:
                raise ConfigError(f"data.schema: {reading.schema} has no column {name}")
        return schema
    dates = [columns["timestamp"]] if "timestamp" in columns and reading.date_format is not None else []
    ids = (columns["user"], columns["item"])
    return infer(raw, Hints(ids, dates, reading.decimal, reading.thousands, reading.date_format))


def _bad_example(schema: Schema, name: str) -> str:
    return schema.found[name].bad_example if name in schema.found else ""


def _with_numbers(raw: RawTable, name: str, schema: Schema, reading: Reading) -> Schema:
    """Return the schema with a column read as numbers, in the format that most of its values have."""
    column = schema[name]
    if column.type in ("integer", "number"):
        return schema.with_column(replace(column, type="number"))
    if column.type == "boolean":
        return schema
    if raw.type_of(name) != "VARCHAR":
        raise DataError(f"{raw.place}: {name} holds dates, not ratings")
    formats = [Column(name, "number", decimal=each.decimal, thousands=each.thousands) for each in number_formats()]
    formats = [each for each in formats if reading.decimal in (None, each.decimal)]
    misfits = _misfits(raw, formats)
    best = int(np.argmin(misfits))
    return _as_counted(raw, schema, formats[best], misfits[best])


def _misfits(raw: RawTable, columns: Sequence[Column]) -> list[int]:
    """Return how many values of a column have another format than each of these."""
    counts = raw.aggregate(*[f"count_if({each.bad(raw.column(each.name))})" for each in columns])
    return [int(each) for each in counts]


def _as_counted(raw: RawTable, schema: Schema, column: Column, num_bad: int) -> Schema:
    """Return the schema with another column, of whose values some have another format."""
    text = raw.column(column.name)
    row, value = raw.first_where(column.bad(text), text) if num_bad else (0, "")
    found = replace(
        schema.found.get(column.name, Statistics()),
        num_bad=num_bad,
        bad_example=f"{raw.rows.short(row)}: {value!r}" if num_bad else "",
        doubt=None,
    )
    return replace(schema.with_column(column), found={**schema.found, column.name: found})


def _with_times(raw: RawTable, columns: Mapping[str, str], schema: Schema, reading: Reading) -> Schema:
    """Return the schema with the column of times read as dates or numbers.

    Raises:
        DataError: it holds neither.
    """
    name = columns["timestamp"]
    if schema[name].type in ("date", "integer", "number"):
        return schema
    if raw.type_of(name) == "VARCHAR" and (found := commonest_dates(raw, name)) is not None:
        return _as_counted(raw, schema, *found)
    others = [each for each in raw.names if each != name]
    hints = Hints(others, [name], reading.decimal, reading.thousands, reading.date_format)
    inferred = infer(raw, hints)
    return replace(schema.with_column(inferred[name]), found={**schema.found, name: inferred.found[name]})


def _seconds(values: pd.Series[Any], column: Column, rows: RowLocations) -> tuple[NDArray[np.float64], str]:
    """Return times as seconds since 1970, NaN where there is none, and what was understood.

    Raises:
        DataError: a number is no time, or some are in seconds and others in milliseconds.
    """
    if column.type == "date":
        times = values.to_numpy("datetime64[us]")
        seconds = np.where(np.isnat(times), np.nan, times.astype(np.int64) / 1e6)
        kind = "" if str(column.format).endswith("since 1970") else "dates, "
        return seconds, f"{kind}{column.format}{_range(seconds)}"
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    is_known = np.isfinite(numbers)
    known = numbers if is_known.all() else numbers[is_known]
    if (found := _as_calendar(known)) is not None:
        seconds = np.full(len(numbers), np.nan)
        seconds[is_known] = found[0]
        if (bad := is_known & np.isnan(seconds)).any():
            row = int(bad.argmax())
            form = f"a date of the form {found[1]}, as the others are"
            reason = f"{column.name} is {numbers[row]:.15g}, which is not {form}; {int(bad.sum()):,} such row(s) in all"
            raise DataError(f"{rows.at(row)}: {reason}")
        return seconds, f"dates, {found[1]}{_range(seconds)}"
    largest = float(max(-known.min(), known.max())) if len(known) else 0.0
    if largest >= UNITS[-1][1]:
        raise DataError(f"{rows}: {column.name} holds {largest:g}, which is not a time")
    number = next(i for i, (_, bound, _) in enumerate(UNITS) if largest < bound)
    unit, _, per_second = UNITS[number]
    low, high = (UNITS[number - 1][1] / 1e3, UNITS[number - 1][1]) if number else (0.0, 0.0)
    mixed = is_known & (np.abs(numbers) > low) & (np.abs(numbers) < high) if number else is_known & False
    if mixed.any():
        raise DataError(
            f"{rows}: {column.name} holds {int(mixed.sum()):,} times in {UNITS[number - 1][0]}, such as "
            f"{numbers[mixed][0]:.0f}, and others in {unit}, such as {largest:.0f}; write all in one unit"
        )
    seconds = numbers if per_second == 1 else numbers / per_second
    if not is_known.all():
        seconds = np.where(is_known, seconds, np.nan)
    return seconds, f"{unit} since 1970{_range(seconds)}"


def _as_calendar(numbers: NDArray[np.float64]) -> tuple[NDArray[np.float64], str] | None:
    """Return numbers such as 20240131, 20240131235959 or Excel's 45322.5 as seconds since 1970, and the form.

    Numbers that are no dates, next to others that are, are NaN; None if most are none.
    """
    if not len(numbers):
        return None
    of_excel = (numbers >= EXCEL_DAYS[0]) & (numbers < EXCEL_DAYS[1])
    if of_excel.mean() >= NEARLY_ALL:
        return np.where(of_excel, np.round((numbers - 25569) * 86400), np.nan), "days since 1900 (Excel)"
    for form, first, last in CALENDAR:
        if ((numbers >= first) & (numbers <= last)).mean() < 0.5:
            continue
        distinct, places = np.unique(numbers, return_inverse=True)
        possible = (distinct >= first) & (distinct <= last) & (distinct % 1 == 0)
        days = pd.Series(np.where(possible, distinct, 0)).astype("int64").astype("str")
        times = pd.to_datetime(days, format=form, errors="coerce").to_numpy("datetime64[s]")
        seconds = np.where(np.isnat(times), np.nan, times.astype(np.float64))[places]
        if np.isnan(seconds).mean() < 0.5:  # of numbers that count seconds, few are dates
            return seconds, form
    return None


def _range(seconds: NDArray[np.float64]) -> str:
    if np.isnan(seconds).all():
        return ""
    first, last = (np.datetime64(int(each), "s") for each in (np.nanmin(seconds), np.nanmax(seconds)))
    return f": {str(first)[:10]} to {str(last)[:10]}"
