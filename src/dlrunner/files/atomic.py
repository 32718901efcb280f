"""Atomic writes of files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dlrunner.errors import RunError
from dlrunner.files.temporary import name_of, temporary_path


@contextlib.contextmanager
def atomic_file(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file in the same folder, which replaces `path` if the block succeeds.

    Its name is unique, also among threads; its mode is that of any new file (mkstemp's would be 0600).

    Args:
        path: the file to write.
        sync: fsync the file and its folder, so that it survives a power loss.
    """
    temporary = temporary_path(path)
    file = temporary.open("xb")
    try:
        with file:
            with contextlib.suppress(OSError):  # a file system without locks
                # Marks its writer as alive (see `temporary`). The lock of the written file itself, not of a second file
                # as with `filelock`: it moves with the file and leaves nothing behind.
                fcntl.flock(file, fcntl.LOCK_EX)
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


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically (see `atomic_file`)."""
    with atomic_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def readable_os_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into readable ones."""
    try:
        yield
    except OSError as error:
        place = Path(error.filename or path)
        place = place.with_name(name_of(place.name) or place.name)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"the disk is full: cannot write {path}; files saved before are intact") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunError(f"{place} cannot be written: {error.strerror}") from None
        raise RunError(f"{place}: {error.strerror or error}") from error
