"""Where a user's table is, and which one it is now."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from dlrunner.data.core.cache import cache_dir, sha256_of, write_whole
from dlrunner.data.tables.files import SQLITE, STANDARD_INPUT, files_of, open_table, suffix_of
from dlrunner.data.tables.partitions import keys_of, values_of
from dlrunner.data.tables.raw import RawTable, readable_errors
from dlrunner.data.tables.table import Reading, Table, load_schema, read_open_table
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import user_path
from dlrunner.task import DataIdentity


class TableFile:
    """A table that a user names by a path or a query.

    Args:
        path: a file, a glob or folder of part files, `-` for standard input, or None.
        query: SQL that selects from files, or None.
        reading: how it is read.
        example: a command that names a table, for the error if there is none.
        setting: the one that names it, for messages.
        ids: names, or places from 0, of columns of ids, which keep every character in a query too.

    Raises:
        ConfigError: neither path nor query is given, or both are.
    """

    def __init__(
        self,
        path: str | None,
        query: str | None,
        reading: Reading,
        example: str = "",
        setting: str = "data.path",
        ids: Collection[str | int] = (),
    ) -> None:
        if path is None and query is None:
            raise ConfigError(f"data.path: is missing: which table? {example}")
        if path is not None and query is not None:
            raise ConfigError("data.query: data.path names the table already; set one of both")
        self._given, self.query, self.reading, self.setting, self.ids = path, query, reading, setting, ids

    @property
    def place(self) -> Path:
        """For messages."""
        return Path("data.query") if self._given is None else user_path(self._given)

    @cached_property
    def path(self) -> str | None:
        """The path; of standard input, which can be read once, a copy in the cache."""
        if self._given != STANDARD_INPUT:
            return self._given
        content = sys.stdin.buffer.read()
        copy = cache_dir() / "standard-input" / f"{hashlib.sha256(content).hexdigest()[:32]}.csv"
        write_whole(copy, content)
        return str(copy)

    def in_encoding(self, encoding: str | None) -> TableFile:
        """Return the same table, read in an encoding; None: UTF-8, or the one that its bytes show."""
        other = copy(self)
        other.reading = replace(self.reading, encoding=encoding)
        return other

    def identity(self) -> DataIdentity:
        """The table as it is now: the digest of its files and of its schema, or of the rows that a query gives.

        Raises:
            ConfigError: there is no such file, or its format is unknown.
        """
        schema = [] if self.reading.schema is None else [str(load_schema(user_path(self.reading.schema)).state())]
        if self.path is None:
            digest = self._digest_of_rows()
            return DataIdentity(str(self.place), "own", "real", _combined([digest, *schema]), str(self.place))
        files = files_of(self.path, self.setting)
        digests = [self._digest_of(file, is_part=len(files) > 1) for file in files]
        if keys := keys_of(files, user_path(self.path)):
            digests += [str(values_of(file, keys)) for file in files]
        name = self.place.name
        return DataIdentity(name, "own", "real", _combined([*digests, *schema]), str(user_path(self.path)))

    def open(self) -> AbstractContextManager[RawTable]:
        """Open it; see `open_table`."""
        reading, is_copied = self.reading, self._given == STANDARD_INPUT
        return open_table(
            self._given,
            query=self.query,
            separator=reading.separator,
            encoding=reading.encoding,
            skip_bad=reading.skip_bad,
            ids=self.ids,
            copy=Path(str(self.path)) if is_copied else None,
        )

    def read(
        self, text: Iterable[str] = (), dates: Iterable[str] = (), strings: Collection[str] | None = None
    ) -> Table:
        """Read it; see `read_open_table`."""
        with self.open() as raw:
            return read_open_table(raw, self.reading, text=text, dates=dates, strings=strings)

    def _digest_of(self, file: Path, is_part: bool) -> str:
        try:
            with readable_errors(file):
                log = file.with_name(f"{file.name}-wal")  # of SQLite: what it holds is not in the database yet
                if suffix_of(file) in SQLITE and log.is_file() and log.stat().st_size:
                    return _combined([sha256_of(file), sha256_of(log)])
                return sha256_of(file)
        except DataError:
            if is_part and self.reading.skip_bad:
                return "left out"
            raise

    def _digest_of_rows(self) -> str:
        with self.open() as raw:
            digest = hashlib.sha256("\0".join(raw.names).encode())
            for batch in raw.fetch(*[f"CAST({raw.column(name)} AS VARCHAR)" for name in raw.names]).to_batches():
                for column in batch.columns:
                    for buffer in column.buffers():
                        digest.update(buffer or b"")
        return digest.hexdigest()


def _combined(digests: list[str]) -> str:
    """Return one digest: that of a single file is its own."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
