"""Opening formats that have types: JSON, Excel, SQLite."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import re
import sqlite3
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dlrunner.data.core.row_locations import Part
from dlrunner.data.tables.dialect import (
    HEAD,
    LONGEST_LINE,
    RECORDS,
    is_second_header,
    kind_of,
    num_titles,
    second_header_note,
    unique_names,
)
from dlrunner.data.tables.formats import literal, quoted_name
from dlrunner.data.tables.partitions import check_names, expressions
from dlrunner.data.tables.raw import (
    RawTable,
    as_text,
    connect,
    from_arrow,
    from_relation,
    readable_errors,
)
from dlrunner.data.tables.text_files import copy_of
from dlrunner.data.tables.totals import may_end_in_total
from dlrunner.errors import ConfigError, DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def open_json(
    stack: contextlib.ExitStack,
    files: Mapping[Path, Path],
    place: Path,
    skip_bad: bool = False,
    keys: Sequence[str] = (),
) -> RawTable:
    """Open a list of objects, or an object in each line; dates are strings as they are in other texts.

    Args:
        stack: closes what is opened.
        files: the user's file by the path that is read.
        place: for messages.
        skip_bad: leave out lines that are not JSON, and files that cannot be read, with a note.
        keys: columns in the names of folders.

    Raises:
        DataError: a file is damaged or holds no objects of rows, keys of objects differ only in case, or a key of the
            folders is a column of the files too.
    """
    connection = connect(stack)
    notes: list[str] = []
    left_out: tuple[int, ...] = ()
    if skip_bad:
        files, left_out, notes = _sound_json(stack, connection, files)
    named = {str(path): file for path, file in files.items()}
    with readable_errors(place, named):
        for path, file in files.items():
            _check_rows(connection, path, file)
        described = connection.sql(f"DESCRIBE SELECT * FROM {_read_json(list(files))}").fetchall()
    types = {str(row[0]): str(row[1]) for row in described}
    _check_keys(connection, list(types), named, place)
    source = _read_json(list(files), types=types)
    if keys:
        check_names(keys, list(types), place)
        found = zip(expressions(keys), keys, strict=True)
        columns = ", ".join(f"{each} AS {quoted_name(key)}" for each, key in found)
        source = f"(SELECT * EXCLUDE (path_of_file), {columns} FROM {_read_json(list(files), 'path_of_file', types)})"
    raw = from_relation(connection, source, place, first_row=1, files=named)
    raw.notes, raw.left_out = notes, left_out
    raw.may_end_in_total = any(map(may_end_in_total, files))
    if len(files) > 1:
        raw.parts = lambda: _numbered(connection, files, left_out)
    return raw


_NESTED = re.compile(rb'\s*(\{\s*"[^"]*"\s*:\s*[\[{]|(?P<lists>\[\s*\[))')
"""The beginning of an object whose first value is an object or a list, or of a list of lists."""


def _check_rows(connection: DuckDBPyConnection, path: Path, file: Path) -> None:
    """Check that a file is not one object with the columns or the rows of a table, as pandas writes by default.

    Raises:
        DataError: it is.
    """
    with path.open("rb") as stream:
        begun = _NESTED.match(stream.read(HEAD))
    if begun is None:
        return
    if not begun["lists"]:
        first = connection.execute(f"SELECT json FROM {_json_objects([path])} LIMIT 2").fetchall()
        if len(first) > 1 or not all(isinstance(value, dict | list) for value in json.loads(first[0][0]).values()):
            return
    form = "a list of lists" if begun["lists"] else "one object of objects or lists"
    raise DataError(
        f"{file} is {form}, not an object for each row; "
        'pandas writes these with df.to_json(file, orient="records", lines=True)'
    )


def _check_keys(connection: DuckDBPyConnection, names: Sequence[str], files: Mapping[str, Path], place: Path) -> None:
    """Check that no two keys differ only in case: DuckDB reads them as sales and Sales_1.

    Raises:
        DataError: two do.
    """
    lower = [name.lower() for name in names]
    if not {re.sub(r"(_\d+)+$", "", name) for name in lower if name[-1:].isdigit()} & set(lower):
        return
    listed = f"SELECT DISTINCT unnest(json_keys(json)) AS key FROM {_json_objects(map(Path, files))} ORDER BY key"
    with readable_errors(place, files):
        keys = [str(key) for (key,) in connection.execute(listed).fetchall()]
    if alike := [key for key in keys if sum(key.lower() == each.lower() for each in keys) > 1]:
        raise DataError(f"{place}: keys that differ only in case cannot be read: {', '.join(alike)}; rename them")


def _json_objects(paths: Iterable[Path]) -> str:
    listed = ", ".join(literal(str(path)) for path in paths)
    return f"read_json_objects_auto([{listed}], maximum_object_size={LONGEST_LINE}, hive_partitioning=false)"


def _numbered(connection: DuckDBPyConnection, files: Mapping[Path, Path], left_out: Sequence[int]) -> list[Part]:
    """Return the files of a table with their numbers of rows, of which those at some places are left out."""
    parts: list[Part] = []
    start = 0
    for path, file in files.items():
        count = _num_rows(connection, path)
        for place in left_out:
            count += start <= place < start + count
        parts.append(Part(file, 1, count))
        start += count
    return parts


def _num_rows(connection: DuckDBPyConnection, path: Path) -> int:
    return int(connection.execute(f"SELECT count(*) FROM (SELECT * FROM {_read_json([path])})").fetchall()[0][0])


_REWRITTEN = re.compile(r"\b(UUID|TIME)(?=[\[\],)]|$)")
"""Types that DuckDB finds in strings, and whose values it writes in another way: in lower case, 8:05 as 08:05:00."""


def _read_json(paths: Sequence[Path], file: str | None = None, types: Mapping[str, str] | None = None) -> str:
    """Return the SQL that reads files of JSON.

    Args:
        paths: of the files.
        file: the name of a column with the path of each row's file.
        types: that DuckDB finds by column; those that would change strings are not used.
    """
    listed = ", ".join(literal(str(path)) for path in paths)
    kept = {name: _REWRITTEN.sub("VARCHAR", kind) for name, kind in (types or {}).items()}
    columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in kept.items())
    return (
        f"read_json([{listed}], sample_size=-1, maximum_depth=2, convert_strings_to_integers=false, "
        f"dateformat='%Y|%m|%d', timestampformat='%Y|%m|%d|%H', map_inference_threshold=-1, "
        f"maximum_object_size={LONGEST_LINE}, hive_partitioning=false"
        f"{f', filename={literal(file)}' if file else ''}{f', columns={{{columns}}}' if kept != (types or {}) else ''})"
    )


def _sound_json(
    stack: contextlib.ExitStack, connection: DuckDBPyConnection, files: Mapping[Path, Path]
) -> tuple[dict[Path, Path], tuple[int, ...], list[str]]:
    """Return files without what is not JSON; the places, in all files, of lines that are left out; notes.

    Raises:
        DataError: nothing is left.
    """
    kept: dict[Path, Path] = {}
    problems: list[str] = []
    notes: list[str] = []
    places: list[int] = []
    num_rows = 0
    for path, file in files.items():
        try:
            with readable_errors(file, {str(path): file}):
                num_rows += _num_rows(connection, path)
            kept[path] = file
        except DataError as error:
            lines = path.read_bytes().splitlines()
            rows = [line for line in lines if line.strip()]
            good = [line for line in rows if _is_object(line)]
            bad = [number for number, line in enumerate(lines) if line.strip() and not _is_object(line)]
            if not good:
                problems.append(str(error))
                continue
            copy = copy_of(stack, file, "table.jsonl")
            copy.write_bytes(b"\n".join(good))
            kept[copy] = file
            where = f"{file}, row {bad[0] + 1} is not JSON"
            notes.append(f"{len(bad):,} of {len(lines):,} rows are left out (data.skip_bad): {where}")
            places += [num_rows + number for number, line in enumerate(rows) if not _is_object(line)]
            num_rows += len(rows)
    if not kept:
        raise DataError(f"{problems[0]}; no other file is left" if len(files) > 1 else problems[0])
    if problems:
        notes.append(f"{len(problems):,} of {len(files):,} files are left out (data.skip_bad): {problems[0]}")
    return kept, tuple(places), notes


def _is_object(line: bytes) -> bool:
    """Tell whether a line is an object of JSON."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def open_excel(stack: contextlib.ExitStack, path: Path, skip_bad: bool = False) -> RawTable:
    """Open the first sheet that has rows below a header.

    Args:
        stack: closes what is opened.
        path: the file.
        skip_bad: leave out a second header row, with a note.

    Raises:
        DataError: it is damaged or empty, or has a second header row.
    """
    try:
        import python_calamine
    except ImportError:
        raise ConfigError(f"{path}: Excel needs the package python-calamine: pip install 'dlrunner[excel]'") from None
    try:
        with path.open("rb") as file:
            book = python_calamine.CalamineWorkbook.from_filelike(file)
            sheets = [book.get_sheet_by_name(name) for name in book.sheet_names]
            filled = [(sheet, rows) for sheet in sheets if (rows := sheet.to_python(skip_empty_area=True))]
    except python_calamine.CalamineError as error:
        with path.open("rb") as file:
            head = file.read(4096)
        if b"\0" not in head:
            raise DataError(
                f"{path} is {kind_of(head) or 'text'}, not an Excel file: text ends in .csv or .tsv"
            ) from None
        raise DataError(f"{path} is damaged or cannot be read: {error}") from None
    if not filled:
        raise DataError(f"{path} is empty")
    sheet, rows = next((each for each in filled if len(each[1]) > 1), filled[0])
    first_row = 2 + (sheet.start[0] if sheet.start else 0)
    skipped = num_titles([[as_text(value) for value in row] for row in rows[:20]])
    title = ", ".join(text for value in rows[0] if (text := as_text(value))) if skipped else ""
    rows = rows[skipped:]
    names, notes = unique_names([as_text(value).strip() for value in rows[0]])
    if len(rows) < 2:
        raise DataError(f"{path} has a header but no rows")
    if skipped:
        notes.append(f"the rows above the header are left out: {title[:80]}")
    if len(filled) > 1:
        notes.append(f"the sheet {sheet.name} is read; there are {len(filled)} sheets")
    below = [[as_text(value) for value in row] for row in rows[1:RECORDS]]
    if is_second_header(below):
        notes.append(second_header_note(below[0], path, skip_bad))
        rows, first_row = rows[1:], first_row + 1
    first_row += skipped
    are_filled = [any(cell not in (None, "") for cell in row) for row in rows[1:]]
    records = list(itertools.compress(rows[1:], are_filled))
    columns = [_cells([row[number] for row in records]) for number in range(len(names))]
    given = pa.table(columns, names=[f"c{i}" for i in range(len(names))])
    raw = from_arrow(stack, given, names, path, first_row=first_row)
    raw.notes += notes
    raw.left_out = tuple(row for row, is_filled in enumerate(are_filled) if not is_filled)  # as blank lines of a text
    return raw


