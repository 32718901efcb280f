"""In which file, and as which row of it, the rows of a table stand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class Part(NamedTuple):
    """A file of a table."""

    file: Path
    first_row: int = 2
    """Number of the first row in messages: that of its line, where each row is a line."""
    num_rows: int = 0
    """Of the file; not needed of the last one."""


@dataclass(frozen=True)
class RowLocations:
    """Where each row of a table stands; `str` of it is the place of the table.

    >>> rows = RowLocations(Path("sales"), (Part(Path("sales/1.csv"), 2, 3), Part(Path("sales/2.csv"), 3)))
    >>> rows.at(2), rows.at(3), rows.short(3)
    ('sales/1.csv, row 4', 'sales/2.csv, row 3', '2.csv, row 3')
    >>> str(rows), RowLocations(Path("a.csv")).at(0), RowLocations(Path("a.csv")).short(0)
    ('sales', 'a.csv, row 2', 'row 2')
    """

    place: Path
    parts: Sequence[Part] = ()
    """Its files, in the order of their rows; none: the place is the file."""
    positions: NDArray[np.int64] | None = None
    """Of each row of the table among all rows of the files, from 0; None: they are all there."""

    def __str__(self) -> str:
        return str(self.place)

    @classmethod
    def of_frame(cls, frame: pd.DataFrame) -> RowLocations:
        """Return where the rows of a DataFrame stand: in the file that it was read from, or in "the table"."""
        found: RowLocations | None = frame.attrs.get("rows")
        return found or cls(Path(str(frame.attrs.get("file", "the table"))))

    def at(self, row: int) -> str:
        """Return file and number of a row, for messages."""
        part, number = self._find(row)
        return f"{part.file}, row {number}"

    def short(self, row: int) -> str:
        """Return the number of a row, and its file where there are several."""
        part, number = self._find(row)
        if len(self.parts) < 2:
            return f"row {number}"
        folder = os.path.commonpath([each.file.parent for each in self.parts])
        return f"{os.path.relpath(part.file, folder)}, row {number}"

    def numbers(self, count: int) -> list[int] | list[str]:
        """Return the numbers of the first rows, with their files where there are several.

        >>> RowLocations(Path("a.csv")).numbers(2)
        [2, 3]
        """
        if len(self.parts) > 1:
            return [self.short(row) for row in range(count)]
        first_row = self.parts[0].first_row if self.parts else Part(self.place).first_row
        positions = np.arange(count) if self.positions is None else self.positions[:count]
        found: list[int] = (positions + first_row).tolist()
        return found

    def only(self, kept: NDArray[Any]) -> RowLocations:
        """Return where some rows stand: those that a mask marks."""
        positions = np.arange(len(kept)) if self.positions is None else self.positions
        return replace(self, positions=positions[kept])

    def _find(self, row: int) -> tuple[Part, int]:
        position = row if self.positions is None else int(self.positions[row])
        parts = self.parts or (Part(self.place),)
        for part in parts[:-1]:
            if position < part.num_rows:
                return part, position + part.first_row
            position -= part.num_rows
        return parts[-1], position + parts[-1].first_row
