"""Opening text with separators: unpacked, as UTF-8, in one dialect for all part files."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from dlrunner.data.core.row_locations import Part
from dlrunner.data.core.unpacking import open_compressed
from dlrunner.data.tables.blank_lines import BETWEEN_ROWS, blank_records
from dlrunner.data.tables.dialect import (
    HEAD,
    LONGEST_LINE,
    SEPARATORS,
    Dialect,
    check_encoding,
    check_separator,
    detect,
    encoding_of,
    kind_of,
)
from dlrunner.data.tables.formats import literal
from dlrunner.data.tables.partitions import check_names, expressions
from dlrunner.data.tables.raw import RawTable, connect, fields_sentence, readable_errors
from dlrunner.data.tables.totals import may_end_in_total
from dlrunner.errors import DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


USUAL_LINE = 2**21
"""Bytes that lines of few texts do not exceed."""
LONGEST_EMPTY = 2**14
"""Bytes of a line of separators alone that is found wherever it stands."""
RAGGED = ("TOO MANY COLUMNS", "MISSING COLUMNS")
"""DuckDB's names of what is wrong with a row alone; after an open quotation mark all rows are in doubt."""


@dataclass(frozen=True)
class TextFile:
    """A text file with separators, or one part of a table."""

    file: Path
    """Of the user, for messages."""
    path: Path
    """Of plain text in UTF-8: the file, or a copy."""
    dialect: Dialect
    has_blank_lines: bool = False
    """Between its rows."""
    has_empty_rows: bool = False
    """Lines of separators alone, as of formatted empty rows of a spreadsheet."""

    @cached_property
    def blank(self) -> list[int]:
        """Places of blank lines among the records below the header, from 0."""
        return blank_records(self.path, self.dialect) if self.has_blank_lines else []


def text_file(
    stack: contextlib.ExitStack,
    path: Path,
    separator: str | None,
    encoding: str | None,
    skip_bad: bool,
    file: Path | None = None,
) -> TextFile:
    """Look at a text file.

    Args:
        stack: removes temporary copies.
        path: of the file, which may be compressed.
        separator, encoding: given by the user.
        skip_bad: leave out a second header row.
        file: its name in messages.

    Raises:
        ConfigError: separator or encoding is none.
        DataError: it is empty, damaged or not text, or has a second header row.
    """
    if separator is not None:
        check_separator(separator)
    plain, file = plain_text(stack, path, encoding), file or path
    with plain.open("rb") as stream:
        head = stream.read(HEAD)
    if (kind := kind_of(head)) is not None:
        raise DataError(f"{file} is {kind}, not a table as text")
    text = head.decode("utf-8-sig", errors="replace")
    if len(head) == HEAD:
        lines = text[: text.rfind("\n") + 1]
        text = lines if lines.count("\n") > 1 else text  # the first row alone may be longer
    has_blank_lines, has_empty_rows = _look_through(plain, file, separator or "".join(SEPARATORS))
    dialect = detect(text, file, separator, skip_bad)
    return TextFile(file, plain, dialect, has_blank_lines, has_empty_rows and len(dialect.names) > 1)


