"""Run folders: who may write them, what is in them, and how they survive anything.

`runs/<task>/<overrides>-<signature>/` holds everything of one run. Files that matter are written to a temporary
file in the same folder, synced, renamed, and the folder synced: either the old or the new one is whole.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dlrunner.errors import BusyError, RequestError, RunError
from dlrunner.files.atomic import atomic_file, beside
from dlrunner.files.locks import FolderLock
from dlrunner.files.plain_data import read_json, read_yaml
from dlrunner.files.temporary import name_of, remove_abandoned
from dlrunner.runs.records import check_config, check_overrides, check_row, check_summary
from dlrunner.system.terminal import visible, visible_line

SIGNATURE = re.compile(r"-([0-9a-f]{8})(?:-(\d+))?$")


@dataclass
class RunDirectory:
    """The folder of one run.

    Args:
        path: the folder.
        identity: what a checkpoint must carry to be this run's: signature, code digest, data digest.
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
        """Find or make the folder for a run, and lock it.

        Returns the folder and why it is this one: "new", "finished" (nothing is left to do), "unfinished" (goes
        on from its checkpoint), "rerun", or "stale: …" (an older run rests on other data or code).

        Raises:
            BusyError: another process trains this run.
            RunError: the folder cannot be written.
            RequestError: a folder of this name holds another configuration.
        """
        parent = runs_dir / task
        with told_as_sentences(parent):
            parent.mkdir(parents=True, exist_ok=True)
            with _locked(parent / ".lock"):
                path, reason = _choose(parent, label, identity, rerun)
                path.mkdir(exist_ok=True)
                refuse_links(path, runs_dir)
                lock = FolderLock.take(path / ".lock")
        if lock is None:
            if reason == "finished":  # somebody else looks at it too
                return cls(path, identity), reason
            raise BusyError(f"another process is training this run: {path}")
        run = cls(path, identity, lock)
        with told_as_sentences(path):
            run._tidy()
            if not (path / "run.json").exists():
                run.write_text("run.json", json.dumps(identity, indent=2))
            if reason != "finished":
                (path / "summary.json").unlink(missing_ok=True)
        return run, reason

    def member(self, index: int) -> RunDirectory:
        """Return the sub-folder of one member of an ensemble; the lock of the whole covers it."""
        path = self.path / "members" / str(index)
        with told_as_sentences(path):
            path.mkdir(parents=True, exist_ok=True)
        return RunDirectory(path, {**self.identity, "member": str(index)}, self._lock)

    def release(self) -> None:
        """Let others write the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _tidy(self) -> None:
        """Remove the temporary files of processes that were killed: who holds the lock is the only writer."""
        for folder in (self.path, self.path / "plots", self.path / "trackers", *member_folders(self.path)):
            remove_abandoned(folder, 0, lambda name: name_of(name) not in (None, "report.html"))
            remove_abandoned(folder)  # `dlrun report` takes no lock of the folder

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Tell in a sentence why a file cannot be written, also where another process may have taken the folder."""
        with told_as_sentences(self.path):
            if self._lock is not None:
                self._lock.check()
            yield

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        self.write_bytes(name, text.encode(errors="backslashreplace"))  # of file names that are not UTF-8

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all.

        Raises:
            RunError: the disk is full or the folder cannot be written; what was there before is still whole.
        """
        with self._writing():
            write_atomically(self.path / name, content)

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint with the identity of this run, whole or not at all.

        Raises:
            RunError: the disk is full or the folder cannot be written; what was there before is still whole.
        """
        with self._writing(), atomic_file(self.path / name) as file:
            _save({"identity": self.identity, **state}, file)

    def load_checkpoint(self, name: str = "last.pt") -> dict[str, Any] | None:
        """Return a checkpoint of this run, or None when there is none.

        Raises:
            RunError: it is damaged, or belongs to another run.
        """
        path = self.path / name
        if not path.exists():
            return None
        try:
            checkpoint = load_weights_file(path)
        except RunError as error:
            raise RunError(f"{error}; remove it, or add rerun=true to start afresh beside it") from None
        if checkpoint.get("identity") != self.identity:
            raise RunError(
                f"{path} belongs to another run (or another version of the data or the code); "
                "remove it, or add rerun=true to start afresh beside it"
            )
        return checkpoint

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl, one line per epoch."""
        self.write_text("metrics.jsonl", as_lines(rows))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, the last file of a run."""
        self.write_text("summary.json", json.dumps(_finite(summary), indent=2) + "\n")

    def point_latest(self) -> None:
        """Make runs/latest point here."""
        latest = self.path.parent.parent / "latest"
        remove_abandoned(latest.parent, is_ours=lambda name: name_of(name) == latest.name)
        link = beside(latest)
        with contextlib.suppress(OSError):  # a file system without links, or a folder a person put there
            link.symlink_to(self.path.relative_to(latest.parent))
            link.replace(latest)
        link.unlink(missing_ok=True)


