"""Opening the result of a query over files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrunner.data.tables.candidates import Hints
from dlrunner.data.tables.dialect import unique_names
from dlrunner.data.tables.inference import infer
from dlrunner.data.tables.raw import RawTable, connect, from_arrow
from dlrunner.data.tables.reading import expression
from dlrunner.data.tables.schema import Column
from dlrunner.errors import ConfigError, DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SNIFFERS = ("read_csv", "read_csv_auto", "sniff_csv")
"""Functions of DuckDB that guess types from the first rows."""


def open_query(
    stack: contextlib.ExitStack,
    query: str,
    open_file: Callable[[str], RawTable | None],
    ids: Collection[str] = (),
) -> RawTable:
    """Open the result of a SELECT.

    Args:
        stack: closes what is opened.
        query: the SELECT.
        open_file: opens a file that the query names; None where DuckDB itself reads it with the types that it has.
        ids: columns of the files that keep every character.

    Raises:
        ConfigError: it is another statement.
        DataError: it cannot be executed, or a file is damaged.
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
    notes: list[str] = []
    try:
        serialized = connection.execute("SELECT json_serialize_sql($query)", {"query": query}).fetchall()[0][0]
        tables, functions = _sources(json.loads(serialized))
        for name in tables:
            raw = open_file(name)
            if raw is not None:
                _define(connection, name, raw, ids)
                notes += [f"{name}: {note}" for note in raw.notes]
        notes += [
            f"data.query: {name} guesses types from the first rows and reads 007 as 7; select from 'FILE.csv' instead"
            for name in functions
            if name in SNIFFERS
        ]
        table = connection.sql(query).to_arrow_table()
    except duckdb.Error as error:
        raise DataError(f"data.query: {str(error).splitlines()[0]}") from None
    names, changed = unique_names(table.column_names)
    connection.close()
    raw = from_arrow(stack, table.rename_columns([f"c{i}" for i in range(len(names))]), names, place, first_row=1)
    raw.notes += [*notes, *changed]
    return raw


def _sources(node: Any) -> tuple[list[str], list[str]]:
    """Return the names of tables and of table functions in a serialized query."""
    found = list(_named(node))
    tables = dict.fromkeys(name for kind, name in found if kind == "BASE_TABLE")
    functions = dict.fromkeys(name for kind, name in found if kind == "TABLE_FUNCTION")
    return list(tables), list(functions)


def _named(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            yield "BASE_TABLE", str(node["table_name"])
        elif node.get("type") == "TABLE_FUNCTION":
            yield "TABLE_FUNCTION", str(node["function"]["function_name"])
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _named(each)


def _define(connection: DuckDBPyConnection, name: str, raw: RawTable, ids: Collection[str]) -> None:
    """Define the view by which a query reads a file: with the types that all its rows have.

    A column of ids, one of which some values do not fit, or which could be read in two ways, is one of strings.
    """
    schema = infer(raw, Hints(text=[each for each in ids if each in raw.names]))
    selected = []
    for column in schema.columns:
        found = schema.found[column.name]
        read = raw.column(column.name) if found.ambiguous or found.num_bad else _typed(raw, column)
        selected.append(f"{read} AS {_quoted(column.name)}")
    if raw.select:
        source = f"({raw.select})"
    else:
        source = _quoted(f"content of {name}")
        connection.register(source[1:-1], raw.connection.sql("SELECT * FROM raw").to_arrow_table())
    connection.execute(f"CREATE TEMP VIEW {_quoted(name)} AS SELECT {', '.join(selected)} FROM {source}")


def _typed(raw: RawTable, column: Column) -> str:
    read = expression(raw, column)
    if column.type == "time":  # so that a query compares it with '12:30'
        return f"(TIME '00:00' + to_microseconds(CAST(round({read} * 6e7) AS BIGINT)))"
    return f"CAST({read} AS BIGINT)" if column.type == "integer" else read


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
