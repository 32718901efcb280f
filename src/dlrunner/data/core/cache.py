"""The cache of prepared data: its folder, files written whole and with checksums, and digests that are remembered."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from dlrunner.data.core.checked import read_sealed, sealed
from dlrunner.files.atomic import atomic_file
from dlrunner.files.paths import user_path
from dlrunner.files.temporary import remove_abandoned

CACHE_KINDS = ("baselines", "code", "features", "pixels", "sha256", "standard-input", "synthetic", "tables", "tokens")
"""Folders of the cache that are made again when needed; `auto` is kept: its values are part of signatures."""


def cache_dir() -> Path:
    """Return the folder for prepared data: DLRUNNER_CACHE, else dlrunner in XDG_CACHE_HOME, by default ~/.cache."""
    given = os.environ.get("DLRUNNER_CACHE")
    if given is None:
        from platformdirs import user_cache_dir

        given = user_cache_dir("dlrunner")  # begins with `~` if there is no home; user_path reports it
    return user_path(given)


def sha256_of(path: Path) -> str:
    """Return a file's sha256, cached by path, size and time of change."""
    status = path.stat()
    # The time of the last change of the file itself (ctime) cannot be set back, as mtime can by `touch -r`.
    key = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}"
    memory = cache_dir() / "sha256" / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.sha256"
    known = read_sealed(memory)
    if known is not None and re.fullmatch(rb"[0-9a-f]{64}", known):
        return known.decode()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a cache that cannot be written is only slower
        write_sealed(memory, digest.encode())
    return digest


def remembered(key: str, make: Callable[[], bytes], is_final: Callable[[], bool] = lambda: True) -> bytes:
    """Return the cached result of this key, or compute it and cache what is final."""
    memory = cache_dir() / "sha256" / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.made"
    known = read_sealed(memory)
    if known is not None:
        return known
    made = make()
    if not is_final():
        return made
    with contextlib.suppress(OSError):  # a cache that cannot be written is only slower
        write_sealed(memory, made)
    return made


def write_sealed(path: Path, content: bytes | memoryview) -> None:
    """Write a file of the cache with its checksum, for `read_sealed`."""
    tidy(path.parent)
    write_whole(path, sealed(content))


@functools.lru_cache(maxsize=64)  # a folder of the cache may hold thousands of files
def tidy(folder: Path) -> None:
    """Remove, once, files that killed processes left in a folder of the cache."""
    remove_abandoned(folder)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file of the cache atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, sync=False) as file:
        file.write(content)
