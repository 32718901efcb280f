"""Limits on the unpacked size of archives and compressed files: a bomb is refused before memory is full."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dlrunner.errors import DataError

ROOM = 2**30
"""Bytes that any file may unpack to."""
MOST_RATIO = 200
"""Beyond them, the largest compression ratio: texts and tables reach 30, the limit of deflate is 1032."""

COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def most_bytes(path: Path) -> int:
    """Return the bytes that a file may unpack to."""
    return max(ROOM, MOST_RATIO * path.stat().st_size)


def refuse_bomb(path: Path, size: int) -> None:
    """Check the unpacked size of a file.

    Args:
        path: the file.
        size: the bytes that it unpacks to, as far as known.

    Raises:
        DataError: it is more.
    """
    if size > most_bytes(path):
        packed = path.stat().st_size
        raise DataError(
            f"{path} unpacks to {size / 2**30:.1f} GiB or more, over {size // max(1, packed):,} times its size: it is "
            "damaged or malicious; if you trust it, unpack it yourself"
        )


@contextlib.contextmanager
def open_compressed(path: Path) -> Iterator[Any]:
    """Yield a size-limited stream of a file's content, unpacked where its name ends in .gz, .bz2, .xz, .zst or .zip.

    Its `is_plain` tells whether the file is not compressed. A zip file must hold one file.

    Raises:
        DataError: it unpacks to more than it may, or it is a zip of several files.
    """
    suffix = path.suffix.lower()
    if suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if not each.is_dir() and "__MACOSX" not in each.filename]
            if len(members) != 1:
                raise DataError(f"{path} holds {len(members)} files; a table is one of them: unpack it first")
            refuse_bomb(path, members[0].file_size)
            with archive.open(members[0]) as stream, _Limited(path, stream) as limited:  # type: ignore[arg-type]
                yield limited
    elif suffix == ".zst":
        import pyarrow as pa

        with pa.input_stream(str(path), compression="zstd") as stream, _Limited(path, stream) as limited:
            yield limited
    elif suffix in COMPRESSED:
        with COMPRESSED[suffix](path) as stream, _Limited(path, stream) as limited:
            yield limited
    else:
        with path.open("rb") as stream, _Limited(path, stream, is_plain=True) as limited:
            yield limited


class _Limited(io.BufferedIOBase):
    """A stream that counts the bytes read from it."""

    def __init__(self, path: Path, stream: BinaryIO, is_plain: bool = False) -> None:
        self._path, self._stream, self._count = path, stream, 0
        self.is_plain = is_plain

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(2**20), b""))
        content = self._stream.read(size)
        self._count += len(content)
        if not self.is_plain:
            refuse_bomb(self._path, self._count)
        return content

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size if size >= 0 else 2**16)
