"""A table as it stands in its file: strings, or values where the format has types.

DuckDB reads it, in all cores and in less memory than the file needs, but guesses nothing: what strings mean is found by
`inference`, over all rows.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dlrunner.data.core.row_locations import Part, RowLocations
from dlrunner.data.core.source import DAMAGED
from dlrunner.data.tables.dialect import IN_UTF_8, LONGEST_LINE
from dlrunner.data.tables.formats import MACROS, quoted_name
from dlrunner.errors import DataError
from dlrunner.system.signals import StopSignals

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PIECE = 1_000_000
"""Values that are in memory at a time where a table is read in pieces of rows."""
PER_QUERY = 100
"""Columns that are computed together: DuckDB's time to plan a query grows with their square (2,000: 28 s)."""


@dataclass
class RawTable:
    """A table that is open: its columns are `c0`, `c1`, … of the view `raw`, as strings or as the file's own types."""

    connection: DuckDBPyConnection
    place: Path
    """Of the file, for messages."""
    names: list[str]
    types: list[str]
    """Of DuckDB: VARCHAR where the values are strings."""
    first_row: int = 2
    """Number of the first row in messages: that of its line, where each row is a line."""
    parts: Callable[[], Sequence[Part]] | None = None
    """Returns the files of the table with their numbers of rows, where there are several."""
    separator: str | None = None
    blank_after_separator: bool = False
    notes: list[str] = field(default_factory=list)
    select: str = ""
    """SQL that reads the table from its files, in any connection; empty where it is in memory."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """The user's file by the path that is read, for messages: of each part, or of a copy."""
    lists: tuple[int, ...] = ()
    """Places of columns that are lists in the file."""
    left_out: tuple[int, ...] = ()
    """Places from 0, in all files, of rows that cannot be read and are not in the table."""
    may_end_in_total: bool = True
    """Whether the last row is worth a look, which costs a pass over a file of text."""
    counted: int | None = None
    """Number of rows, once they have been counted."""

    @cached_property
    def rows(self) -> RowLocations:
        """Where its rows stand, for messages."""
        parts = [Part(self.place, self.first_row)]
        if self.parts is not None:
            with readable_errors(self.place, self.files):
                parts = list(self.parts()) or parts
        rows = RowLocations(self.place, tuple(parts))
        if not self.left_out:
            return rows
        positions = np.delete(np.arange(self.num_rows() + len(self.left_out)), self.left_out)
        return replace(rows, positions=positions)

    def column(self, name: str) -> str:
        """Return the SQL expression of a column as strings."""
        number = self.names.index(name)
        expression = f"c{number}"
        if self.types[number] == "VARCHAR":
            return f"ltrim({expression}, ' ')" if self.blank_after_separator else expression
        return expression

    def type_of(self, name: str) -> str:
        """Return the type of a column in the file."""
        return self.types[self.names.index(name)]

    def fetch(self, *expressions: str, limit: str = "") -> pa.Table:
        """Return the values of SQL expressions for all rows, in the order of the file.

        Raises:
            DataError: the file is damaged, or a row has another number of fields.
        """
        listed = ", ".join(f"{each} AS v{i}" for i, each in enumerate(expressions))
        with readable_errors(self.place, self.files):
            return self.connection.sql(f"SELECT {listed} FROM raw {limit}").to_arrow_table()

    def pieces(self, *expressions: str) -> Iterator[pa.RecordBatch]:
        """Yield what `fetch` returns in pieces of so many rows that all of them need not be in memory.

        Raises:
            DataError: as `fetch`.
        """
        listed = ", ".join(f"{each} AS v{i}" for i, each in enumerate(expressions))
        with readable_errors(self.place, self.files):
            rows = max(1, PIECE // len(expressions))
            reader = self.connection.sql(f"SELECT {listed} FROM raw").to_arrow_reader(rows)
        while True:
            try:
                piece = reader.read_next_batch()
            except StopIteration:
                return
            except OSError as error:  # that is how Arrow passes on an error of DuckDB
                raise DataError(_sentence(self.place, str(error), self.files)) from None
            yield piece

    def aggregate(self, *expressions: str, of: Sequence[str] = ()) -> list[int]:
        """Return counts over all rows; `of`: named expressions that they are made of."""
        if not expressions:
            return []
        source = f"(SELECT {', '.join(of)} FROM raw)" if of else "raw"
        with readable_errors(self.place, self.files):
            found = self.connection.execute(f"SELECT {', '.join(expressions)} FROM {source}").fetchall()[0]
        return [int(count or 0) for count in found]  # NULL where a condition is NULL in all rows

    def num_rows(self) -> int:
        """Return the number of rows."""
        if self.counted is None:
            (self.counted,) = self.aggregate("count(*)")
        return self.counted

    def leave_out(self, rows: Sequence[int], condition: str) -> None:
        """Leave rows out: those at some places, which alone fulfil a condition."""
        self.rows = self.rows.only(~np.isin(np.arange(self.num_rows()), rows))
        self.counted = self.num_rows() - len(rows)
        others = f"raw_before_{self.counted}"
        self.connection.execute(f"ALTER VIEW raw RENAME TO {others}")
        self.connection.execute(f"CREATE VIEW raw AS SELECT * FROM {others} WHERE NOT coalesce({condition}, false)")
        if self.select:
            self.select = f"SELECT * FROM ({self.select}) WHERE NOT coalesce({condition}, false)"

    def first_where(self, condition: str, expression: str) -> tuple[int, Any]:
        """Return place in the table, from 0, and value of the first row where a condition holds, which there is."""
        return self.where(condition, expression, 1)[0]

    def where(self, condition: str, expression: str, limit: int) -> list[tuple[int, Any]]:
        """Return place in the table, from 0, and value of the first rows where a condition holds."""
        table = self.fetch(condition, f"CASE WHEN {condition} THEN CAST({expression} AS VARCHAR) END")
        holds = table.column(0).to_pandas().fillna(False).to_numpy(bool)
        rows = np.flatnonzero(holds)[:limit]
        return [(int(row), table.column(1)[int(row)].as_py()) for row in rows]


def table_from_frame(frame: pd.DataFrame, place: Path) -> contextlib.AbstractContextManager[RawTable]:
    """Open a DataFrame as a table, so that it is read by the same rules as a file."""

    @contextlib.contextmanager
    def opened() -> Iterator[RawTable]:
        with contextlib.ExitStack() as stack:
            names = [str(name) for name in frame.columns]
            columns = [_as_arrow(frame.iloc[:, number]) for number in range(len(names))]
            raw = from_arrow(stack, pa.table(columns, names=[f"c{i}" for i in range(len(names))]), names, place)
            raw.parts = lambda: RowLocations.of_frame(frame).parts
            yield raw

    return opened()


def connect(stack: contextlib.ExitStack) -> DuckDBPyConnection:
    """Return a connection that loads no extensions and reaches no network; it is closed with the stack."""
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": _threads()},
    )
    stack.callback(connection.close)
    connection.execute("SET preserve_insertion_order = true")
    # A join with a list of words would give the rows of several files in another order each time.
    connection.execute("SET disabled_optimizers = 'in_clause'")
    connection.execute("SET TimeZone = 'UTC'")  # else times with a zone depend on the machine
    # Drawn in notebooks and `python -c`, on standard output; in a notebook without ipywidgets it is off, and setting it
    # is an error.
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
        connection.execute("SET enable_progress_bar = false")
    for macro in MACROS:
        connection.execute(f"CREATE TEMP MACRO {macro}")
    return connection


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


