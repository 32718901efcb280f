"""What a person gives a run to read: texts as they are, or a file or folder of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlrunner.data.core.tables import read_table
from dlrunner.data.texts.documents import LINES, TABLES, find_documents
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.tasks.common.inputs import listed


def read_texts(
    given: str | Path | Sequence[str], column: str | None, usual: str | None
) -> tuple[list[str], list[str], list[str]]:
    """Return names, texts and what to tell: the rows, lines or files of what is given, or the given texts themselves.

    Args:
        given: a text or several, or the path of a file or folder.
        column: of a table, as it was asked for.
        usual: the column that the run was trained on; it is taken where the table has it.

    Raises:
        ConfigError: there is no text, or a text that looks like a file, or it is something else.
    """
    if isinstance(given, Path):
        path = user_path(given)
        is_table = any(suffix.lower() in TABLES for suffix in path.suffixes)
        if column is None and usual is not None and is_table and usual in read_table(path).columns:
            column = usual
        documents = find_documents(path, column)
        return list(documents.names), list(documents.texts()), list(documents.notes)
    texts = listed(given, "texts", (str,))
    if isinstance(given, str):
        if not given.strip():
            raise ConfigError("the text is empty")
        if Path(given).suffix.lower() in (*TABLES, *LINES) and " " not in given:
            raise ConfigError(f"there is no file {given}")
    return [_shortened(text) for text in texts], texts, []


def _shortened(text: str) -> str:
    """Return a text, or what it begins with."""
    return text if len(text) < 60 else f"{text[:57]}…"
