"""A user's own table of items or of users, one row each: its columns become attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from dlrunner.data.ratings.attributes import Values, memberships, positions
from dlrunner.data.ratings.user_table import USUAL_NAMES
from dlrunner.data.tables.dialect import encodings_to_try
from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Reading, Table
from dlrunner.errors import DataError

TITLES = ("title", "name", "Title", "Name")
MOST_CATEGORIES = 200
"""Of a column; the rarest are left out."""
FEWEST_ROWS = 2
"""Of a category: what a single item has in common with no other says nothing."""
SEPARATOR = "|"
"""Between several categories in one value, as MovieLens writes genres."""


@dataclass(frozen=True)
class SideTable:
    """The attributes of items or users, in the order of their codes."""

    values: Values
    """One row per item or user; all 0 where the table has none."""
    titles: list[str] | None
    notes: list[str]


def side_table_file(path: str | None, setting: str) -> TableFile | None:
    """Return the table that a setting names."""
    return None if path is None else TableFile(path, None, Reading(), setting=f"data.{setting}")


def read_side_table(
    file: TableFile,
    role: Literal["user", "item"],
    name: str | None,
    ids: Sequence[int | str],
    encoding: str | None = None,
) -> SideTable:
    """Read a table of items or users.

    Args:
        file: the table.
        role: what its rows are.
        name: the name of the column of their ids in the table of ratings.
        ids: of each code.
        encoding: of the ratings, if it was set; the table may have it too.

    Raises:
        ConfigError: there is no such file.
        DataError: it has no column of ids, or none of its ids occurs among the ratings.
    """
    first, *others = encodings_to_try(encoding)
    try:
        return _read(file.in_encoding(first), role, name, ids)
    except DataError:
        if not others:
            raise
        return _read(file.in_encoding(others[0]), role, name, ids)


def _read(file: TableFile, role: Literal["user", "item"], name: str | None, ids: Sequence[int | str]) -> SideTable:
    with file.open() as raw:
        names = list(raw.names)
    usual = [each for each in (name, *USUAL_NAMES[role], "id", "Id", "ID") if each in names]
    if not usual:
        wanted = ", ".join(filter(None, [name, *USUAL_NAMES[role][:3], "id"]))
        raise DataError(f"{file.place} has no column of ids ({wanted}); its columns are: {', '.join(names)}")
    titles = [each for each in TITLES if each in names] if role == "item" else []
    table = file.read(text=[usual[0], *titles])
    frame = table.frame[table.frame[usual[0]].notna()].drop_duplicates(usual[0]).set_index(usual[0])
    wanted_ids = pd.Index([str(each) for each in ids])
    num_known = int(wanted_ids.isin(frame.index).sum())
    if not num_known:
        raise DataError(
            f"{file.place}: none of the {len(frame):,} ids in {usual[0]} occurs among the ratings, such as {ids[0]!r}"
        )
    frame = frame.reindex(wanted_ids)
    return _described(frame, table, role, num_known, len(table.frame) - int(table.frame[usual[0]].nunique()))


def _described(frame: pd.DataFrame, table: Table, role: str, num_known: int, num_repeated: int) -> SideTable:
    titled = next((each for each in TITLES if each in frame.columns), None) if role == "item" else None
    used, left_out, unclear, parts = [], [], [], [np.zeros((len(frame), 0), dtype=np.float32)]
    for name in frame.columns:
        if name == titled:
            continue
        found = table.schema.found.get(name)
        values, what = _encoded(frame[name], table.schema[name].type)
        if found is not None and found.ambiguous:
            unclear.append(f"{table.place}: {name} is not used, since it could be read in two ways: {found.doubt}")
        elif values.shape[1]:
            parts.append(values)
            used.append(f"{name} ({what})")
        else:
            left_out.append(name)
    notes = [*table.notes, f"{table.place}: {', '.join(used) or 'no column'} as attributes of {role}s"]
    for column in sorted({each.column for each in table.bad}):
        first, *others = [each for each in table.bad if each.column == column]
        count = f"{1 + len(others):,} such value(s) of {column} count as missing"
        notes.append(f"{table.rows.at(first.row)}: {first.reason}; {count}")
    notes += unclear
    if left_out:
        why = f"its values do not tell {role}s apart, or none has two {role}s"
        notes.append(f"{table.place}: not used ({why}): {', '.join(left_out)}")
    if missing := len(frame) - num_known:
        notes.append(f"{table.place} has no row for {missing:,} of {len(frame):,} {role}s")
    if num_repeated:
        notes.append(
            f"{table.place} has {num_repeated:,} row(s) without an id, or with a repeated one; the first counts"
        )
    titles = None
    if titled is not None:
        pairs = zip(frame.index, frame[titled], strict=True)
        titles = [str(code) if pd.isna(title) else title.strip() or str(code) for code, title in pairs]
    return SideTable(np.concatenate(parts, axis=1), titles, notes)


def _encoded(column: pd.Series[Any], kind: str) -> tuple[Values, str]:
    """Return a column as attributes, and what kind they are."""
    if kind in ("integer", "number"):
        return positions(column.to_numpy(np.float64, na_value=np.nan)), "numbers"
    if kind == "date":
        days = column.to_numpy("datetime64[us]")
        return positions(np.where(np.isnat(days), np.nan, days.astype(np.int64).astype(np.float64))), "dates"
    texts = column.map(str, na_action="ignore").reset_index(drop=True).astype("str")
    each = texts.str.split(SEPARATOR).explode().str.strip().dropna()
    counts = each[each != ""].value_counts()
    kept = counts.index[(counts >= FEWEST_ROWS) & (counts < len(texts))][:MOST_CATEGORIES]
    codes = kept.get_indexer(pd.Index(each))
    flags = np.zeros((len(texts), len(kept)), dtype=np.float32)
    flags[each.index[codes >= 0], codes[codes >= 0]] = 1
    return memberships(flags), f"{len(kept)} categories"
