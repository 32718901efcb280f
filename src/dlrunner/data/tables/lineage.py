"""Which columns of files a query carries to a column of its result, renamed or as parts of texts."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

TEXTS = ("VARCHAR", "TEXT", "STRING", "CHAR", "BPCHAR", "NVARCHAR")
"""Names of DuckDB's type of texts."""
OF_ALL = (
    *("||", "concat", "concat_ws", "lower", "upper", "trim", "ltrim", "rtrim", "regexp_extract"),
    *("first", "last", "any_value", "first_value", "last_value"),
)
"""Functions whose result has characters of their arguments."""
OF_FIRST = (
    *("replace", "substring", "substr", "left", "right", "lpad", "rpad", "split_part", "regexp_replace"),
    *("lag", "lead", "arg_max", "arg_min", "max_by", "min_by", "mode", "unnest", "string_agg"),
)
"""Functions whose result has characters of their first argument."""


def carried(query: Any, names: Collection[str]) -> set[str]:
    """Return the names, in lower case, of all columns whose characters reach columns of these names.

    Args:
        query: as `json_serialize_sql` of DuckDB writes it.
        names: of columns of the result.
    """
    found = {name.lower() for name in names}
    edges = [(name.lower(), {each.lower() for each in sources}) for name, sources in _sources_of_columns(query)]
    while more := {source for name, sources in edges if name in found for source in sources} - found:
        found |= more
    return found


def _sources_of_columns(node: Any) -> Iterator[tuple[str, set[str]]]:
    """Yield each name that a query gives to a column, with the columns that it is made of."""
    if isinstance(node, dict):
        if node.get("type") == "SELECT_NODE":
            yield from _columns(node)
        elif node.get("type") == "SET_OPERATION_NODE":
            parts = [list(_columns(part)) for part in _parts(node)]
            for first, *others in zip(*parts, strict=False):
                yield from ((first[0], sources) for _, sources in others)
        elif node.get("type") == "SUBQUERY" and "subquery" in node and isinstance(node["subquery"], dict):
            yield from _renamed(node["subquery"].get("node"), node.get("column_name_alias") or [])
        elif "query_node" in node:
            yield from _renamed(node["query_node"], node.get("aliases") or [])
        elif node.get("type") == "PIVOT":
            yield from _pivoted(node)
        elif node.get("type") == "COMPARE_EQUAL":  # both sides of a join have one type
            left, right = _sources(node["left"]), _sources(node["right"])
            yield from ((one, right) for one in left)
            yield from ((one, left) for one in right)
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _sources_of_columns(each)


def _columns(node: Any) -> Iterator[tuple[str, set[str]]]:
    """Yield the names of the columns of a SELECT, with the columns that they are made of."""
    if node.get("type") == "SET_OPERATION_NODE":
        node = _parts(node)[0]
    for each in node.get("select_list", []):
        if each["class"] == "STAR":
            yield from ((str(entry["value"]), {str(entry["key"]["column"])}) for entry in each.get("rename_list") or [])
            yield from ((str(entry["key"]), _sources(entry["value"])) for entry in each.get("replace_list") or [])
        else:
            sources = _sources(each)
            yield each["alias"] or (each["column_names"][-1] if each["class"] == "COLUMN_REF" else ""), sources


def _pivoted(node: Any) -> Iterator[tuple[str, set[str]]]:
    """Yield the names of the columns that PIVOT or UNPIVOT makes, with the columns that they are made of."""
    for each in node["pivots"]:  # UNPIVOT: the values of some columns, and their names, are two columns
        sources = {name for entry in each["entries"] if entry["star_expr"] for name in _columns_in(entry["star_expr"])}
        yield from ((name, sources) for name in node["unpivot_names"])
    values = [
        [entry["alias"] or str(entry["star_expr"]["literal"]["text"]) for entry in each["entries"] if _is_text(entry)]
        for each in node["pivots"]
    ]
    for names, aggregate in itertools.product(itertools.product(*values), node["aggregates"]):
        name = "_".join(names)  # PIVOT: a column for each value
        yield (f"{name}_{aggregate['alias']}" if aggregate["alias"] else name), _sources(aggregate)


def _is_text(entry: Any) -> bool:
    return "text" in ((entry["star_expr"] or {}).get("literal") or {})


def _columns_in(node: Any) -> Iterator[str]:
    """Yield the names of all columns in an expression."""
    if isinstance(node, dict) and node.get("class") == "COLUMN_REF":
        yield str(node["column_names"][-1])
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _columns_in(each)


def _parts(node: Any) -> Sequence[Any]:
    parts: Sequence[Any] = node.get("children") or [node["left"], node["right"]]
    return parts


def _renamed(node: Any, names: Sequence[str]) -> Iterator[tuple[str, set[str]]]:
    """Yield the names that columns of a subquery are given, with what they are made of."""
    if isinstance(node, dict) and names:
        yield from zip(names, (sources for _, sources in _columns(node)), strict=False)


def _sources(node: Any) -> set[str]:
    """Return the names of columns whose characters are in the value of an expression."""
    kind = node["class"]
    if kind == "COLUMN_REF":
        return {str(node["column_names"][-1])}
    if kind == "CAST":
        name = str(node["type_expr"].get("type_name")).upper()
        return _sources(node["child"]) if name in TEXTS else set()
    if kind == "CASE":
        values = [*(each["then_expr"] for each in node["case_checks"]), node["else_expr"]]
    elif kind == "OPERATOR" and node["type"] in ("OPERATOR_COALESCE", "ARRAY_SLICE", "ARRAY_EXTRACT"):
        values = node["children"]
    elif kind in ("FUNCTION", "WINDOW") and (name := node["function_name"].lower()) in (*OF_ALL, *OF_FIRST):
        values = [each["expression"] for each in node["arguments"]]
        values = values[:1] if name in OF_FIRST else values
    else:
        return set()
    return {name for each in values for name in _sources(each)}
