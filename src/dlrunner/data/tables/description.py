"""How each column of a table was read and is used, for the terminal, the report and `dlrun data describe`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlrunner.data.tables.schema import Schema

MOST_COLUMNS = 200
"""That are kept in the summary of a run."""


def describe_columns(schema: Schema, uses: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return name, type and format, missing values, an example, the use, the doubt and the note of each column.

    Args:
        schema: of the table.
        uses: what columns are used as; the others are not used.
    """
    rows = []
    for column in schema.columns:
        found = schema.found.get(column.name)
        row: dict[str, Any] = {
            "name": column.name,
            "type": column.described(),
            "use": uses.get(column.name, "not used"),
        }
        if found is not None:
            row |= {"missing": found.num_missing, "example": found.example}
            doubts = [found.doubt, f"{found.num_bad:,} other values, {found.bad_example}" if found.num_bad else None]
            if doubt := "; ".join(filter(None, doubts)):
                row["doubt"] = doubt
            if found.note:
                row["note"] = found.note
        rows.append(row)
    return rows
