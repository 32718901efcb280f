"""The jobs of a sweep or of claims, as their folder has recorded them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from dlrunner.errors import ConfigError
from dlrunner.runs.listing import ListedRun

Number = TypeVar("Number", int, str)

STARTED = "started"
"""Status of a job's record from the claim of its run folder to its end; the folder then has the status of the run."""

DUPLICATE = "duplicate"
"""Status of the record of a job that is the same run as another one."""


def jobs_of(sweep: Path) -> dict[str, tuple[str, str, str]]:
    """Return status, run folder and error of the jobs of a sweep by number, each run once; empty if there is none.

    A sweep deletes results.csv when it starts again, and writes it last: until then the records of the jobs count.

    Raises:
        ConfigError: results.csv is damaged.
    """
    found = _written(sweep) if (sweep / "results.csv").exists() else _recorded(sweep)
    repeated = repeated_runs({job: (status, folder) for job, (status, folder, _) in found.items()})
    return {job: each for job, each in found.items() if job not in repeated}


def repeated_runs(outcomes: Mapping[Number, tuple[str, str]]) -> dict[Number, Number]:
    """Return the jobs whose run folder is that of another job, each with that job: the first one that is done, if any.

    Two requests may turn out to be one run only when their `auto` settings are decided.

    Args:
        outcomes: status and run folder of each job.
    """
    kept: dict[str, Number] = {}
    for job, (_, folder) in sorted(outcomes.items(), key=lambda each: each[1][0] != "done"):
        kept.setdefault(folder, job)
    return {job: kept[folder] for job, (_, folder) in outcomes.items() if folder and kept[folder] != job}


def moved(origin: Path, folder: str) -> Path | None:
    """Find a run folder that a sweep or claims have recorded, also if all of runs/ was moved or copied.

    Args:
        origin: the folder of the sweep or the claims.
        folder: as recorded; empty if there was none.
    """
    if not folder:
        return None
    written = Path(folder)
    relocated = origin.resolve().parent.parent.joinpath(*written.parts[-2:])
    candidates = [written, relocated] if written.is_absolute() else [relocated, written]
    return next((path for path in candidates if path.is_dir()), None)


def _written(sweep: Path) -> dict[str, tuple[str, str, str]]:
    results = sweep / "results.csv"
    if not results.is_file():
        raise ConfigError(f"{results} is not a regular file; run the sweep again, or name its runs")
    try:
        with results.open(newline="") as file:
            return {
                row["job"]: (row["status"], row["folder"] or "", row["error"] or "") for row in csv.DictReader(file)
            }
    except (OSError, ValueError, RecursionError, KeyError, csv.Error):
        raise ConfigError(f"{results} is damaged; run the sweep again, or name its runs") from None


def _recorded(sweep: Path) -> dict[str, tuple[str, str, str]]:
    found = {}
    for path in sorted((sweep / "jobs").iterdir(), key=lambda each: (len(each.name), each.name)):
        try:
            record = json.loads((path / "record.json").read_text())
            status, folder, error = (str(record.get(name) or "") for name in ("status", "folder", "error"))
        except (OSError, ValueError, RecursionError, AttributeError):
            status, folder, error = "not started, or still running", "", ""
        if status == STARTED:
            run = moved(sweep, folder)
            status = ListedRun(run).status if run else "killed"
        if status != DUPLICATE:
            found[path.name] = (status, folder, error)
    return found
