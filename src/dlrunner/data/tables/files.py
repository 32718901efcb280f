"""Opening tables: which files there are, and of which format."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from dlrunner.data.tables.parquet_files import check_parquet, differ_in_types, has_zones, open_parquet
from dlrunner.data.tables.partitions import keys_of
from dlrunner.data.tables.queries import open_query
from dlrunner.data.tables.raw import RawTable, readable_errors
from dlrunner.data.tables.text_files import from_standard_input, open_text, plain_text, text_file
from dlrunner.data.tables.typed_files import open_excel, open_json, open_sqlite
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import not_found, user_path

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
    skip_bad: bool = False,
    ids: Collection[str | int] = (),
    copy: Path | None = None,
) -> Iterator[RawTable]:
    """Open a table.

    Args:
        path: a file, a glob or folder of part files, or `-` for standard input.
        query: SQL that selects from files; instead of a path.
        separator: of a text file; found by default.
        encoding: of a text file; by its byte order mark by default, else UTF-8.
        skip_bad: leave out part files that cannot be read, with a note; by default the first one is an error.
        ids: names of columns of a query's result that keep every character, or their places from 0.
        copy: of standard input, where it has been read already.

    Raises:
        ConfigError: there is no such file, its format is unknown, or the query is not one of reading.
        DataError: the file is empty or damaged.
    """
    with contextlib.ExitStack() as stack:
        if query is not None:
            table = open_query(stack, query, lambda name: _in_query(stack, name, separator, encoding), ids)
        elif str(path) == STANDARD_INPUT:
            place = Path("standard input")
            part = text_file(stack, copy or from_standard_input(stack), separator, encoding, skip_bad, place)
            table = open_text(stack, [part], place, skip_bad)
        else:
            assert path is not None
            files = files_of(path)
            table = _of_files(stack, files, user_path(path), separator, encoding, skip_bad)
        if not table.names:
            raise DataError(f"{table.place} has no columns")
        yield table


def files_of(path: str | Path, setting: str = "data.path") -> list[Path]:
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
                f"{setting}: {given} is a folder without tables (files that end in {', '.join(SUFFIXES)})"
            )
    else:
        matches = glob.glob(str(given), recursive=True) if glob.has_magic(str(given)) else []  # noqa: PTH207
        parts = sorted(path for path in map(Path, matches) if path.is_file())
        if not parts:
            is_there = given.exists()
            raise ConfigError(
                f"{setting}: {given} is a pipe or a device, not a file"
                if is_there
                else f"{setting}: {not_found(given)}"
            )
    kinds = {format_of(p) for p in parts}
    if len(kinds) > 1:
        raise ConfigError(f"{setting}: {given} has tables of several formats: {', '.join(sorted(kinds))}")
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


def _in_query(stack: contextlib.ExitStack, name: str, separator: str | None, encoding: str | None) -> RawTable | None:
    """Open a file that a query names.

    None for no table, and for Parquet, of which DuckDB reads only what is needed; but it forgets zones of times,
    makes numbers of all digits in the names of folders, and casts all parts to the types of the first.
    """
    kind = suffix_of(Path(name))
    if kind is None:
        return None
    files, place = files_of(name, "data.query"), user_path(name)
    if kind in PARQUET and not (keys_of(files, place) or any(map(has_zones, files)) or differ_in_types(files)):
        return None
    return _of_files(stack, files, place, separator, encoding)


Opened = TypeVar("Opened")


def _of_files(
    stack: contextlib.ExitStack,
    files: Sequence[Path],
    place: Path,
    separator: str | None,
    encoding: str | None,
    skip_bad: bool = False,
) -> RawTable:
    kind = format_of(files[0])
    keys = keys_of(files, place) if kind in (*TEXT_SUFFIXES, *PARQUET, *JSON) else []
    separator = separator or ("\t" if kind in (".tsv", ".tab") else None)
    with readable_errors(place):
        if kind in TEXT_SUFFIXES:
            parts, notes = _readable(
                files, lambda file: text_file(stack, file, separator, encoding, skip_bad), skip_bad
            )
            table = open_text(stack, parts, place, skip_bad, keys)
            table.notes += notes
            return table
        if kind in PARQUET:
            checked, notes = _readable(files, check_parquet, skip_bad)
            table = open_parquet(stack, checked, place, skip_bad, keys)
            table.notes += notes
            return table
        if kind in JSON:
            pairs, notes = _readable(files, lambda file: (file, plain_text(stack, file, encoding)), skip_bad)
            table = open_json(stack, {path: file for file, path in pairs}, place, skip_bad, keys)
            table.notes += notes
            return table
        if len(files) > 1:
            raise ConfigError(f"data.path: {place}: only text, Parquet and JSON may come in parts")
        return open_excel(stack, files[0], skip_bad) if kind in EXCEL else open_sqlite(stack, files[0])


def _readable(
    files: Sequence[Path], opened: Callable[[Path], Opened], skip_bad: bool
) -> tuple[list[Opened], list[str]]:
    """Return what part files are opened as, and a note on those that are left out because they cannot be read.

    Raises:
        DataError: one cannot be read, and bad ones are not left out or no other is left.
    """
    found: list[Opened] = []
    problems: list[str] = []
    for file in files:
        try:
            with readable_errors(file):
                found.append(opened(file))
        except DataError as error:
            if not skip_bad or len(files) == 1:
                raise
            problems.append(str(error))
    if not found:
        raise DataError(f"{problems[0]}; no other file is left")
    if not problems:
        return found, []
    return found, [f"{len(problems):,} of {len(files):,} files are left out (data.skip_bad): {problems[0]}"]
