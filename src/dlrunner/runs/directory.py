"""Run folders: locking, choosing the folder of a configuration, and crash-safe writes.

`runs/<task>/<overrides>-<signature>/` holds everything of one run. Files are written to a temporary file in the
same folder, synced and renamed, and the folder is synced: a crash leaves either the old file or the new one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrunner.errors import BusyError, ConfigError, RunError
from dlrunner.files.atomic import atomic_file, readable_os_errors, write_atomic
from dlrunner.files.locks import FolderLock
from dlrunner.files.plain_data import read_json
from dlrunner.files.temporary import name_of, remove_abandoned, temporary_path
from dlrunner.runs.reader import finished_summary, member_folders

if TYPE_CHECKING:
    import pandas as pd

SIGNATURE = re.compile(r"-([0-9a-f]{8})(?:-(\d{1,7}))?$")
"""The end of a run folder's name: signature, and number from 2 on, which is shorter than any signature."""


@dataclass
class RunDirectory:
    """The folder of one run.

    Args:
        path: the folder.
        identity: signature, code digest and data digest; a checkpoint of this run has the same ones.
    """

    path: Path
    identity: dict[str, str] = field(default_factory=dict)
    _lock: FolderLock | None = field(default=None, repr=False)

    @classmethod
    def claim(
        cls,
        runs_dir: Path,
        task: str,
        label: str,
        identity: dict[str, str],
        rerun: bool = False,
    ) -> tuple[RunDirectory, str]:
        """Find or create the folder of a run, and lock it.

        Returns the folder and the reason for its choice: "new", "finished" (nothing left to do), "unfinished" (to be
        resumed from its checkpoint), "rerun", or "stale: …" (an older run used other data or code).

        Raises:
            BusyError: another process is training this run.
            RunError: the folder cannot be written.
            ConfigError: a folder of this name holds another configuration.
        """
        from filelock import FileLock  # only who writes a run needs it

        parent = runs_dir / task
        if parent.is_dir() and not os.access(parent, os.W_OK):
            path, reason = _choose(parent, label, identity, rerun)
            if reason == "finished":  # nothing is written
                return cls(path, identity), reason
        with readable_os_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
            # Without a fall-back: a lock that is a file's existence would outlive a process that is killed.
            with FileLock(parent / ".lock", fallback_to_soft=False):
                path, reason = _choose(parent, label, identity, rerun)
                path.mkdir(exist_ok=True)
                refuse_links(path, runs_dir)
                lock = FolderLock.take(path / ".lock")
        if lock is None:
            if reason == "finished":  # another process holds the lock, but nothing is written
                return cls(path, identity), reason
            raise BusyError(f"another process is training this run: {path}")
        run = cls(path, identity, lock)
        try:
            with readable_os_errors(path):
                run._tidy()
                if not (path / "run.json").exists():
                    run.write_text("run.json", json.dumps(identity, indent=2))
                if reason != "finished":
                    (path / "summary.json").unlink(missing_ok=True)
        except BaseException:  # such as a full disk: the same call in this process must find the folder free
            run.release()
            raise
        return run, reason

    def member(self, index: int) -> RunDirectory:
        """Return the sub-folder of one ensemble member; the lock of the run covers it."""
        path = self.path / "members" / str(index)
        with readable_os_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return RunDirectory(path, {**self.identity, "member": str(index)}, self._lock)

    def release(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _tidy(self) -> None:
        """Remove temporary files of killed processes; the lock guarantees that no other process writes here."""
        for folder in (self.path, self.path / "plots", self.path / "trackers", *member_folders(self.path)):
            remove_abandoned(folder, 0, lambda name: name_of(name) not in (None, "report.html"))
            remove_abandoned(folder)  # with the grace period: `dlrun report` writes without the lock

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn write errors into readable ones, and check that this process still holds the lock."""
        with readable_os_errors(self.path):
            if self._lock is not None:
                self._lock.check()
            yield

    def write_text(self, name: str, text: str) -> None:
        """Write a file atomically."""
        self.write_bytes(name, text.encode(errors="backslashreplace"))  # it may hold file names that are not UTF-8

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file atomically.

        Raises:
            RunError: the disk is full or the folder cannot be written; the previous file is intact.
        """
        with self._writing():
            write_atomic(self.path / name, content)

    def write_csv(self, name: str, table: pd.DataFrame) -> None:
        """Write a table atomically, in pieces; see `write_bytes` and `as_csv`."""
        from dlrunner.files.spreadsheet import csv_pieces  # importing pandas takes half a second

        with self._writing(), atomic_file(self.path / name) as file:
            file.writelines(csv_pieces(table))

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint with the identity of this run, atomically.

        Raises:
            RunError: the disk is full or the folder cannot be written; the previous file is intact.
        """
        with self._writing(), atomic_file(self.path / name) as file:
            from dlrunner.runs.checkpoints import save_weights  # importing torch takes a second

            save_weights({"identity": self.identity, **state}, file)

    def load_checkpoint(self, name: str = "last.pt") -> dict[str, Any] | None:
        """Return a checkpoint of this run, or None if there is none.

        Raises:
            RunError: it is damaged, or belongs to another run.
        """
        path = self.path / name
        if not path.exists():
            return None
        from dlrunner.runs.checkpoints import load_weights_file

        # A run without its last checkpoint begins again, but without its best one it has no result.
        advice = f"{'remove it, or ' if name == 'last.pt' else ''}add rerun=true to train again in a new folder"
        try:
            checkpoint = load_weights_file(path)
        except RunError as error:
            raise RunError(f"{error}; {advice}") from None
        if checkpoint.get("identity") != self.identity:
            raise RunError(f"{path} belongs to another run (or another version of the data or the code); {advice}")
        return checkpoint

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl, one line per epoch."""
        self.write_text("metrics.jsonl", as_lines(rows))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, the last file of a run; `latest` points to a run that is done."""
        self.write_text("summary.json", json.dumps(_finite(summary), indent=2) + "\n")
        if summary.get("status") == "done":
            self.point_latest()

    def remove(self) -> None:
        """Remove the folder of a run whose settings were refused before it trained; the lock is held to the end."""
        shutil.rmtree(self.path, ignore_errors=True)

    def point_latest(self) -> None:
        """Make runs/latest point here."""
        latest = self.path.parent.parent / "latest"
        remove_abandoned(latest.parent, is_ours=lambda name: name_of(name) == latest.name)
        link = temporary_path(latest)
        with contextlib.suppress(OSError):  # a file system without links, or a folder that the user put there
            link.symlink_to(self.path.relative_to(latest.parent))
            link.replace(latest)
        with contextlib.suppress(OSError):  # nor a read-only one
            link.unlink()


OWN_FOLDERS = ("plots", "trackers", "members", "jobs")
"""Folders that dlrunner writes, in addition to numbered ones; folders of tracker libraries may contain links."""


def refuse_links(folder: Path, within: Path) -> None:
    """Refuse to write into a folder with symbolic links that point outside.

    Args:
        folder: the folder to be written.
        within: its parent must be inside this folder.

    Raises:
        RunError: there is such a link.
    """
    if not folder.resolve().is_relative_to(within.resolve()):
        raise RunError(f"{folder} is a link that points outside {within}; remove it: dlrunner does not write there")
    root = folder.resolve()
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise RunError(
                    f"{path} is a link that points outside its folder; remove it: dlrunner does not write there"
                )
        folders[:] = [name for name in folders if name in OWN_FOLDERS or name.isdigit()]


def as_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def _choose(parent: Path, label: str, identity: Mapping[str, str], rerun: bool) -> tuple[Path, str]:
    """Choose the newest folder of this signature that matches, or a new one with the next number."""
    siblings = folders_by_signature(parent).get(identity["signature"], [])
    if not siblings:
        return parent / f"{label}-{identity['signature']}", "new"
    next_folder = parent / f"{label}-{identity['signature']}-{siblings[-1][0] + 1}"
    if rerun:
        last = siblings[-1][1]
        with contextlib.suppress(ConfigError):  # a damaged folder cannot be resumed
            if len(siblings) > 1 and recorded_identity(last) == identity and finished_summary(last) is None:
                return last, "unfinished"
        return next_folder, "rerun"
    changed: list[str] = []
    for _, path in reversed(siblings):
        recorded = recorded_identity(path)
        if recorded is None:
            return path, "unfinished"
        if recorded.get("signature") != identity["signature"]:
            raise ConfigError(f"{path} holds another configuration than its name states; move it away")
        changed = [what for what in ("data", "code") if recorded.get(what) != identity.get(what)]
        if not changed:
            return path, "finished" if finished_summary(path) else "unfinished"
    newest = recorded_identity(siblings[-1][1]) or {}
    changed = [what for what in ("data", "code") if newest.get(what) != identity.get(what)]
    return next_folder, f"stale: the {' and the '.join(changed)} changed since {siblings[-1][1].name}"


def folders_by_signature(parent: Path) -> dict[str, list[tuple[int, Path]]]:
    """Return the run folders of a task by signature, in order of their numbers (1, and 2, 3 … for repeated runs)."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for entry in os.scandir(parent) if parent.is_dir() else ():
        match = SIGNATURE.search(entry.name)
        if match and entry.is_dir():
            found.setdefault(match[1], []).append((int(match[2] or 1), Path(entry.path)))
    for folders in found.values():
        folders.sort(key=lambda pair: pair[0])
    return found


def latest_of(folders: Sequence[tuple[int, Path]], identity: Mapping[str, str]) -> Path | None:
    """Return the newest folder with this identity, finished or not.

    Args:
        folders: of one signature, as `folders_by_signature` returns them.
        identity: signature, digests of code and data.
    """
    for _, path in reversed(folders):
        recorded = recorded_identity(path)
        if recorded is not None and all(recorded.get(name) == value for name, value in identity.items()):
            return path
    return None


def recorded_identity(path: Path) -> dict[str, str] | None:
    """Return the identity of the run in a folder; None: it has none.

    Raises:
        ConfigError: its file is damaged.
    """
    try:
        recorded = read_json((path / "run.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise ConfigError(f"{path / 'run.json'} is damaged; move the folder {path} away") from None
    return recorded if isinstance(recorded, dict) else {}


def _finite(value: Any) -> Any:
    """JSON has no NaN: write null instead."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
