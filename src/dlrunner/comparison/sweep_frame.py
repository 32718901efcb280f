"""A sweep as a table in Python: one row per job."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dlrunner.comparison.collect import Row, flatten, frozen, read_row
from dlrunner.comparison.groups import as_requested, differing_settings
from dlrunner.comparison.jobs import jobs_of, moved
from dlrunner.comparison.validation import validation_sets
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.renamed import present_config


def load_sweep(path: str | Path) -> pd.DataFrame:
    """Return a sweep as a table, one row per job in their order; also of one that is unfinished or was moved.

        table = dlrunner.load_sweep("runs/sweeps/movielens,optim=sgd_adam-1a2b3c4d")
        table.groupby("optim")[table.attrs["metric"]].agg(["mean", "std"])

    | column | content |
    |---|---|
    | `job`, `status` | number; done, failed, interrupted, killed, running, not started … |
    | `optim`, `optim.lr`, `seed` … | the settings that differ, in their types; `auto` where it became several values |
    | `valid/rmse`, `train/loss` … | metrics of the last epoch, NaN for jobs that are not done |
    | `seconds`, `path` | of training; absolute path of the run folder, None if there is none |
    | `validation_set` | only values of the same set are comparable: the runs validated on the same rows |
    | `error` | why a job failed, None otherwise |

    `attrs` has `metric` (None if the runs have different ones), `higher_is_better` and the names of `settings`.

    Args:
        path: the folder of a sweep.

    Raises:
        ConfigError: it is not the folder of a sweep, or its results are damaged.
    """
    folder = user_path(path)
    if not (folder / "results.csv").exists() and not (folder / "jobs").is_dir():
        raise ConfigError(f"{path} is not a sweep folder: it has neither results.csv nor jobs/")
    jobs = jobs_of(folder)
    runs = {job: _row(moved(folder, run)) for job, (status, run, _) in jobs.items() if status == "done"}
    found = {job: row for job, row in runs.items() if row}
    rows = dict(zip(found, as_requested(list(found.values())), strict=True))
    requests = {job: _request(folder / "jobs" / job / "request.json") for job in jobs}
    settings = {job: rows[job].settings if job in rows else requests[job][1] for job in jobs}
    names = _differing(list(requests.values()), list(settings.values())) or differing_settings(list(rows.values()))
    numbers = _metrics_first(list(rows.values()))
    sets = dict(zip(rows, validation_sets(list(rows.values()), averaged=()), strict=True))
    columns: dict[str, Any] = {"job": [int(job) for job in jobs], "status": [status for status, *_ in jobs.values()]}
    for name in names:
        columns[name] = pd.Series([settings[job].get(name) for job in jobs], dtype=object).infer_objects()
    for name in [*numbers, "seconds"]:
        values = [rows[job].numbers.get(name) if job in rows else None for job in jobs]
        columns[name] = pd.Series(values, dtype="float64")
    paths = {job: moved(folder, run) for job, (_, run, _) in jobs.items()}
    columns["path"] = pd.Series([str(each.resolve()) if each else None for each in paths.values()], dtype=object)
    columns["validation_set"] = pd.Series([sets.get(job) for job in jobs], dtype="Int64") + 1
    columns["error"] = pd.Series([error or None for *_, error in jobs.values()], dtype=object)
    table = pd.DataFrame(columns)
    metrics = {(row.metric, row.higher_is_better) for row in rows.values()}
    metric, higher = metrics.pop() if len(metrics) == 1 else (None, None)
    table.attrs = {"metric": metric, "higher_is_better": higher, "settings": names}
    return table


def _row(path: Path | None) -> Row | None:
    """Read a run; None if it is missing or damaged: its job has no metrics then."""
    try:
        return read_row(path) if path else None
    except ConfigError:
        return None


def _request(file: Path) -> tuple[list[str], Mapping[str, Any]]:
    """Return the names of the typed settings of a job, and all settings; both empty if the request is unknown."""
    try:
        request = json.loads(file.read_text())
        words = [str(word).lstrip("+").partition("=")[0] for word in request["overrides"]]
        return words, flatten(present_config(request["config"]))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return [], {}


def _differing(
    requests: Sequence[tuple[list[str], Mapping[str, Any]]], settings: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return the names of the typed settings that differ between jobs, as they were typed."""
    names = dict.fromkeys(name for words, _ in requests for name in words)
    values: dict[str, set[Hashable]] = {name: {frozen(each.get(name)) for each in settings} for name in names}
    return [name for name, found in values.items() if len(found) > 1]


def _metrics_first(rows: Sequence[Row]) -> list[str]:
    """Return the names of all metrics, the main one first."""
    names = dict.fromkeys([row.metric for row in rows])
    return [name for name in names | dict.fromkeys(n for row in rows for n in row.numbers) if name != "seconds"]
