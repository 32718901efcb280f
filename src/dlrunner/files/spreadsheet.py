"""Tables of answers as CSV files: a text from anybody's data is not run as a formula by who opens them."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

_FORMULA = re.compile("'*[=+\\-@\t\r]")
"""How a cell begins that a spreadsheet takes for a formula; or one that a quote was put before."""


def quoted(text: Any) -> Any:
    """Put a quote before a text that a spreadsheet would take for a formula; numbers are not touched.

    >>> [quoted(value) for value in ("=1+2", "-5", "-a", -5, "a=b", "'@me")]
    ["'=1+2", '-5', "'-a", -5, 'a=b', "''@me"]

    Source: OWASP, CSV injection, https://owasp.org/www-community/attacks/CSV_Injection
    """
    if not isinstance(text, str) or not _FORMULA.match(text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def unquoted(text: Any) -> Any:
    """Return what `quoted` was given.

    >>> [unquoted(quoted(text)) for text in ("=1", "'=1", "-5", "'tis")]
    ['=1', "'=1", '-5', "'tis"]
    """
    is_quoted = isinstance(text, str) and text.startswith("'") and _FORMULA.match(text)
    return text[1:] if is_quoted else text


def as_csv(table: pd.DataFrame, is_raw: bool = False) -> tuple[bytes, int]:
    """Return a table as a CSV file, and the number of cells and names that got a quote.

    Args:
        table: it is not changed.
        is_raw: nothing gets a quote.
    """
    count = 0
    if not is_raw:
        table = table.copy(deep=False)
        columns = []
        for place in range(table.shape[1]):
            column = table.iloc[:, place]
            if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)):
                before = column.tolist()
                cells = [quoted(cell) for cell in before]
                changed = sum(new is not old for new, old in zip(cells, before, strict=True))
                if changed:
                    count += changed
                    column = pd.Series(cells, column.index, dtype=object)
            columns.append(column)
        known = table.columns.tolist()
        names = [quoted(name) for name in known]
        count += sum(new is not old for new, old in zip(names, known, strict=True))
        if count:
            table = pd.concat(columns, axis=1).set_axis(names, axis=1)
    return table.to_csv(index=False).encode(errors="backslashreplace"), count


def without_quotes(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table that was read from a CSV file of answers as it was before."""
    found = table.rename(columns=unquoted)
    for place, kind in enumerate(found.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            before = found.iloc[:, place].tolist()
            cells = [unquoted(cell) for cell in before]
            if any(new is not old for new, old in zip(cells, before, strict=True)):
                found.isetitem(place, cells)
    return found
