"""All runs of a folder of runs, read from their summaries: fast, and without executing anything in them."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from dlrunner.errors import ConfigError
from dlrunner.files.locks import is_locked
from dlrunner.runs.directory import SIGNATURE
from dlrunner.runs.reader import own_file, read_config, read_summary
from dlrunner.runs.tags import Tags, read_tags

NOT_RUNS = ("sweeps", "claims", "lr-find")
"""Folders of a folder of runs that hold no runs."""

RUN_FILES = ("run.json", "config.yaml")
"""Each run has one of them from the start."""


class ListedRun:
    """A run folder; what is not needed is not read.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.task = path, path.parent.name

    @property
    def id(self) -> str:
        """The end of the folder's name: the signature, with -2, -3 … for a repeated run; else the whole name."""
        match = SIGNATURE.search(self.path.name)
        return match[0][1:] if match else self.path.name

    @property
    def label(self) -> str:
        """The readable part of the folder's name."""
        return SIGNATURE.sub("", self.path.name)

    @functools.cached_property
    def summary(self) -> Mapping[str, Any]:
        """The content of summary.json; empty if there is none, or if it is damaged."""
        try:
            return read_summary(own_file(self.path, "summary.json"))
        except (OSError, ConfigError):
            return {}

    @functools.cached_property
    def config(self) -> Mapping[str, Any]:
        """The configuration; empty if there is none, or if it is damaged."""
        try:
            return read_config(self.path)
        except (OSError, ConfigError):
            return {}

    @functools.cached_property
    def tags(self) -> Tags:
        """Name, tags and note."""
        return read_tags(self.path)

    @functools.cached_property
    def status(self) -> str:
        """done, failed, interrupted, running, or killed (neither running nor with a summary)."""
        recorded = self.summary.get("status")  # a run that is started again removes its summary
        return str(recorded) if recorded else "running" if is_locked(self.path / ".lock") else "killed"

    @property
    def metric(self) -> tuple[str, float | None]:
        """The name of the metric and its value; None if there is none."""
        metric = self.summary.get("metric") or {}
        return str(metric.get("name", "")), metric.get("value")

    @functools.cached_property
    def time(self) -> float:
        """When it was finished or last written, in seconds since 1970."""
        with contextlib.suppress(KeyError, ValueError, TypeError, OverflowError):
            return datetime.fromisoformat(self.summary["finished"]).timestamp()
        return self._last_written()

    def _last_written(self) -> float:
        times = [0.0]
        for name in ("summary.json", "metrics.jsonl", "run.json", "config.yaml"):
            with contextlib.suppress(OSError):
                times.append((self.path / name).stat().st_mtime)
        return max(times)

    @property
    def age(self) -> float:
        """Seconds since then."""
        return max(0.0, time.time() - self.time)

    @functools.cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return size_of(self.path)


def runs_in(runs_dir: Path) -> list[ListedRun]:
    """Return all runs of a folder of runs, in no particular order."""
    return [
        ListedRun(path)
        for task in _folders(runs_dir)
        if task.name not in NOT_RUNS
        for path in _folders(task)
        if _is_run(path)
    ]


def newest_first(runs: list[ListedRun]) -> list[ListedRun]:
    """Return runs in order of their time; of the same second, the one that was written last is first."""
    return sorted(runs, key=lambda run: (run.time, run._last_written()), reverse=True)


def size_of(path: Path) -> int:
    """Return the bytes of all files in a folder, or of a file; links are not followed."""
    return sum(size for _, size in files_of(path))


def files_of(path: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files of a folder with their bytes; links are not followed."""
    try:
        entries = list(os.scandir(path))
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                yield from files_of(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path), entry.stat(follow_symlinks=False).st_size


def _folders(parent: Path) -> list[Path]:
    try:
        entries = list(os.scandir(parent))
    except OSError:
        return []
    return [
        Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
    ]


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in RUN_FILES)
