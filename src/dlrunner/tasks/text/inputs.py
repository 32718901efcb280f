"""Input texts of predictors: strings, or a file or folder of texts."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dlrunner.data.tables.files import STANDARD_INPUT
from dlrunner.data.texts.documents import LINES, MISSING, TABLES, Wanted, find_documents
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.predictor_inputs import listed


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


def read_texts(given: str | Path | Sequence[str], column: str | None, default: str | None) -> InputTexts:
    """Return the rows, lines or files of a path, or the given strings themselves.

    Args:
        given: a text or several, the path of a file or folder, or `-` for standard input.
        column: requested column of a table.
        default: column that the run was trained on; used if the table has it.

    Raises:
        ConfigError: there is no text, the text is the name of a missing file, or the argument has another type.
    """
    if isinstance(given, str) and (given == STANDARD_INPUT or _is_glob(given)):
        given = Path(given)
    if isinstance(given, Path):
        found = find_documents(user_path(given), Wanted(column, default, keep_bad=True))
        return _with_empty(list(found.names), list(found.texts()), list(found.notes), dict(found.problems))
    texts = listed(given, "texts", (str,))
    if isinstance(given, str):
        if not given.strip():
            raise ConfigError("the text is empty")
        if Path(given).suffix.lower() in (*TABLES, *LINES) and " " not in given:
            raise ConfigError(f"there is no file {given}")
    return _with_empty([_shorten(text) for text in texts], texts, [], {})


def _with_empty(names: list[str], texts: list[str], notes: list[str], problems: dict[int, str]) -> InputTexts:
    empty = {row: "the text is empty" for row, text in enumerate(texts) if not text.strip()}
    missing = [row for row, reason in problems.items() if reason.endswith(MISSING)]
    blank = sorted({*(empty.keys() - problems.keys()), *missing})
    return InputTexts(names, texts, notes, sorted((empty | problems).items()), blank)


def _is_glob(text: str) -> bool:
    """Return whether a text is a pattern that matches tables."""
    if not glob.has_magic(text) or Path(text).suffix.lower() not in TABLES:
        return False
    return bool(glob.glob(str(user_path(text)), recursive=True))  # noqa: PTH207


def _shorten(text: str) -> str:
    """Return a text, cut to 60 characters."""
    return text if len(text) < 60 else f"{text[:57]}…"