_RUN = re.compile(r"=['\"]?[^'\"]*/([^/,=]+)(?:[,=][^/]*)?-([0-9a-f]{8}(?:-\d+)?)['\"]?$")
"""A setting that names another run's folder: its first words and its signature tell enough."""


def label(overrides: Sequence[str], hidden: Sequence[str]) -> str:
    """Write what was asked for in a form that a folder may be named by.

    >>> label(["task=collab", "optim.lr=1e-3", "device=cpu"], ["task", "device"])
    'optim.lr=1e-3'
    >>> label([], [])
    'default'
    >>> label(["model.encoder='runs/imdb-lm/imdb-lm-small,seed=2-c6a0685d'", "seed=1"], [])
    'model.encoder=imdb-lm-small-c6a0685d,seed=1'
    """
    shown = sorted(
        _RUN.sub(r"=\1-\2", override.lstrip("+"))
        for override in overrides
        if override.lstrip("+").partition("=")[0].split(".")[0] not in hidden
    )
    text = re.sub(r"[^\w.=,+-]+", "_", ",".join(shown)).strip("_,.-")
    return text[:80].rstrip("_,.-=") or "default"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all (see `atomic_file`)."""
    with atomic_file(path) as file:
        file.write(content)


class _Writer:
    """A file that remembers why it could not be written: torch.save says "unexpected pos" of a full disk."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: BaseException | None = None

    def write(self, content: bytes | memoryview) -> int:
        with self._remembered():
            return self.file.write(content)

    def flush(self) -> None:
        with self._remembered():
            self.file.flush()

    @contextlib.contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # a stop signal's too
            self.error = error
            raise


def _save(state: Mapping[str, Any], file: BinaryIO) -> None:
    """Write with torch.save, straight into the file: in memory a checkpoint would be there twice."""
    writer = _Writer(file)
    try:
        torch.save(state, writer)  # type: ignore[arg-type]  # it needs no more
    except Exception:
        if writer.error is not None:
            raise writer.error from None
        raise


@contextlib.contextmanager
def logged(folder: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Write what dlrunner logs into a run's run.log, after what was typed."""
    log = logging.getLogger("dlrunner")
    with told_as_sentences(folder):
        handler = _RunLog(folder / "run.log", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    log.info("dlrun %s", " ".join(overrides))
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


class _OneLine(logging.Formatter):
    """A line for each message, whatever is in it: none can pass for another one, or steer a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        return visible_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return visible(super().formatException(ei))


class _RunLog(logging.FileHandler):
    """A log that a full disk cuts short; it says so once, and the run goes on."""

    _is_cut = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        self._cut(sys.exc_info()[1])

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self._cut(error)

    def _cut(self, error: BaseException | None) -> None:
        if not self._is_cut:
            self._is_cut = True
            why = getattr(error, "strerror", None) or error
            print(f"warning: {self.baseFilename} is cut short: {why}", file=sys.stderr)


@contextlib.contextmanager
def told_as_sentences(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a plain sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"the disk is full: {path} could not be written; what was saved before is whole") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunError(f"{error.filename or path} cannot be written: {error.strerror}") from None
        raise RunError(f"{error.filename or path}: {error.strerror or error}") from error


def load_weights_file(path: Path) -> dict[str, Any]:
    """Read a .pt file without executing anything in it.

    Raises:
        RunError: the file is truncated, damaged or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load itself does not compare the check sums
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} does not match its check sum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # pickle, zip and torch have a dozen ways to say it
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path} is damaged or not a checkpoint ({first[:120]})") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is not a checkpoint of dlrunner")
    return content


