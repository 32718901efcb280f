"""What each column of strings may be: formats that a sample of its rows has, compared with all rows."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from dlrunner.data.tables.formats import (
    MISSING,
    NUMERIC_DATES,
    TEXT_DATES,
    DateFormat,
    NumberFormat,
    date_format,
    literal,
    missing,
    number_formats,
    unit_of,
)
from dlrunner.data.tables.raw import PER_QUERY, RawTable
from dlrunner.data.tables.schema import trimmed
from dlrunner.data.tables.stacked import FEW_ROWS, VALUE, aggregates_of, alike
from dlrunner.errors import DataError

SAMPLE = 10_000
"""Known values of a column that say which formats are possible."""
GLANCE = 12
"""Values that rule out most formats at once."""
NEARLY_ALL = 0.95
"""Of the known values: a column of which so many are numbers, but not all, is probably one of numbers with errors."""
LONGEST_NUMBER = 15
"""Digits that a float keeps; whole numbers with more are ids."""
MISFITS = 1000
"""Values that a format does not read, which say whether another one is worth a count of all rows."""


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
class Candidates:
    """What a column may be, with the misfits of each format once all rows are counted."""

    name: str
    text: str
    """SQL expression of its strings without blanks at the ends."""
    number: int
    """Of the column in the table."""
    numbers: list[NumberFormat] = field(default_factory=list)
    dates: list[DateFormat] = field(default_factory=list)
    later: list[NumberFormat] = field(default_factory=list)
    """Formats with separators, which no value of the sample has: counted only if whole numbers alone do not fit."""
    boolean: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def formats(self) -> tuple[Hashable, ...]:
        """What it may be: columns of which this is equal have the same aggregates."""
        return (*self.numbers, *self.dates, self.boolean)

    @property
    def has_formats(self) -> bool:
        """Whether it may be anything but text."""
        return bool(self.numbers or self.dates or self.boolean)

    @property
    def has_two_signs(self) -> bool:
        """Whether a point or comma may be the decimal sign, or may separate thousands."""
        return len({each.decimal for each in self.numbers}) == 2

    def inner(self) -> Iterator[str]:
        """Yield what the aggregates are made of: the string, whether it is missing, the value in each format."""
        n = self.number
        yield f"{self.text} AS t{n}"
        formats: list[NumberFormat | DateFormat] = [*self.numbers, *self.dates]
        if self.has_formats:
            # Most values have the first format, and need no search in a list of words.
            known = f"WHEN ({formats[0].value(self.text)}) IS NOT NULL THEN false " if formats else ""
            yield f"CASE {known}ELSE {missing(self.text)} END AS m{n}" if known else f"{missing(self.text)} AS m{n}"
        for i, each in enumerate(self.numbers):
            yield f"{each.value(self.text)} AS n{n}_{i}"
        for i, each_date in enumerate(self.dates):
            yield f"{each_date.value(self.text)} AS d{n}_{i}"

    def aggregates(self) -> Iterator[tuple[str, str]]:
        """Yield names and SQL aggregates."""
        n = self.number
        yield "empty", f"count(*) - count(nullif(t{n}, ''))"
        yield "distinct", f"approx_count_distinct(t{n})"
        if self.has_formats:
            yield "missing", f"count_if(m{n})"
        if self.boolean:
            yield "boolean", f"count_if(NOT m{n} AND lower(t{n}) NOT IN ('true', 'false'))"
        for i, each in enumerate(self.numbers):
            yield f"number {i}", f"count(*) - count_if(m{n}) - count(n{n}_{i})"
            yield f"fractions {i}", f"count_if(n{n}_{i} - floor(n{n}_{i}) <> 0)"  # so of inf
            yield f"too large {i}", f"count_if(too_large(n{n}_{i}))"
            # 5.00, as a price is written; 5.0 is what is left of whole numbers next to missing ones.
            yield f"prices {i}", f"count_if(contains(t{n}, '{each.decimal}00') AND n{n}_{i} = floor(n{n}_{i}))"
        if self.numbers:
            # 5.97e24 and 0.6e25 are measurements: ids are not written with an exponent.
            digits, large = f"NOT contains(lower(t{n}), 'e')", f"abs(n{n}_0) >= 1e{LONGEST_NUMBER}"
            zero = f"starts_with(t{n}, '0') AND (starts_with(t{n}, '00') OR n{n}_0 >= 1)"
            yield "zeros", f"count_if({zero} AND {digits})"
            yield "large", f"count_if({large})"
            yield "long", f"count_if({large} AND {digits})"
        if self.has_two_signs:
            yield "points", f"count_if(contains(t{n}, '.'))"
            yield "commas", f"count_if(contains(t{n}, ','))"
            yield "threes", rf"count_if(regexp_full_match(t{n}, '.*\d[.,]\d{{3}}\D*'))"
        for i in range(len(self.dates)):
            yield f"date {i}", f"count(*) - count_if(m{n}) - count(d{n}_{i})"

    def fitting(self) -> tuple[list[NumberFormat], list[DateFormat]]:
        """Return the formats that all values have."""
        numbers = [each for i, each in enumerate(self.numbers) if self.counts[f"number {i}"] == 0]
        dates = [each for i, each in enumerate(self.dates) if self.counts[f"date {i}"] == 0]
        return numbers, dates

    def is_whole(self, number: NumberFormat) -> bool:
        """Return whether all values in this format are whole numbers, and written as such."""
        i = self.numbers.index(number)
        return self.counts[f"fractions {i}"] == 0 and self.counts[f"prices {i}"] == 0


def counted_candidates(table: RawTable, head: pa.Table, hints: Hints) -> dict[str, Candidates]:
    """Return what each column of strings may be, with counts over all rows.

    Args:
        table: the open table.
        head: its first rows.
        hints: what the user says.

    Raises:
        DataError: the header stands in the table a second time.
    """
    candidates = _possible(table, head, hints)
    is_header = "false"
    if table.separator is not None and len(table.names) > 1:  # one column may hold a text that is its name
        is_header = " AND ".join(f"trim(c{i}) = {literal(name)}" for i, name in enumerate(table.names[:5]))
    if _count(table, head, candidates, is_header):
        row, _ = table.first_where(is_header, "c0")
        raise DataError(f"{table.rows.at(row)}: the header stands there again; are several files joined?")
    again = [each for each in candidates if len(each.later) > len(each.numbers) and not each.fitting()[0]]
    for each in again:
        each.later = _reading_more(table, each)
    again = [each for each in again if len(each.later) > len(each.numbers)]
    for each in again:
        each.numbers = each.later
    _count(table, head, again)
    return {each.name: each for each in candidates}


def _possible(table: RawTable, head: pa.Table, hints: Hints) -> list[Candidates]:
    """Return the formats that nearly all values of a sample have."""
    candidates: list[Candidates] = []
    sampled: list[tuple[Candidates, pa.ChunkedArray]] = []
    for number, name in enumerate(table.names):
        if table.types[number] != "VARCHAR":
            continue
        column = table.column(name)
        each = Candidates(name, trimmed(column), number)
        candidates.append(each)
        if name in hints.text:
            continue
        sample = head.column(number)
        if len(sample) - sample.null_count < min(100, len(sample)):  # nearly empty at the top
            sample = table.fetch(column, limit=f"WHERE {each.text} <> '' LIMIT {SAMPLE}").column(0)
        some = _spread(sample.drop_null(), 1000).to_pylist()
        _glance(each, [value for text in some if (value := text.strip(" "))], hints)
        if each.numbers:
            signs = _signs_in(sample, has_unit=bool(each.numbers[0].before or each.numbers[0].after))
            each.later = each.numbers
            each.numbers = [number for number in each.numbers if _shows(number, signs)] or each.numbers
        if each.numbers or each.dates:
            sampled.append((each, sample))
    for group in alike(sampled, lambda pair: pair[0].formats):
        for (each, _), (known, *counts) in zip(group, _fits(table, group), strict=True):
            _keep_fitting(each, known, counts)
    return candidates


def _spread(values: pa.ChunkedArray, count: int) -> pa.ChunkedArray:
    """Return so many values, evenly spaced: what stands in the first rows alone does not decide."""
    return values.take(pa.array(range(0, len(values), -(-len(values) // count) or 1), pa.int64()))


LONGEST = 100
"""Characters of a value that are looked at: numbers and dates are shorter, texts may have millions."""
_NUMBER_OR_DATE = re.compile(r"\d|^[+-]?inf", re.IGNORECASE)
SIGNS = ".,'\u2019 \u00a0\u202f\u2009"
"""That may separate the digits of a number."""


def _signs_in(sample: pa.ChunkedArray, has_unit: bool) -> set[str]:
    """Return the signs that may separate digits, where they occur in a sample."""
    import pyarrow.compute as pc

    around = r"^\D*[^\d.,]|[^\d.,]\D*$"
    digits = pc.replace_substring_regex(sample, around, "") if has_unit else pc.utf8_trim_whitespace(sample)
    return {sign for sign in SIGNS if pc.any(pc.match_substring(digits, sign)).as_py()}


def _glance(candidates: Candidates, values: Sequence[str], hints: Hints) -> None:
    """Set the formats that half of some values with digits have, so that the others are worth a look."""
    name = candidates.name
    candidates.boolean = bool(values) and all(value.lower() in ("true", "false") for value in values[:100])
    known = [value[:LONGEST] for value in values if value not in MISSING and _NUMBER_OR_DATE.search(value[:LONGEST])]
    if not known:
        return
    known = known[:: -(-len(known) // GLANCE)]
    # What is no number has no unit: it is told as an error, and does not hide the unit of the others.
    units = {unit_of(value[:LONGEST]) for value in values[::5] if value not in MISSING} - {None}
    before, after = (units.pop() if len(units) == 1 else None) or ("", "")
    numbers = [
        each
        for each in number_formats(before, after)
        if (hints.decimal in (None, each.decimal)) and (hints.thousands is None or hints.thousands == each.thousands)
    ]
    if hints.thousands is not None or hints.decimal is not None:  # 812 needs no separator
        numbers = numbers or [NumberFormat(before=before, after=after)]
    if name in hints.dates:
        numbers, dates = [], [*NUMERIC_DATES, *TEXT_DATES]
    else:  # no plain number is a date
        dates = [] if all(_matches(NumberFormat().pattern(), [value]) for value in known) else [*TEXT_DATES]
    if hints.date_format is not None:
        chosen = date_format(hints.date_format)
        dates = [chosen, *(each for each in dates if not each.order or each.name == "ISO 8601")]
    candidates.numbers = [each for each in numbers if _matches(each.pattern(), known)]
    begun = [hints.date_format, *(each.name for each in dates if not each.start or _matches(f"{each.start}.*", known))]
    dates = [each for each in dates if each.name in begun]
    candidates.dates = [each for each in dates if _matches(each.pattern, known)]


def _matches(pattern: str, values: Sequence[str]) -> bool:
    """Return whether half of some values match."""
    matching = _compiled(pattern).fullmatch
    return sum(matching(value) is not None for value in values) * 2 >= len(values) > 0


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)  # the cache of re itself is too small for all formats


def _fits(table: RawTable, sampled: Sequence[tuple[Candidates, pa.ChunkedArray]]) -> list[tuple[int, ...]]:
    """Return, for each column, how many values of its sample are not missing, and how many each of its formats reads.

    Args:
        table: the open table.
        sampled: columns with the same formats.
    """
    (first, _), text = sampled[0], trimmed(VALUE)
    counts = [f"count_if(NOT {missing(text)})"]
    counts += [f"count(CASE WHEN NOT {missing(text)} THEN {form.value(text)} END)" for form in first.numbers]
    counts += [f"count({form.value(text)})" for form in first.dates]
    return aggregates_of(table, [sample for _, sample in sampled], counts)


def _keep_fitting(candidates: Candidates, known: int, counts: Sequence[int]) -> None:
    """Keep the formats that nearly all values of a sample have."""
    # Where one format reads all values of the sample, one that does not is none of the column.
    least = known if max(counts) == known else NEARLY_ALL * known
    of_numbers, of_dates = counts[: len(candidates.numbers)], counts[len(candidates.numbers) :]
    candidates.counts["sample"] = round(100 * max([0, *of_numbers]) / max(1, known))
    candidates.numbers = [each for each, count in zip(candidates.numbers, of_numbers, strict=True) if count >= least]
    candidates.dates = [each for each, count in zip(candidates.dates, of_dates, strict=True) if count >= least]
    if not candidates.numbers:
        candidates.later = []


def _shows(number: NumberFormat, signs: set[str]) -> bool:
    """Return whether the separators of a format occur in a sample: without them, others read the same."""
    if not signs:
        return number.decimal == "." and number.thousands is None
    separators = {None: signs, " ": set(SIGNS[4:]), "'": set(SIGNS[2:4])}.get(number.thousands, {number.thousands})
    return bool(separators & signs) and (number.decimal in signs or number.thousands is not None)


def _reading_more(table: RawTable, candidates: Candidates) -> list[NumberFormat]:
    """Return the formats that read some of the first values which the formats of the sample do not read."""
    text, known = candidates.text, candidates.numbers
    unread = f"NOT {missing(text)} AND ({known[0].value(text)}) IS NULL"
    values = table.fetch(f"left({text}, {LONGEST})", limit=f"WHERE {unread} LIMIT {MISFITS}").column(0).to_pylist()
    return [each for each in candidates.later if each in known or any(map(_compiled(each.pattern()).fullmatch, values))]


def _count(table: RawTable, head: pa.Table, candidates: Sequence[Candidates], condition: str = "false") -> int:
    """Count the misfits of all formats over all rows, and return the number of rows where a condition holds."""
    if head.num_rows < min(SAMPLE, FEW_ROWS):
        return _count_few(table, head, candidates, condition)
    num_rows = 0
    for start in range(0, len(candidates), PER_QUERY):  # in one pass for many columns
        some = candidates[start : start + PER_QUERY]
        named = [(each, name, expression) for each in some for name, expression in each.aggregates()]
        total, matching, *counts = table.aggregate(
            "count(*)",
            "count_if(matching)",
            *(expression for _, _, expression in named),
            of=[f"({condition}) AS matching", *(inner for each in some for inner in each.inner())],
        )
        num_rows, table.counted = matching, total
        for each in some:
            each.counts["total"] = total
        for (each, name, _), count in zip(named, counts, strict=True):
            each.counts[name] = count
    return num_rows


def _count_few(table: RawTable, head: pa.Table, candidates: Sequence[Candidates], condition: str) -> int:
    """Count in the first rows, which are all, as `_count` does."""
    table.counted = head.num_rows
    for group in alike(candidates, lambda each: each.formats):
        stacked = replace(group[0], text=trimmed(VALUE), number=0)
        names, aggregates = zip(*stacked.aggregates(), strict=True)
        columns = [head.column(each.number) for each in group]
        for each, counts in zip(group, aggregates_of(table, columns, aggregates, list(stacked.inner())), strict=True):
            each.counts |= {"total": head.num_rows, **dict(zip(names, counts, strict=True))}
    return 0 if condition == "false" else table.aggregate(f"count_if({condition})")[0]


def settled_signs(columns: Mapping[str, Candidates]) -> str | None:
    """Return the decimal sign of the file, where its columns leave no doubt."""
    signs = set()
    for each in columns.values():
        numbers, dates = each.fitting()
        if len({number.decimal for number in numbers}) == 1 and not dates and not each.is_whole(numbers[0]):
            signs.add(numbers[0].decimal)
    return signs.pop() if len(signs) == 1 else None


def settled_orders(columns: Mapping[str, Candidates]) -> set[tuple[str, str]]:
    """Return orders and separators of dates (day or month first, / or . or -) that a column leaves no doubt about."""
    found: set[tuple[str, str]] = set()
    for each in columns.values():
        _, dates = each.fitting()
        if len(dates) == 1 and dates[0].order:
            found.add((dates[0].order, dates[0].name[2]))
    return found
