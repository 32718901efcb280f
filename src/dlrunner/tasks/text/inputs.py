"""Input texts of predictors: strings, or a file or folder of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlrunner.data.core.tables import read_table
from dlrunner.data.texts.documents import LINES, TABLES, find_documents
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.predictor_inputs import listed


def read_texts(
    given: str | Path | Sequence[str], column: str | None, default: str | None
) -> tuple[list[str], list[str], list[str]]:
    """Return names, texts and notes: the rows, lines or files of a path, or the given strings themselves.

    Args:
        given: a text or several, or the path of a file or folder.
        column: requested column of a table.
        default: column that the run was trained on; used if the table has it.

    Raises:
        ConfigError: there is no text, the text is the name of a missing file, or the argument has another type.
    """
    if isinstance(given, Path):
        path = user_path(given)
        is_table = any(suffix.lower() in TABLES for suffix in path.suffixes)
        if column is None and default is not None and is_table and default in read_table(path).columns:
            column = default
        documents = find_documents(path, column)
        return list(documents.names), list(documents.texts()), list(documents.notes)
    texts = listed(given, "texts", (str,))
    if isinstance(given, str):
        if not given.strip():
            raise ConfigError("the text is empty")
        if Path(given).suffix.lower() in (*TABLES, *LINES) and " " not in given:
            raise ConfigError(f"there is no file {given}")
    return [_shorten(text) for text in texts], texts, []


def _shorten(text: str) -> str:
    """Return a text, cut to 60 characters."""
    return text if len(text) < 60 else f"{text[:57]}…"
