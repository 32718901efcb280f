"""Formats of numbers and dates, as SQL expressions over a column of strings.

A format is taken only if all values of a column have it, so each one says exactly which strings it accepts.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MISSING = (
    *("NA", "N/A", "n/a", "na", "#N/A", "#NA", "N.A.", "n.a.", "<NA>", "NaN", "nan", "-nan", "-NaN", "NaT"),
    *("NULL", "null", "Null", "(null)", "\\N", "None", "none", "-", "--", "?", "."),
    *("#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"),
    *("#NV", "#WERT!", "#BEZUG!", "#ZAHL!", "#N/D", "#VALEUR!", "#NOM?", "#NOMBRE!", "#VALORE!", "#RIF!"),
    *("..", ":", "\u2013", "\u2014", "\u2026", "-,--", "k.A.", "k. A.", "(blank)"),  # World Bank, Eurostat, offices
    *("0000-00-00", "0000-00-00 00:00:00"),  # MySQL
)
"""Strings that mean "no value" among numbers and dates; among texts only an empty string does."""

Decimal = Literal[".", ","]
Thousands = Literal[".", ",", " ", "'"]

BLANKS = " \u00a0\u202f\u2009"
CURRENCIES = r"[A-Z]{0,3}[€$£¥₹₽₩₺₴₫₱₪]|[A-Z]{3}|Rs\.?|kr\.?|Kr\.?|Fr\.?"
MINUS = "\u2212"
UNITS = r"%|‰|°C|°F|[^\W\d_]{1,12}\.?([ /][^\W\d_]{1,12}\.?)?[²³]?"
"""After a number: kg, m², km/h, hours, sq. ft, zł."""


def literal(text: str) -> str:
    """Return a string as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    """Return the name of a column or table as SQL."""
    return '"' + name.replace('"', '""') + '"'


LARGEST = 1e150
"""Larger numbers are bad, as infinite ones are, and smaller ones than its inverse are 0: a square has no room."""

_PAST_HOUR = r":[0-5]\d(:[0-5]\d([.,]\d+)?)?"
CLOCK = rf"([01]?\d|2[0-3]){_PAST_HOUR}|24:00(:00)?|(0?[1-9]|1[0-2]){_PAST_HOUR} ?(?i:am|pm)"
"""Times of day: 12:30, 8:05:09.5, 9:30 PM."""
_HOUR = "TRY_CAST(split_part(t, ':', 1) AS DOUBLE)"
_OF_TWELVE = f"{_HOUR} % 12 + CASE WHEN contains(lower(t), 'p') THEN 12 ELSE 0 END"

MACROS = (
    f"is_missing(t) AS coalesce(t IN ({', '.join(map(literal, ('', *MISSING)))}), true)",
    # A cast reads 1_000 and nan too, and no minus sign but the hyphen.
    "plain_number(t) AS CASE WHEN contains(t, '_') THEN NULL WHEN NOT isnan(TRY_CAST(t AS DOUBLE)) "
    f"THEN TRY_CAST(t AS DOUBLE) WHEN starts_with(t, '{MINUS}') AND NOT isnan(TRY_CAST(substr(t, 2) AS DOUBLE)) "
    "THEN TRY_CAST('-' || substr(t, 2) AS DOUBLE) END",
    f"too_large(x) AS NOT isnan(x) AND abs(x) > {LARGEST}",
    f"bounded(x) AS CASE WHEN abs(x) < {1 / LARGEST} THEN 0 WHEN abs(x) <= {LARGEST} THEN x END",
    f"clock_minutes(t) AS CASE WHEN regexp_full_match(t, {literal(CLOCK)}) "
    f"THEN 60 * (CASE WHEN ends_with(lower(t), 'm') THEN {_OF_TWELVE} ELSE {_HOUR} END) "
    "+ CAST(substr(split_part(t, ':', 2), 1, 2) AS DOUBLE) "
    "+ coalesce(TRY_CAST(replace(regexp_extract(t, ':\\d+:([0-9.,]+)', 1), ',', '.') AS DOUBLE), 0) / 60 END",
)
"""Functions that the expressions below call: each connection must have them."""


