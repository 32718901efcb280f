"""A last row that sums up the others, or is their average: it is left out before types are found."""

from __future__ import annotations

import os
from pathlib import Path

from dlrunner.data.tables.formats import literal
from dlrunner.data.tables.raw import RawTable

TOTALS = (
    *(
        "total",
        "totals",
        "grand total",
        "sum",
        "average",
        "summe",
        "gesamt",
        "gesamtsumme",
        "insgesamt",
        "durchschnitt",
    ),
    *("somme", "total général", "moyenne", "totale", "totaal", "total general", "suma", "razem", "summa", "yhteensä"),
    *("итого", "合計", "总计", "합계"),
)
"""First value of such a row."""
TAIL = 2**16
"""Bytes at the end of a file, of which the last line is searched for one of these words."""


def may_end_in_total(path: Path) -> bool:
    """Tell whether a total may stand in the last row of a text file."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        tail = file.read().decode(errors="replace").lower().strip()
    return any(word in tail.splitlines()[-1] for word in TOTALS) if tail else False


def leave_out_total(raw: RawTable) -> str | None:
    """Leave a last row out that sums up the others: its first value says so, and no other row's does.

    Types are found without it: below dates, the word Total would make their column one of text.

    Returns:
        a note; None where there is no such row.
    """
    num_rows = raw.num_rows() if raw.may_end_in_total else 0
    if num_rows < 3:
        return None
    texts = [f"trim(CAST({raw.column(name)} AS VARCHAR))" for name in raw.names]
    last = raw.fetch(*texts, limit=f"LIMIT 1 OFFSET {num_rows - 1}").to_pylist()[0]
    for name, text, value in zip(raw.names, texts, last.values(), strict=True):
        if not value:
            continue
        if value.rstrip(":").lower() not in TOTALS or raw.aggregate(f"count_if({text} = {literal(value)})") != [1]:
            return None
        raw.leave_out_last_row()
        return f"the last row is left out: it sums up the others ({name} is {value})"
    return None
