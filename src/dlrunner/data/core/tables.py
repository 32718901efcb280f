"""Users' tables: CSV, TSV and parquet, compressed or not."""

from __future__ import annotations

import lzma
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pandas as pd

from dlrunner.data.core.unpacking import unpacked
from dlrunner.errors import ConfigError, DataError

DAMAGED = (
    *(pd.errors.ParserError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, OSError, ValueError, NotImplementedError, RuntimeError),
)
"""What pandas and the readers of compressed files raise; the last two are a zip file's: another method, a password."""
SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".parquet")


def format_of(path: Path) -> str:
    """Return the suffix of a table's format.

    Raises:
        ConfigError: the suffix is unknown.
    """
    suffixes = [s.lower() for s in path.suffixes]
    kind = next((s for s in reversed(suffixes) if s in SUFFIXES), ".csv" if ".zip" in suffixes else None)
    if kind is None:
        raise ConfigError(f"{path}: the name of a table ends in {', '.join(SUFFIXES)} (with .gz or .zip after it)")
    return kind


def read_table(path: Path, only_empty_is_missing: bool = False, as_text: bool = False) -> pd.DataFrame:
    """Read a table, its format by the name of the file: .csv, .tsv, .parquet, with .gz, .bz2, .xz or .zip.

    Args:
        path: the file.
        only_empty_is_missing: NA, None and null are ordinary strings (a user may have that name).
        as_text: likewise, and numbers stay strings (0001).

    Raises:
        ConfigError: there is no such file, or its suffix is unknown.
        DataError: it is empty, damaged, or not text in UTF-8.
    """
    if not path.exists():
        raise ConfigError(f"there is no file {path}")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the path of the table")
    kind = format_of(path)
    try:
        if kind == ".parquet":
            table = pd.read_parquet(path)
        else:
            options: dict[str, Any] = {"index_col": False}
            if as_text:
                options["dtype"] = str
            if only_empty_is_missing or as_text:
                options |= {"keep_default_na": False, "na_values": [""]}
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                sep = "\t" if kind in (".tsv", ".tab") else _separator(path)
                table = _read_csv(path, sep=sep, **options)
                if sep == ";" and any(_has_decimal_commas(column) for _, column in table.items()):
                    table = _read_csv(path, sep=sep, decimal=",", **options)
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path} does not fit into the memory of this machine") from None
    except pd.errors.ParserWarning:
        raise DataError(f"{path}: its rows have more fields than its header has names") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 (byte {error.start}); convert it first") from None
    except (
        pd.errors.ParserError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise DataError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from None
    if table.empty:
        raise DataError(f"{path} has a header but no rows")
    return table


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    with unpacked(path) as content:
        table: pd.DataFrame = pd.read_csv(content, **options)
        return table


def _separator(path: Path) -> str:
    """Return the separator of a table's header."""
    names = [str(name) for name in _read_csv(path, nrows=0).columns]
    return "," if len(names) > 1 else next((sep for sep in ";\t|" if sep in names[0]), ",")


def _has_decimal_commas(column: pd.Series[Any]) -> bool:
    """Return whether a column holds only numbers, some of them with a decimal comma (1,5)."""
    if pd.api.types.is_numeric_dtype(column):
        return False
    texts = column.head(1000).dropna().astype(str)
    return bool(texts.str.fullmatch(r"[+-]?\d+(,\d+)?").all() and texts.str.contains(",").any())
