"""What a person gives a run to read: a text as it is, or a file or folder of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlrunner.data.documents import LINES, TABLES, find_documents
from dlrunner.errors import RequestError


def texts_to_read(given: str, column: str | None) -> Sequence[tuple[str, str]]:
    """Return names and texts: the rows, lines or files of what is given, or the given text itself.

    Raises:
        RequestError: it looks like a file, but there is none; or it is empty.
    """
    path = Path(given).expanduser()
    try:
        exists = path.exists()
    except OSError:  # too long for a name: a text
        exists = False
    if exists:
        documents = find_documents(path, column)
        return list(zip(documents.table["name"].tolist(), documents.texts(), strict=True))
    if path.suffix.lower() in (*TABLES, *LINES) and " " not in given:
        raise RequestError(f"there is no file {given}")
    if not given.strip():
        raise RequestError("the text is empty")
    return [(given if len(given) < 60 else f"{given[:57]}…", given)]
