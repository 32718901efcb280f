"""Columns of a table that is read in pieces of rows: a piece is converted and freed before the next one is read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dlrunner.data.tables.raw import RawTable
from dlrunner.data.tables.schema import Column

NUMPY = {"integer": "float64", "number": "float64", "date": "datetime64[us]", "time": "float64"}


class ColumnInPieces(Protocol):
    """A column of which one piece after the other is added."""

    def add(self, piece: pa.Array) -> None:
        """Add the values of the next rows."""
        ...

    def values(self) -> Any:
        """Return the values of all rows, for a DataFrame."""
        ...


def columns_in_pieces(
    table: RawTable, columns: Sequence[Column], expressions: Sequence[str], coded: Collection[str]
) -> dict[str, Any]:
    """Return the values of columns by name.

    Args:
        table: the open table.
        columns: how its columns are read.
        expressions: of SQL, of each column.
        coded: names of columns of text that become categories, in the order of their first appearance.
    """
    num_rows = table.num_rows()
    read = [_column_in_pieces(column, num_rows, is_coded=column.name in coded) for column in columns]
    for piece in table.pieces(*expressions):
        for each, values in zip(read, piece.columns, strict=True):
            each.add(values)
    found = {}
    for column in columns:  # each is freed as soon as it is converted
        found[column.name] = read.pop(0).values()
    return found


def as_column(column: Column, values: pa.Array, coded: Collection[str]) -> Any:
    """Return the values of one column, which are read in one piece; arguments as in `columns_in_pieces`."""
    read = _column_in_pieces(column, len(values), is_coded=column.name in coded)
    read.add(values)
    return read.values()


def _column_in_pieces(column: Column, num_rows: int, *, is_coded: bool) -> ColumnInPieces:
    if column.type == "text":
        return _Categories(num_rows) if is_coded else _AsInArrow(pa.string())
    return _AsInArrow(pa.bool_()) if column.type == "boolean" else _Numbers(column, num_rows)


class _AsInArrow:
    """Texts, and booleans."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind, self._pieces = kind, list[pa.Array]()

    def add(self, piece: pa.Array) -> None:
        self._pieces.append(pa.concat_arrays([piece]))  # a copy, since all columns of a piece share their memory

    def values(self) -> Any:
        found = pa.chunked_array(self._pieces, type=None if self._pieces else self._kind).to_pandas()
        return pd.Series(found, dtype="str") if self._kind == pa.string() else found


class _Filled:
    """An array that is filled with pieces, of the narrowest type that all of them have needed."""

    def __init__(self, num_rows: int, dtype: str) -> None:
        self.array: NDArray[Any] = np.empty(num_rows, dtype)
        self._filled = 0

    def add(self, piece: NDArray[Any]) -> None:
        if not self._filled:
            self.array = np.empty(len(self.array), piece.dtype)
        self.array = self.array.astype(np.promote_types(self.array.dtype, piece.dtype), copy=False)
        self.array[self._filled : self._filled + len(piece)] = piece
        self._filled += len(piece)


class _Numbers:
    """Numbers, dates and times of day."""

    def __init__(self, column: Column, num_rows: int) -> None:
        self._type, self._filled = column.type, _Filled(num_rows, NUMPY[column.type])

    def add(self, piece: pa.Array) -> None:
        self._filled.add(piece.to_numpy(zero_copy_only=False))  # 64 bits, float where whole numbers are missing

    def values(self) -> NDArray[Any]:
        found = self._filled.array
        if self._type == "integer" and (found % 1 == 0).all() and (np.abs(found) < 2**63).all():
            return found.astype(np.int64, copy=False)
        return np.asarray(found, dtype=NUMPY[self._type])


class _Categories:
    """Texts as categories, in the order of their first appearance: texts take several times the memory of their codes.

    Codes take the fewest bytes that the number of categories needs.
    """

    def __init__(self, num_rows: int) -> None:
        self._known, self._codes = dict[str, int](), _Filled(num_rows, "int8")

    def add(self, piece: pa.Array) -> None:
        encoded = piece.dictionary_encode()
        codes = [self._known.setdefault(each, len(self._known)) for each in encoded.dictionary.to_pylist()]
        places = encoded.indices.fill_null(-1).to_numpy()  # -1 is missing, the last of the codes
        self._codes.add(np.array([*codes, -1], dtype=np.min_scalar_type(-max(1, len(self._known))))[places])

    def values(self) -> pd.Categorical:
        return pd.Categorical.from_codes(self._codes.array, pd.Index(list(self._known), dtype="str"))
