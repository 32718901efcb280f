"""In which file, and as which row of it, the rows of a table stand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
    noun: str = "row"


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

    @classmethod
    def within_files(cls, frame: pd.DataFrame) -> Callable[[int], str] | None:
        """Return what tells file and number of a row of a DataFrame that was read from several files; else None."""
        rows = cls.of_frame(frame)
        return rows.short if len(rows.parts) > 1 else None

    def at(self, row: int) -> str:
        """Return file and number of a row, for messages."""
        part, number = self._find(row)
        return f"{self._parts[part].file}, {self._parts[part].noun} {number}"

    def short(self, row: int) -> str:
        """Return the number of a row, and its file where there are several."""
        part, number = self._find(row)
        return f"{self._prefixes[part]}{number}"

    def followed_by(self, other: RowLocations, num_rows: int, num_others: int) -> RowLocations:
        """Return where the rows of two tables stand, one after the other.

        Args:
            other: of the second table.
            num_rows, num_others: of the first and the second table.

        >>> rows = RowLocations(Path("a.csv")).followed_by(RowLocations(Path("b.csv")), 2, 1)
        >>> rows.at(1), rows.at(2)
        ('a.csv, row 3', 'b.csv, row 2')
        """
        own = np.arange(num_rows) if self.positions is None else self.positions
        *parts, last = self.parts or (Part(self.place),)
        before = sum(part.num_rows for part in parts)
        last = last._replace(num_rows=max(0, int(own.max(initial=-1)) + 1 - before))
        others = np.arange(num_others) if other.positions is None else other.positions
        return RowLocations(
            self.place,
            (*parts, last, *(other.parts or (Part(other.place),))),
            np.concatenate([own, before + last.num_rows + others]),
        )

    def ends(self, num_rows: int) -> NDArray[np.int64]:
        """Return the last rows of all files: of so many rows.

        >>> RowLocations(Path("sales"), (Part(Path("1.csv"), 2, 2), Part(Path("2.csv")))).ends(5).tolist()
        [1, 4]
        """
        positions = np.arange(num_rows) if self.positions is None else self.positions
        parts = np.searchsorted(self._starts[1:], positions, side="right")
        return np.flatnonzero(np.diff(parts, append=len(self._parts)))

    def numbers(self, count: int) -> list[int] | list[str]:
        """Return the numbers of the first rows, with their files where there are several.

        >>> RowLocations(Path("a.csv")).numbers(2)
        [2, 3]
        """
        if len(self.parts) > 1:
            return self.all_short(count)[:count]
        first_row = self.parts[0].first_row if self.parts else Part(self.place).first_row
        positions = np.arange(count) if self.positions is None else self.positions[:count]
        found: list[int] = (positions + first_row).tolist()
        return found

    def only(self, kept: NDArray[Any]) -> RowLocations:
        """Return where some rows stand: those that a mask marks."""
        if kept.all():
            return self
        return replace(self, positions=np.flatnonzero(kept) if self.positions is None else self.positions[kept])

    def all_short(self, num_rows: int) -> list[str]:
        """Return the number of each row, and its file where there are several: of so many rows.

        >>> RowLocations(Path("sales"), (Part(Path("sales/1.csv"), 2, 1), Part(Path("sales/2.csv"), 3))).all_short(2)
        ['1.csv, row 2', '2.csv, row 3']
        """
        positions = np.arange(num_rows) if self.positions is None else self.positions
        numbers = np.searchsorted(self._starts[1:], positions, side="right")
        rows = positions - self._starts[numbers]
        parts, prefixes = self._parts, self._prefixes
        firsts = [part.first_row for part in parts]
        return [f"{prefixes[n]}{row + firsts[n]}" for n, row in zip(numbers.tolist(), rows.tolist(), strict=True)]

    @property
    def _parts(self) -> Sequence[Part]:
        return self.parts or (Part(self.place),)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Position of the first row of each part."""
        return np.cumsum([0, *(part.num_rows for part in self._parts[:-1])])

    @cached_property
    def _prefixes(self) -> list[str]:
        """What stands before the number of a row, of each part."""
        parts = self._parts
        if len(parts) < 2:
            return [f"{parts[0].noun} "]
        folder = os.path.commonpath([part.file.parent for part in parts])
        return [f"{os.path.relpath(part.file, folder)}, {part.noun} " for part in parts]

    def _find(self, row: int) -> tuple[int, int]:
        """Return the number of a row's part, and that of the row in messages."""
        position = row if self.positions is None else int(self.positions[row])
        part = int(np.searchsorted(self._starts[1:], position, side="right"))
        return part, position - int(self._starts[part]) + self._parts[part].first_row
