"""A last row that sums up the others, or is their average: it is left out before types are found."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection
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
    *("gesamtergebnis", "totale complessivo", "eindtotaal", "total geral", "suma końcowa"),  # of pivot tables
    *("итого", "合計", "总计", "합계"),
)
"""First value of such a row."""
TAIL = 2**16
"""Bytes at the end of a file, of which the last line is searched for one of these words."""


def may_end_in_total(path: Path) -> bool:
    """Tell whether a total may stand in the last row of a text file."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        tail = file.read().decode(errors="replace").lower().strip(" \t\r\n,;|")  # rows of separators alone are none
    return any(word in tail.splitlines()[-1] for word in TOTALS) if tail else False


def leave_out_totals(raw: RawTable, kept: Collection[str] = ()) -> str | None:
    """Leave last rows out that sum up the others, of the table or of its parts: their first values say so, no other's.

    Types are found without them: below dates, the word Total would make their column one of text.

    Args:
        raw: the table.
        kept: names, in lower case, of columns in which such a word may be a text or an id like others.

    Returns:
        a note; None where there is no such row.
    """
    num_rows = raw.num_rows() if raw.may_end_in_total else 0
    if num_rows < 3:
        return None
    texts = [f"nullif(trim(CAST({raw.column(name)} AS VARCHAR)), '')" for name in raw.names]
    first, words = f"coalesce({', '.join(texts)})", ", ".join(map(literal, TOTALS))
    rows_of: dict[str, list[int]] = {}
    for row, value in raw.where(f"rtrim(lower({first}), ':') IN ({words})", first, limit=num_rows):
        rows_of.setdefault(value, []).append(row)
    ends = {-1, *(raw.rows.ends(num_rows).tolist() if rows_of else ())}
    ends = {row for row in ends if row - 1 not in ends}  # the only row of a file sums up nothing
    sums = {value: rows for value, rows in rows_of.items() if ends.issuperset(rows)}
    if not sums:
        return None
    found = sorted(itertools.chain(*sums.values()))
    last = raw.fetch(*texts, limit=f"LIMIT 1 OFFSET {found[-1]}").to_pylist()[0].values()
    name, value = next((name, value) for name, value in zip(raw.names, last, strict=True) if value)
    if name.lower() in kept:
        return None
    what = "the last row is" if len(found) == 1 else f"the last rows of {len(found):,} files are"
    verb = "it sums" if len(found) == 1 else "they sum"
    raw.leave_out(found, f"{first} IN ({', '.join(map(literal, sums))})")
    return f"{what} left out: {verb} up the others ({name} is {value})"