def _cells(values: Sequence[Any]) -> pa.Array:
    """Return the cells of a spreadsheet's column: numbers, dates, booleans or durations (in days), else strings."""
    known = [value for value in values if value is not None and value != ""]
    kinds: set[type] = {type(value) for value in known}
    cleaned = [None if value == "" else value for value in values]
    if kinds == {int}:
        return _whole(cleaned)
    is_exact = not any(type(value) is int and abs(value) >= 2**53 for value in known)
    if kinds <= {int, float} and kinds and is_exact:
        whole = all(float(value).is_integer() and abs(value) < 2**53 for value in known)
        return pa.array([None if v is None else int(v) if whole else float(v) for v in cleaned])
    if kinds <= {datetime.date, datetime.datetime} and kinds:
        times = [None if v is None else datetime.datetime(*v.timetuple()[:6]) for v in cleaned]
        return pa.array(times, type=pa.timestamp("us"))
    if kinds == {bool}:
        return pa.array(cleaned, type=pa.bool_())
    if kinds == {datetime.timedelta}:
        return pa.array([None if value is None else value / datetime.timedelta(days=1) for value in cleaned])
    return pa.array([None if value is None else as_text(value) for value in cleaned], type=pa.string())


def _whole(values: Sequence[int | None]) -> pa.Array:
    """Return whole numbers with all their digits."""
    try:
        return pa.array(values, type=pa.int64())
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], type=pa.string())


def open_sqlite(stack: contextlib.ExitStack, path: Path) -> RawTable:
    """Open the only table of a database."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True)) as database:
            listed = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            tables = [name for (name,) in listed if not name.startswith("sqlite_")]  # those are SQLite's own
            if len(tables) != 1:
                raise ConfigError(
                    f"data.path: {path} has {len(tables)} tables ({', '.join(tables)[:200]}); export the one to be read"
                )
            cursor = database.execute(f"SELECT * FROM {quoted_name(tables[0])}")
            names, notes = unique_names([str(column[0]) for column in cursor.description])
            rows = cursor.fetchall()
    except sqlite3.Error as error:
        raise DataError(f"{path} is damaged or cannot be read: {error}") from None
    if not rows:
        raise DataError(f"{path}: the table {tables[0]} has no rows")
    columns = [_cells([row[number] for row in rows]) for number in range(len(names))]
    raw = from_arrow(stack, pa.table(columns, names=[f"c{i}" for i in range(len(names))]), names, path, first_row=1)
    raw.notes += notes
    return raw
