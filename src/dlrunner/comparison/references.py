"""Which runs are used by sweeps, claims and other runs, as recorded in their folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dlrunner.comparison.jobs import jobs_of
from dlrunner.errors import ConfigError
from dlrunner.runs.listing import ListedRun, runs_in

GROUPS = ("sweeps", "claims")
"""Folders of a folder of runs whose folders record jobs."""


def groups_in(runs_dir: Path) -> list[Path]:
    """Return the folders of sweeps and claims."""
    return [folder for group in GROUPS for folder in sorted((runs_dir / group).glob("*")) if (folder / "jobs").is_dir()]


def runs_of(group: Path) -> set[Path]:
    """Return the run folders that a sweep or claims have recorded, and those of its jobs that still run.

    Only folders next to it count, whatever paths are recorded: a copy of all runs is independent of the original.
    """
    runs_dir = group.resolve().parent.parent
    try:
        recorded = [runs_dir.joinpath(*Path(folder).parts[-2:]) for _, folder, _ in jobs_of(group).values() if folder]
    except (ConfigError, OSError):
        recorded = []
    return {path.resolve() for path in recorded if path.is_dir() and path.resolve().parent.parent == runs_dir}


def jobs_in(runs_dir: Path) -> dict[Path, Path]:
    """Return the sweep, or the claims, of each run that is a job of one."""
    return {run: group for group in groups_in(runs_dir) for run in runs_of(group)}


def users_of(runs_dir: Path) -> dict[Path, list[Path]]:
    """Return by run folder what uses it: sweeps and claims, and runs that start from its weights or read its files."""
    found: dict[Path, list[Path]] = {}
    for group in groups_in(runs_dir):
        for job in runs_of(group):
            found.setdefault(job, []).append(group)
    runs = runs_in(runs_dir)
    by_name = {run.path.name: run.path.resolve() for run in runs}
    for run in runs:
        for used in _named_in(run, by_name):
            if used != run.path.resolve():
                found.setdefault(used, []).append(run.path)
    return found


def _named_in(run: ListedRun, by_name: Mapping[str, Path]) -> set[Path]:
    """Return the runs whose folders a configuration names: `init`, `model.encoder`, or any other setting."""
    parts = {part for text in _texts(run.config) if "/" in text or text in by_name for part in Path(text).parts}
    return {by_name[part] for part in parts & by_name.keys()}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