def open_text(
    stack: contextlib.ExitStack,
    parts: Sequence[TextFile],
    place: Path,
    skip_bad: bool = False,
    keys: Sequence[str] = (),
) -> RawTable:
    """Open text with separators.

    Args:
        stack: closes what is opened.
        parts: one file, or several with columns of the same names.
        place: for messages.
        skip_bad: leave out rows with more or fewer fields than the header, and parts that cannot be read, with a note.
        keys: columns in the names of folders.

    Raises:
        DataError: the columns of two files differ, or a key is one of them.
    """
    first, name = parts[0].dialect, parts[0].file.name
    notes = list(first.notes)
    for part in parts[1:]:
        file, dialect = part.file, part.dialect
        if sorted(dialect.names) != sorted(first.names):
            raise DataError(f"{file} has other columns than {parts[0].file}: {', '.join(dialect.names)[:200]}")
        if dialect.names != first.names:
            notes.append(f"{file.name} has the columns in another order than {name}: they are read by name")
        if dialect.separator != first.separator:
            notes.append(f"{file.name} has the separator {dialect.separator!r}, {name} {first.separator!r}")
    connection = connect(stack)
    parts = _with_longest_line(connection, parts)
    first = parts[0].dialect
    num_ragged = 0
    counts: Sequence[int] | None = None
    left_out: tuple[int, ...] = ()
    if skip_bad:
        parts, counts, left_out, of_parts = _sound(connection, parts)
        num_ragged = len(left_out)
        first, notes = parts[0].dialect, [*notes, *of_parts]
    files = {str(part.path): part.file for part in parts}
    if any(part.blank for part in parts):
        if counts is None and len(parts) > 1:
            with readable_errors(place, files):
                counts = _counted(connection, parts)
        starts = itertools.accumulate(counts or (), initial=0)
        blank = [start + each for start, part in zip(starts, parts, strict=False) for each in part.blank]
        left_out = tuple(sorted({*left_out, *blank}))
    source, is_trimmed = _source(
        [part.path for part in parts], [part.dialect for part in parts], ", ignore_errors=true" * (num_ragged > 0), keys
    )
    with readable_errors(place, files):
        select = f"SELECT * FROM {source}{_without_last_blank_lines(connection, source, first)}"
        connection.execute(f"CREATE VIEW raw AS {select}")
    check_names(keys, first.names, place)
    names = [*first.names, *keys]
    raw = RawTable(
        connection,
        place,
        names,
        ["VARCHAR"] * len(names),
        first_row=2 + first.skipped_lines,
        separator=first.separator,
        blank_after_separator=first.blank_after_separator and not is_trimmed,
        notes=notes,
        select=select,
        files=files,
        left_out=left_out,
        may_end_in_total=any(may_end_in_total(part.path) for part in parts),
        parts=None if len(parts) < 2 else lambda: _numbered(parts, counts or _counted(connection, parts)),
    )
    if any(part.has_empty_rows for part in parts):
        _leave_out_empty_rows(raw, len(first.names))
    return raw


def _leave_out_empty_rows(raw: RawTable, num_columns: int) -> None:
    """Leave rows out that hold separators alone, as blank lines are; with a note if others follow."""
    is_empty = f"coalesce({', '.join(f'c{i}' for i in range(num_columns))}) IS NULL"
    total = raw.num_rows()
    rows = [row for row, _ in raw.where(is_empty, "NULL", limit=total)]
    if not rows:
        return
    if rows[0] + len(rows) < total:
        raw.notes.append(f"{len(rows):,} row(s) of separators alone are left out: {raw.rows.short(rows[0])}")
    raw.leave_out(rows, is_empty)


def _with_longest_line(connection: DuckDBPyConnection, parts: Sequence[TextFile]) -> Sequence[TextFile]:
    """Return large files with the length of line that is needed to read them, since DuckDB reads 16 such lines at once.

    For the longest line that is allowed this is the whole file.
    """
    import duckdb

    if max(part.path.stat().st_size for part in parts) < LONGEST_LINE:
        return parts
    usual = [replace(part, dialect=replace(part.dialect, longest_line=USUAL_LINE)) for part in parts]
    try:
        _counted(connection, usual)
    except duckdb.Error:  # a longer line, or one that is no row: that is said when it is read
        return parts
    return usual


def _counted(connection: DuckDBPyConnection, parts: Sequence[TextFile]) -> list[int]:
    """Return the number of rows of each part, blank lines included."""
    counts = [f"SELECT count(*) FROM {_read_csv([part.path], part.dialect, '')}" for part in parts]
    numbers = [int(connection.execute(count).fetchall()[0][0]) for count in counts]
    return [number + len(part.blank) for number, part in zip(numbers, parts, strict=True)]


