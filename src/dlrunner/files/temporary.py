"""Temporary files and folders, and removal of those that killed processes have left behind.

A file is written as `.NAME.MARK` next to its final name (see `atomic`), a folder likewise; both are locked
while their writer lives. That is `flock` itself and not `filelock`, which locks no folders, and, asked whether a file
is locked, would create it anew when its writer has just renamed it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATTERN = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}")
"""The mark is random, and long enough that no file of a user's ends like it."""
GRACE = 0.5
"""Seconds in which a new file may not be locked yet."""


def temporary_path(path: Path) -> Path:
    """Return a unique hidden path in the same folder.

    >>> temporary_path(Path("run/last.pt")).name.startswith(".last.pt.")
    True
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def name_of(temporary: str) -> str | None:
    """Return the final name of a temporary file; None for any other file.

    >>> name_of(".last.pt.0123456789abcdef"), name_of(".env.template"), name_of(".lock"), name_of("last.pt")
    ('last.pt', None, None, None)
    """
    match = PATTERN.fullmatch(temporary)
    return match["name"] if match else None


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty locked folder next to `path`; it is removed at the end."""
    folder = temporary_path(path)
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: only its age protects it
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(
    folder: Path, grace: float = GRACE, is_ours: Callable[[str], bool] = lambda name: name_of(name) is not None
) -> None:
    """Remove the temporary files and folders in a folder whose writers are gone.

    Args:
        folder: it is not searched recursively.
        grace: seconds since the last change, in which a writer may not hold its lock yet.
        is_ours: whether a name is that of a temporary file.
    """
    latest = time.time() - grace
    with contextlib.suppress(OSError):  # the folder is missing or read-only
        for entry in list(os.scandir(folder)):
            if is_ours(entry.name):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime <= latest and not _is_locked(entry):
                        _remove(Path(entry.path), entry.is_dir(follow_symlinks=False))


def exchange(new: Path, old: Path) -> None:
    """Swap two folders, atomically if the system supports it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        if libc.renameat2(here, os.fsencode(new), here, os.fsencode(old), both) == 0:
            return
        if ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(old))
    aside = temporary_path(old)
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    aside.rename(new)


def _is_locked(entry: os.DirEntry[str]) -> bool:
    """Return whether a process holds the lock of a file or folder."""
    mode = entry.stat(follow_symlinks=False).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return False
    descriptor = os.open(entry.path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove(path: Path, is_folder: bool) -> None:
    if is_folder:
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
