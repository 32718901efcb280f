"""Users' texts: folders, archives, files with a text a line, columns of tables."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dlrunner.data.core.folders import labels_and_parts
from dlrunner.data.core.source import ArchiveOrFolder, sha256_of
from dlrunner.data.core.tables import read_table
from dlrunner.data.core.unpacking import decompressed
from dlrunner.errors import ConfigError, DataError, did_you_mean

TABLES = (".csv", ".tsv", ".tab", ".parquet")
LINES = (".txt", ".tokens", ".text")


@dataclass(frozen=True)
class Documents:
    """Texts that are found but not read yet."""

    place: Path
    digest: str
    """Of the texts in their order."""
    names: Sequence[str]
    table: pd.DataFrame
    """The columns of a table besides that of the texts; no columns otherwise."""
    texts: Callable[[], Sequence[str]]
    column: str | None = None
    """Of the table, with the texts."""
    labels: Sequence[str] | None = None
    """Of documents in a folder: the folder that each stands in."""
    parts: Sequence[str | None] | None = None
    """Of documents in folders named train, valid, test: train, valid, test, or None; None where there is no train/."""
    notes: tuple[str, ...] = ()


def find_documents(path: Path, column: str | None, target: Sequence[str] = ()) -> Documents:
    """Return the documents of a folder of .txt files, a file with a text a line, or a table.

    Args:
        path: the folder or file.
        column: of the table, with the texts; by default its only column of texts, or one named `text`.
        target: columns of the table that cannot be the texts.

    Raises:
        ConfigError: there is no such file or column.
        DataError: it holds no text.
    """
    if not path.exists():
        raise ConfigError(f"data.path: there is no file or folder {path}")
    if path.is_dir():
        return documents_in(ArchiveOrFolder(path), lambda name: name.lower().endswith(".txt"), "folder of texts")
    suffixes = [s.lower() for s in path.suffixes]
    if any(suffix in TABLES for suffix in suffixes):
        return _documents_of_table(path, column, target)
    if any(suffix in LINES for suffix in suffixes) or not suffixes:
        return _documents_of_lines(path)
    raise ConfigError(
        f"data.path: {path} is not a folder, and its name has neither the suffix of a table ({', '.join(TABLES)}) "
        f"nor that of a file with one text per line ({', '.join(LINES)})"
    )


def documents_in(place: ArchiveOrFolder, wanted: Callable[[str], bool], key: str) -> Documents:
    """Return the documents in the files of a folder or archive; the folder a file stands in is its label.

    Args:
        place: the folder or archive.
        wanted: tells by its path which file is a document.
        key: of what is remembered about them in the cache: one for each `wanted`.
    """
    names = sorted(name for name in place.names() if wanted(name))
    if not names:
        raise DataError(f"{place.path} holds no texts (files that end in .txt)")
    labels, parts = labels_and_parts(names)

    def texts() -> Sequence[str]:
        found = place.read_where(wanted)
        return [_decoded(content, f"{place.path}: {name}") for name, content in found.items()]

    return Documents(
        place.path,
        place.digest_where(wanted, key),
        names,
        pd.DataFrame(index=range(len(names))),
        texts,
        labels=labels,
        parts=parts,
    )


def _documents_of_lines(path: Path) -> Documents:
    try:
        content = decompressed(path)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cannot be read ({error})") from None
    lines = _decoded(content, str(path)).replace("\r\n", "\n").removesuffix("\n").split("\n")
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} is empty")
    names = [f"line {number}" for number in range(1, len(lines) + 1)]
    return Documents(path, sha256_of(path), names, pd.DataFrame(index=range(len(lines))), lambda: lines)


def _documents_of_table(path: Path, column: str | None, target: Sequence[str]) -> Documents:
    table = read_table(path)
    notes: tuple[str, ...] = ()
    if column is None:
        column = _text_column(table, target, path)
        notes = (f"texts are read from the column {column}",)
    elif column not in table.columns:
        raise ConfigError(f"data.text: {path} has no column {column!r}; {did_you_mean(column, map(str, table))}")
    # A text may say NA, or null.
    texts = read_table(path, only_empty_is_missing=True)[column]
    missing = texts.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"{path}, row {int(missing.argmax()) + 2}: the text is missing; {int(missing.sum()):,} such row(s) in all"
        )
    names = [f"row {row}" for row in range(2, len(table) + 2)]
    digest, others = f"{sha256_of(path)} {column}", table.drop(columns=[column])
    return Documents(path, digest, names, others, lambda: texts.astype(str).tolist(), column, notes=notes)


def _text_column(table: pd.DataFrame, target: Sequence[str], path: Path) -> str:
    kinds = [pd.api.types.is_string_dtype(table[name]) for name in table.columns]
    texts = [str(name) for name, text in zip(table.columns, kinds, strict=True) if text and name not in target]
    if len(texts) == 1:
        return texts[0]
    if "text" in texts:
        return "text"
    raise ConfigError(
        f"data.text: is missing: which column of {path} holds the texts? It has {', '.join(map(str, table.columns))}"
    )


def _decoded(content: bytes, place: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not text in UTF-8 (byte {error.start}); convert it first") from None
    if "\0" in text:
        raise DataError(f"{place} contains a NUL character (at {text.index(chr(0))}); is it text?")
    return text