def _numbered(parts: Sequence[TextFile], counts: Sequence[int]) -> list[Part]:
    """Return the files of a table with their numbers of rows."""
    return [Part(part.file, 2 + part.dialect.skipped_lines, count) for part, count in zip(parts, counts, strict=True)]


def _sound(
    connection: DuckDBPyConnection, parts: Sequence[TextFile]
) -> tuple[Sequence[TextFile], Sequence[int], tuple[int, ...], list[str]]:
    """Look for rows with more or fewer fields than the header, and parts that cannot be read.

    Returns:
        the parts that can be read; their numbers of rows, blank ones included; the places of rows to leave out, in all
        files; notes.

    Raises:
        DataError: no part can be read.
    """
    kept: list[TextFile] = []
    ragged: list[tuple[Path, int, str]] = []
    broken: list[str] = []
    places: list[int] = []
    sizes: list[int] = []
    for part in parts:
        columns = ", ".join(f"count(c{i})" for i in range(len(part.dialect.names)))
        counts = f"SELECT count(*), {columns} FROM {_read_csv([part.path], part.dialect, ', store_rejects=true')}"
        with readable_errors(part.file, {str(part.path): part.file}):
            total = int(connection.execute(counts).fetchall()[0][0])
            rejected = connection.execute(
                "SELECT line, error_type, error_message FROM reject_errors ORDER BY line"
            ).fetchall()
            connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
        lines = {int(line): str(message) for line, kind, message in rejected if kind in RAGGED}
        if len(lines) < len({line for line, _, _ in rejected}):
            if len(parts) == 1:
                return parts, [total], (), []  # the reason is given when it is read
            line, _, message = next(each for each in rejected if each[1] not in RAGGED)
            broken.append(f"{part.file}, row {line}: {str(message).splitlines()[0]}")
            continue
        kept.append(part)
        ragged += [(part.file, line, fields_sentence(message)) for line, message in lines.items()]
        places += [sum(sizes) + line - 2 - part.dialect.skipped_lines for line in lines]
        sizes.append(total + len(lines) + len(part.blank))
    if not kept:
        raise DataError(f"{broken[0]}; no other file is left")
    notes = []
    if broken:
        notes.append(f"{len(broken):,} of {len(parts):,} files are left out (data.skip_bad): {broken[0]}")
    if ragged:
        file, line, reason = ragged[0]
        where = f"{file}, row {line}: {reason}"
        num_rows = sum(sizes) - sum(len(part.blank) for part in kept)
        if len(ragged) == num_rows:
            raise DataError(f"{where}; no other row is left")
        notes.append(f"{len(ragged):,} of {num_rows:,} rows are left out (data.skip_bad): {where}")
    return kept, sizes, tuple(places), notes


def _source(paths: Sequence[Path], dialects: Sequence[Dialect], options: str, keys: Sequence[str]) -> tuple[str, bool]:
    """Return the SQL that reads part files one after the other, and whether it trims blanks after separators.

    Files in a row of one dialect are read together; the columns of others are brought into the order of the first. The
    last columns are those in the names of folders.
    """
    groups = [
        (dialect, [path for path, _ in pairs])
        for dialect, pairs in itertools.groupby(
            zip(paths, [replace(each, notes=()) for each in dialects], strict=True), key=lambda pair: pair[1]
        )
    ]
    if len(groups) == 1:
        return _with_keys(groups[0][1], groups[0][0], options, keys), False
    selects = []
    for dialect, some in groups:
        columns = [f"c{dialect.names.index(name)}" for name in groups[0][0].names]
        columns = [f"ltrim({each}, ' ')" if dialect.blank_after_separator else each for each in columns]
        columns += [f"c{len(dialect.names) + i}" for i in range(len(keys))]
        selected = ", ".join(f"{each} AS c{i}" for i, each in enumerate(columns))
        selects.append(f"SELECT {selected} FROM {_with_keys(some, dialect, options, keys)}")
    return f"({' UNION ALL '.join(selects)})", True


