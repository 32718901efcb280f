"""The columns of a table, as lines of at most 80 characters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDTH = 80
MOST_LINES = 40
HEADER = ("column", "read as", "missing", "example", "use")


def column_lines(columns: Sequence[Mapping[str, Any]], most: int = MOST_LINES) -> Iterator[str]:
    """Yield a table of columns (see `dlrunner.data.tables.description`), with the warning or note on each."""
    rows = [
        (
            f"{each['name']}{' (!)' if each.get('doubt') else ''}",
            str(each["type"]),
            f"{each['missing']:,}" if each.get("missing") else "",
            str(each.get("example", "")),
            str(each["use"]),
        )
        for each in columns
    ]
    if not rows:
        return
    shown = rows[:most]
    header = HEADER if any(row[-1] for row in rows) else (*HEADER[:-1], "")
    widths = _widths([header, *shown])
    for row in (header, *shown):
        cells = [_cut(cell, width) for cell, width in zip(row, widths, strict=True)]
        cells[2] = cells[2].strip().rjust(widths[2])
        yield "  ".join(cells).rstrip()
    if len(rows) > most:
        yield f"… {len(rows) - most:,} more columns"
    for each in columns:
        if each.get("doubt"):
            yield f"warning: {each['name']}: {each['doubt']}"
        if each.get("note"):
            yield f"note: {each['name']}: {each['note']}"


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the widths of the columns: the longest ones are cut until a line fits."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        longest = max(range(len(widths)), key=lambda i: widths[i])
        widths[longest] -= 1
    return widths


def _cut(text: str, width: int) -> str:
    """Return a text of exactly this width.

    >>> _cut("Gesamtbetrag", 6), _cut("ab", 4)
    ('Gesam…', 'ab  ')
    """
    text = " ".join(text.split())
    return text.ljust(width) if len(text) <= width else f"{text[: width - 1]}…"
