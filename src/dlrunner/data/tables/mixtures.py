"""Columns of text that look like numbers, dates or times, but in several formats: they are reported, not converted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from dlrunner.data.tables.formats import BLANKS, CLOCK, MISSING, MONTH

LOOKED_AT = 2000
"""First rows."""
LEAST = 0.95
"""Of the values: so many must be of one kind."""
LONGEST = 40
"""Characters of a value; longer ones are texts."""

_UNIT = r"[€$£¥₹₽₩%]|EUR|USD|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|[km]?g|[cmk]m|ml|lbs?|oz|°C|°F"
_NUMBER = r"[+-]?\d[\d.,'\u2019]*"
_WITH_UNIT = re.compile(
    rf"[+-]?(?P<before>{_UNIT})?[{BLANKS}]*{_NUMBER}[{BLANKS}]*(?P<after>{_UNIT}|[KkMB]|bn|Tsd|Mio|Mrd)?"
)
_DECIMAL = re.compile(r"[+-]?\d+(?P<sign>[.,])?\d*")
_TIME = re.compile(CLOCK)
_DURATION = re.compile(r"\d{1,3}:[0-5]\d([.,]\d+)?")
_DATE = re.compile(
    r"(?P<iso>\d{4}-\d{1,2}-\d{1,2})([T ].*)?|\d{1,4}(?P<sign>[/.-])\d{1,2}(?P=sign)\d{2,4}( .*)?"
    r"|\d{1,2}[- .]+(?P<month>[A-Za-z]{3,9})[- .,]+\d{2,4}|(?P<first>[A-Za-z]{3,9}) \d{1,2},? \d{4}"
)
_YEAR = re.compile(r"(?<!\d)(19|20)\d{2}(?!\d)")
_DAY_AND_MONTH = re.compile(rf"(?<!\d)\d{{1,2}}(?!\d)\D{{1,4}}(?<!\d)\d{{1,2}}(?!\d)|(\d\W+|\b){MONTH}\b")


def mixture(values: Iterable[str | None], where: Callable[[int], str]) -> str | None:
    """Return what a column of text seems to hold, with examples; None where it is simply text.

    Args:
        values: of the column.
        where: returns what a row, from 0, is called.

    >>> mixture(["1,5", "2.5"], "row {}".format)
    "its numbers have several decimal signs, '1,5' (row 0) and '2.5' (row 1), and are read as text"
    >>> mixture(["12:30", "8:05"], "row {}".format)
    "its values are times of day, such as '12:30' (row 0), and others: they are text"
    >>> mixture(["5/2024/31", "6/2024/1"], "row {}".format)[:51]
    "its values look like dates, such as '5/2024/31' (ro"
    >>> mixture(["red", "12:30"], "row {}".format) is mixture(["a", "b"], "row {}".format) is None
    True
    """
    known = _known(values)
    if not known or any(len(value) > LONGEST for _, value in known):
        return None
    if _are_times(known):
        row, value = known[0]
        return f"its values are times of day, such as {value!r} ({where(row)}), and others: they are text"
    for kind, key in (
        ("numbers have several decimal signs", _decimal_sign),
        ("numbers have several units", _unit),
        ("dates have several formats", _date_form),
    ):
        if (examples := _examples(known, key)) is not None:
            shown = " and ".join(f"{value!r} ({where(row)})" for row, value in examples[:2])
            return f"its {kind}, {shown}, and are read as text"
    if sum(_DURATION.fullmatch(value) is not None for _, value in known) >= LEAST * len(known):
        row, value = known[0]
        return f"its values look like durations, such as {value!r} ({where(row)}), and are read as text"
    if sum(_is_like_a_date(value) for _, value in known) >= LEAST * len(known):
        row, value = known[0]
        return (
            f"its values look like dates, such as {value!r} ({where(row)}), but not all have one known form: "
            "they are read as text (data.date_format can say the form)"
        )
    return None


def are_times(values: Iterable[str | None]) -> bool:
    """Tell whether nearly all values of a column are times of day.

    >>> are_times(["12:30", None, "9:05 PM"]), are_times(["12:30", "99:99"])
    (True, False)
    """
    return _are_times(_known(values))


def _known(values: Iterable[str | None]) -> list[tuple[int, str]]:
    """Return number and text of the values that are not missing."""
    given = enumerate((value or "").strip() for value in values)
    return [(row, value) for row, value in given if value and value not in MISSING]


def _are_times(known: list[tuple[int, str]]) -> bool:
    return sum(_TIME.fullmatch(value) is not None for _, value in known) >= LEAST * len(known) > 0


def _examples(known: list[tuple[int, str]], key: Callable[[str], str | None]) -> list[tuple[int, str]] | None:
    """Return an example of each form of values; None where some have no form, or all have one."""
    found: dict[str, tuple[int, str]] = {}
    matching = 0
    for row, value in known:
        form = key(value)
        matching += form is not None
        if form:
            found.setdefault(form, (row, value))
    return list(found.values()) if len(found) > 1 and matching >= LEAST * len(known) else None


def _is_like_a_date(value: str) -> bool:
    """Tell whether a text has a year, and a day with a month."""
    year = _YEAR.search(value)
    if year is None:
        return False
    rest = f"{value[: year.start()]} {value[year.end() :]}"
    return any(map(str.isdigit, rest)) and _DAY_AND_MONTH.search(rest) is not None


def _decimal_sign(value: str) -> str | None:
    """Return the decimal sign of a number, "" where it has none; None for no number."""
    match = _DECIMAL.fullmatch(value)
    return None if match is None else match["sign"] or ""


def _unit(value: str) -> str | None:
    match = _WITH_UNIT.fullmatch(value)
    return None if match is None else "".join(filter(None, match.groups())) or "none"


def _date_form(value: str) -> str | None:
    match = _DATE.fullmatch(value)
    if match is None:
        return None
    return "iso" if match["iso"] else match["sign"] or ("month" if match["month"] else "month first")
