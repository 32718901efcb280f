"""A finished run of fewer epochs that a new one can continue.

With a constant learning rate the first epochs of a longer run are those of a shorter one, so that the longer run starts
from its last checkpoint and is the same, bit for bit, as if it had been trained in one go.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from dlrunner.errors import ConfigError
from dlrunner.runs.directory import RunDirectory, recorded_identity
from dlrunner.runs.reader import finished_summary, member_folders, read_history

CHECKPOINTS = ("last.pt", "best.pt")


def find_predecessor(directory: RunDirectory, epochs: int) -> Path | None:
    """Return the longest finished run that equals the first epochs of this one; None: there is none.

    Args:
        directory: of the new run.
        epochs: of the new run.
    """
    wanted = {name: directory.identity.get(name) for name in ("lineage", "code", "data")}
    if not wanted["lineage"]:
        return None
    found: dict[int, Path] = {}
    for entry in os.scandir(directory.path.parent):
        folder = Path(entry.path)
        with contextlib.suppress(ConfigError):  # a damaged folder is not continued
            if entry.is_dir(follow_symlinks=False) and folder != directory.path and _matches(folder, wanted):
                trained = _num_epochs(folder)
                if 0 < trained < epochs and finished_summary(folder) and _can_continue(folder):
                    found[trained] = folder
    return found[max(found)] if found else None


def copy_checkpoints(source: Path, directory: RunDirectory, ensemble: int) -> None:
    """Copy the checkpoints of a run, and those of its members, into the folder of one that continues it.

    Raises:
        RunError: one is damaged, or the folder cannot be written.
    """
    members = member_folders(source) if ensemble > 1 else [source]
    for index, folder in enumerate(members):
        target = directory.member(index) if ensemble > 1 else directory
        origin = RunDirectory(folder, {**(recorded_identity(source) or {}), **_member(index, ensemble)})
        for name in reversed(CHECKPOINTS):  # last.pt last: the run continues from it
            checkpoint = origin.load_checkpoint(name)
            if checkpoint is not None:
                target.save(name, {key: value for key, value in checkpoint.items() if key != "identity"})


def _member(index: int, ensemble: int) -> dict[str, str]:
    return {"member": str(index)} if ensemble > 1 else {}


def _matches(folder: Path, wanted: Mapping[str, str | None]) -> bool:
    identity = recorded_identity(folder)
    return identity is not None and all(identity.get(name) == value for name, value in wanted.items())


def _can_continue(folder: Path) -> bool:
    """Return whether the last checkpoints of a run are still there: `prune --checkpoints` removes them."""
    return all((each / "last.pt").exists() for each in member_folders(folder) or [folder])


def _num_epochs(folder: Path) -> int:
    members = member_folders(folder)
    return min((len(read_history(each)) for each in members), default=len(read_history(folder)))
