"""Removal of run folders and of their checkpoints; never of a run that another process is training."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlrunner.errors import BusyError, ConfigError
from dlrunner.files.atomic import readable_os_errors
from dlrunner.files.locks import FolderLock
from dlrunner.files.temporary import remove_abandoned, temporary_path
from dlrunner.runs.directory import RunDirectory, refuse_links
from dlrunner.runs.listing import ListedRun
from dlrunner.runs.query import newest_finished
from dlrunner.runs.reader import finished_summary, member_folders, own_file


def remove_folder(path: Path, status: str | None = None) -> bool:
    """Remove the folder of a run or of a sweep; it disappears at once, and its files then.

    Args:
        path: the folder.
        status: of the run when its removal was decided; with another one by now it is kept. None: whatever it is.

    Returns whether it was removed.

    Raises:
        BusyError: another process is writing it.
        RunError: it cannot be removed.
    """
    from filelock import FileLock

    path = path.resolve()
    with readable_os_errors(path):
        remove_abandoned(path.parent)
        # As for a new run (see `RunDirectory.claim`), so that none is started in a folder that is being removed.
        with FileLock(path.parent / ".lock", fallback_to_soft=False):
            if status is not None and ListedRun(path).status != status:
                return False
            with _locked(path):
                aside = temporary_path(path)
                path.rename(aside)
        shutil.rmtree(aside)
    return True


def point_latest_at_newest(runs_dir: Path) -> None:
    """Let `latest` point at the newest finished run if the run that it pointed at was removed."""
    latest = runs_dir / "latest"
    if not latest.is_symlink() or latest.exists():
        return
    if newest := newest_finished(runs_dir):
        RunDirectory(newest).point_latest()
    else:
        latest.unlink(missing_ok=True)


def spare_checkpoints(path: Path) -> list[Path]:
    """Return the checkpoints of a finished run that it was not evaluated with, and that `predict` does not read.

    Without a record of the weights (older versions) none is spare.
    """
    weights = (finished_summary(path) or {}).get("weights")
    kept = weights.get("checkpoint") if isinstance(weights, dict) else None
    if not isinstance(kept, str):
        return []
    folders = [path, *member_folders(path)]
    if not any((folder / kept).exists() for folder in folders):
        return []
    patterns = ("last.pt", "best.pt", "cycle-*.pt", "phase-best.pt")
    found = {file for folder in folders for pattern in patterns for file in folder.glob(pattern) if file.name != kept}
    return sorted(own_file(path, str(file.relative_to(path))) for file in found)


def remove_files(path: Path, files: Sequence[Path]) -> None:
    """Remove files of a run's folder.

    Raises:
        BusyError: another process is writing it.
        RunError: they cannot be removed.
    """
    with readable_os_errors(path), _locked(path):
        for file in files:
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    if not path.is_dir():
        raise ConfigError(f"there is no folder {path}")
    refuse_links(path, path.parent)
    lock = FolderLock.take(path / ".lock")
    if lock is None:
        raise BusyError(f"another process is writing {path}")
    try:
        yield
    finally:
        lock.release()
