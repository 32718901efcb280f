"""Opening the result of a query over files."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrunner.data.tables.candidates import Hints
from dlrunner.data.tables.dialect import unique_names
from dlrunner.data.tables.formats import quoted_name
from dlrunner.data.tables.inference import infer
from dlrunner.data.tables.lineage import carried
from dlrunner.data.tables.raw import RawTable, connect, from_arrow
from dlrunner.data.tables.reading import expression
from dlrunner.data.tables.schema import Column
from dlrunner.data.tables.totals import leave_out_totals
from dlrunner.errors import ConfigError, DataError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SNIFFERS = ("read_csv", "read_csv_auto", "sniff_csv")
"""Functions of DuckDB that guess types from the first rows."""


RANDOM = ("random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7")
"""Functions whose values differ each time."""

REORDERING = ("JOIN", "DISTINCT_MODIFIER", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "PIVOT")
"""Parts of a query after which several threads give its rows in another order each time."""


def open_query(
    stack: contextlib.ExitStack,
    query: str,
    open_file: Callable[[str], RawTable | None],
    ids: Collection[str | int] = (),
) -> RawTable:
    """Open the result of a SELECT.

    Args:
        stack: closes what is opened.
        query: the SELECT.
        open_file: opens a file that the query names; None where DuckDB itself reads it with the types that it has.
        ids: names of columns of the result that keep every character, or their places from 0.

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
    if len(statements) == 1 and statements[0].type == duckdb.StatementType.MULTI:
        raise ConfigError("data.query: PIVOT needs the values that become columns: PIVOT … ON column IN ('a', 'b')")
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ConfigError("data.query: must be one SELECT; it can change nothing")
    notes: list[str] = []
    views: dict[str, _View] = {}
    try:
        serialized = connection.execute("SELECT json_serialize_sql($query)", {"query": query}).fetchall()[0][0]
        tree = json.loads(serialized)
        if not _keeps_order(tree):  # else the order of rows, and with it a random split, differs from read to read
            connection.execute("SET threads = 1")
        connection.execute("SET lock_configuration = true")
        if _describes(tree):
            raise ConfigError(
                "data.query: SUMMARIZE, DESCRIBE and SHOW select no rows of a table; `dlrun data describe` describes it"
            )
        if chance := next(_by_chance(tree), None):
            raise ConfigError(
                f"data.query: {chance} gives other rows each time; set data.sample instead (tables, texts, images), or "
                "select a sample with a seed: USING SAMPLE 10% (bernoulli, 42)"
            )
        tables, functions = _sources(tree)
        kept = carried(tree, [each for each in ids if isinstance(each, str)])
        for name in tables:
            raw = open_file(name)
            if raw is not None:
                views[name] = _View(connection, name, raw, kept)
                notes += [f"{name}: {note}" for note in raw.notes]
        notes += [
            f"data.query: {name} guesses types from the first rows and reads 007 as 7; select from 'FILE.csv' instead"
            for name in functions
            if name in SNIFFERS
        ]
        if places := [each for each in ids if isinstance(each, int)]:
            selected = connection.sql(query).columns
            kept |= carried(tree, [selected[place] for place in places if place < len(selected)])
            for view in views.values():
                view.define(kept)
        table = connection.sql(query).to_arrow_table()
    except duckdb.Error as error:
        texts = [name for view in views.values() for name in view.texts if name.lower() in query.lower()]
        raise DataError(f"data.query: {_sentence(str(error), texts)}") from None
    names, changed = unique_names(table.column_names)
    connection.close()
    raw = from_arrow(stack, table.rename_columns([f"c{i}" for i in range(len(names))]), names, place, first_row=1)
    raw.notes += [*notes, *changed]
    return raw


def _describes(node: Any) -> bool:
    """Return whether a serialized query describes a table or query in some place."""
    if isinstance(node, dict) and node.get("type") == "SHOW_REF":
        return True
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return any(_describes(each) for each in parts)


