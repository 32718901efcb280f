"""CSV files of predictions that are safe to open in a spreadsheet: texts are not run as formulas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

CELLS = 100_000
"""Of a chunk that pandas writes at once."""
MANY_ROWS = 10_000
"""From here on a table of plain cells is not written by pandas, which takes four times as long."""
WHOLE = tuple(np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64))
_FORMULA = re.compile("'*[=+\\-@\t\r]")
"""The start of a cell that a spreadsheet takes for a formula, quoted or not."""


def quoted(text: Any) -> Any:
    """Prefix a text that a spreadsheet would take for a formula with a quote; numbers are unchanged.

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
    """Undo `quoted`.

    >>> [unquoted(quoted(text)) for text in ("=1", "'=1", "-5", "'tis")]
    ['=1', "'=1", '-5', "'tis"]
    """
    is_quoted = isinstance(text, str) and text.startswith("'") and _FORMULA.match(text)
    return text[1:] if is_quoted else text


def as_csv(
    table: pd.DataFrame, is_raw: bool = False, separator: str = ",", has_header: bool = True
) -> tuple[bytes, int]:
    """Return a table as a CSV file, and the number of quoted cells and names.

    Args:
        table: it is not modified.
        is_raw: quote nothing.
        separator: between the cells of a row.
        has_header: the first line holds the names of the columns.
    """
    table, count = (table, 0) if is_raw else with_quotes(table)
    rows = _plain_rows(table, separator) if len(table) >= MANY_ROWS else None
    written = table if rows is None else table.head(0)
    text = written.to_csv(index=False, sep=separator, header=has_header).encode(errors="backslashreplace")
    return text + (rows or b""), count


def _plain_rows(table: pd.DataFrame, separator: str) -> bytes | None:
    """Return the rows as pandas writes them, if all are numbers and texts that need no quotes; None: they are not."""
    import pyarrow as pa
    import pyarrow.csv

    columns = [_plain_cells(column, separator) for _, column in table.items()]
    if len(columns) < 2 or any(each is None for each in columns):  # a row that is one empty cell has quotes
        return None
    rows = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter=separator, quoting_style="none")
    pyarrow.csv.write_csv(pa.table(columns, [str(index) for index in range(len(columns))]), rows, options)
    return bytes(rows.getvalue())


def _plain_cells(column: pd.Series[Any], separator: str) -> Any:
    """Return the cells of a column as Arrow writes them without quotes; None: it cannot."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.dtype in (np.float32, np.float64) and isinstance(column.dtype, np.dtype):
        cells = pa.array(column.to_numpy()).dictionary_encode()  # predictions repeat once they are rounded
        numbers = cells.dictionary.to_numpy()
        return pa.array(np.where(np.isnan(numbers), "", numbers.astype(str))).take(cells.indices)
    if not (column.dtype == object or isinstance(column.dtype, pd.StringDtype) or column.dtype in WHOLE):
        return None
    try:
        cells = pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError):  # of several types, or no UTF-8
        return None
    if pa.types.is_integer(cells.type):
        return cells
    if not (pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)):
        return None
    needs_quotes = pc.match_substring_regex(cells, f'["\r\n{separator}]')
    return None if pc.any(needs_quotes).as_py() else cells


def csv_pieces(table: pd.DataFrame) -> Iterator[bytes]:
    """Yield what `as_csv` returns in pieces: the text of a large table needs several times the memory of its values.

    >>> table = pd.DataFrame({"id": ["=1", "b"]})
    >>> b"".join(csv_pieces(table)) == as_csv(table)[0]
    True
    """
    num_columns = max(1, table.shape[1])
    num_rows = max(1, CELLS // num_columns) * num_columns  # whole chunks of pandas, which formats dates by chunk
    for start in range(0, max(1, len(table)), num_rows):
        yield as_csv(table.iloc[start : start + num_rows], has_header=start == 0)[0]


def with_quotes(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return a table whose texts no spreadsheet takes for formulas, and the number of quoted cells and names."""
    count = 0
    columns = []
    for index in range(table.shape[1]):
        column = table.iloc[:, index]
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)):
            if isinstance(column.dtype, pd.StringDtype):
                starts = {*column.str[:1].dropna().unique()}
            else:
                starts = {cell[:1] for cell in column.tolist() if isinstance(cell, str)}
            if starts.isdisjoint("'=+-@\t\r"):  # the usual case, in less than half the time
                columns.append(column)
                continue
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
    return (pd.concat(columns, axis=1).set_axis(names, axis=1) if count else table), count


def without_quotes(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table that was read from a CSV file of predictions, without the quotes that `as_csv` added."""
    result = table.rename(columns=unquoted)
    for index, kind in enumerate(result.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            before = result.iloc[:, index].tolist()
            cells = [unquoted(cell) for cell in before]
            if any(new is not old for new, old in zip(cells, before, strict=True)):
                result.isetitem(index, cells)
    return result
