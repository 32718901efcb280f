"""Opening tables: text with separators, Parquet, JSON, Excel, SQLite, and queries over files."""

from __future__ import annotations

import codecs
import contextlib
import datetime
import glob
import lzma
import shutil
import sqlite3
import sys
import tempfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa

from dlrunner.data.core.unpacking import open_compressed
from dlrunner.data.tables.dialect import HEAD, Dialect, check_encoding, detect, encoding_of, unique_names
from dlrunner.data.tables.formats import literal
from dlrunner.data.tables.raw import (
    LONGEST_LINE,
    RawTable,
    as_text,
    connect,
    from_arrow,
    from_relation,
    readable_errors,
)
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import user_path

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TEXT_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".data")
PARQUET = (".parquet", ".pq")
JSON = (".json", ".jsonl", ".ndjson")
EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
SQLITE = (".sqlite", ".sqlite3", ".db")
SUFFIXES = (*TEXT_SUFFIXES, *PARQUET, *JSON, *EXCEL, *SQLITE)
STANDARD_INPUT = "-"


@contextlib.contextmanager
def open_table(
    path: str | Path | None,
    *,
    query: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
) -> Iterator[RawTable]:
    """Open a table.

    Args:
        path: a file, a glob or folder of part files, or `-` for standard input.
        query: SQL that selects from files; instead of a path.
        separator: of a text file; found by default.
        encoding: of a text file; by its byte order mark by default, else UTF-8.

    Raises:
        ConfigError: there is no such file, its format is unknown, or the query is not one of reading.
        DataError: the file is empty or damaged.
    """
    with contextlib.ExitStack() as stack:
        if query is not None:
            table = _of_query(stack, query)
        elif str(path) == STANDARD_INPUT:
            table = _of_text(stack, [_from_standard_input(stack)], Path("standard input"), separator, encoding)
        else:
            assert path is not None
            table = _of_files(stack, files_of(path), user_path(path), separator, encoding)
        if not table.names:
            raise DataError(f"{table.place} has no columns")
        yield table


def files_of(path: str | Path) -> list[Path]:
    """Return the file of a table, or its part files: those that a glob matches, or that stand in a folder.

    Raises:
        ConfigError: there are none, or their formats differ.
    """
    given = user_path(path)
    if given.is_file():
        format_of(given)
        return [given]
    if given.is_dir():
        found = sorted(p for p in given.rglob("*") if p.is_file() and not p.name.startswith((".", "_")))
        parts = [p for p in found if suffix_of(p) is not None]
        if not parts:
            raise ConfigError(
                f"data.path: {given} is a folder without tables (files that end in {', '.join(SUFFIXES)})"
            )
    else:
        matches = glob.glob(str(given), recursive=True) if glob.has_magic(str(given)) else []  # noqa: PTH207
        parts = sorted(map(Path, matches))
        if not parts:
            raise ConfigError(f"data.path: there is no file {given}")
    kinds = {format_of(p) for p in parts}
    if len(kinds) > 1:
        raise ConfigError(f"data.path: {given} has tables of several formats: {', '.join(sorted(kinds))}")
    return parts


def suffix_of(path: Path) -> str | None:
    """Return the suffix that tells the format of a table, None where it is not one."""
    suffixes = [each.lower() for each in path.suffixes]
    known = next((each for each in reversed(suffixes) if each in SUFFIXES), None)
    return known or (".csv" if ".zip" in suffixes[-1:] else None)


def format_of(path: Path) -> str:
    """Return the suffix that tells the format of a table.

    Raises:
        ConfigError: it is unknown.
    """
    kind = suffix_of(path)
    if kind is None:
        raise ConfigError(f"{path}: the name of a table ends in {', '.join(SUFFIXES)} (with .gz or .zip after it)")
    return kind


def _of_files(
    stack: contextlib.ExitStack, files: Sequence[Path], place: Path, separator: str | None, encoding: str | None
) -> RawTable:
    kind = format_of(files[0])
    try:
        if kind in TEXT_SUFFIXES:
            paths = [_plain_text(stack, file, encoding) for file in files]
            return _of_text(
                stack, paths, place, separator or ("\t" if kind in (".tsv", ".tab") else None), encoding, files
            )
        if kind in PARQUET:
            return _of_parquet(stack, files, place)
        if kind in JSON:
            return _of_json(stack, [_plain_text(stack, file, encoding) for file in files], place)
        if len(files) > 1:
            raise ConfigError(f"data.path: {place}: only text, Parquet and JSON may come in parts")
        return _of_excel(stack, files[0]) if kind in EXCEL else _of_sqlite(stack, files[0])
    except MemoryError:
        raise DataError(f"{place} does not fit into the memory of this machine") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{place} is damaged or cannot be read: {reason}") from None