def _by_chance(node: Any) -> Iterator[str]:
    """Yield what of a serialized query gives another result each time: functions, and samples without a seed."""
    if isinstance(node, dict):
        if node.get("class") == "FUNCTION" and str(node.get("function_name")).lower() in RANDOM:
            yield f"{node['function_name']}()"
        if (sample := node.get("sample")) and not sample.get("repeatable", True):
            yield "a sample without a seed"
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _by_chance(each)


def _keeps_order(tree: Any) -> bool:
    """Return whether a serialized query gives the rows of a file in their order: it selects and filters alone."""
    if isinstance(tree, list):
        return all(map(_keeps_order, tree))
    if not isinstance(tree, dict):
        return True
    changes = tree.get("type") in REORDERING or tree.get("class") in ("WINDOW", "SUBQUERY")
    changes |= bool(tree.get("group_expressions") or tree.get("orders") or tree.get("sample"))
    changes |= tree.get("aggregate_handling", "STANDARD_HANDLING") != "STANDARD_HANDLING"  # GROUP BY ALL
    return not changes and all(map(_keeps_order, tree.values()))


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


class _View:
    """The view by which a query reads a file: with the types that all its rows have.

    A column of which some values do not fit, or which could be read in two ways, is one of strings.

    Args:
        connection: of the query.
        name: of the file in the query.
        raw: the file.
        kept: names, in lower case, of columns that keep every character.
    """

    def __init__(self, connection: DuckDBPyConnection, name: str, raw: RawTable, kept: Collection[str]) -> None:
        self.connection, self.name, self.raw = connection, name, raw
        self.texts: list[str] = []
        if note := leave_out_totals(raw, kept):
            raw.notes.append(note)
        self.schema = infer(raw, Hints(text=[each for each in raw.names if each.lower() in kept]))
        self.source = f"({raw.select})"
        if not raw.select:
            self.source = quoted_name(f"content of {name}")
            connection.register(self.source[1:-1], raw.connection.sql("SELECT * FROM raw").to_arrow_table())
        self.define(kept)

    def define(self, kept: Collection[str]) -> None:
        """Define it, or replace it."""
        selected, self.texts = [], []
        for column in self.schema.columns:
            found = self.schema.found[column.name]
            if column.name.lower() in kept:
                column = Column(column.name, verbatim=True)
            is_unclear = column.type != "text" and (found.ambiguous or found.num_bad)
            read = self.raw.column(column.name) if is_unclear else _typed(self.raw, column)
            selected.append(f"{read} AS {quoted_name(column.name)}")
            self.texts += [column.name] if is_unclear or column.type == "text" else []
        self.connection.execute(
            f"CREATE OR REPLACE TEMP VIEW {quoted_name(self.name)} AS SELECT {', '.join(selected)} FROM {self.source}"
        )


def _sentence(message: str, texts: Collection[str]) -> str:
    """Return DuckDB's words on a query in one sentence; where a text meets a number, with what to do.

    Args:
        message: of DuckDB.
        texts: names of columns of texts in the query.
    """
    first = message.splitlines()[0]
    if found := re.match(
        r"Conversion Error: Could not convert string (.*) to \w+ when casting from .*column (.*)", first
    ):
        return f"{found[2]} is text and {found[1]} not a number: compare it with a text in quotes"
    if "VARCHAR" not in first:
        return first
    named = f"; of text are: {', '.join(texts)}" if texts else ""
    return (
        f"a text meets a number{named} (a column with leading zeros, more than 15 digits or several formats is text, "
        f"and so are ids): compare it with a text in quotes, calculate with CAST(column AS DOUBLE) [{first}]"
    )


def _typed(raw: RawTable, column: Column) -> str:
    read = expression(raw, column)
    if column.type == "time":  # so that a query compares it with '12:30'
        return f"(TIME '00:00' + to_microseconds(CAST(round({read} * 6e7) AS BIGINT)))"
    return f"CAST({read} AS BIGINT)" if column.type == "integer" else read
