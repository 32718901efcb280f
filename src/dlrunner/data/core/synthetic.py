"""Generated data sets: in the cache with their best achievable score, or in the data folder as if downloaded."""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from dlrunner.data.core.cache import sha256_of, tidy, write_sealed
from dlrunner.data.core.checked import read_sealed, warn_damaged
from dlrunner.data.core.source import ArchiveOrFolder, Release, place_of
from dlrunner.errors import DataError
from dlrunner.files.atomic import readable_os_errors
from dlrunner.files.temporary import temporary_folder

TRUTH = "truth"
"""The file with the best achievable score and the digests of the others."""


def generated(place: Path, files: Sequence[str], write: Callable[[Path], float]) -> tuple[Path, float]:
    """Return a generated folder and its best achievable score; `write` fills it unless its files are intact.

    Args:
        place: the folder.
        files: its files, verified by their digests.
        write: fills an empty folder and returns the best achievable score.

    Raises:
        DataError: the cache cannot be written.
    """
    try:
        known = read_sealed(place / TRUTH)
        best = _best_of(known, place, files)
        if best is None:
            if known is not None:
                warn_damaged(place)
            best = _write_anew(place, files, write)
        return place, best
    except OSError as error:
        raise DataError(
            f"the synthetic data cannot be written to the cache, {place.parent}: {error.strerror}; "
            "set DLRUNNER_CACHE to another folder"
        ) from None


def _write_anew(place: Path, files: Sequence[str], write: Callable[[Path], float]) -> float:
    place.parent.mkdir(parents=True, exist_ok=True)
    tidy(place.parent)
    with temporary_folder(place) as temporary:
        best = write(temporary)
        digests = {name: sha256_of(temporary / name) for name in files}
        write_sealed(temporary / TRUTH, json.dumps({"best_achievable": best, "sha256": digests}).encode())
        try:
            temporary.rename(place)
        except OSError:  # another process was faster, or an older one was interrupted
            if _best_of(read_sealed(place / TRUTH), place, files) is None:
                _remove(place)
                temporary.rename(place)
    return best


def _best_of(known: bytes | None, place: Path, files: Sequence[str]) -> float | None:
    """Return the recorded best achievable score if all files match their digests, else None."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        truth = json.loads(known or b"{}")
        if all(sha256_of(place / name) == truth["sha256"][name] for name in files):
            return float(truth["best_achievable"])
    return None


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def generate(release: Release, data_dir: Path) -> ArchiveOrFolder:
    """Write the files of generated data into the data folder, unless they are there.

    Raises:
        DataError: a folder of this name has other files.
    """
    folder = data_dir / release.archives[0]
    if not all((folder / name).exists() for name in release.layouts):
        if folder.exists():
            raise DataError(f"{folder} exists and is not {release.name}: move it elsewhere")
        module, _, name = str(release.generator).rpartition(".")
        write = getattr(importlib.import_module(module), name)
        with readable_os_errors(folder):
            data_dir.mkdir(parents=True, exist_ok=True)
            with temporary_folder(folder) as temporary:
                write(temporary)
                temporary.rename(folder)
    found = place_of(folder, release.layouts[0])
    assert found is not None
    return found