def _of_text(
    stack: contextlib.ExitStack,
    paths: Sequence[Path],
    place: Path,
    separator: str | None,
    encoding: str | None,
    files: Sequence[Path] = (),
) -> RawTable:
    dialects = []
    for number, path in enumerate(paths):
        with path.open("rb") as file:
            head = file.read(HEAD)
        text = head.decode("utf-8-sig", errors="replace")
        if len(head) == HEAD:
            lines = text[: text.rfind("\n") + 1]
            text = lines if lines.count("\n") > 1 else text  # the first row alone may be longer
        named = files[number] if files else place
        if "\0" in text:
            raise DataError(f"{named} contains a NUL character: it is not a text file")
        dialects.append(detect(text, named, separator))
    first = dialects[0]
    for path, dialect in zip(files, dialects, strict=False):
        if dialect.names != first.names or dialect.separator != first.separator:
            raise DataError(f"{path} has other columns than {files[0]}: {', '.join(dialect.names)[:200]}")
    if len({dialect.skipped_lines for dialect in dialects}) > 1:
        raise DataError(f"{place}: its files have different numbers of lines before the header")
    connection = connect(stack)
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(first.names)))
    listed = ", ".join(literal(str(path)) for path in paths)
    source = (
        f"read_csv([{listed}], columns={{{columns}}}, auto_detect=false, delim={literal(first.separator)}, quote='\"', "
        f"escape='\"', header=true, skip={first.skipped_lines}, nullstr='', strict_mode=true, "
        f"max_line_size={LONGEST_LINE})"
    )
    with readable_errors(place):
        connection.execute(
            f"CREATE VIEW raw AS SELECT * FROM {source}{_without_last_blank_lines(connection, source, first)}"
        )
    names = list(first.names)
    return RawTable(
        connection,
        place,
        names,
        ["VARCHAR"] * len(names),
        first_row=2 + first.skipped_lines,
        separator=first.separator,
        blank_after_separator=first.blank_after_separator,
        notes=list(first.notes),
    )


def _without_last_blank_lines(connection: DuckDBPyConnection, source: str, dialect: Dialect) -> str:
    """Return the LIMIT of a file of one column, where a blank line is an empty row, except at the end."""
    if len(dialect.names) > 1:
        return ""
    values = connection.sql(f"SELECT c0 IS NOT NULL FROM {source}").to_arrow_table().column(0).to_numpy()
    return f" LIMIT {int(np.flatnonzero(values)[-1]) + 1}" if values.any() else ""


def _plain_text(stack: contextlib.ExitStack, path: Path, encoding: str | None) -> Path:
    """Return a file of uncompressed UTF-8: the file itself, or a temporary copy."""
    if encoding is not None:
        encoding = check_encoding(encoding)
    with open_compressed(path) as stream:
        head = stream.read(4)
        found = encoding or encoding_of(head)
        if stream.is_plain and found in ("utf-8", "utf-8-sig"):
            return path
        copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlrunner-"))) / "table.csv"
        with copy.open("wb") as file:
            if found in ("utf-8", "utf-8-sig"):
                file.write(head)
                while piece := stream.read(HEAD):
                    file.write(piece)
            else:
                _transcode(head, stream, found, path, file)
        return copy


def _transcode(head: bytes, stream: BinaryIO, encoding: str, path: Path, file: BinaryIO) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        file.write(decoder.decode(head).encode())
        while piece := stream.read(HEAD):
            file.write(decoder.decode(piece).encode())
        file.write(decoder.decode(b"", final=True).encode())
    except UnicodeError as error:
        raise DataError(f"{path} is not text in {encoding}: {error}") from None


def _from_standard_input(stack: contextlib.ExitStack) -> Path:
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlrunner-"))) / "table.csv"
    with copy.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return copy