@dataclass(frozen=True)
class FinishedRun:
    """A run folder, read: nothing in it is executed."""

    path: Path
    """Absolute and without links: `runs/latest` is another run as soon as one begins."""
    config: dict[str, Any]
    overrides: list[str]
    history: list[dict[str, Any]]
    summary: dict[str, Any] | None

    @classmethod
    def read(cls, path: Path) -> FinishedRun:
        """Read a folder.

        Raises:
            RequestError: it is not a run folder, or its files are damaged.
        """
        given = path
        try:
            path = path.resolve()
            if not path.is_dir():
                raise RequestError(f"there is no run folder {given}")
            if not (path / "config.yaml").exists():
                raise RequestError(f"{given} is not a run folder: it has no config.yaml")
            config = read_file(path / "config.yaml", read_yaml, check_config)
            overrides = read_file(path / "overrides.yaml", read_yaml, check_overrides)
            history = read_history(path)
            summary_file = path / "summary.json"
            for name in ("config.yaml", "overrides.yaml", "metrics.jsonl", "summary.json"):
                own_file(path, name)
            summary = read_file(summary_file, read_json, check_summary) if summary_file.exists() else None
        except OSError as error:
            raise RequestError(f"{given} cannot be read: {error.strerror or error}") from None
        return cls(path, config, overrides, history, summary)

    @property
    def status(self) -> str:
        """done, failed, interrupted, or killed (a folder without summary.json)."""
        return str(self.summary["status"]) if self.summary else "killed or still running"


OWN_FOLDERS = ("plots", "trackers", "members", "jobs")
"""Folders of runs and sweeps, beside those of members and jobs; what a tracker's library keeps has links of its own."""


def refuse_links(folder: Path, within: Path) -> None:
    """Refuse to write into a folder from which links lead away: what is written there would be written elsewhere.

    Args:
        folder: what is to be written.
        within: where it must lie itself.

    Raises:
        RunError: there is such a link.
    """
    if not folder.resolve().is_relative_to(within.resolve()):
        raise RunError(f"{folder} is a link that leads out of {within}; nothing is written there: remove it")
    root = folder.resolve()
    for place, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise RunError(f"{path} is a link that leads out of its folder; nothing is written there: remove it")
        folders[:] = [name for name in folders if name in OWN_FOLDERS or name.isdigit()]


def own_file(folder: Path, name: str) -> Path:
    """Return a file of a folder that may have come from anybody.

    Raises:
        RequestError: it is a link that leads out of the folder: what it shows may be nobody else's business.
    """
    path = folder / name
    try:
        is_own = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links that lead in a circle
        is_own = False
    if not is_own:
        raise RequestError(f"{path} is a link that leads out of its folder; it is not read")
    return path


def member_folders(run: Path) -> list[Path]:
    """Return the folders of an ensemble's members, in their order.

    Raises:
        RequestError: one of them is a link that leads out of the run's folder.
    """
    names = [
        place.name
        for place in (run / "members").glob("*")
        if re.fullmatch(r"[0-9]{1,9}", place.name) and place.is_dir()
    ]
    return [own_file(run, f"members/{name}") for name in sorted(names, key=int)]