INTERRUPTED = "Query interrupted"
"""The RuntimeError that DuckDB raises in place of the exception of a signal's handler."""


@contextlib.contextmanager
def readable_errors(place: Path, files: Mapping[str, Path] | None = None) -> Iterator[None]:
    """Turn the errors of DuckDB, and of damaged files, into a DataError of one sentence; `files`: see `RawTable`."""
    import duckdb

    try:
        yield
    except (MemoryError, duckdb.OutOfMemoryException):
        raise DataError(f"{place} does not fit into the memory of this machine") from None
    except duckdb.Error as error:
        raise DataError(_sentence(place, str(error), files or {})) from None
    except DAMAGED as error:
        if str(error) == INTERRUPTED:
            StopSignals.raise_replaced()
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{place} is damaged or cannot be read: {reason}") from None


def _sentence(place: Path, message: str, files: Mapping[str, Path]) -> str:
    if named := re.search(r"^  file = (.*)$", message, re.MULTILINE) or re.search(r'in file "(.*?)",', message):
        place = files.get(named[1], place)
    if malformed := re.search(r'in file ".*?", at byte \d+ in (line|record/value) (\d+): (.*?)\.? *$', message, re.M):
        where = "line" if malformed[1] == "line" else "record"
        return f"{place} is not JSON at {where} {malformed[2]}: {malformed[3]}"
    line = re.search(r"CSV Error on Line: (\d+)", message)
    where = f"{place}, row {line[1]}" if line else str(place)
    original = re.search(r"Original Line: ?(.*)", message)
    shown = f": {original[1][:80]}" if original and original[1] else ""
    if fields := fields_sentence(message):
        return f"{where} {fields}{shown}"
    if "unterminated quote" in message:
        return f"{where} has a quotation mark that is not closed{shown}"
    if "not utf-8" in message or "nvalid unicode" in message:
        return f"{where} is not text in UTF-8: {IN_UTF_8}"
    if "Maximum line size" in message:
        return f"{where} is longer than {LONGEST_LINE >> 20} MiB; is a quotation mark not closed?"
    return f"{place} cannot be read as a table: {message.splitlines()[0].removeprefix('Invalid Input Error: ')[:200]}"


def fields_sentence(message: str) -> str:
    """Return DuckDB's words on a row with more or fewer fields than the header in ours; empty for other messages."""
    counts = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    if counts is None:
        return ""
    has = f"{counts[2]} fields" if int(counts[2]) < int(counts[1]) else "more fields"
    return f"has {has}, the header {counts[1]}"