def missing(text: str) -> str:
    """Return the SQL condition that a string, without blanks at its ends, means no number and no date."""
    return f"is_missing({text})"


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
        """Return the regular expression of the values.

        Formats other than the plain one take numbers of accounting too: `12.50-`, `(12.50)`, `$ (12.50)`, `$ -` for 0.
        """
        point = re.escape(self.decimal)
        number = r"(\d+" + point + r"?\d*|" + point + r"\d+)([eE][+-]?\d+)?"
        if self.thousands is not None:
            group = {" ": f"[{BLANKS}]", "'": "['\u2019]"}.get(self.thousands, re.escape(self.thousands))
            groups = rf"[1-9]\d{{0,2}}({group}\d{{3}})+"
            if self.thousands == ",":  # India: 12,34,567
                groups += r"|[1-9]\d?(,\d{2})+,\d{3}"
            number = rf"({groups}|\d+)({point}\d*)?"
        number = f"({number}|(?i:inf(inity)?))"
        if self.is_plain:
            return f"[+{MINUS}-]?{number}"
        before = f"{re.escape(self.before)}[{BLANKS}]*" if self.before else ""
        after = f"[{BLANKS}]*{re.escape(self.after)}" if self.after else ""
        sign = f"[+{MINUS}-]?"
        signed = f"({sign}{before}{sign if before else ''}{number}|{before}{number}-){after}"
        zero = f"|{before}-" if before else ""
        return rf"{signed}|\({before}{number}{after}\)|{before}\({number}\){after}{zero}"

    def value(self, text: str) -> str:
        """Return the SQL expression of the number that a string means, NULL where it has another format."""
        if self.is_plain:
            return f"plain_number({text})"
        digits = text
        for unit in filter(None, (self.before, self.after)):
            digits = f"replace({digits}, {literal(unit)}, '')"
        removed = {" ": "", "'": "'\u2019", None: ""}.get(self.thousands, self.thousands or "") + BLANKS
        kept = MINUS + ("," if self.decimal == "," else "")
        digits = f"translate({digits}, {literal(kept + removed)}, {literal('-.'[: len(kept)])})"
        negative = f"WHEN right({digits}, 1) IN ('-', ')') THEN '-' || trim({digits}, '()-')"
        digits = f"CASE WHEN {digits} = '-' THEN '0' {negative} ELSE {digits} END"
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


_WITH_UNIT = re.compile(
    rf"[(+{MINUS}-]?(?P<before>{CURRENCIES})?[{BLANKS}]*[(+{MINUS}-]?"
    rf"\d[\d.,'\u2019{BLANKS}]*?[-)]?[{BLANKS}]*(?P<after>{CURRENCIES}|{UNITS})?\)?"
)


def unit_of(value: str) -> tuple[str, str] | None:
    """Return the unit before and after a number; None of another text.

    >>> unit_of("US$ 12"), unit_of("12 km/h"), unit_of("12"), unit_of("Free")
    (('US$', ''), ('', 'km/h'), ('', ''), None)
    """
    if re.fullmatch(NumberFormat().pattern(), value):  # 1.5e3
        return "", ""
    match = _WITH_UNIT.fullmatch(value)
    return ((match["before"] or ""), (match["after"] or "")) if match else None


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
    start: str = ""
    """What half of the values begin with: of the day, a quick look for formats that have it in common."""

    def value(self, text: str) -> str:
        """Return the SQL expression of the time that a string means, NULL where it has another format."""
        return (
            f"CASE WHEN regexp_full_match({text}, {literal(self.pattern)}) "
            f"THEN {self.expression.replace('{}', text)} END"
        )


