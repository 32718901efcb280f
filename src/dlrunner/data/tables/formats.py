"""Formats of numbers and dates, as SQL expressions over a column of strings.

A format is taken only if all values of a column have it, so each one says exactly which strings it accepts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MISSING = ("NA", "N/A", "#N/A", "n/a", "na", "NaN", "nan", "NULL", "null", "None", "-", "--", "?", ".")
"""Strings that mean "no value" among numbers and dates; among texts only an empty string does."""

Decimal = Literal[".", ","]
Thousands = Literal[".", ",", " ", "'"]

BLANKS = " \u00a0\u202f\u2009"
CURRENCIES = r"[€$£¥₹₽₩]|[A-Z]{3}"
UNITS = r"%|‰|°C|°F|[a-zµ]{1,3}[²³]?"


def literal(text: str) -> str:
    """Return a string as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class NumberFormat:
    """Numbers as text: the decimal sign, the separator of thousands, and a unit before or after."""

    decimal: Decimal = "."
    thousands: Thousands | None = None
    before: str = ""
    after: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether a cast alone reads it."""
        return self == NumberFormat()

    def pattern(self) -> str:
        """Return the regular expression of the values."""
        point = re.escape(self.decimal)
        whole = r"(\d+" + point + r"?\d*|" + point + r"\d+)([eE][+-]?\d+)?"
        if self.thousands is not None:
            group = "[" + BLANKS + "]" if self.thousands == " " else re.escape(self.thousands)
            if self.thousands == "'":
                group = "['\u2019]"
            whole = rf"([1-9]\d{{0,2}}({group}\d{{3}})+|\d+)({point}\d*)?"
        blank = f"[{BLANKS}]*"
        before = f"{re.escape(self.before)}{blank}" if self.before else ""
        after = f"{blank}{re.escape(self.after)}" if self.after else ""
        sign = "[+-]?"
        return (
            f"{sign}{before}{sign}({whole}|(?i:inf(inity)?)){after}"
            if before
            else f"{sign}({whole}|(?i:inf(inity)?)){after}"
        )

    def value(self, text: str) -> str:
        """Return the SQL expression of the number that a string means, NULL where it has another format."""
        plain = f"TRY_CAST({text} AS DOUBLE)"
        if self.is_plain:
            # A cast reads 1_000 and nan too.
            return f"CASE WHEN NOT isnan({plain}) AND NOT contains({text}, '_') THEN {plain} END"
        digits = text
        for unit in filter(None, (self.before, self.after)):
            digits = f"replace({digits}, {literal(unit)}, '')"
        removed = {" ": BLANKS, "'": "'\u2019", None: ""}.get(self.thousands, self.thousands or "")
        removed += "" if self.thousands == " " else BLANKS
        digits = f"translate({digits}, {literal(removed)}, '')"
        if self.decimal == ",":
            digits = f"replace({digits}, ',', '.')"
        return f"CASE WHEN regexp_full_match({text}, {literal(self.pattern())}) THEN TRY_CAST({digits} AS DOUBLE) END"

    def description(self) -> str:
        """Describe the format where it is not the plain one.

        >>> NumberFormat(",", ".", after="€").description()
        "decimal comma, thousands '.', unit €"
        """
        parts = ["decimal comma"] if self.decimal == "," else []
        parts += [f"thousands {self.thousands!r}"] if self.thousands else []
        parts += [f"unit {self.before or self.after}"] if self.before or self.after else []
        return ", ".join(parts)


def number_formats(before: str = "", after: str = "") -> Iterator[NumberFormat]:
    """Yield the formats of numbers, the plain one first."""
    yield NumberFormat(".", None, before, after)
    yield NumberFormat(",", None, before, after)
    for thousands in (",", " ", "'"):
        yield NumberFormat(".", thousands, before, after)
    for thousands in (".", " ", "'"):
        yield NumberFormat(",", thousands, before, after)  # type: ignore[arg-type]


def unit_of(value: str) -> tuple[str, str]:
    """Return the unit before and after a number.

    >>> unit_of("€ 12"), unit_of("12 %"), unit_of("1.5e3"), unit_of("abc")
    (('€', ''), ('', '%'), ('', ''), ('', ''))
    """
    match = re.fullmatch(
        rf"[+-]?(?P<before>{CURRENCIES})?[{BLANKS}]*[+-]?\d[\d.,'{BLANKS}]*?[{BLANKS}]*(?P<after>{CURRENCIES}|{UNITS})?",
        value,
    )
    return ((match["before"] or ""), (match["after"] or "")) if match else ("", "")


@dataclass(frozen=True)
class DateFormat:
    """Dates as text: a name, the pattern of the strings, and the SQL expression that reads them."""

    name: str
    """As in `strptime`, or a word: ISO 8601, …"""
    pattern: str
    expression: str
    """Of SQL, with {} for the string."""
    order: Literal["day", "month", "year", ""] = ""
    """What stands first, where several formats have the same pattern."""

    def value(self, text: str) -> str:
        """Return the SQL expression of the time that a string means, NULL where it has another format."""
        return (
            f"CASE WHEN regexp_full_match({text}, {literal(self.pattern)}) "
            f"THEN {self.expression.replace('{}', text)} END"
        )


OFFSET = r"\s*(Z|[+-]\d{2}:?(\d{2})?)"
"""Of a time from UTC: left out, so that times are local ones, as written."""

_ISO = r"\d{4}-\d{1,2}-\d{1,2}"
_CLOCK = r"\d{1,2}:\d{2}(:\d{2}(\.\d{1,9})?)?"
_DAYS = (
    (r"\d{4}/\d{1,2}/\d{1,2}", "%Y/%m/%d", "year"),
    (r"\d{4}\.\d{1,2}\.\d{1,2}", "%Y.%m.%d", "year"),
    (r"\d{1,2}/\d{1,2}/\d{4}", "%d/%m/%Y", "day"),
    (r"\d{1,2}/\d{1,2}/\d{4}", "%m/%d/%Y", "month"),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "%d.%m.%Y", "day"),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "%m.%d.%Y", "month"),
    (r"\d{1,2}-\d{1,2}-\d{4}", "%d-%m-%Y", "day"),
    (r"\d{1,2}-\d{1,2}-\d{4}", "%m-%d-%Y", "month"),
    (r"\d{1,2}/\d{1,2}/\d{2}", "%d/%m/%y", "day"),
    (r"\d{1,2}/\d{1,2}/\d{2}", "%m/%d/%y", "month"),
    (r"\d{2}/\d{1,2}/\d{1,2}", "%y/%m/%d", "year"),
    (r"\d{1,2}\.\d{1,2}\.\d{2}", "%d.%m.%y", "day"),
    (r"\d{1,2}-\d{1,2}-\d{2}", "%d-%m-%y", "day"),
    (r"\d{1,2}-\d{1,2}-\d{2}", "%m-%d-%y", "month"),
    (r"\d{2}-\d{1,2}-\d{1,2}", "%y-%m-%d", "year"),
    (r"\d{1,2}[- ][A-Za-z]{3}[- ]\d{4}", "%d-%b-%Y", "day"),
    (r"\d{1,2}[- ][A-Za-z]{3}[- ]\d{2}", "%d-%b-%y", "day"),
    (r"\d{1,2} [A-Za-z]{4,9} \d{4}", "%d %B %Y", "day"),
    (r"[A-Za-z]{3} \d{1,2},? \d{4}", "%b %d %Y", "month"),
    (r"[A-Za-z]{4,9} \d{1,2},? \d{4}", "%B %d %Y", "month"),
)
_TIMES = (("", ""), (r" \d{1,2}:\d{2}", " %H:%M"), (r" \d{1,2}:\d{2}:\d{2}", " %H:%M:%S"))
_TIMES_12 = ((r" \d{1,2}:\d{2} ?(?i:am|pm)", " %I:%M%p"), (r" \d{1,2}:\d{2}:\d{2} ?(?i:am|pm)", " %I:%M:%S%p"))


def _parsed(strptime: str) -> str:
    """Return the SQL expression that reads strings of this format."""
    text = "{}"
    if "-%b-" in strptime:
        text = rf"regexp_replace({text}, '^(\d+)[- ]([A-Za-z]+)[- ]', '\1-\2-')"
    if strptime.startswith(("%b", "%B")):
        text = f"replace({text}, ',', '')"
    if "%p" in strptime:
        text = f"regexp_replace({text}, ' ?([AaPp][Mm])$', '\\1')"
    return f"TRY_CAST(try_strptime({text}, {literal(strptime)}) AS TIMESTAMP)"


def _text_formats() -> Iterator[DateFormat]:
    local = f"regexp_replace({{}}, {literal('(:[0-9.]+)' + OFFSET + '$')}, '\\1')"
    yield DateFormat("ISO 8601", rf"{_ISO}([T ]{_CLOCK}({OFFSET})?)?", f"TRY_CAST({local} AS TIMESTAMP)", "year")
    for days, name, order in _DAYS:
        for clock, suffix in (*_TIMES, *_TIMES_12):
            yield DateFormat(name + suffix, days + clock, _parsed(name + suffix), order)  # type: ignore[arg-type]
    yield DateFormat("%Y-%m", r"\d{4}-\d{1,2}", "TRY_CAST({} || '-01' AS TIMESTAMP)")
    yield DateFormat("%m/%Y", r"\d{1,2}/\d{4}", "TRY_CAST(try_strptime('01/' || {}, '%d/%m/%Y') AS TIMESTAMP)")
    yield DateFormat("%b %Y", r"[A-Za-z]{3} \d{4}", "TRY_CAST(try_strptime('1 ' || {}, '%d %b %Y') AS TIMESTAMP)")
    yield DateFormat(
        "ISO week",
        r"\d{4}-?W\d{2}(-?\d)?",
        "TRY_CAST(try_strptime(substr({}, 1, 4) || '-W' || substr(split_part({}, 'W', 2), 1, 2) || '-' || "
        "coalesce(nullif(ltrim(substr({}, instr({}, 'W') + 3), '-'), ''), '1'), '%G-W%V-%u') AS TIMESTAMP)",
    )
    yield DateFormat(
        "quarter",
        r"\d{4}[- ]?Q[1-4]",
        "make_timestamp(substr({}, 1, 4)::BIGINT, (right({}, 1)::BIGINT - 1) * 3 + 1, 1, 0, 0, 0)",
    )
    yield DateFormat(
        "quarter",
        r"Q[1-4][- /]?\d{4}",
        "make_timestamp(right({}, 4)::BIGINT, (substr({}, 2, 1)::BIGINT - 1) * 3 + 1, 1, 0, 0, 0)",
    )


TEXT_DATES = tuple(_text_formats())
"""Formats by which a column is recognised as one of dates."""

NUMERIC_DATES = (
    DateFormat(
        "%Y%m%d",
        r"(19|20|21)\d{2}[01]\d[0-3]\d(\.0)?",
        "TRY_CAST(try_strptime(substr({}, 1, 8), '%Y%m%d') AS TIMESTAMP)",
    ),
    DateFormat("%Y", r"(1[5-9]|20|21)\d{2}", "make_timestamp({}::BIGINT, 1, 1, 0, 0, 0)"),
    DateFormat(
        "seconds since 1970", r"-?\d{1,10}(\.\d*)?", "make_timestamp(TRY_CAST(TRY_CAST({} AS DOUBLE) * 1e6 AS BIGINT))"
    ),
    DateFormat(
        "milliseconds since 1970",
        r"\d{12,13}(\.\d*)?",
        "make_timestamp(TRY_CAST(TRY_CAST({} AS DOUBLE) * 1e3 AS BIGINT))",
    ),
    DateFormat("microseconds since 1970", r"\d{15,16}", "make_timestamp(TRY_CAST({} AS BIGINT))"),
    DateFormat("nanoseconds since 1970", r"\d{18,19}", "make_timestamp(TRY_CAST({} AS BIGINT) // 1000)"),
)
"""Formats of numbers, taken only where the user says that the column holds dates."""


def date_format(name: str) -> DateFormat:
    """Return the format of this name, or of these `strptime` codes.

    >>> date_format("%d/%m/%Y").order
    'day'
    """
    known = next((each for each in (*TEXT_DATES, *NUMERIC_DATES) if each.name == name), None)
    return known or DateFormat(name, r"(?s).+", f"TRY_CAST(try_strptime({{}}, {literal(name)}) AS TIMESTAMP)")
