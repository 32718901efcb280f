"""The verbs that free space: rm and prune. They show what they would remove, and ask."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dlrunner.cli.run_names import matching_runs, split_runs_dir
from dlrunner.comparison.references import GROUPS, runs_of, users_of
from dlrunner.data.core.cache import CACHE_KINDS, cache_dir
from dlrunner.errors import ConfigError
from dlrunner.files.atomic import readable_os_errors
from dlrunner.files.locks import is_locked
from dlrunner.reporting.terminal.runs import size_text
from dlrunner.runs.listing import ListedRun, runs_in, size_of
from dlrunner.runs.query import select
from dlrunner.runs.reader import shorter
from dlrunner.runs.removal import point_latest_at_newest, remove_files, remove_folder, spare_checkpoints
from dlrunner.system.terminal import print_wrapped

MOST_SHOWN = 20
"""Folders that are listed; the others are counted."""


def rm(arguments: argparse.Namespace) -> int:
    """Remove runs, and sweeps with their runs, unless others use them."""
    named = matching_runs(arguments.runs)
    groups = [path for path in named if (path / "jobs").is_dir() and path.parent.name in GROUPS]
    own = [path for path in named if path not in groups]
    for path in own:
        if not (path / "run.json").is_file():
            raise ConfigError(
                f"{shorter(path)} is not the folder of a run or of a sweep"
                if path.exists()
                else f"there is no run folder {shorter(path)}; `dlrun ls` lists the runs"
            )
    of_groups = {run for group in groups for run in runs_of(group)} - set(own)
    runs_dirs = {path.parent.parent for path in named}
    users = {run: found for runs_dir in runs_dirs for run, found in users_of(runs_dir).items()}
    removed, kept = _without_used([*own, *of_groups], groups, users)
    if blocked := [path for path in own if path in kept]:
        raise ConfigError("\n".join(_why_kept(path, kept[path]) for path in blocked[:MOST_SHOWN]))
    _refuse_running([*groups, *removed])
    statuses = {path: ListedRun(path).status for path in removed}
    for path in kept:
        print(f"kept: {_why_kept(path, kept[path])}")
    if not _confirmed([*groups, *removed], arguments.yes):
        return 1
    _remove(removed + groups, statuses)
    return 0


def prune(arguments: argparse.Namespace) -> int:
    """Remove failed runs, checkpoints that are no longer needed, or preprocessed data."""
    if arguments.cache and (arguments.checkpoints or arguments.unfinished or arguments.conditions):
        raise ConfigError("prune: --cache goes alone")
    if arguments.cache:
        return _prune_cache(arguments.yes)
    runs_dir, conditions = split_runs_dir(arguments.conditions)
    runs = select(runs_in(runs_dir), conditions)
    if arguments.checkpoints:
        return _prune_checkpoints([run for run in runs if run.status == "done"], arguments.yes)
    statuses = ("failed", "interrupted", "killed") if arguments.unfinished else ("failed",)
    wanted = {run.path.resolve(): run.status for run in runs if run.status in statuses}
    removed, kept = _without_used([*wanted], [], users_of(runs_dir))
    for path in kept:
        print(f"kept: {_why_kept(path, kept[path])}")
    if not removed:
        print(f"nothing to remove: no {' or '.join(statuses)} runs in {runs_dir}/")
        return 0
    if not _confirmed(removed, arguments.yes):
        return 1
    _remove(removed, wanted)
    return 0


def _prune_checkpoints(runs: Sequence[ListedRun], is_confirmed: bool) -> int:
    spare = {run.path: files for run in runs if (files := spare_checkpoints(run.path))}
    if not spare:
        print("nothing to remove: finished runs have only the checkpoints that predict needs")
        return 0
    sizes = {path: sum(file.stat().st_size for file in files) for path, files in spare.items()}
    print_wrapped("these runs keep the checkpoint that predict needs; more epochs then start from the beginning")
    if not _confirmed(list(spare), is_confirmed, sizes.__getitem__, "checkpoints of"):
        return 1
    for path, files in spare.items():
        remove_files(path, files)
    print(f"removed {sum(map(len, spare.values()))} checkpoints, {size_text(sum(sizes.values()))}")
    return 0


def _prune_cache(is_confirmed: bool) -> int:
    folders = [cache_dir() / name for name in CACHE_KINDS if (cache_dir() / name).is_dir()]
    if not folders:
        print(f"nothing to remove in {cache_dir()}")
        return 0
    if not _confirmed(folders, is_confirmed):
        return 1
    freed = sum(map(size_of, folders))
    for folder in folders:
        with readable_os_errors(folder):
            shutil.rmtree(folder)
    print(f"removed {size_text(freed)}")
    return 0


def _without_used(
    runs: Sequence[Path], groups: Sequence[Path], users: Mapping[Path, Sequence[Path]]
) -> tuple[list[Path], dict[Path, list[Path]]]:
    """Return the runs that can be removed, and what uses each of the others.

    A sweep uses a run that is not failed; a run uses another one if it starts from it, failed or not.
    """
    leaving, kept = {*runs}, dict[Path, list[Path]]()
    is_failed = {run: ListedRun(run).status == "failed" for run in runs}
    while True:
        found = {
            run: [
                user
                for user in users.get(run, ())
                if user.resolve() not in leaving
                and user not in groups
                and not (is_failed[run] and user.parent.name in GROUPS)
            ]
            for run in leaving
        }
        if not (blocked := {run: found[run] for run in leaving if found[run]}):
            return sorted(leaving), kept
        kept |= blocked
        leaving -= blocked.keys()


def _why_kept(path: Path, users: Sequence[Path]) -> str:
    more = f" and {len(users) - 1} more" if len(users) > 1 else ""
    return f"{shorter(path)} is used by {shorter(users[0])}{more}"


def _refuse_running(folders: Sequence[Path]) -> None:
    """Refuse to remove a run or a sweep in progress.

    Raises:
        ConfigError: there is one.
    """
    if running := [folder for folder in folders if is_locked(folder / ".lock")]:
        raise ConfigError(f"{shorter(running[0])} is in progress; stop it first")


def _remove(folders: Sequence[Path], statuses: Mapping[Path, str]) -> None:
    """Remove folders, but of the runs that were started again since the question none."""
    sizes = []
    for folder in folders:
        size = size_of(folder)
        if remove_folder(folder, statuses.get(folder)):
            sizes.append(size)
        else:
            print(f"kept: {shorter(folder)} was {statuses[folder]} and is {ListedRun(folder).status} now")
    for runs_dir in {folder.parent.parent for folder in folders}:
        point_latest_at_newest(runs_dir)
    print(f"removed {len(sizes)} folder{'s' if len(sizes) != 1 else ''}, {size_text(sum(sizes))}")


def _confirmed(
    paths: Sequence[Path], is_confirmed: bool, size: Callable[[Path], int] = size_of, what: str = ""
) -> bool:
    """Show what is to be removed, and ask.

    Raises:
        ConfigError: there is no terminal to ask at.
    """
    sizes = {path: size(path) for path in paths}
    for path in sorted(paths, key=lambda path: -sizes[path])[:MOST_SHOWN]:
        print(f"{size_text(sizes[path]):>8}  {f'{what} ' if what else ''}{shorter(path)}")
    if len(paths) > MOST_SHOWN:
        print(f"{'':8}  … and {len(paths) - MOST_SHOWN} more")
    print(f"{size_text(sum(sizes.values())):>8}  in all", flush=True)
    if is_confirmed:
        return True
    if not sys.stdin.isatty():
        raise ConfigError("nothing was removed: without a terminal to ask at, confirm with --yes")
    with contextlib.suppress(EOFError):
        if input("remove them? [y/N] ").strip().lower() in ("y", "yes"):
            return True
    print("nothing was removed")
    return False
