"""Reading a user's table: what the settings say, what was found, and the values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.tables.candidates import Hints
from dlrunner.data.tables.dialect import encodings_to_try
from dlrunner.data.tables.files import open_table
from dlrunner.data.tables.formats import format_problem
from dlrunner.data.tables.inference import infer
from dlrunner.data.tables.raw import RawTable, table_from_frame
from dlrunner.data.tables.reading import BadRow, bad_mask, read_values
from dlrunner.data.tables.schema import Column, Schema
from dlrunner.data.tables.totals import leave_out_totals
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import user_path

REPEATED = 10
"""Rows for each value of a column of text that is kept as categories: each of these takes a hundred bytes."""
Decimal = Literal[".", ","]
Thousands = Literal[".", ",", " ", "'"]


@dataclass(frozen=True)
class Reading:
    """How a table is read; every data source of tables has one. Names as in the `data` section."""

    schema: str | None = None
    """A file written by `dlrun data describe --save`."""
    date_format: str | None = None
    decimal: Decimal | None = None
    thousands: Thousands | None = None
    separator: str | None = None
    encoding: str | None = None
    skip_bad: bool = False
    """Leave rows out that cannot be read, and report their number."""

    def __post_init__(self) -> None:
        """Check the settings against each other."""
        if self.date_format is not None and (problem := format_problem(self.date_format)):
            raise ConfigError(f"data.date_format: {problem}")
        if self.decimal is not None and self.decimal == self.thousands:
            raise ConfigError(f"data.thousands: {self.thousands!r} is the decimal sign too")

    def file_settings(self) -> dict[str, str]:
        """Return the separator and the encoding, where they are set."""
        return {name: value for name in ("separator", "encoding") if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Table:
    """A table that was read."""

    frame: pd.DataFrame
    """See `reading.Values`."""
    rows: RowLocations
    """Where its rows stand."""
    schema: Schema
    bad: Sequence[BadRow] = ()
    notes: tuple[str, ...] = ()

    @property
    def positions(self) -> NDArray[np.int64]:
        """Of each row among all rows of the files, from 0."""
        return np.arange(len(self.frame)) if self.rows.positions is None else self.rows.positions

    @property
    def place(self) -> Path:
        """The file, folder, glob or query, for messages."""
        return self.rows.place

    def checked(self, used: Collection[str], skip_bad: bool) -> Table:
        """Return the table without the rows whose used columns hold bad values.

        Args:
            used: the columns that are used.
            skip_bad: leave bad rows out; by default the first one is an error.

        Raises:
            ConfigError: a used column could be read in two ways.
            DataError: a used column holds a bad value.
        """
        for name in self.schema.names:
            found = self.schema.found.get(name)
            if name in used and found is not None and found.ambiguous:
                raise ConfigError(f"{self.place}: the column {name} could be read in two ways: {found.doubt}")
        bad = [each for each in self.bad if each.column in used]
        if not bad:
            return self
        first = min(bad, key=lambda each: each.row)
        reason = f"{self.rows.at(first.row)}: {first.reason}"
        mask = bad_mask(bad, len(self.frame))
        if mask.all():
            raise DataError(f"{reason}; no other row is left")
        if not skip_bad:
            count = sum(each.column == first.column for each in bad)
            raise DataError(
                f"{reason}; {count:,} such row(s) in all (data.skip_bad=true leaves them out; "
                f"data.schema can read {first.column} as text)"
            )
        note = f"{int(mask.sum()):,} of {len(mask):,} rows are left out (data.skip_bad): {reason}"
        return replace(
            self,
            frame=self.frame[~mask].reset_index(drop=True),
            rows=self.rows.only(~mask),
            bad=(),
            notes=(*self.notes, note),
        )

    def with_values(self, names: Sequence[str], skip_bad: bool) -> Table:
        """Return the table without the rows that have no value in a column, if bad rows are left out."""
        known = [name for name in names if name in self.frame.columns]
        missing = self.frame[known].isna().any(axis=1).to_numpy()
        if not skip_bad or not missing.any() or missing.all():
            return self
        note = (
            f"{int(missing.sum()):,} of {len(missing):,} rows are left out (data.skip_bad): "
            f"{self.rows.at(int(missing.argmax()))}: {', '.join(known)} is missing"
        )
        frame, rows = self.frame[~missing].reset_index(drop=True), self.rows.only(~missing)
        return replace(self, frame=frame, rows=rows, notes=(*self.notes, note))


def read_table(
    path: str | Path | None,
    reading: Reading | None = None,
    *,
    query: str | None = None,
    text: Iterable[str] = (),
    dates: Iterable[str] = (),
) -> Table:
    """Read a table.

    Args:
        path: a file, a glob or folder of part files, or `-` for standard input.
        reading: the settings.
        query: SQL that selects from files; instead of a path.
        text: columns that keep every character: ids, texts.
        dates: columns that must hold dates.

    Raises:
        ConfigError: there is no such file, its format is unknown, or a setting does not fit.
        DataError: it is empty or damaged, or does not follow the schema.
    """
    reading = reading or Reading()
    with open_table(
        path, query=query, separator=reading.separator, encoding=reading.encoding, skip_bad=reading.skip_bad
    ) as raw:
        return read_open_table(raw, reading, text=text, dates=dates)


def read_open_table(
    raw: RawTable,
    reading: Reading,
    *,
    text: Iterable[str] = (),
    dates: Iterable[str] = (),
    totals: bool = True,
    strings: Collection[str] | None = None,
) -> Table:
    """Read a table that is open.

    Args:
        raw: the table.
        reading, text, dates: see `read_table`.
        totals: a last row that sums up the others is left out.
        strings: columns that are strings if they are text; others become categories where their values repeat, which
            takes a fraction of the memory. By default all are strings.
    """
    if totals and (note := leave_out_totals(raw)):
        raw.notes.append(note)
    if reading.schema is not None:
        schema = load_schema(user_path(reading.schema))
        text = tuple(text)
        for name in (*text, *dates):
            if name not in schema.names:
                raise ConfigError(f"data.schema: {reading.schema} has no column {name}")
        for name in text:
            schema = schema.with_column(Column(name, verbatim=True))
    else:
        hints = Hints(tuple(text), tuple(dates), reading.decimal, reading.thousands, reading.date_format)
        schema = infer(raw, hints)
    if lists := ", ".join(raw.names[place] for place in raw.lists):
        raw.notes.append(
            f"lists are read as texts like a|b: {lists[:200]} (data.target_separator='|' makes them labels)"
        )
    coded = [] if strings is None else _repeating(raw, schema, strings)
    table = read_known_table(raw, schema, coded=coded)
    for name in table.frame.columns.intersection(coded):  # in the order of the texts that they stand for
        column = table.frame[name]
        table.frame[name] = column.cat.reorder_categories(sorted(column.cat.categories))
    return table


def _repeating(raw: RawTable, schema: Schema, others: Collection[str]) -> list[str]:
    """Return the columns of text, without some others, whose values repeat often."""
    names = [each.name for each in schema.columns if each.type == "text" and each.name not in others]
    names = [name for name in names if name in raw.names]
    uncounted = [name for name in names if name not in schema.found]
    counts = raw.aggregate(*[f"approx_count_distinct({raw.column(name)})" for name in uncounted])
    distinct = {name: found.num_distinct for name, found in schema.found.items()}
    distinct |= zip(uncounted, counts, strict=True)
    return [name for name in names if distinct[name] * REPEATED <= raw.num_rows()]


def read_known_table(
    raw: RawTable, schema: Schema, names: Sequence[str] | None = None, coded: Collection[str] = ()
) -> Table:
    """Read a table that is open as a schema says; see `read_open_table`, and for `coded` `read_values`."""
    wanted = [name for name in schema.names if names is None or name in names]
    values = read_values(raw, schema, wanted, coded)
    notes = tuple(raw.notes)
    unused = [name for name in raw.names if name not in schema.names]
    if unused:
        notes = (*notes, f"not in the schema and not read: {', '.join(unused)[:200]}")
    return Table(values.frame, raw.rows, schema, values.bad, notes)


def read_frame(
    frame: pd.DataFrame, schema: Schema | None, names: Sequence[str], place: Path, dates: Iterable[str] = ()
) -> Table:
    """Read a DataFrame as a schema says, with bad values missing and listed; without one it is inferred."""
    with table_from_frame(frame, place) as raw:
        missing = [name for name in names if name not in raw.names]
        if missing:
            above = next((part for part in place.parts if part.partition("=")[0] in missing), None)
            hint = f"; give the folder above {above}, whose name is a column there" if above else ""
            raise DataError(
                f"{place} is missing {len(missing)} column(s) that the run was trained on: {', '.join(missing)}{hint}"
            )
        schema = schema or infer(raw, Hints(dates=tuple(dates)))
        values = read_values(raw, schema, names)
        return Table(values.frame, raw.rows, schema, values.bad)


def read_new_rows(path: str | Path, separator: str | None = None, encoding: str | None = None) -> pd.DataFrame:
    """Return new rows as their file has them: strings, or values where the format has types.

    Args:
        path: of the file; it is `attrs["file"]`, where its rows stand `attrs["rows"]`, and notes are `attrs["notes"]`.
        separator: of the training table, which is tried where none is found.
        encoding: of the training table, which is tried where the text is not UTF-8 (see `encodings_to_try`).
    """
    frame = _new_rows(path, separator, encoding, None)
    frame.attrs["file"] = str(path)
    return frame


def new_rows_of_copy(copy: Path, separator: str | None = None, encoding: str | None = None) -> pd.DataFrame:
    """Return new rows of standard input, which has been copied to a file (see `read_new_rows`)."""
    frame = _new_rows("-", separator, encoding, copy)
    frame.attrs["file"] = "standard input"
    return frame


def _new_rows(path: str | Path, separator: str | None, encoding: str | None, copy: Path | None) -> pd.DataFrame:
    first, *others = encodings_to_try(encoding)
    try:
        frame, needed = _strings(path, None, first, copy), first
    except DataError:
        if not others:
            raise
        needed = others[0]
        frame = _strings(path, separator, needed, copy)
    if frame.shape[1] == 1 and separator is not None:
        frame = _strings(path, separator, needed, copy)
    return frame


def _strings(path: str | Path, separator: str | None, encoding: str | None, copy: Path | None) -> pd.DataFrame:
    with open_table(path, separator=separator, encoding=encoding, copy=copy) as raw:
        columns = raw.fetch(*[raw.column(name) for name in raw.names])
        if len(columns) == 0:
            raise DataError(f"{raw.place} has a header but no rows")
        # Whole numbers next to missing ones as objects: a float keeps 15 digits, and shows 7 as 7.0.
        frame: pd.DataFrame = columns.rename_columns(raw.names).to_pandas(integer_object_nulls=True)
        frame.attrs["notes"], frame.attrs["rows"] = list(raw.notes), raw.rows
        return frame


def load_schema(path: Path) -> Schema:
    """Return the schema in a YAML file.

    Raises:
        ConfigError: there is no such file, or it is not a schema.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not isinstance(content.get("columns"), list):
            raise ConfigError(
                f"data.schema: {path} has no list of columns; `dlrun data describe FILE --save` writes one"
            )
        return Schema.from_state(content["columns"])
    except OSError:
        raise ConfigError(f"data.schema: there is no file {path}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"data.schema: {path} is not YAML: {str(error).splitlines()[0]}") from None
    except (DataError, TypeError) as error:
        raise ConfigError(f"data.schema: {path}: {error}") from None


def dump_schema(schema: Schema) -> str:
    """Return a schema as YAML that can be edited and given back as data.schema."""
    lines: dict[str, Any] = {"columns": schema.state()}
    return str(yaml.safe_dump(lines, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110))
