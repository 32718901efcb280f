"""Blank lines within a text file: they are no rows of the table, but the rows below them are counted with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dlrunner.data.tables.dialect import Dialect

BETWEEN_ROWS = re.compile(rb"\n\r?\n[^\r\n]")
"""A blank line that is not at the end of the file."""


def blank_records(path: Path, dialect: Dialect) -> list[int]:
    """Return the places of blank lines among the records below the header, from 0; lines within quotes are none.

    Of one column there are none: a blank line is an empty value.
    """
    if len(dialect.names) < 2:
        return []
    return [number for number, is_blank in enumerate(_records(path, dialect)) if is_blank]


def _records(path: Path, dialect: Dialect) -> Iterator[bool]:
    """Yield whether each record below the header is blank."""
    separator, is_open, is_header = dialect.separator.encode(), False, True
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number < dialect.skipped_lines:
                continue
            if not is_open:
                if not is_header:
                    yield not line.rstrip(b"\r\n")
                is_header = False
            if b'"' in line:
                is_open = _ends_in_quotes(line.rstrip(b"\r\n"), separator, is_open)


def _ends_in_quotes(line: bytes, separator: bytes, is_open: bool) -> bool:
    """Return whether a quotation mark is still open at the end of a line; only one at the start of a field opens.

    >>> [_ends_in_quotes(line, b",", False) for line in (b'a,"b', b'"a ""b"",c"', b'5" pipe,7')]
    [True, False, False]
    >>> [_ends_in_quotes(line, b",", True) for line in (b'b",1', b'b"",1', b'b","c')]
    [False, True, True]
    """
    start = 0
    while True:
        if is_open or line.startswith(b'"', start):
            start = _end_of_quotes(line, start if is_open else start + 1)
            if start < 0:
                return True
            is_open = False
        start = line.find(separator, start)
        if start < 0:
            return False
        start += len(separator)


def _end_of_quotes(line: bytes, start: int) -> int:
    """Return the place after the closing quotation mark; -1 where there is none."""
    while (end := line.find(b'"', start)) >= 0:
        if not line.startswith(b'"', end + 1):
            return end + 1
        start = end + 2
    return -1