def from_relation(
    connection: DuckDBPyConnection, source: str, place: Path, first_row: int, files: Mapping[str, Path] | None = None
) -> RawTable:
    """Name the columns of a source c0, c1, …, and turn those that are neither numbers, dates nor texts into texts."""
    with readable_errors(place, files):
        described = connection.sql(f"DESCRIBE SELECT * FROM {source}").fetchall()
    names = [str(row[0]) for row in described]
    types = [str(row[1]) for row in described]
    lists = tuple(number for number, kind in enumerate(types) if kind.endswith("[]"))
    selected = []
    for number, (name, kind) in enumerate(zip(names, types, strict=True)):
        column = quoted_name(name)
        expression, types[number] = _simple(column, kind)
        selected.append(f"{expression} AS c{number}")
    select = f"SELECT {', '.join(selected)} FROM {source}"
    with readable_errors(place):
        connection.execute(f"CREATE VIEW raw AS {select}")
    return RawTable(connection, place, names, types, first_row, select=select, files=files or {}, lists=lists)


_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")


def _simple(column: str, kind: str) -> tuple[str, str]:
    """Return the SQL expression and type of a column: BIGINT, DOUBLE, TIMESTAMP, BOOLEAN or VARCHAR."""
    if kind in ("BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "TIMESTAMP"):
        return column, kind
    if kind in _INTEGERS:
        return f"CAST({column} AS BIGINT)", "BIGINT"
    if (whole := re.fullmatch(r"DECIMAL\((\d+),0\)", kind)) is not None:  # ids of databases: a float has 15 digits
        return (
            (f"CAST({column} AS BIGINT)", "BIGINT")
            if int(whole[1]) <= 18
            else (f"CAST({column} AS VARCHAR)", "VARCHAR")
        )
    if kind in ("FLOAT", "REAL") or kind.startswith("DECIMAL"):
        # 0.1 in 32 bits is read as 0.1, as it would be written.
        return f"CAST(CAST({column} AS VARCHAR) AS DOUBLE)" if kind != "REAL" else f"CAST({column} AS DOUBLE)", "DOUBLE"
    if kind in ("DATE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"):
        return f"CAST({column} AS TIMESTAMP)", "TIMESTAMP"
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"({column} AT TIME ZONE 'UTC')", "TIMESTAMP"
    if kind == "INTERVAL":
        return f"epoch({column}) / 86400", "DOUBLE"
    if kind == "JSON":  # several types in one column: strings without quotation marks
        return f"({column} ->> '$')", "VARCHAR"
    if kind == "JSON[]":
        return f"array_to_string(list_transform({column}, lambda x: x ->> '$'), '|')", "VARCHAR"
    if kind.endswith("[]"):
        return f"array_to_string({column}, '|')", "VARCHAR"
    if kind.startswith("STRUCT"):
        return f"CAST(to_json({column}) AS VARCHAR)", "VARCHAR"
    return f"CAST({column} AS VARCHAR)", "VARCHAR"


def from_arrow(
    stack: contextlib.ExitStack, table: pa.Table, names: Sequence[str], place: Path, first_row: int = 2
) -> RawTable:
    """Return a table of Arrow, whose columns are c0, c1, …"""
    connection = connect(stack)
    columns = [column.cast(pa.float64()) if pa.types.is_float16(column.type) else column for column in table.columns]
    table = pa.table([local_times(_days(column)) for column in columns], names=table.column_names)
    connection.register("given", table)
    raw = from_relation(connection, "given", place, first_row)
    raw.names, raw.select = list(names), ""
    return raw


def _days(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return durations as numbers of days."""
    if not pa.types.is_duration(column.type):
        return column
    import pyarrow.compute

    per_second: float = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
    return pyarrow.compute.divide(column.cast(pa.int64()).cast(pa.float64()), 86400.0 * per_second)


def local_times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times with a zone as the local times that a text file would hold."""
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        return column
    import pyarrow.compute

    return pyarrow.compute.local_timestamp(column)


def _as_arrow(column: pd.Series[Any]) -> pa.Array:
    """Return a column of a DataFrame: values of several types as strings, whole numbers without .0."""
    if column.dtype == object:
        kinds: set[type] = {type(value) for value in column.dropna()}
        if kinds - {str, bytes} and (len(kinds) > 1 or not kinds <= {bool, int, float}):
            column = column.map(as_text, na_action="ignore")
    try:
        array = pa.Array.from_pandas(column)
        values = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        # DuckDB knows no intervals (pd.cut) and no periods.
        return pa.Array.from_pandas(column.astype("str")) if isinstance(values, pa.BaseExtensionType) else array
    except (pa.ArrowException, OverflowError):
        return pa.Array.from_pandas(column.map(as_text, na_action="ignore"))


def as_text(value: Any) -> str:
    """Return a value as the string that a file would hold."""
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) < 1e15:
        return str(int(value))
    return "|".join(map(str, value)) if isinstance(value, list | tuple | np.ndarray) else str(value)