MONTHS = {
    "Jan": "jan|jän|ene|gen",
    "Feb": "feb|fev|fév",
    "Mar": "mar|mär|mrz|mrt",
    "Apr": "apr|avr|abr",
    "May": "may|mai|mag|mei|maj",
    "Jun": "jun|juin|giu",
    "Jul": "jul|juil|lug",
    "Aug": "aug|aoû|ago",
    "Sep": "sep|set",
    "Oct": "oct|okt|ott|out",
    "Nov": "nov",
    "Dec": "dec|déc|dez|dic",
}
"""How the months begin in the languages of western Europe."""
_LETTERS = "[a-zà-ÿ]*"
MONTH = rf"(?i:{'|'.join(MONTHS.values())}){_LETTERS}\.?"
_WEEKDAY = (
    "(?i:mon|tue|wed|thu|fri|sat|sun|mo|di|mi|do|fr|sa|so|lun|mar|mer|mié|jeu|jue|ven|vie|sam|sáb|dim|dom)"
    rf"{_LETTERS}\.?,? "
)
_ORDINAL = "(st|nd|rd|th|er|º|\\.)?"

ZONES = "UTC|GMT|WES?T|CES?T|EES?T|MES?Z|BST|MSK|[ECMP][SD]T|IST|JST"
OFFSET = rf" *(Z|({ZONES})?[+-]\d{{1,2}}(:?\d{{2}})?( \([A-Za-z ]+\))?|{ZONES})"
"""Of a time from UTC: left out, so that times are local ones, as written."""


def offset_minutes(offset: str) -> int | None:
    """Return the minutes of an offset from UTC, None of the name of a zone.

    >>> [offset_minutes(each) for each in ("Z", "+02:00", "-0530", "GMT+1", "EST")]
    [0, 120, -330, 60, None]
    """
    if offset in ("Z", "UTC", "GMT"):
        return 0
    match = re.search(r"([+-])(\d{1,2})(?::?(\d{2}))?", offset)
    return int(f"{match[1]}{60 * int(match[2]) + int(match[3] or 0)}") if match else None


_ISO = r"\d{4}-\d{1,2}-\d{1,2}"
_CLOCK = r"\d{1,2}:\d{2}(:\d{2}([.,]\d{1,9})?)?"
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
    (rf"({_WEEKDAY})?\d{{1,2}}{_ORDINAL}[-/ ](de )?{MONTH}[-/ ](de )?\d{{4}}", "%d %B %Y", "day"),
    (r"[A-Za-z]{3} \d{1,2},? \d{4}", "%b %d %Y", "month"),
    (rf"({_WEEKDAY})?{MONTH} \d{{1,2}}{_ORDINAL},? \d{{4}}", "%B %d %Y", "month"),
    (r"\d{4}年\d{1,2}月\d{1,2}日", "%Y年%m月%d日", "year"),
)
_HALF = rf"[{BLANKS}]?(?i:a\.?m|p\.?m)\.?"
_CLOCKS = (
    (r",? \d{1,2}:\d{2}", " %H:%M"),
    (r",? \d{1,2}:\d{2}:\d{2}", " %H:%M:%S"),
    (r",? \d{1,2}:\d{2}:\d{2}[.,]\d{1,9}", " %H:%M:%S.%f"),
    (rf",? \d{{1,2}}:\d{{2}}{_HALF}", " %I:%M%p"),
    (rf",? \d{{1,2}}:\d{{2}}:\d{{2}}{_HALF}", " %I:%M:%S%p"),
)


def _parsed(strptime: str) -> str:
    """Return the SQL expression that reads strings of this format."""
    found = _tried("{}", strptime)
    if "%B" in strptime:  # in English at once, else by the beginnings of the months
        short = strptime.replace("%d %B %Y", "%d %b %Y").replace("%B", "%b")
        found = f"coalesce({found}, {_tried(_in_english('{}', strptime), short)})"
    return _in_century(f"TRY_CAST({found} AS TIMESTAMP)", strptime)


