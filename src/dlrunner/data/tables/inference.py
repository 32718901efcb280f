"""The type and format of each column, found over all rows.

A sample of the rows says which formats are possible; those are then compared with every row. A format is taken if all
values have it. Where several remain, and the order of the rows or the other columns do not settle which, the column is
ambiguous: it must not be used before the user says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from dlrunner.data.tables.candidates import (
    NEARLY_ALL,
    SAMPLE,
    Candidates,
    Hints,
    counted_candidates,
    settled_orders,
    settled_signs,
)
from dlrunner.data.tables.formats import (
    NUMERIC_DATES,
    OFFSET,
    TEXT_DATES,
    DateFormat,
    NumberFormat,
    literal,
    missing,
    offset_minutes,
)
from dlrunner.data.tables.mixtures import LOOKED_AT, are_times, mixture
from dlrunner.data.tables.raw import PER_QUERY, RawTable
from dlrunner.data.tables.schema import Column, Schema, Statistics, whole_as_text
from dlrunner.errors import DataError

__all__ = ["Hints", "commonest_dates", "infer"]

FEW = 20
"""Codes: so few different numbers next to other strings are categories, not numbers with errors."""

PAST_HOUR = r":\d\d[\d.,]*"
"""The minutes of a time, and what follows up to its offset from UTC."""


@dataclass(frozen=True)
class _Conventions:
    """How the file writes numbers and dates, where its columns leave no doubt."""

    decimal: str | None
    orders: set[tuple[str, str]]
    """Of dates, with their separators."""
    is_given: bool
    """The decimal sign is a setting."""


def infer(table: RawTable, hints: Hints) -> Schema:
    """Return how each column of a table is read.

    Args:
        table: the open table.
        hints: what the user says.

    Raises:
        DataError: the table has no rows, or a column that must hold dates does not.
    """
    head = table.fetch(*[table.column(name) for name in table.names], limit=f"LIMIT {SAMPLE}")
    if head.num_rows == 0:
        raise DataError(f"{table.place} has a header but no rows")
    counted = counted_candidates(table, head, hints)
    conventions = _Conventions(hints.decimal or settled_signs(counted), settled_orders(counted), bool(hints.decimal))
    typed = _counts_of_types(table, [name for name in table.names if name not in counted])
    columns: list[Column] = []
    found = {}
    for number, name in enumerate(table.names):
        if name in counted:
            column, statistics = _decide(table, counted[name], conventions, hints)
        else:
            column, statistics = _of_type(table, name, typed[name], hints)
        example = next((value for value in head.column(number).to_pylist() if value not in (None, "")), "")
        if column.type == "text" and not column.verbatim and table.types[number] == "VARCHAR":
            first = head.column(number).slice(0, LOOKED_AT).to_pylist()
            timed = _times(table, name, statistics) if are_times(first) else None
            if timed is not None:
                column, statistics = timed
            else:
                statistics = replace(
                    statistics, doubt=mixture(first, lambda row: table.rows.short(row)) or statistics.doubt
                )
        columns.append(column)
        found[name] = replace(statistics, example=str(example)[:60])
    return Schema(tuple(columns), found)


def _decide(
    table: RawTable, candidates: Candidates, conventions: _Conventions, hints: Hints
) -> tuple[Column, Statistics]:
    name, counts = candidates.name, candidates.counts
    empty = Statistics(num_missing=counts["empty"], num_distinct=counts["distinct"])
    text = Column(name, verbatim=name in hints.text)
    if name in hints.text or counts["empty"] == counts["total"]:
        return text, empty
    numbers, dates = candidates.fitting()
    known = replace(empty, num_missing=counts.get("missing", counts["empty"]))
    if name in hints.dates:
        return _date(table, candidates, dates, known, conventions, hints)
    if not candidates.has_formats or counts["missing"] == counts["total"]:
        return _nearly(table, candidates, empty, empty, conventions)
    if candidates.boolean and counts["boolean"] == 0:
        return Column(name, "boolean"), known
    if numbers:
        if counts["zeros"] or (counts["long"] and counts["fractions 0"] == 0):
            return text, empty
        return _number(table, candidates, numbers, known, conventions)
    if dates:
        return _date(table, candidates, dates, known, conventions, hints)
    return _nearly(table, candidates, empty, known, conventions)


def _number(
    table: RawTable, candidates: Candidates, numbers: list[NumberFormat], found: Statistics, conventions: _Conventions
) -> tuple[Column, Statistics]:
    counts = candidates.counts
    signs = {each.decimal for each in numbers}
    separated = counts.get("points", 0) or counts.get("commas", 0)
    doubt, note, sign = None, None, conventions.decimal
    if separated and len(signs) == 2:
        # All of them with three digits after a single point: written with a fixed precision, except where a semicolon
        # separates, as in countries with decimal commas.
        with_point = counts["threes"]
        is_fixed = (
            counts["points"] == with_point
            and table.separator != ";"
            and not counts["commas"]
            and with_point + found.num_missing == counts["total"]
        )
        if sign is None and is_fixed:
            sign = "."
        if sign is None:
            shown = "." if counts["points"] else ","
            example = _example_with(table, candidates, shown)
            doubt = (
                f"{example} may be {example.replace(shown, '')} or {example.replace(shown, '.')}: "
                "set data.decimal=. or data.decimal=','"
            )
        else:
            numbers = [each for each in numbers if each.decimal == sign] or numbers
            word = "point" if sign == "." else "comma"
            if not (is_fixed or conventions.is_given):
                note = f"read with a decimal {word}, as the rest of the file (if not so, set data.decimal)"
    # The plainest of those that read the same: without thousands where there are none.
    chosen = min(numbers, key=lambda each: (not each.is_plain, each.thousands is not None))
    column = Column(
        candidates.name,
        "integer" if candidates.is_whole(chosen) and not counts["large"] else "number",
        decimal=chosen.decimal,
        thousands=chosen.thousands,
        before=chosen.before,
        after=chosen.after,
    )
    found = replace(found, doubt=doubt, note=note, ambiguous=doubt is not None)
    i = candidates.numbers.index(chosen)
    if num_bad := counts[f"too large {i}"] + counts[f"number {i}"]:
        return _with_bad(table, replace(column, type="number"), found, num_bad)
    return column, found


def _example_with(table: RawTable, candidates: Candidates, sign: str) -> str:
    values = table.fetch(candidates.text, limit=f"WHERE contains({candidates.text}, {literal(sign)}) LIMIT 1")
    return str(values.column(0)[0].as_py())


def _times(table: RawTable, name: str, found: Statistics) -> tuple[Column, Statistics] | None:
    """Return a column as one of times of day; None where too many of its values are none."""
    column, text = Column(name, "time"), table.column(name)
    absent, num_bad, total = table.aggregate(
        f"count_if({missing(f'trim({text})')})", f"count_if({column.bad(text)})", "count(*)"
    )
    if num_bad > (1 - NEARLY_ALL) * (total - absent):
        return None
    note = "times of day are read as minutes since midnight: 12:30 is 750 (data.schema can read them as text)"
    found = replace(found, num_missing=absent, note=note)
    return _with_bad(table, column, found, num_bad) if num_bad else (column, found)


def commonest_dates(table: RawTable, name: str) -> tuple[Column, int] | None:
    """Return a column of strings as dates in the format that most of its values have, and the number of the others.

    None where no value is a date, or several formats have as many.
    """
    formats = [Column(name, "date", format=each.name) for each in TEXT_DATES]
    misfits = table.aggregate(*[f"count_if({each.bad(table.column(name))})" for each in formats])
    best = [each for each, count in zip(formats, misfits, strict=True) if count == min(misfits)]
    return (best[0], min(misfits)) if len(best) == 1 and min(misfits) < max(misfits) else None


def _date(
    table: RawTable,
    candidates: Candidates,
    dates: list[DateFormat],
    found: Statistics,
    conventions: _Conventions,
    hints: Hints,
) -> tuple[Column, Statistics]:
    name = candidates.name
    if not dates:
        if not candidates.dates:
            known = table.where(f"NOT {missing(candidates.text)}", candidates.text, 1)
            if not known:  # a dash in each row
                return Column(name, "date", format="ISO 8601"), replace(found, num_missing=candidates.counts["total"])
            ((row, value),) = known
            raise DataError(f"{table.rows.at(row)}: {name} is {value!r}, which is not a date in a known format")
        best = min(range(len(candidates.dates)), key=lambda i: candidates.counts[f"date {i}"])
        chosen = candidates.dates[best]
        column = Column(name, "date", format=chosen.name)
        bad = candidates.counts[f"date {best}"]
        row, value = table.first_where(column.bad(table.column(name)), table.column(name))
        raise DataError(
            f"{table.rows.at(row)}: {name} is {value!r}, which is not a date of the form {chosen.name}, as the "
            f"others are; {bad:,} such row(s) in all (data.date_format=… says another form)"
        )
    chosen = dates[0]
    if len(dates) > 1 and hints.date_format is None:
        chosen, found = _settled(table, candidates, dates, found, conventions)
    elif hints.date_format is not None:
        chosen = next((each for each in dates if each.name == hints.date_format), dates[0])
    return Column(name, "date", format=chosen.name), _with_offsets(table, candidates.text, found)


def _with_offsets(table: RawTable, text: str, found: Statistics) -> Statistics:
    """Add a note if times have offsets from UTC that differ by more than summer time, or only some have one."""
    times = f"WHERE regexp_matches({text}, {literal(PAST_HOUR)})"
    offsets = table.fetch(f"DISTINCT regexp_extract({text}, {literal(PAST_HOUR + OFFSET + '$')}, 1)", limit=times)
    named = sorted(each or "none" for each in offsets.column(0).to_pylist())
    minutes = [offset_minutes(each) for each in named]
    known = [each for each in minutes if each is not None]
    if len(named) < 2 or (len(known) == len(named) and max(known) - min(known) <= 60) or not known:
        return found
    note = f"times with different offsets from UTC ({', '.join(named[:4])}) are read as written, without the offset"
    return replace(found, note=f"{found.note}; {note}" if found.note else note)


def _settled(
    table: RawTable,
    candidates: Candidates,
    dates: list[DateFormat],
    found: Statistics,
    conventions: _Conventions,
) -> tuple[DateFormat, Statistics]:
    """Return the format that the rest of the file has, or by which the rows are in order; else with what is in doubt.

    The first is a note: the file leaves no choice; the second a warning: rows may be in order by chance.
    """
    if not dates[0].order:  # 20230131 is a day rather than a second
        return dates[0], found
    read = table.fetch(candidates.text, *[each.value(candidates.text) for each in dates])
    times = [read.column(i + 1).to_pandas() for i in range(len(dates))]
    other = next((i for i, each in enumerate(times) if not times[0].equals(each)), None)
    if other is None:
        return dates[0], found
    of_file = [each for each in dates if (each.order, each.name[2]) in conventions.orders]
    if len(of_file) == 1:
        note = f"read as {of_file[0].name}, as the rest of the file (if not so, set data.date_format)"
        return of_file[0], replace(found, note=note)
    known = [values.dropna() for values in times]
    ordered = [
        each
        for each, values in zip(dates, known, strict=True)
        if len(values) > 2 and (values.is_monotonic_increasing or values.is_monotonic_decreasing)
    ]
    if len(ordered) == 1:
        chosen = ordered[0]
        doubt = f"read as {chosen.name}, by which its rows are in order (if not so, set data.date_format)"
        return chosen, replace(found, doubt=doubt)
    differs = int(np.flatnonzero((times[0] != times[other]) & times[0].notna())[0])
    example = read.column(0)[differs].as_py()
    readings = " or ".join(f"{times[i].iloc[differs]:%d %b %Y}" for i in (0, other))
    settings = " or ".join(f"data.date_format={dates[i].name!r}" for i in (0, other))
    return dates[0], replace(found, doubt=f"{example} may be {readings}: set {settings}", ambiguous=True)


def _nearly(
    table: RawTable, candidates: Candidates, empty: Statistics, known: Statistics, conventions: _Conventions
) -> tuple[Column, Statistics]:
    """Return the type of a column of which not all values have one format."""
    counts, name = candidates.counts, candidates.name
    num_known = counts["total"] - counts.get("missing", counts["empty"])
    misfits = [counts[f"number {i}"] for i in range(len(candidates.numbers))]
    date_misfits = [counts[f"date {i}"] for i in range(len(candidates.dates))]
    if misfits and min(misfits) < (1 - NEARLY_ALL) * num_known and counts["distinct"] - min(misfits) > FEW:
        best = candidates.numbers[int(np.argmin(misfits))]
        if not counts["zeros"]:
            return _number(table, candidates, [best], known, conventions)
    if date_misfits and min(date_misfits) < (1 - NEARLY_ALL) * num_known:
        best_date = candidates.dates[int(np.argmin(date_misfits))]
        column = Column(name, "date", format=best_date.name)
        return _with_bad(table, column, known, min(date_misfits))
    doubt = None
    if counts.get("sample", 0) >= 50 and counts["distinct"] > FEW:
        doubt = f"{counts['sample']} % of its values are numbers, but it is read as text"
    return Column(name), replace(empty, doubt=doubt)


def _with_bad(table: RawTable, column: Column, found: Statistics, count: int) -> tuple[Column, Statistics]:
    row, value = table.first_where(column.bad(table.column(column.name)), table.column(column.name))
    return column, replace(found, num_bad=count, bad_example=f"{table.rows.short(row)}: {value!r}")


@dataclass(frozen=True)
class _Counts:
    """Counts of a column that has a type in the file, over all rows."""

    missing: int
    distinct: int
    fractions: int
    long: int
    """Values with more digits than a float keeps."""
    too_large: int


def _known(table: RawTable, name: str) -> str:
    """Return the SQL condition that a value of a column that has a type in the file is not missing."""
    column = table.column(name)
    return (
        f"({column} IS NOT NULL AND NOT isnan({column}))"
        if table.type_of(name) == "DOUBLE"
        else f"{column} IS NOT NULL"
    )


def _counts_of_types(table: RawTable, names: Sequence[str]) -> dict[str, _Counts]:
    """Return the counts of columns that have types in the file, in one pass for many columns."""
    found: dict[str, _Counts] = {}
    for start in range(0, len(names), PER_QUERY):
        some = names[start : start + PER_QUERY]
        expressions: list[str] = []
        for name in some:
            column, kind, known = table.column(name), table.type_of(name), _known(table, name)
            whole = f"count_if({known} AND {column} % 1 <> 0)" if kind == "DOUBLE" else "0"
            large = f"count_if(abs({column}) > 9007199254740992)" if kind in ("BIGINT", "DOUBLE") else "0"
            too_large = f"count_if(too_large({column}))" if kind == "DOUBLE" else "0"
            expressions += [f"count_if(NOT {known})", f"approx_count_distinct({column})", whole, large, too_large]
        counts = table.aggregate(*expressions)
        size = len(fields(_Counts))
        found |= {name: _Counts(*counts[i * size : (i + 1) * size]) for i, name in enumerate(some)}
    return found


def _of_type(table: RawTable, name: str, counts: _Counts, hints: Hints) -> tuple[Column, Statistics]:
    """Return a column that has a type in the file."""
    column, kind = table.column(name), table.type_of(name)
    found = Statistics(num_missing=counts.missing, num_distinct=counts.distinct)
    if name in hints.text:
        return Column(name, verbatim=True), found
    if kind == "TIMESTAMP":
        return Column(name, "date", format="ISO 8601"), found
    if name in hints.dates and kind in ("BIGINT", "DOUBLE"):
        return _numbers_as_dates(table, name, _known(table, name), hints.date_format), found
    if kind == "BOOLEAN":
        return Column(name, "boolean"), found
    if counts.long and not counts.fractions and kind == "BIGINT":
        return Column(name), found
    if counts.too_large:
        row, value = table.first_where(f"too_large({column})", column)
        return Column(name, "number"), replace(
            found, num_bad=counts.too_large, bad_example=f"{table.rows.short(row)}: {value}"
        )
    return Column(name, "number" if counts.fractions else "integer"), found


def _numbers_as_dates(table: RawTable, name: str, known: str, given: str | None) -> Column:
    """Return a column of numbers as dates in the first format that all of them have.

    Args:
        known: the SQL condition that a value is not missing.
        given: the format of the setting; others are not tried where it is one of numbers.

    Raises:
        DataError: no format reads them all.
    """
    source = table.column(name)
    text = whole_as_text(source) if table.type_of(name) == "DOUBLE" else f"CAST({source} AS VARCHAR)"
    formats = [each for each in NUMERIC_DATES if each.name == given] or NUMERIC_DATES
    bad = [f"({known} AND ({each.value(text)}) IS NULL)" for each in formats]
    begun = [f"count_if({known} AND regexp_matches({text}, {literal('^' + each.start)}))" for each in formats]
    total, *counts = table.aggregate(f"count_if({known})", *(f"count_if({each})" for each in bad), *begun)
    possible = [i for i, each in enumerate(formats) if each.name == given or counts[len(formats) + i] * 2 >= total]
    best = min(possible, key=lambda i: counts[i])
    if counts[best] == 0:
        return Column(name, "date", format=formats[best].name)
    row, value = table.first_where(bad[best], source)
    form = "in a known format" if counts[best] == total else f"of the form {formats[best].name}, as the others are"
    reason = f"{name} is {value}, which is not a date {form}; {counts[best]:,} such row(s) in all"
    raise DataError(f"{table.rows.at(row)}: {reason}")
