"""Columns in the names of folders, as Hive, Spark and Arrow partition tables: `year=2020/month=01/part.parquet`."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from dlrunner.data.tables.formats import literal
from dlrunner.errors import DataError

FOLDER = re.compile(r"([^=]+)=([^=]*)")
"""Other signs of equality are escaped by what writes such folders."""
MISSING = "__HIVE_DEFAULT_PARTITION__"


def keys_of(files: Sequence[Path], given: Path) -> list[str]:
    """Return the names of the columns that the folders of part files have.

    Args:
        files: of the table.
        given: the folder or glob that they were found by: only what is below is a part of the table.

    Raises:
        DataError: the folders of two files have other columns.
    """
    root = _root(given)
    keys = [list(_values(file, root)) for file in files]
    for file, found in zip(files, keys, strict=True):
        if sorted(found) != sorted(keys[0]):
            raise DataError(
                f"{file} is in folders of {_listed(found)}, {files[0]} of {_listed(keys[0])}: "
                "folders named KEY=VALUE are columns, which all files have or none"
            )
    return keys[0]


def values_of(file: Path, keys: Sequence[str]) -> list[str | None]:
    """Return the values that the folders of a file have for some columns."""
    found = _values(file, Path())
    return [None if found[key] == MISSING else unquote(found[key]) for key in keys]


def check_names(keys: Sequence[str], names: Sequence[str], place: Path) -> None:
    """Check that no column of the files has the name of one in the names of folders.

    Raises:
        DataError: one has.
    """
    for key in keys:
        if key in names:
            raise DataError(
                f"{place}: {key} is a column of the files, and of the folders' names too ({key}=…): rename one "
                "of them, or give the files by a glob below these folders"
            )


def expressions(keys: Sequence[str]) -> list[str]:
    """Return the SQL expressions of the columns in the path of a file, `path_of_file`."""
    found = [f"url_decode(regexp_extract(path_of_file, {literal(f'.*/{re.escape(key)}=([^/]*)/')}, 1))" for key in keys]
    return [f"nullif({each}, {literal(MISSING)})" for each in found]


def _root(given: Path) -> Path:
    fixed = given
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    return given.parent if fixed.is_file() else fixed


def _values(file: Path, root: Path) -> Mapping[str, str]:
    folders = file.parts[len(root.parts) : -1]
    return {match[1]: match[2] for folder in folders if (match := FOLDER.fullmatch(folder))}


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys) or "none"