LAST_OF_CENTURY = 2029
"""Two digits up to 29 are years of this century, the others of the last one, as in spreadsheets."""


def _in_century(time: str, strptime: str) -> str:
    """Return the SQL expression of a time whose year of two digits DuckDB reads as 1969 to 2068."""
    if "%y" not in strptime:
        return time
    return f"CASE WHEN year({time}) > {LAST_OF_CENTURY} THEN {time} - INTERVAL 100 YEAR ELSE {time} END"


def _tried(text: str, strptime: str) -> str:
    if "-%b-" in strptime:
        text = rf"regexp_replace({text}, '^(\d+)[- ]([A-Za-z]+)[- ]', '\1-\2-')"
    if strptime.startswith(("%b", "%B")):
        text = f"replace({text}, ',', '')"
    elif ":" in strptime:
        text = f"replace({text}, ', ', ' ')"
    if "%p" in strptime:
        half = rf"[{BLANKS}]?([AaPp])\.?[Mm]\.?({OFFSET})?$"
        text = f"regexp_replace({text}, {literal(half)}, '\\1M')"
    elif "%H" in strptime:
        text = f"regexp_replace({text}, {literal(OFFSET + '$')}, '')"
    if "%f" in strptime:
        text = f"replace({text}, ',', '.')"
    return f"try_strptime({text}, {literal(strptime)})"


def _in_english(text: str, strptime: str) -> str:
    """Return the SQL expression of a date whose month has an English name of three letters, without its weekday."""
    for name, starts in MONTHS.items():
        text = rf"regexp_replace({text}, '(?i)(^|[-/ .])({starts}){_LETTERS}\.?([-/ ])', '\1{name}\3', 'g')"
    if strptime.startswith("%d"):
        day = rf"^\D*(\d{{1,2}}){_ORDINAL}[-/ ](de )?([A-Z][a-z]{{2}})[-/ ](de )?"
        return f"regexp_replace({text}, {literal(day)}, '\\1 \\4 ')"
    month = rf"^({_WEEKDAY})?([A-Z][a-z]{{2}}) (\d{{1,2}}){_ORDINAL}"
    return f"regexp_replace({text}, {literal(month)}, '\\2 \\3')"


