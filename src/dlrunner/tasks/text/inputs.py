"""What a person gives a run to read: a text as it is, or a file or folder of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlrunner.data.core.tables import read_table
from dlrunner.data.texts.documents import LINES, TABLES, find_documents
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path


def texts_to_read(given: str, column: str | None, usual: str | None) -> tuple[Sequence[tuple[str, str]], list[str]]:
    """Return names and texts, and what to tell: the rows, lines or files of what is given, or the given text itself.

    Args:
        given: a text, or the name of a file or folder.
        column: of a table, as it was asked for.
        usual: the column that the run was trained on; it is taken where the table has it.

    Raises:
        ConfigError: it looks like a file, but there is none; or it is empty.
    """
    if not given.strip():
        raise ConfigError("the text is empty")
    try:
        path = user_path(given)
        exists = path.exists()
    except (OSError, ConfigError):  # too long for a name, or ~ of nobody: a text
        path, exists = Path("text"), False
    if exists:
        is_table = any(suffix.lower() in TABLES for suffix in path.suffixes)
        if column is None and usual is not None and is_table and usual in read_table(path).columns:
            column = usual
        documents = find_documents(path, column)
        return list(zip(documents.names, documents.texts(), strict=True)), list(documents.notes)
    if path.suffix.lower() in (*TABLES, *LINES) and " " not in given:
        raise ConfigError(f"there is no file {given}")
    return [(shortened(given), given)], []


def shortened(text: str) -> str:
    """Return a text, or what it begins with."""
    return text if len(text) < 60 else f"{text[:57]}…"