def shorter(path: Path) -> Path:
    """Return a path as it is seen from the working directory, where it lies beneath it."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def read_file(file: Path, read: Callable[[str], Any], check: Callable[[Any], None]) -> Any:
    """Read a file of a run folder, which may come from anyone.

    Args:
        file: of the folder.
        read: makes plain values of its text, or raises ValueError.
        check: raises ValueError where they are not what the file should hold.

    Raises:
        RequestError: the folder is damaged: what is wrong with which file.
        OSError: the file cannot be opened.
    """
    if file.exists() and not file.is_file():
        raise RequestError(f"{shorter(file.parent) / file.name} is damaged: it is no regular file")
    try:
        found = read(file.read_text(encoding="utf-8"))
        check(found)
    except ValueError as error:
        said = "it is not UTF-8" if isinstance(error, UnicodeError) else str(error).splitlines()[0]
        raise RequestError(f"{shorter(file.parent) / file.name} is damaged: {said}") from None
    return found


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl of a run or of a member; an absent file is an empty history.

    Raises:
        RequestError: it is damaged.
    """

    def rows(text: str) -> list[Any]:
        found = []
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                found.append(read_json(line))
                check_row(found[-1])
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
        return found

    file = own_file(path, "metrics.jsonl")
    found: list[dict[str, Any]] = read_file(file, rows, lambda _: None) if file.exists() else []
    return found


def as_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as metrics.jsonl holds them."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout that a folder lies in, and whether the folder differs from it, or None."""

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=5
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _choose(parent: Path, label: str, identity: Mapping[str, str], rerun: bool) -> tuple[Path, str]:
    """Choose among the folders of this signature: a fresh one that matches, or the next number beside them."""
    siblings = folders_by_signature(parent).get(identity["signature"], [])
    if not siblings:
        return parent / f"{label}-{identity['signature']}", "new"
    beside = siblings[0][1].with_name(
        f"{SIGNATURE.sub('', siblings[0][1].name)}-{identity['signature']}-{siblings[-1][0] + 1}"
    )
    if rerun:
        last = siblings[-1][1]
        with contextlib.suppress(RequestError):  # a damaged folder is none to go on with
            if len(siblings) > 1 and _recorded_identity(last) == identity and finished_summary(last) is None:
                return last, "unfinished"
        return beside, "rerun"
    changed: list[str] = []
    for _, path in reversed(siblings):
        recorded = _recorded_identity(path)
        if recorded is None:
            return path, "unfinished"
        if recorded.get("signature") != identity["signature"]:
            raise RequestError(f"{path} holds another configuration than its name says; move it away")
        changed = [what for what in ("data", "code") if recorded.get(what) != identity.get(what)]
        if not changed:
            return path, "finished" if finished_summary(path) else "unfinished"
    newest = _recorded_identity(siblings[-1][1]) or {}
    changed = [what for what in ("data", "code") if newest.get(what) != identity.get(what)]
    return beside, f"stale: the {' and the '.join(changed)} changed since {siblings[-1][1].name}"


def folders_by_signature(parent: Path) -> dict[str, list[tuple[int, Path]]]:
    """Return the run folders of a task by signature, with their numbers (1, and 2, 3 … for those beside), in order."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for entry in os.scandir(parent) if parent.is_dir() else ():
        match = SIGNATURE.search(entry.name)
        if match and entry.is_dir():
            found.setdefault(match[1], []).append((int(match[2] or 1), Path(entry.path)))
    for folders in found.values():
        folders.sort(key=lambda pair: pair[0])
    return found


def latest_of(folders: Sequence[tuple[int, Path]], identity: Mapping[str, str]) -> Path | None:
    """Return the newest of some folders that holds the run of this identity, finished or not.

    Args:
        folders: of one signature, as `folders_by_signature` returns them.
        identity: signature, digests of code and data.
    """
    return next((path for _, path in reversed(folders) if _recorded_identity(path) == identity), None)


def finished_summary(path: Path) -> dict[str, Any] | None:
    """Return the summary of a run that is done; None for any other, and where the file is damaged."""
    try:
        summary: dict[str, Any] = read_json(own_file(path, "summary.json").read_text())
        check_summary(summary)
        return summary if summary["status"] == "done" else None
    except (OSError, ValueError):
        return None


def _recorded_identity(path: Path) -> dict[str, str] | None:
    try:
        recorded = read_json((path / "run.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise RequestError(f"{path / 'run.json'} is damaged; move the folder {path} away") from None
    return recorded if isinstance(recorded, dict) else {}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FolderLock.take(path, wait=True)
    assert lock is not None
    try:
        yield
    finally:
        lock.release()


def _finite(value: Any) -> Any:
    """JSON has no NaN: write null instead."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
