"""Tables as the content of files, in the format that the suffix of the file names."""

from __future__ import annotations

import importlib.util
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dlrunner.errors import ConfigError
from dlrunner.files.spreadsheet import as_csv, with_quotes


def encoder_of(path: Path) -> Callable[[pd.DataFrame, bool], tuple[bytes, int]]:
    """Return the function that encodes a table in the format of a file: CSV where its name has no suffix.

    It takes the table and whether texts that begin like a formula stay as they are, and returns the content and the
    number of cells and names that were quoted.

    Raises:
        ConfigError: the suffix is unknown, or a package is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in ENCODERS:
        known = ", ".join(filter(None, ENCODERS))
        raise ConfigError(f"--out: {path} ends in none of {known}")
    if suffix == ".xlsx" and importlib.util.find_spec("openpyxl") is None:
        raise ConfigError(f"--out: {path} needs openpyxl: pip install 'dlrunner[excel]'")
    return ENCODERS[suffix]


def has_types(path: Path) -> bool:
    """Return whether the format of a file distinguishes numbers from texts.

    >>> has_types(Path("a.jsonl")), has_types(Path("a.csv")), has_types(Path("-"))
    (True, False, False)
    """
    return path.suffix.lower() in (".json", ".jsonl", ".parquet", ".xlsx")


def as_json(table: pd.DataFrame) -> str:
    """Return a table as a JSON array with an object for each row, one a line; a missing value is null.

    >>> print(as_json(pd.DataFrame({"id": ["a", "b"], "p": [0.25, math.nan]})))
    [{"id": "a", "p": 0.25},
     {"id": "b", "p": null}]
    """
    return "[" + ",\n ".join(_objects(table)) + "]"


def as_json_lines(table: pd.DataFrame) -> str:
    """Return a table as JSON Lines: an object for each row.

    >>> as_json_lines(pd.DataFrame({"id": [1, 2]}))
    '{"id": 1}\\n{"id": 2}'
    """
    return "\n".join(_objects(table))


def _objects(table: pd.DataFrame) -> list[str]:
    names = [str(name) for name in table.columns]
    columns = [[_plain(value) for value in table.iloc[:, index].tolist()] for index in range(len(names))]
    rows = zip(*columns, strict=True) if columns else ([] for _ in table.index)
    return [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False) for row in rows]


def _plain(value: Any) -> Any:
    """Return a value of a table as JSON has it: a text where it has no such type."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str | list) else str(value)


def _csv(table: pd.DataFrame, is_raw: bool) -> tuple[bytes, int]:
    return as_csv(table, is_raw)


def _tsv(table: pd.DataFrame, is_raw: bool) -> tuple[bytes, int]:
    return as_csv(table, is_raw, separator="\t")


def _json(table: pd.DataFrame, is_raw: bool) -> tuple[bytes, int]:
    return f"{as_json(table)}\n".encode(errors="backslashreplace"), 0


def _json_lines(table: pd.DataFrame, is_raw: bool) -> tuple[bytes, int]:
    return f"{as_json_lines(table)}\n".encode(errors="backslashreplace"), 0


def _parquet(table: pd.DataFrame, is_raw: bool) -> tuple[bytes, int]:
    content = io.BytesIO()
    table = table.rename(columns=str).reset_index(drop=True)
    mixed = [name for name in table if pd.api.types.infer_dtype(table[name], skipna=True).startswith("mixed")]
    table = table.assign(**{str(name): table[name].map(str, na_action="ignore") for name in mixed})
    table.attrs = {}
    table.to_parquet(content, index=False)
    return content.getvalue(), 0


def _excel(table: pd.DataFrame, is_raw: bool) -> tuple[bytes, int]:
    content = io.BytesIO()
    quoted, count = (table, 0) if is_raw else with_quotes(table)
    quoted.to_excel(content, index=False, engine="openpyxl")
    return content.getvalue(), count


ENCODERS: Mapping[str, Callable[[pd.DataFrame, bool], tuple[bytes, int]]] = {
    "": _csv,
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _csv,
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    ".xlsx": _excel,
}