def _of_parquet(stack: contextlib.ExitStack, files: Sequence[Path], place: Path) -> RawTable:
    import pyarrow.dataset

    try:
        dataset = pyarrow.dataset.dataset([str(file) for file in files], format="parquet")
        schema = dataset.schema
        for file in files[1:]:
            if pyarrow.dataset.dataset(str(file), format="parquet").schema.names != schema.names:
                raise DataError(f"{file} has other columns than {files[0]}")
        table = dataset.to_table()
    except pa.ArrowException as error:
        raise DataError(f"{place} is damaged or cannot be read: {str(error).splitlines()[0]}") from None
    names = ["index" if name.startswith("__index_level_") else name for name in schema.names]
    names, notes = unique_names(names)
    raw = from_arrow(stack, table.rename_columns([f"c{i}" for i in range(len(names))]), names, place, first_row=1)
    raw.notes += notes
    return raw


def _of_json(stack: contextlib.ExitStack, paths: Sequence[Path], place: Path) -> RawTable:
    connection = connect(stack)
    listed = ", ".join(literal(str(path)) for path in paths)
    source = (
        f"read_json([{listed}], sample_size=-1, maximum_depth=2, convert_strings_to_integers=false, "
        f"dateformat='%Y|%m|%d', timestampformat='%Y|%m|%d|%H', map_inference_threshold=-1, "
        f"maximum_object_size={LONGEST_LINE})"
    )
    return from_relation(connection, source, place, first_row=1)


def _of_excel(stack: contextlib.ExitStack, path: Path) -> RawTable:
    try:
        import python_calamine
    except ImportError:
        raise ConfigError(f"{path}: Excel needs the package python-calamine: pip install 'dlrunner[excel]'") from None
    try:
        with path.open("rb") as file:
            book = python_calamine.CalamineWorkbook.from_filelike(file)
            sheets = [(name, book.get_sheet_by_name(name).to_python(skip_empty_area=True)) for name in book.sheet_names]
    except python_calamine.CalamineError as error:
        raise DataError(f"{path} is damaged or cannot be read: {error}") from None
    filled = [(name, rows) for name, rows in sheets if rows]
    if not filled:
        raise DataError(f"{path} is empty")
    name, rows = filled[0]
    names, notes = unique_names([as_text(value).strip() for value in rows[0]])
    if len(rows) < 2:
        raise DataError(f"{path} has a header but no rows")
    if len(filled) > 1:
        notes.append(f"the sheet {name} is read; there are {len(filled)} sheets")
    columns = [_cells([row[number] for row in rows[1:]]) for number in range(len(names))]
    raw = from_arrow(stack, pa.table(columns, names=[f"c{i}" for i in range(len(names))]), names, path)
    raw.notes += notes
    return raw


def _cells(values: Sequence[Any]) -> pa.Array:
    """Return the cells of a spreadsheet's column: numbers, dates or booleans if all are, else strings."""
    known = [value for value in values if value is not None and value != ""]
    kinds: set[type] = {type(value) for value in known}
    cleaned = [None if value == "" else value for value in values]
    if kinds <= {int, float} and kinds:
        whole = all(float(value).is_integer() and abs(value) < 2**53 for value in known)
        return pa.array([None if v is None else int(v) if whole else float(v) for v in cleaned])
    if kinds <= {datetime.date, datetime.datetime} and kinds:
        times = [None if v is None else datetime.datetime(*v.timetuple()[:6]) for v in cleaned]
        return pa.array(times, type=pa.timestamp("us"))
    if kinds == {bool}:
        return pa.array(cleaned, type=pa.bool_())
    return pa.array([None if value is None else as_text(value) for value in cleaned], type=pa.string())


def _of_sqlite(stack: contextlib.ExitStack, path: Path) -> RawTable:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True)) as database:
            tables = [
                row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            ]
            if len(tables) != 1:
                raise ConfigError(
                    f"data.path: {path} has {len(tables)} tables ({', '.join(tables)[:200]}); export the one to be read"
                )
            quoted = '"' + tables[0].replace('"', '""') + '"'
            cursor = database.execute(f"SELECT * FROM {quoted}")
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


def _of_query(stack: contextlib.ExitStack, query: str) -> RawTable:
    import duckdb

    connection = connect(stack)
    place = Path("data.query")
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise ConfigError(f"data.query: {str(error).splitlines()[0]}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ConfigError("data.query: must be one SELECT; it can change nothing")
    connection.execute("SET lock_configuration = true")
    try:
        table = connection.sql(query).to_arrow_table()
    except duckdb.Error as error:
        raise DataError(f"data.query: {str(error).splitlines()[0]}") from None
    names, notes = unique_names(table.column_names)
    connection.close()
    raw = from_arrow(stack, table.rename_columns([f"c{i}" for i in range(len(names))]), names, place, first_row=1)
    raw.is_query = True
    raw.notes += notes
    return raw
