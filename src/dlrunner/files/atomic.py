"""Files that are written as a whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file in the same folder, which takes the place of `path` when the block ends well.

    Its name is its own, for threads of a process too; its mode is that of any new file (mkstemp's would be 0600).

    Args:
        path: the file to write.
        sync: write it and its folder to the disk before going on, so that it survives a loss of power.
    """
    temporary = beside(path)
    file = temporary.open("xb")
    try:
        with file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)  # it tells that its writer lives (see `temporary`)
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if sync:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def beside(path: Path) -> Path:
    """Return a hidden name in the same folder that nobody else uses.

    >>> beside(Path("run/last.pt")).name.startswith(".last.pt.")
    True
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")
