"""Opening the result of a query over files."""

from __future__ import annotations

import contextlib
from pathlib import Path

from dlrunner.data.tables.dialect import unique_names
from dlrunner.data.tables.raw import RawTable, connect, from_arrow
from dlrunner.errors import ConfigError, DataError


def open_query(stack: contextlib.ExitStack, query: str) -> RawTable:
    """Open the result of a SELECT.

    Raises:
        ConfigError: it is another statement.
        DataError: it cannot be executed.
    """
    import duckdb

    connection = connect(stack)
    place = Path("data.query")
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise ConfigError(f"data.query: {str(error).splitlines()[0]}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ConfigError("data.query: must be one SELECT; it can change nothing")
    connection.execute("SET lock_configuration = true")
    try:
        table = connection.sql(query).to_arrow_table()
    except duckdb.Error as error:
        raise DataError(f"data.query: {str(error).splitlines()[0]}") from None
    names, notes = unique_names(table.column_names)
    connection.close()
    raw = from_arrow(stack, table.rename_columns([f"c{i}" for i in range(len(names))]), names, place, first_row=1)
    raw.is_query = True
    raw.notes += notes
    return raw
