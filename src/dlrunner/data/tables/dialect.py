"""The dialect of a delimited text file: encoding, separator, lines before the header, names of the columns."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrunner.errors import ConfigError, DataError

SEPARATORS = (",", ";", "\t", "|")
HEAD = 2**20
"""Bytes that are looked at to find the separator."""
RECORDS = 200
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Dialect:
    """How a delimited text file is parsed."""

    separator: str
    names: tuple[str, ...]
    """Of the columns: without blanks at their ends, each once."""
    skipped_lines: int = 0
    """Before the header: Excel's `sep=;`, comments."""
    blank_after_separator: bool = False
    """Each separator is followed by a blank, which belongs to it."""
    notes: tuple[str, ...] = ()


def encoding_of(head: bytes) -> str:
    """Return the encoding that a byte order mark says, else UTF-8."""
    return next((encoding for mark, encoding in BOMS if head.startswith(mark)), "utf-8")


def detect(head: str, path: Path, separator: str | None = None) -> Dialect:
    """Return the dialect of a file.

    Args:
        head: its first lines; the last one may be cut.
        path: for messages.
        separator: given by the user.

    Raises:
        DataError: the file is empty, or its first row holds numbers and no names.
    """
    lines = head.splitlines(keepends=True)
    skipped = 0
    if lines and (match := re.fullmatch(r"\s*sep=(.)\s*", lines[0], re.IGNORECASE | re.DOTALL)):
        separator = separator or match[1]
        skipped = 1
    while skipped < len(lines) and not lines[skipped].strip():
        skipped += 1
    while skipped + 1 < len(lines) and _is_comment(lines[skipped], lines[skipped + 1]):
        skipped += 1
    text = "".join(lines[skipped:])
    if not text.strip():
        raise DataError(f"{path} is empty")
    records = {each: _records(text, each) for each in ([separator] if separator else SEPARATORS)}
    chosen = max(records, key=lambda each: _fit(records[each]))
    first, *others = records[chosen]
    if len(others) == 0:
        raise DataError(f"{path} has a header but no rows")
    names, notes = unique_names([name.strip().removeprefix("\ufeff") for name in first])
    if len(names) > 1 and all(NUMBER.fullmatch(name.strip()) for name in first):
        shown = ", ".join(first[:5])
        raise DataError(
            f"{path}: its first row ({shown}) holds numbers, not the names of columns; add a line of names at the top"
        )
    fields = [field for record in [first, *others] for field in record[1:]]
    blanks = bool(fields) and all(field.startswith(" ") or not field for field in fields)
    return Dialect(chosen, tuple(names), skipped, blanks, tuple(notes))


def unique_names(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return distinct names of columns, and notes on those that were changed; an empty name is `Unnamed: N`.

    >>> unique_names(["a", "", "a"])
    (['a', 'Unnamed: 1', 'a.1'], ["2 columns are named a: the second one is called 'a.1'"])
    """
    names: list[str] = []
    notes = []
    for number, name in enumerate(given):
        name = name or f"Unnamed: {number}"
        new, count = name, 0
        while new in names or (count and new in given):
            count += 1
            new = f"{name}.{count}"
        if new != name:
            notes.append(f"{count + 1} columns are named {name}: the {_ordinal(count + 1)} one is called {new!r}")
        names.append(new)
    return names, notes


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _is_comment(line: str, following: str) -> bool:
    """Return whether a line before the header is a comment, and not a header that begins with #."""
    if not line.startswith(("#", "%", "//")):
        return False
    return not any(
        following.count(each) and line.count(each) == following.count(each) for each in SEPARATORS
    ) or following.startswith(line[0])


def _records(text: str, separator: str) -> list[list[str]]:
    csv.field_size_limit(2 * HEAD)  # the head may be one long text
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    records: list[list[str]] = []
    try:
        for record in reader:
            if record:
                records.append(record)
            if len(records) > RECORDS:
                break
    except csv.Error as error:  # a NUL
        if not records:
            raise DataError(f"a table cannot be read: {error}") from None
    return records


def _fit(records: Sequence[Sequence[str]]) -> tuple[float, int]:
    """Return how well a separator fits: the fraction of records with as many fields as the header, and its fields."""
    width = len(records[0]) if records else 0
    if width < 2:
        return 0.0, width
    others = records[1:] or records
    same = sum(len(record) == width for record in others) / len(others)
    return (same, width) if same > 0.5 else (same / 2, width)


def check_encoding(name: str) -> str:
    """Return the standard name of an encoding.

    Raises:
        ConfigError: there is none of this name.
    """
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise ConfigError(f"data.encoding: {name!r} is not an encoding; usual ones are utf-8, cp1252, utf-16") from None