def _text_formats() -> Iterator[DateFormat]:
    local = f"replace(regexp_replace({{}}, {literal('(:[0-9.,]+)' + OFFSET + '$')}, '\\1'), ',', '.')"
    yield DateFormat("ISO 8601", rf"{_ISO}([T ]{_CLOCK}({OFFSET})?)?", f"TRY_CAST({local} AS TIMESTAMP)", "year")
    for days, name, order in _DAYS:
        yield DateFormat(name, days, _parsed(name), order, days)  # type: ignore[arg-type]
        for clock, suffix in _CLOCKS:
            pattern = rf"{days}{clock}({OFFSET})?"
            yield DateFormat(name + suffix, pattern, _parsed(name + suffix), order, days)  # type: ignore[arg-type]
    for clock, suffix in _CLOCKS[:2]:
        yield DateFormat(f"%Y%m%d{suffix}", rf"\d{{8}}{clock}", _parsed(f"%Y%m%d{suffix}"))
    unix = rf"[A-Z][a-z]{{2}} [A-Z][a-z]{{2}} +\d{{1,2}} \d{{2}}:\d{{2}}:\d{{2}}({OFFSET})? \d{{4}}"
    reordered = r"regexp_replace({}, '^\w+ (\w+) +(\d+) ([0-9:]+).* (\d+)$', '\4 \1 \2 \3')"
    yield DateFormat(
        "%a %b %d %H:%M:%S %z %Y", unix, f"TRY_CAST(try_strptime({reordered}, '%Y %b %d %H:%M:%S') AS TIMESTAMP)"
    )
    yield DateFormat("%Y%m%dT%H%M%S", r"\d{8}T\d{6}Z?", _parsed("%Y%m%dT%H%M%S"))
    yield DateFormat("%Y-%m", r"\d{4}-\d{1,2}", "TRY_CAST({} || '-01' AS TIMESTAMP)")
    yield DateFormat("%m/%Y", r"\d{1,2}/\d{4}", "TRY_CAST(try_strptime('01/' || {}, '%d/%m/%Y') AS TIMESTAMP)")
    yield DateFormat("%b %Y", r"[A-Za-z]{3} \d{4}", "TRY_CAST(try_strptime('1 ' || {}, '%d %b %Y') AS TIMESTAMP)")
    month = "('1 ' || replace({}, '-', ' '))"
    yield DateFormat("%b-%Y", rf"{MONTH}-\d{{4}}", _parsed("%d %B %Y").replace("{}", month))
    yield DateFormat("%b-%y", r"[A-Za-z]{3}-\d{2}", _parsed("%d %b %y").replace("{}", month))  # Excel's of a month
    yield DateFormat("%B %Y", rf"{MONTH} \d{{4}}", _parsed("%d %B %Y").replace("{}", "('1 ' || {})"))
    yield DateFormat(
        "ISO week",
        r"\d{4}-?W\d{2}(-?\d)?",
        "TRY_CAST(try_strptime(substr({}, 1, 4) || '-W' || substr(split_part({}, 'W', 2), 1, 2) || '-' || "
        "coalesce(nullif(ltrim(substr({}, instr({}, 'W') + 3), '-'), ''), '1'), '%G-W%V-%u') AS TIMESTAMP)",
    )
    yield DateFormat(
        "quarter",
        r"\d{4}[- /]?Q[1-4]",
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
        "%Y%m%d%H%M%S",
        r"(19|20|21)\d{2}[01]\d[0-3]\d[0-2]\d([0-5]\d){2}",
        "TRY_CAST(try_strptime({}, '%Y%m%d%H%M%S') AS TIMESTAMP)",
    ),
    DateFormat(
        "days since 1900 (Excel)",
        r"[2-7]\d{4}([.,]\d*)?",
        "make_timestamp(CAST(round((TRY_CAST(replace({}, ',', '.') AS DOUBLE) - 25569) * 86400) AS BIGINT) * 1000000)",
    ),
    DateFormat(
        "seconds since 1970",
        r"-?\d{1,10}(\.\d*)?",
        "make_timestamp(TRY_CAST(TRY_CAST({} AS DOUBLE) * 1e6 AS BIGINT))",
        start=r"-?\d{9,10}",  # else a single 20231301 would make seconds of all days written as numbers
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


def format_problem(name: object) -> str | None:
    """Return what is wrong with the name of a format of dates, None for a good one.

    >>> format_problem("%d/%m/%Y"), format_problem("ISO 8601"), format_problem("%d.%m.%Q")
    (None, None, "the format '%d.%m.%Q' is none of strptime's")
    """
    if isinstance(name, str) and any(each.name == name for each in (*TEXT_DATES, *NUMERIC_DATES)):
        return None
    try:
        if not isinstance(name, str) or "%" not in name:
            raise ValueError
        datetime.datetime.strptime(datetime.datetime(2020, 2, 3).strftime(name), name)
    except ValueError:
        return f"the format {name!r} is none of strptime's"
    return None


def date_format(name: str) -> DateFormat:
    """Return the format of this name, or of these `strptime` codes.

    >>> date_format("%d/%m/%Y").order
    'day'
    """
    known = next((each for each in (*TEXT_DATES, *NUMERIC_DATES) if each.name == name), None)
    time = f"TRY_CAST(try_strptime({{}}, {literal(name)}) AS TIMESTAMP)"
    return known or DateFormat(name, r"(?s).+", _in_century(time, name))
