"""Locks of folders, for exclusive writing; a lock file that was removed or replaced is detected before a write."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from dlrunner.errors import RunError


class FolderLock:
    """A lock file that this process holds; `take` creates it.

    A lock is that of a file's inode, not of its name: whoever removes the file and makes another has another lock.
    `filelock` cannot do this: it makes a folder that was removed anew, and takes a lock again in a file that is there
    already, so that neither would be noticed; and it lends the descriptor, by which the file at the path is known for
    the one that is locked, only for a moment.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    @classmethod
    def take(cls, path: Path) -> FolderLock | None:
        """Take the lock; None where another process holds it.

        A reader holds it for a moment (see `is_locked`): it is tried again for some hundredths of a second.

        Raises:
            OSError: the file cannot be created, is a link, or the file system has no locks.
        """
        attempts = 5
        while True:
            descriptor = _open(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, descriptor):
                    return cls(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                if (attempts := attempts - 1) == 0:
                    return None
                time.sleep(0.01)
                continue
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # removed between opening and locking: try again

    def check(self) -> None:
        """Check that the lock is still exclusive; if the file was only removed, take it again.

        Raises:
            RunError: another process may hold it.
        """
        if _is_at(self.path, self._descriptor):
            return
        if not self.path.exists():
            with contextlib.suppress(FileExistsError):
                descriptor = _open(self.path, os.O_EXCL)
                os.close(self._descriptor)
                self._descriptor = descriptor
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
        raise RunError(
            f"{self.path} was removed or replaced: another process may now write this folder, so this one stops; "
            "its saved files are kept"
        )

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_locked(path: Path) -> bool:
    """Return whether another process holds the lock of a file; nothing is created."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def _open(path: Path, flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o666)


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether the file at a path is the open one."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    return False
