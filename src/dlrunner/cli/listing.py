"""The verbs that list runs and their sizes: ls and du."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrunner.cli.run_names import SORTABLE, split_runs_dir
from dlrunner.comparison.references import jobs_in
from dlrunner.data.core.cache import cache_dir
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.reporting.terminal.runs import (
    age_text,
    fitted,
    line_width,
    metric_text,
    print_columns,
    size_text,
)
from dlrunner.runs.listing import NOT_RUNS, ListedRun, files_of, newest_first, runs_in, size_of
from dlrunner.runs.query import MISSING, select, value_of
from dlrunner.runs.reader import shorter

KINDS = ("checkpoints", "reports", "predictions", "other")
"""Kinds of files whose sizes du counts."""


def ls(arguments: argparse.Namespace) -> int:
    """List runs: id, age, task, status, metric, size, settings."""
    if arguments.top < 1:
        raise ConfigError(f"--top: must be 1 or more, not {arguments.top}")
    runs_dir, conditions = split_runs_dir(arguments.conditions)
    runs = select(runs_in(runs_dir), conditions)
    jobs = jobs_in(runs_dir)
    is_job = {run.path: run.path.resolve() in jobs for run in runs}
    listed = _sorted([run for run in runs if arguments.jobs or not is_job[run.path]], arguments.sort)
    if arguments.json:
        print(json.dumps([_record(run, jobs.get(run.path.resolve())) for run in listed], indent=2))
        return 0
    shown = listed[: arguments.top]
    if shown:
        _print_rows(shown, is_job, {word.partition("=")[0] for word in conditions}, arguments.sort.lstrip("-"))
    if num_more := len(listed) - len(shown):
        print(f"… {num_more:,} more; --top {len(listed)} lists all")
    if (num_jobs := sum(is_job.values())) and not arguments.jobs:
        what = "job of a sweep; --jobs lists it" if num_jobs == 1 else "jobs of sweeps; --jobs lists them"
        print(f"… and {num_jobs:,} {what} too")
    if any(is_job[run.path] for run in shown):
        print("* job of a sweep")
    if not runs:
        print(" ".join([f"no runs in {runs_dir}/", *(["that fit", *conditions] if conditions else [])]))
    return 0


def du(arguments: argparse.Namespace) -> int:
    """Print sizes by task and kind of file, and those of the cache."""
    runs_dir = user_path(arguments.runs)
    counts = Counter(run.task for run in runs_in(runs_dir))
    others = {name: sum(1 for path in (runs_dir / name).glob("*") if path.is_dir()) for name in NOT_RUNS}
    rows, total = [], Counter[str]()
    for name, count in [*sorted(counts.items()), *((name, count) for name, count in others.items() if count)]:
        sizes = Counter[str]()
        for file, size in files_of(runs_dir / name):
            sizes[_kind(file)] += size
        total += sizes
        rows.append([f"{runs_dir}/{name}", str(count), *_size_cells(sizes)])
    rows.append(["all", str(counts.total()), *_size_cells(total)])
    print_columns(("folder", "runs", *KINDS, "total"), rows, right={"runs", *KINDS, "total"})
    cache = {path.name: size_of(path) for path in sorted(cache_dir().glob("*")) if path.is_dir()}
    print(f"\ncache  {size_text(sum(cache.values()))}  {cache_dir()}")
    for name, size in sorted(cache.items(), key=lambda pair: -pair[1]):
        print(f"  {name:<16}{size_text(size):>8}")
    print("\nto free space: dlrun prune, dlrun prune --checkpoints, dlrun prune --cache")
    return 0


def _sorted(runs: list[ListedRun], column: str) -> list[ListedRun]:
    """Sort runs by a column; the best metric, and the newest, largest or longest run come first.

    Raises:
        ConfigError: no run has it.
    """
    is_reversed, name = column.startswith("-"), column.lstrip("-")
    runs = newest_first(runs)
    if name != "time":
        found = {run: value_of(run, name) for run in runs}
        if runs and all(value is MISSING for value in found.values()):
            raise ConfigError(f"--sort: no run has {name}; {did_you_mean(name, SORTABLE)}")
        known = [run for run in runs if found[run] is not MISSING]
        if name == "metric":
            without = [run for run in runs if found[run] is MISSING]
            ranked = _by_metric(known, is_reversed)
            return without + ranked if is_reversed else ranked + without
        descending = name in ("size", "seconds")
        is_numeric = all(isinstance(found[run], int | float) for run in known)
        key: Callable[[ListedRun], Any] = lambda run: found[run] if is_numeric else str(found[run])  # noqa: E731
        runs = sorted(known, key=key, reverse=descending) + [run for run in runs if found[run] is MISSING]
    return runs[::-1] if is_reversed else runs


def _by_metric(runs: Sequence[ListedRun], is_reversed: bool) -> list[ListedRun]:
    """Sort runs by their metric, the best first: each metric by itself, since different ones are not comparable."""
    names = list(dict.fromkeys(run.metric[0] for run in runs))

    def rank(run: ListedRun) -> tuple[int, float]:
        name, value = run.metric
        is_descending = bool((run.summary.get("metric") or {}).get("higher_is_better")) != is_reversed
        return names.index(name), (-1 if is_descending else 1) * float(value or 0.0)

    return sorted(runs, key=rank)


def _cells(run: ListedRun, is_job: bool) -> dict[str, str]:
    tags = "".join(f"[{tag}] " for tag in run.tags.tags)
    return {
        "run": run.id,
        "age": age_text(run.age),
        "task": run.task,
        "status": run.status,
        "metric": metric_text(run),
        "size": size_text(run.size),
        "settings": f"{'* ' if is_job else ''}{f'{run.tags.name}: ' if run.tags.name else ''}{tags}{run.label}",
    }


def _print_rows(runs: Sequence[ListedRun], is_job: Mapping[Path, bool], asked: set[str], sort: str) -> None:
    """Print a table, without the task or the status that was asked for and that all of them have.

    On a terminal that is too narrow, the settings that distinguish a run come before its size, before a status or a
    task that all runs share, and before the settings that are the same in all runs of the task.
    """
    rows = [_cells(run, is_job[run.path]) for run in runs]
    same = {name for name in ("task", "status") if len({row[name] for row in rows}) == 1}
    names = [name for name in rows[0] if name not in same & asked]
    width = line_width()
    dispensable = ["size", *(["status"] if rows[0]["status"] == "done" else []), "task"]
    for name in dispensable:
        longest = sum(max(len(name), *(len(row[name]) for row in rows)) + 2 for name in names) - 2
        if longest > width and name in names and name != sort and (name == "size" or name in same):
            names.remove(name)
    shared = _shared_settings(runs)
    room = width - sum(max(len(name), *(len(row[name]) for row in rows)) + 2 for name in names[:-1])
    for run, row in zip(runs, rows, strict=True):
        before = row["settings"].removesuffix(run.label)
        row["settings"] = before + fitted(run.label.split(","), shared[run.task], room - len(before))
    print_columns(names, [[row[name] for name in names] for row in rows], right={"age", "size"})


def _shared_settings(runs: Sequence[ListedRun]) -> Mapping[str, Collection[str]]:
    """Return by task the settings in the labels that distinguish none of its runs."""
    labels: dict[str, list[set[str]]] = {}
    for run in runs:
        labels.setdefault(run.task, []).append(set(run.label.split(",")))
    alone = {
        task: {each for each in all_of[0] if each.startswith(("data.source=", "data.path="))}
        for task, all_of in labels.items()
    }
    return {task: set.intersection(*all_of) if len(all_of) > 1 else alone[task] for task, all_of in labels.items()}


def _record(run: ListedRun, group: Path | None) -> Mapping[str, Any]:
    name, value = run.metric
    return {
        "run": str(run.path),
        "task": run.task,
        "status": run.status,
        "metric": name or None,
        "value": value,
        "time": run.time,
        "seconds": run.summary.get("seconds"),
        "bytes": run.size,
        "name": run.tags.name or None,
        "tags": list(run.tags.tags),
        "note": run.tags.note or None,
        "error": run.summary.get("error"),
        "sweep": str(shorter(group)) if group else None,
    }


def _size_cells(sizes: Mapping[str, int]) -> list[str]:
    return [size_text(size) for size in (*(sizes[kind] for kind in KINDS), sum(sizes.values()))]


def _kind(file: Path) -> str:
    if file.suffix in (".pt", ".safetensors", ".onnx"):
        return "checkpoints"
    if "plots" in file.parts or file.suffix in (".html", ".png"):
        return "reports"
    return "predictions" if file.suffix == ".csv" else "other"