def _with_keys(paths: Sequence[Path], dialect: Dialect, options: str, keys: Sequence[str]) -> str:
    if not keys:
        return _read_csv(paths, dialect, options)
    start = len(dialect.names)
    columns = ", ".join(f"{each} AS c{start + i}" for i, each in enumerate(expressions(keys)))
    source = _read_csv(paths, dialect, f"{options}, filename='path_of_file'")
    return f"(SELECT * EXCLUDE (path_of_file), {columns} FROM {source})"


def _read_csv(paths: Sequence[Path], dialect: Dialect, options: str) -> str:
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(dialect.names)))
    listed = ", ".join(literal(str(path)) for path in paths)
    return (
        f"read_csv([{listed}], columns={{{columns}}}, auto_detect=false, delim={literal(dialect.separator)}, "
        f"quote='\"', escape='\"', header=true, skip={dialect.skipped_lines}, nullstr='', strict_mode=true, "
        f"max_line_size={dialect.longest_line}, hive_partitioning=false{options})"
    )


def _look_through(path: Path, named: Path, separators: str) -> tuple[bool, bool]:
    """Return whether there are blank lines between rows, and whether there may be lines of separators alone.

    Raises:
        DataError: it is no text.
    """
    position, last, has_blank_lines, has_empty_rows = 0, b"", False, False
    empty_row = re.compile(rb"\n[" + re.escape(separators).encode() + rb"]+(\r?\n|$)")
    with path.open("rb") as file:
        while piece := file.read(16 * HEAD):
            if (found := piece.find(b"\0")) >= 0:
                raise DataError(
                    f"{named} contains a NUL character (byte {position + found + 1:,}): it is not a text file"
                )
            position += len(piece)
            has_blank_lines = has_blank_lines or BETWEEN_ROWS.search(last + piece) is not None
            has_empty_rows = has_empty_rows or empty_row.search(last + piece) is not None
            last = piece[-LONGEST_EMPTY:]
    return has_blank_lines, has_empty_rows


def _without_last_blank_lines(connection: DuckDBPyConnection, source: str, dialect: Dialect) -> str:
    """Return the LIMIT of a file of one column, where a blank line is an empty row, except at the end."""
    if len(dialect.names) > 1:
        return ""
    values = connection.sql(f"SELECT c0 IS NOT NULL FROM {source}").to_arrow_table().column(0).to_numpy()
    return f" LIMIT {int(np.flatnonzero(values)[-1]) + 1}" if values.any() else ""


def plain_text(stack: contextlib.ExitStack, path: Path, encoding: str | None) -> Path:
    """Return a file of uncompressed UTF-8: the file itself, or a temporary copy."""
    if encoding is not None:
        encoding = check_encoding(encoding)
    with open_compressed(path) as stream:
        head = stream.read(4)
        found = encoding or encoding_of(head)
        if stream.is_plain and found in ("utf-8", "utf-8-sig"):
            return path
        copy = copy_of(stack, path, "table.csv")
        with copy.open("wb") as file:
            if found in ("utf-8", "utf-8-sig"):
                file.write(head)
                while piece := stream.read(HEAD):
                    file.write(piece)
            else:
                _transcode(head, stream, found, path, file)
        return copy


def copy_of(stack: contextlib.ExitStack, path: Path, name: str) -> Path:
    """Return where a temporary copy of a file is to be written: below folders that name its columns, as the file."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlrunner-")))
    folder = folder.joinpath(*(each for each in path.parts[:-1] if "=" in each))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _transcode(head: bytes, stream: BinaryIO, encoding: str, path: Path, file: BinaryIO) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        file.write(decoder.decode(head).encode())
        while piece := stream.read(HEAD):
            file.write(decoder.decode(piece).encode())
        file.write(decoder.decode(b"", final=True).encode())
    except UnicodeError as error:
        raise DataError(f"{path} is not text in {encoding}: {error}") from None


def from_standard_input(stack: contextlib.ExitStack) -> Path:
    """Return a temporary copy of standard input."""
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlrunner-"))) / "table.csv"
    with copy.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return copy
