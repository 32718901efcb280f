"""Input texts of predictors: strings, or a file or folder of texts."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dlrunner.data.core.input_columns import input_columns
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.source import ARCHIVES
from dlrunner.data.tables.files import STANDARD_INPUT
from dlrunner.data.tables.table import Reading
from dlrunner.data.texts.documents import LINES, MISSING, TABLES, Wanted, find_documents
from dlrunner.data.texts.tokens import has_words
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.files.paths import exists, not_found, user_path
from dlrunner.predictor_inputs import check_table, listed, table_name, table_of_dicts


@dataclass(frozen=True)
class InputTexts:
    """Texts that are given to a predictor."""

    names: list[str]
    texts: list[str]
    notes: list[str] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Number and reason of the texts that cannot be read, are missing or empty."""
    empty: list[int] = field(default_factory=list)
    """Numbers of the texts that are missing or empty."""
    table: pd.DataFrame | None = None
    """The columns of the table that they stand in."""

    def columns(self, only: Sequence[str] | None) -> pd.DataFrame:
        """Return what is shown next to the predictions: columns of the table, or the names of the texts in `text`."""
        if self.table is not None:
            return input_columns(self.table, only, None)
        return input_columns(pd.DataFrame({"text": self.names}), only, "text")


def read_texts(
    given: Any, column: str | None, default: str | None, files: Mapping[str, str] | None = None
) -> InputTexts:
    """Return the rows, lines or files of a path, or the given strings themselves.

    Args:
        given: a text or several, the path of a file or folder, `-` for standard input, a DataFrame, a row of a table as
            a dict, or several.
        column: requested column of a table.
        default: column that the run was trained on; used if the table has it.
        files: separator and encoding of the training files, which are tried where others do not read a file.

    Raises:
        ConfigError: there is no text, the text is the name of a missing file, or the argument has another type.
    """
    if isinstance(given, str) and (given == STANDARD_INPUT or _is_glob(given)):
        given = Path(given)
    if isinstance(given, Path):
        known = files or {}
        fallback = Reading(separator=known.get("separator"), encoding=known.get("encoding"))
        wanted = Wanted(column, default, keep_bad=True, setting="column", fallback=fallback)
        found = find_documents(user_path(given), wanted)
        texts, table = list(found.texts()), None
        if found.column is not None:
            table = pd.concat([pd.Series(texts, name=found.column, dtype=object), found.table], axis=1)
            table.attrs |= {"file": str(found.place), "rows": found.place}
        return _with_empty(list(found.names), texts, list(found.notes), dict(found.problems), table)
    given = table_of_dicts(given)
    if isinstance(given, pd.DataFrame):
        return _of_table(given, column or default)
    texts = listed(given, "texts", (str,))
    if isinstance(given, str):
        if not given.strip():
            raise ConfigError("the text is empty")
        named = _is_named_as_file(given)
        if named or ("/" in given and len(given.split()) == 1):
            if exists(given):
                raise ConfigError(f"{given!r} is a file or folder, not a text: give Path({given!r})")
            if named and " " not in given:
                raise ConfigError(not_found(given))
            return _with_empty(texts, texts, [f"{given} is read as a text: there is no such file or folder"], {})
    return _with_empty(texts, texts, [], {})


def _of_table(table: pd.DataFrame, column: str | None) -> InputTexts:
    """Return the texts of a DataFrame: those of a column, by default of the only one or the one named `text`.

    Raises:
        ConfigError: there is no such column, or a value is not a text.
    """
    table = table.rename(columns=str)
    check_table(table)
    names = list(table.columns)
    column = column or (names[0] if len(names) == 1 else "text")
    if column not in names:
        raise ConfigError(f"column: {table_name(table)} has no column {column!r}; {did_you_mean(column, names)}")
    missing = table[column].isna().to_numpy()
    texts = ["" if gone else text for text, gone in zip(table[column], missing, strict=True)]
    for text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"column: {table_name(table)} has {text!r} in {column}, which is not a text")
    rows = RowLocations.of_frame(table)
    problems = {row: f"{rows.short(row)}: {MISSING}" for row, gone in enumerate(missing) if gone}
    return _with_empty([f"row {number}" for number in rows.numbers(len(table))], texts, [], problems, table)


def _with_empty(
    names: list[str], texts: list[str], notes: list[str], problems: dict[int, str], table: pd.DataFrame | None = None
) -> InputTexts:
    empty = {row: "the text is empty" for row, text in enumerate(texts) if not has_words(text)}
    missing = [row for row, reason in problems.items() if reason.endswith(MISSING)]
    blank = sorted({*(empty.keys() - problems.keys()), *missing})
    return InputTexts(names, texts, notes, sorted((empty | problems).items()), blank, table)


def _is_named_as_file(text: str) -> bool:
    """Return whether a text ends as the name of a file with texts, which may be compressed, or of an archive.

    >>> [_is_named_as_file(each) for each in ("new.csv", "new.csv.gz", "texts.tar.gz", "It is good.", "www.json.org")]
    [True, True, True, False, False]
    """
    name = text.strip().lower()
    return name.endswith(ARCHIVES) or Path(name.removesuffix(".gz")).suffix in (*TABLES, *LINES)


def _is_glob(text: str) -> bool:
    """Return whether a text is a pattern that matches tables."""
    if not glob.has_magic(text) or Path(text).suffix.lower() not in TABLES:
        return False
    return bool(glob.glob(str(user_path(text)), recursive=True))  # noqa: PTH207
