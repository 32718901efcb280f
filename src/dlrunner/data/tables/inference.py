"""The type and format of each column, found over all rows.

A sample of the rows says which formats are possible; those are then compared with every row. A format is taken if all
values have it. Where several remain, and the order of the rows or the other columns do not settle which, the column is
ambiguous: it must not be used before the user says.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from dlrunner.data.tables.formats import (
    MISSING,
    NUMERIC_DATES,
    TEXT_DATES,
    DateFormat,
    NumberFormat,
    date_format,
    literal,
    number_formats,
    unit_of,
)
from dlrunner.data.tables.raw import RawTable
from dlrunner.data.tables.schema import Column, Schema, Statistics, missing, trimmed
from dlrunner.errors import DataError

SAMPLE = 10_000
"""Known values of a column that say which formats are possible."""
GLANCE = 12
"""Values that rule out most formats at once."""
NEARLY_ALL = 0.95
"""Of the known values: a column of which so many are numbers, but not all, is probably one of numbers with errors."""
FEW = 20
"""Codes: so few different numbers beside other strings are categories, not numbers with errors."""
LONGEST_NUMBER = 15
"""Digits that a float keeps; whole numbers with more are ids."""


@dataclass(frozen=True)
class Hints:
    """What the user says about the columns."""

    text: Collection[str] = ()
    """Ids and texts: they keep every character."""
    dates: Collection[str] = ()
    decimal: str | None = None
    thousands: str | None = None
    date_format: str | None = None


@dataclass
class _Candidates:
    """What a column may be, with the misfits of each format once all rows are counted."""

    name: str
    text: str
    """SQL expression of its strings without blanks at the ends."""
    number: int = 0
    """Of the column in the table."""
    numbers: list[NumberFormat] = field(default_factory=list)
    dates: list[DateFormat] = field(default_factory=list)
    later: list[NumberFormat] = field(default_factory=list)
    """Formats with separators, which no value of the sample has: counted only if whole numbers alone do not fit."""
    boolean: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def has_two_signs(self) -> bool:
        """Whether a point or comma may be the decimal sign, or may separate thousands."""
        return len({each.decimal for each in self.numbers}) == 2

    def inner(self) -> Iterator[str]:
        """Yield what the aggregates are made of: the string, whether it is missing, the value in each format."""
        n = self.number
        yield f"{self.text} AS t{n}"
        yield f"{missing(self.text)} AS m{n}"
        for i, each in enumerate(self.numbers):
            yield f"{each.value(self.text)} AS n{n}_{i}"
        for i, each_date in enumerate(self.dates):
            yield f"{each_date.value(self.text)} AS d{n}_{i}"

    def aggregates(self) -> Iterator[tuple[str, str]]:
        """Yield names and SQL aggregates."""
        n = self.number
        yield "empty", f"count(*) - count(nullif(t{n}, ''))"
        yield "missing", f"count_if(m{n})"
        yield "distinct", f"approx_count_distinct(t{n})"
        if self.boolean:
            yield "boolean", f"count_if(NOT m{n} AND lower(t{n}) NOT IN ('true', 'false'))"
        for i in range(len(self.numbers)):
            yield f"number {i}", f"count(*) - count_if(m{n}) - count(n{n}_{i})"
            yield f"whole {i}", f"count_if(n{n}_{i} % 1 <> 0)"
        if self.numbers:
            zero = f"starts_with(t{n}, '00') OR (starts_with(t{n}, '0') AND n{n}_0 >= 1)"
            yield "zeros", f"count_if({zero})"
            yield "long", f"count_if(abs(n{n}_0) >= 1e{LONGEST_NUMBER})"
        if self.has_two_signs:
            yield "points", f"count_if(contains(t{n}, '.'))"
            yield "commas", f"count_if(contains(t{n}, ','))"
            yield "threes", rf"count_if(regexp_full_match(t{n}, '.*\d[.,]\d{{3}}\D*'))"
        for i in range(len(self.dates)):
            yield f"date {i}", f"count(*) - count_if(m{n}) - count(d{n}_{i})"


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
    candidates: dict[str, _Candidates] = {}
    for number, name in enumerate(table.names):
        if table.types[number] == "VARCHAR":
            sample = head.column(number).drop_null().to_pylist()
            if len(sample) < min(100, head.num_rows):  # nearly empty at the top
                text = table.column(name)
                more = table.fetch(text, limit=f"WHERE {trimmed(text)} <> '' LIMIT {SAMPLE}")
                sample = more.column(0).to_pylist()
            candidates[name] = _possible(table, name, sample, hints)
    total, counted = _count(table, list(candidates.values()))
    again = [each for each in counted.values() if len(each.later) > len(each.numbers) and not _fit(each)[0]]
    for each in again:
        each.numbers = each.later
    counted |= _count(table, again)[1]
    evidence = _decimal_evidence(table, counted, total, hints)
    columns: list[Column] = []
    found = {}
    for number, name in enumerate(table.names):
        if name in counted:
            column, statistics = _decide(table, counted[name], total, evidence, hints)
        else:
            column, statistics = _of_type(table, name, hints)
        example = next((value for value in head.column(number).to_pylist() if value not in (None, "")), "")
        columns.append(column)
        found[name] = replace(statistics, example=str(example)[:60])
    return Schema(tuple(columns), found)


def _possible(table: RawTable, name: str, sample: Sequence[str], hints: Hints) -> _Candidates:
    """Return the formats that nearly all values of a sample have."""
    candidates = _Candidates(name, trimmed(table.column(name)), table.names.index(name))
    values = [value.strip() for value in sample]
    values = [value for value in values if value]
    if name in hints.text or not values:
        return candidates
    candidates.boolean = all(value.lower() in ("true", "false") for value in values[:100])
    units = {unit_of(value) for value in values[:200]} or {("", "")}
    before, after = next(iter(units)) if len(units) == 1 else ("", "")
    numbers = [
        each
        for each in number_formats(before, after)
        if (hints.decimal in (None, each.decimal)) and (hints.thousands is None or hints.thousands == each.thousands)
    ]
    if hints.thousands is not None or hints.decimal is not None:  # 812 needs no separator
        numbers = numbers or [NumberFormat(before=before, after=after)]
    dates = [*TEXT_DATES, *(NUMERIC_DATES if name in hints.dates else ())]
    if hints.date_format is not None:
        chosen = date_format(hints.date_format)
        dates = [chosen, *(each for each in dates if not each.order or each.name == "ISO 8601")]
    first = [value for value in itertools.islice(values, 10 * GLANCE) if value not in MISSING][:GLANCE]
    numbers = [each for each in numbers if _matches(each.pattern(), first)]
    dates = [each for each in dates if _matches(each.pattern, first)]
    if not numbers and not dates:
        return candidates
    expressions = [each.value("s") for each in (*numbers, *dates)]
    fits = _fitting(table, values, expressions)
    known = max(1, fits[-1])
    # Where one format reads all values of the sample, one that does not is none of the column.
    least = known if max(fits[:-1]) == known else NEARLY_ALL * known
    enough = [count >= least for count in fits[:-1]]
    candidates.numbers = [each for each, fit in zip(numbers, enough, strict=False) if fit]
    candidates.dates = [each for each, fit in zip(dates, enough[len(numbers) :], strict=True) if fit]
    signs = {sign for value in values for sign in value if sign in ".,'\u2019 \u00a0"}
    seen = [each for each in candidates.numbers if _shows(each, signs)]
    candidates.numbers, candidates.later = seen or candidates.numbers, candidates.numbers
    candidates.counts["sample"] = round(100 * max([0, *fits[: len(numbers)]]) / known)
    return candidates


def _shows(number: NumberFormat, signs: set[str]) -> bool:
    """Return whether the separators of a format occur in a sample: without them, others read the same."""
    if not signs:
        return number.decimal == "." and number.thousands is None
    has_thousands = (
        number.thousands is None or number.thousands in signs or (number.thousands in "' " and "\u2019" in signs)
    )
    return has_thousands and (number.decimal in signs or number.thousands is not None)


def _matches(pattern: str, values: Sequence[str]) -> bool:
    """Return whether half of some values match, so that the others are worth a look."""
    matching = re.compile(pattern).fullmatch
    return sum(matching(value) is not None for value in values) * 2 >= len(values) > 0


def _fitting(table: RawTable, values: Sequence[str], expressions: Sequence[str]) -> list[int]:
    """Return how many values each expression reads, and, last, how many of them are not missing."""
    import pyarrow as pa

    distinct = pd.Series(values).value_counts(sort=False)
    sample = pa.table({"s": pa.array(distinct.index, type=pa.string()), "n": pa.array(distinct.to_numpy(np.int64))})
    table.connection.register("sample", sample)
    sums = [f"coalesce(sum(n) FILTER (({each}) IS NOT NULL AND NOT {missing('s')}), 0)" for each in expressions]
    sums.append(f"coalesce(sum(n) FILTER (NOT {missing('s')}), 0)")
    row = table.connection.sql(f"SELECT {', '.join(sums)} FROM sample").fetchall()[0]
    table.connection.unregister("sample")
    return [int(value) for value in row]


def _count(table: RawTable, candidates: Sequence[_Candidates]) -> tuple[int, dict[str, _Candidates]]:
    """Count the misfits of all formats over all rows, in one pass."""
    if not candidates:
        return 0, {}
    named = [(each, name, expression) for each in candidates for name, expression in each.aggregates()]
    total, *counts = table.aggregate(
        "count(*)",
        *(expression for _, _, expression in named),
        of=[inner for each in candidates for inner in each.inner()],
    )
    for (each, name, _), count in zip(named, counts, strict=True):
        each.counts[name] = int(count)
        each.counts["total"] = int(total)
    return int(total), {each.name: each for each in candidates}


def _fit(candidates: _Candidates) -> tuple[list[NumberFormat], list[DateFormat]]:
    """Return the formats that all values have."""
    counts = candidates.counts
    numbers = [each for i, each in enumerate(candidates.numbers) if counts[f"number {i}"] == 0]
    dates = [each for i, each in enumerate(candidates.dates) if counts[f"date {i}"] == 0]
    return numbers, dates


def _decimal_evidence(table: RawTable, columns: dict[str, _Candidates], total: int, hints: Hints) -> str | None:
    """Return the decimal sign of the file, where a column leaves no doubt, or the separator does."""
    if hints.decimal is not None:
        return hints.decimal
    signs = set()
    for each in columns.values():
        numbers, dates = _fit(each)
        found = {number.decimal for number in numbers}
        if len(found) == 1 and not dates and each.counts[f"whole {each.numbers.index(numbers[0])}"]:
            signs |= found
    if len(signs) == 1:
        return signs.pop()
    return None


def _decide(
    table: RawTable, candidates: _Candidates, total: int, evidence: str | None, hints: Hints
) -> tuple[Column, Statistics]:
    name, counts = candidates.name, candidates.counts
    empty = Statistics(num_missing=counts["empty"], num_distinct=counts["distinct"])
    text = Column(name, verbatim=name in hints.text)
    if name in hints.text or counts["empty"] == total:
        return text, empty
    known = replace(empty, num_missing=counts["missing"])
    numbers, dates = _fit(candidates)
    if name in hints.dates:
        return _date(table, candidates, dates, known, hints)
    if candidates.boolean and counts.get("boolean") == 0 and counts["missing"] < total:
        return Column(name, "boolean"), known
    if counts["missing"] == total:
        return text, empty
    if numbers:
        if counts["zeros"] or (counts["long"] and counts["whole 0"] == 0):
            return text, empty
        return _number(table, candidates, numbers, known, evidence)
    if dates:
        return _date(table, candidates, dates, known, hints)
    return _nearly(table, candidates, total, empty, known, evidence, hints)


def _number(
    table: RawTable, candidates: _Candidates, numbers: list[NumberFormat], found: Statistics, evidence: str | None
) -> tuple[Column, Statistics]:
    counts = candidates.counts
    signs = {each.decimal for each in numbers}
    separated = counts.get("points", 0) or counts.get("commas", 0)
    doubt = None
    if separated and len(signs) == 2:
        # All of them with three digits after a single point: written with a fixed precision.
        with_point = counts["threes"]
        is_fixed = (
            counts["points"] == with_point
            and not counts["commas"]
            and with_point + found.num_missing == counts["total"]
        )
        if evidence is None and table.separator == ";" and counts["commas"]:
            evidence = ","
        if evidence is None and is_fixed:
            evidence = "."
        if evidence is None:
            sign = "." if counts["points"] else ","
            example = _example_with(table, candidates, sign)
            doubt = (
                f"{example} may be {example.replace(sign, '')} or {example.replace(sign, '.')}: "
                "set data.decimal=. or data.decimal=','"
            )
        else:
            numbers = [each for each in numbers if each.decimal == evidence] or numbers
            word = "point" if evidence == "." else "comma"
            doubt = (
                None
                if is_fixed
                else f"read with a decimal {word}, as the rest of the file (data.decimal says otherwise)"
            )
    # The plainest of those that read the same: without thousands where there are none.
    chosen = min(numbers, key=lambda each: (not each.is_plain, each.thousands is not None))
    whole = counts[f"whole {candidates.numbers.index(chosen)}"] == 0
    column = Column(
        candidates.name,
        "integer" if whole else "number",
        decimal=chosen.decimal,
        thousands=chosen.thousands,
        before=chosen.before,
        after=chosen.after,
    )
    return column, replace(found, doubt=doubt, ambiguous=doubt is not None and "may be" in doubt)


def _example_with(table: RawTable, candidates: _Candidates, sign: str) -> str:
    values = table.fetch(candidates.text, limit=f"WHERE contains({candidates.text}, {literal(sign)}) LIMIT 1")
    return str(values.column(0)[0].as_py())


def _date(
    table: RawTable, candidates: _Candidates, dates: list[DateFormat], found: Statistics, hints: Hints
) -> tuple[Column, Statistics]:
    name = candidates.name
    if not dates:
        if not candidates.dates:
            row, value = table.first_where(f"NOT {missing(candidates.text)}", candidates.text)[0]
            raise DataError(f"{table.place}, row {row}: {name} is {value!r}, which is not a date in a known format")
        best = min(range(len(candidates.dates)), key=lambda i: candidates.counts[f"date {i}"])
        chosen = candidates.dates[best]
        column = Column(name, "date", format=chosen.name)
        bad = candidates.counts[f"date {best}"]
        row, value = table.first_where(column.bad(table.column(name)), table.column(name))[0]
        raise DataError(
            f"{table.place}, row {row}: {name} is {value!r}, which is not a date of the form {chosen.name}, as the "
            f"others are; {bad:,} such row(s) in all (data.date_format=… says another form)"
        )
    chosen, doubt = dates[0], None
    if len(dates) > 1 and hints.date_format is None:
        chosen, doubt = _settled(table, candidates, dates)
    elif hints.date_format is not None:
        chosen = next((each for each in dates if each.name == hints.date_format), dates[0])
    is_ambiguous = doubt is not None and "may be" in doubt
    return Column(name, "date", format=chosen.name), replace(found, doubt=doubt, ambiguous=is_ambiguous)


def _settled(table: RawTable, candidates: _Candidates, dates: list[DateFormat]) -> tuple[DateFormat, str | None]:
    """Return the format by which the rows are in order, if only one has it, and else what is in doubt."""
    read = table.fetch(candidates.text, *[each.value(candidates.text) for each in dates])
    times = [read.column(i + 1).to_pandas().dropna() for i in range(len(dates))]
    same = [all(times[0].equals(other) for other in times[1:])]
    if same[0]:
        return dates[0], None
    ordered = [
        each
        for each, values in zip(dates, times, strict=True)
        if len(values) > 2 and (values.is_monotonic_increasing or values.is_monotonic_decreasing)
    ]
    if len(ordered) == 1:
        return ordered[
            0
        ], f"read as {ordered[0].name}, by which its rows are in order (data.date_format says otherwise)"
    differs = np.flatnonzero(times[0].to_numpy() != times[1].to_numpy())[0]
    example = read.column(0).drop_null().to_pylist()[int(differs)] if len(read) else ""
    readings = " or ".join(f"{values.iloc[differs]:%d %b %Y}" for values in times[:2])
    settings = " or ".join(f"data.date_format={each.name!r}" for each in dates[:2])
    return dates[0], f"{example} may be {readings}: set {settings}"


def _nearly(
    table: RawTable,
    candidates: _Candidates,
    total: int,
    empty: Statistics,
    known: Statistics,
    evidence: str | None,
    hints: Hints,
) -> tuple[Column, Statistics]:
    """Return the type of a column of which not all values have one format."""
    counts, name = candidates.counts, candidates.name
    num_known = total - counts["missing"]
    misfits = [counts[f"number {i}"] for i in range(len(candidates.numbers))]
    date_misfits = [counts[f"date {i}"] for i in range(len(candidates.dates))]
    if misfits and min(misfits) < (1 - NEARLY_ALL) * num_known and counts["distinct"] - min(misfits) > FEW:
        best = candidates.numbers[int(np.argmin(misfits))]
        if not counts["zeros"]:
            column, found = _number(table, candidates, [best], known, evidence)
            column = replace(column, type="number")
            return column, _with_bad(table, column, found, min(misfits))
    if date_misfits and min(date_misfits) < (1 - NEARLY_ALL) * num_known:
        best_date = candidates.dates[int(np.argmin(date_misfits))]
        column = Column(name, "date", format=best_date.name)
        return column, _with_bad(table, column, known, min(date_misfits))
    doubt = None
    if counts.get("sample", 0) >= 50 and counts["distinct"] > FEW:
        doubt = f"{counts['sample']} % of its values are numbers, but it is read as text"
    return Column(name), replace(empty, doubt=doubt)


def _with_bad(table: RawTable, column: Column, found: Statistics, count: int) -> Statistics:
    row, value = table.first_where(column.bad(table.column(column.name)), table.column(column.name))[0]
    return replace(found, num_bad=count, bad_example=f"row {row}: {value!r}")


def _of_type(table: RawTable, name: str, hints: Hints) -> tuple[Column, Statistics]:
    """Return a column that has a type in the file."""
    column, kind = table.column(name), table.type_of(name)
    known = f"{column} IS NOT NULL" if kind != "DOUBLE" else f"({column} IS NOT NULL AND NOT isnan({column}))"
    whole = f"count_if({known} AND {column} % 1 <> 0)" if kind == "DOUBLE" else "0"
    large = f"count_if(abs({column}) > 9007199254740992)" if kind in ("BIGINT", "DOUBLE") else "0"
    absent, distinct, fractions, long = table.aggregate(
        f"count_if(NOT {known})", f"approx_count_distinct({column})", whole, large
    )
    found = Statistics(num_missing=int(absent), num_distinct=int(distinct))
    if name in hints.text:
        return Column(name, verbatim=True), found
    if kind == "TIMESTAMP":
        return Column(name, "date", format="ISO 8601"), found
    if name in hints.dates and kind in ("BIGINT", "DOUBLE"):
        text = f"CAST({f'CAST({column} AS BIGINT)' if not fractions else column} AS VARCHAR)"
        fits = [f"count_if({known} AND ({each.value(text)}) IS NULL)" for each in NUMERIC_DATES]
        misfits = table.aggregate(*fits)
        dates = [each for each, count in zip(NUMERIC_DATES, misfits, strict=True) if count == 0]
        if not dates:
            row, value = table.first_where(known, column)[0]
            raise DataError(f"{table.place}, row {row}: {name} is {value}, which is not a date in a known format")
        return Column(name, "date", format=dates[0].name), found
    if kind == "BOOLEAN":
        return Column(name, "boolean"), found
    if long and not fractions and kind == "BIGINT":
        return Column(name), found
    return Column(name, "number" if fractions else "integer"), found
