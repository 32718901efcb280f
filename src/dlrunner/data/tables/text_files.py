"""Opening text with separators: unpacked, as UTF-8, in one dialect for all part files."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from dlrunner.data.core.unpacking import open_compressed
from dlrunner.data.tables.dialect import HEAD, Dialect, check_encoding, check_separator, detect, encoding_of
from dlrunner.data.tables.formats import literal
from dlrunner.data.tables.raw import LONGEST_LINE, RawTable, connect, readable_errors
from dlrunner.errors import DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class TextFile:
    """A text file with separators, or one part of a table."""

    file: Path
    """Of the user, for messages."""
    path: Path
    """Of plain text in UTF-8: the file, or a copy."""
    dialect: Dialect


def text_file(
    stack: contextlib.ExitStack, path: Path, separator: str | None, encoding: str | None, file: Path | None = None
) -> TextFile:
    """Look at a text file.

    Args:
        stack: removes temporary copies.
        path: of the file, which may be compressed.
        separator, encoding: given by the user.
        file: its name in messages.

    Raises:
        ConfigError: separator or encoding is none.
        DataError: it is empty, damaged or not text.
    """
    if separator is not None:
        check_separator(separator)
    plain, file = plain_text(stack, path, encoding), file or path
    with plain.open("rb") as stream:
        head = stream.read(HEAD)
    text = head.decode("utf-8-sig", errors="replace")
    if len(head) == HEAD:
        lines = text[: text.rfind("\n") + 1]
        text = lines if lines.count("\n") > 1 else text  # the first row alone may be longer
    _refuse_nul(plain, file)
    return TextFile(file, plain, detect(text, file, separator))


def open_text(stack: contextlib.ExitStack, parts: Sequence[TextFile], place: Path) -> RawTable:
    """Open text with separators.

    Args:
        stack: closes what is opened.
        parts: one file, or several with columns of the same names.
        place: for messages.

    Raises:
        DataError: the columns of two files differ.
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
    source, is_trimmed = _source([part.path for part in parts], [part.dialect for part in parts])
    with readable_errors(place):
        select = f"SELECT * FROM {source}{_without_last_blank_lines(connection, source, first)}"
        connection.execute(f"CREATE VIEW raw AS {select}")
    names = list(first.names)
    return RawTable(
        connection,
        place,
        names,
        ["VARCHAR"] * len(names),
        first_row=2 + first.skipped_lines,
        separator=first.separator,
        blank_after_separator=first.blank_after_separator and not is_trimmed,
        notes=notes,
        select=select,
    )


def _source(paths: Sequence[Path], dialects: Sequence[Dialect]) -> tuple[str, bool]:
    """Return the SQL that reads part files one after the other, and whether it trims blanks after separators.

    Files in a row of one dialect are read together; the columns of others are brought into the order of the first.
    """
    groups = [
        (dialect, [path for path, _ in pairs])
        for dialect, pairs in itertools.groupby(
            zip(paths, [replace(each, notes=()) for each in dialects], strict=True), key=lambda pair: pair[1]
        )
    ]
    if len(groups) == 1:
        return _read_csv(groups[0][1], groups[0][0]), False
    selects = []
    for dialect, some in groups:
        columns = [f"c{dialect.names.index(name)}" for name in groups[0][0].names]
        columns = [f"ltrim({each}, ' ')" if dialect.blank_after_separator else each for each in columns]
        selected = ", ".join(f"{each} AS c{i}" for i, each in enumerate(columns))
        selects.append(f"SELECT {selected} FROM {_read_csv(some, dialect)}")
    return f"({' UNION ALL '.join(selects)})", True


def _read_csv(paths: Sequence[Path], dialect: Dialect) -> str:
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(dialect.names)))
    listed = ", ".join(literal(str(path)) for path in paths)
    return (
        f"read_csv([{listed}], columns={{{columns}}}, auto_detect=false, delim={literal(dialect.separator)}, "
        f"quote='\"', escape='\"', header=true, skip={dialect.skipped_lines}, nullstr='', strict_mode=true, "
        f"max_line_size={LONGEST_LINE})"
    )


def _refuse_nul(path: Path, named: Path) -> None:
    position = 0
    with path.open("rb") as file:
        while piece := file.read(16 * HEAD):
            if (found := piece.find(b"\0")) >= 0:
                raise DataError(
                    f"{named} contains a NUL character (byte {position + found + 1:,}): it is not a text file"
                )
            position += len(piece)


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


def from_standard_input(stack: contextlib.ExitStack) -> Path:
    """Return a temporary copy of standard input."""
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlrunner-"))) / "table.csv"
    with copy.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return copy
