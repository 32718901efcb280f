"""A sweep's folder: the request and the outcome of each job, and the status of jobs before a sweep starts.

`runs/sweeps/<task>,<overrides>-<8 hex digits>/` holds `jobs/N/request.json` (written before the first job starts),
`record.json` and `output.txt` of each job, and `results.csv`.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from dlrunner.errors import BusyError, ConfigError, DataError
from dlrunner.files.atomic import atomic_file, readable_os_errors
from dlrunner.files.locks import FolderLock
from dlrunner.files.paths import user_path
from dlrunner.files.temporary import name_of, remove_abandoned
from dlrunner.renamed import present_config
from dlrunner.runs.directory import folders_by_signature, latest_of, refuse_links
from dlrunner.runs.fingerprint import code_digest
from dlrunner.runs.reader import finished_summary, shorter
from dlrunner.tracking.relay import is_incomplete

if TYPE_CHECKING:
    import pandas as pd

KEPT = ("status", "metric", "final", "best", "seconds", "claim")
"""Entries of a run's summary that are copied into the job's record."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep, frozen before the first job starts."""

    number: int
    overrides: list[str]
    config: dict[str, Any]
    signature: str = ""
    """Of the run; empty if it is not known before the job starts."""
    changed: dict[str, str] | None = None
    """The task's default for each setting that differs from it; marked in the report."""
    swept: list[str] = field(default_factory=list)
    """Names of the settings that differ between the jobs; the run's folder is named after them."""

    @property
    def settings(self) -> dict[str, str]:
        """The overrides of this job, by name."""
        return dict(word.lstrip("+").split("=", 1) for word in self.overrides if "=" in word)

    def label(self, swept: Sequence[str]) -> str:
        """Return the settings that distinguish this job from the others."""
        return " ".join(f"{key}={self.settings[key]}" for key in swept if key in self.settings) or "single job"


_JOBS = TypeAdapter(Job)


class SweepDirectory:
    """The folder of a sweep; as a context manager it holds the folder's lock.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: FolderLock | None = None

    def __enter__(self) -> SweepDirectory:
        with readable_os_errors(self.path):
            (self.path / "jobs").mkdir(parents=True, exist_ok=True)
            refuse_links(self.path, self.path.parent)
            lock = FolderLock.take(self.path / ".lock")
        if lock is None:
            raise BusyError(f"another process is running this sweep: {self.path}")
        self._lock = lock
        for folder in (self.path, *(self.path / "jobs").iterdir()):
            remove_abandoned(folder, 0, lambda name: name_of(name) not in (None, "report.html"))
            remove_abandoned(folder)  # with the grace period: `dlrun report` writes without the lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock:
            self._lock.release()

    def freeze(self, jobs: Sequence[Job]) -> None:
        """Write the requests of all jobs, and delete the records of an earlier start."""
        with readable_os_errors(self.path):
            for record in (self.path / "jobs").glob("*/record.json"):
                record.unlink()
            for job in jobs:
                self.add(job)

    def add(self, job: Job) -> None:
        """Write the request of a job; without fsync, since the same command writes it again."""
        with readable_os_errors(self.path):
            self.job_folder(job.number).mkdir(parents=True, exist_ok=True)
            self._write(self.job_folder(job.number) / "request.json", json.dumps(asdict(job)), sync=False)

    def job_folder(self, number: int) -> Path:
        """Return the folder of a job."""
        return self.path / "jobs" / str(number)

    def numbers(self) -> list[int]:
        """Return the numbers of the jobs that have a request."""
        names = [folder.name for folder in (self.path / "jobs").glob("*") if re.fullmatch(r"[0-9]{1,9}", folder.name)]
        return sorted(int(name) for name in names if (self.path / "jobs" / name / "request.json").exists())

    def job(self, number: int) -> Job | None:
        """Return the request of a job; None if it is missing or damaged."""
        content = self._read(self.job_folder(number) / "request.json")
        with contextlib.suppress(TypeError, ValueError):
            job = _JOBS.validate_python({**content, "number": number}) if content else None
            return job and replace(job, config=present_config(job.config))
        _warn_damaged(self.job_folder(number) / "request.json")
        return None

    def record(self, number: int) -> dict[str, Any] | None:
        """Return the outcome of a job; None if it is missing or damaged."""
        file = self.job_folder(number) / "record.json"
        content = self._read(file)
        if content is None or isinstance(content.get("status"), str):
            return content
        _warn_damaged(file)
        return None

    def write_record(self, number: int, record: Mapping[str, Any]) -> None:
        """Write the outcome of a job."""
        self._write(self.job_folder(number) / "record.json", json.dumps(record))

    def _read(self, file: Path) -> dict[str, Any] | None:
        """Return the content of a JSON file; None if it is missing or, with a warning, if it is damaged."""
        try:
            content = json.loads(file.read_text())
            if isinstance(content, dict):
                return content
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            pass
        _warn_damaged(file)
        return None

    def _write(self, file: Path, text: str, sync: bool = True) -> None:
        """Write a file of the sweep atomically."""
        if self._lock:
            self._lock.check()
        with atomic_file(file, sync=sync) as opened:
            opened.write(text.encode(errors="backslashreplace"))

    def write_results(
        self, swept: Sequence[str], records: Mapping[int, Mapping[str, Any]], duplicates: Collection[int] = ()
    ) -> pd.DataFrame:
        """Collect the outcomes of all jobs in results.csv: one row per job, with the swept settings and all metrics.

        Args:
            swept: names of the settings that differ; empty: all overrides.
            records: of jobs that have no record in this folder.
            duplicates: numbers of jobs that are the same run as another one: they have no row.
        """
        import pandas as pd

        rows = []
        for number in self.numbers():
            if number in duplicates:
                continue
            job = self.job(number) or Job(number, [], {})
            record = records.get(number) or self.record(number) or {"status": "not started"}
            metric = record.get("metric") or {}
            best = (record.get("best") or {}).items()
            rows.append(
                {
                    "job": number,
                    "status": record["status"],
                    **{key: job.settings.get(key) for key in (swept or job.settings)},
                    **(record.get("final") or {}),
                    **{f"best {k}": v for k, v in best if k in ("epoch", metric.get("name"))},
                    "metric": metric.get("name"),
                    "higher_is_better": metric.get("higher_is_better"),
                    "seconds": record.get("seconds"),
                    "folder": record.get("folder") and str(shorter(Path(record["folder"]))),
                    "error": record.get("error"),
                }
            )
        results = pd.DataFrame(rows)
        last = ["metric", "higher_is_better", "seconds", "folder", "error"]
        if rows:
            results = results[[*(name for name in results.columns if name not in last), *last]]
        if "best epoch" in results:
            results["best epoch"] = results["best epoch"].astype("Int64")
        with readable_os_errors(self.path):
            self._write(self.path / "results.csv", results.to_csv(index=False))
        return results


def _warn_damaged(file: Path) -> None:
    print(f"warning: {file} is damaged and treated as missing", file=sys.stderr, flush=True)


def duplicate_jobs(jobs: Sequence[Job]) -> list[tuple[Job, Job]]:
    """Return the jobs with the same run as an earlier job, each with that job; the run is executed once."""
    first = {job.signature: job for job in reversed(jobs)}
    return [(job, first[job.signature]) for job in jobs if first[job.signature] is not job]


def record_of(path: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a finished run."""
    return {**{key: summary[key] for key in KEPT if key in summary}, "folder": str(path.resolve())}


@dataclass(frozen=True)
class JobStatus:
    """The status of a job's run before the sweep starts."""

    state: str
    folder: Path | None = None
    summary: Mapping[str, Any] | None = None
    """Of a finished run."""


def status_of(jobs: Sequence[Job]) -> dict[int, JobStatus]:
    """Return by number which jobs are done, which will be resumed, and which are new, without starting any.

    A job that is done, but of which a tracker is incomplete, is started again, to send the rest.
    """
    digests: dict[str, str] = {}
    folders: dict[Path, dict[str, list[tuple[int, Path]]]] = {}
    code: dict[tuple[str, ...], str] = {}
    statuses = {}
    for job in jobs:
        parent = user_path(job.config["runs_dir"]) / (job.config["choices"].get("task") or "task")
        if parent not in folders:
            folders[parent] = folders_by_signature(parent)
        signature = _decided_signature(job, digests)
        siblings = folders[parent].get(signature)
        if not siblings or job.config["rerun"]:
            statuses[job.number] = JobStatus("new" if not siblings else "rerun in a new folder")
            continue
        plugins = tuple(job.config["plugins"])
        if plugins not in code:
            code[plugins] = code_digest(plugins)
        try:
            data = _digest_of_inputs(job.config, digests)
        except (DataError, ConfigError) as error:
            statuses[job.number] = JobStatus(f"fails: {error}")
            continue
        path = latest_of(siblings, {"signature": signature, "code": code[plugins], "data": data})
        if path is None:
            statuses[job.number] = JobStatus("rerun: the code or the data changed", siblings[-1][1])
            continue
        summary = finished_summary(path)
        if summary and any(is_incomplete(path, name) for name in job.config["log"].get("trackers") or ()):
            statuses[job.number] = JobStatus("done, but a tracker is incomplete", path)
            continue
        statuses[job.number] = JobStatus("done" if summary else "resumes", path, summary)
    return statuses


def _decided_signature(job: Job, digests: dict[str, str]) -> str:
    """Return the signature of a job's run; settings that are `auto` as decided before, if they were."""
    from dlrunner.config.auto_values import with_values
    from dlrunner.config.plan import plan
    from dlrunner.execution.auto_settings import remembered

    checked = plan(job.config)
    if not checked.undecided:
        return job.signature
    try:
        data = _digest_of_inputs(job.config, digests)
    except (DataError, ConfigError):  # reported when the job runs
        return job.signature
    code = code_digest(job.config["plugins"])
    known = remembered(checked, {"signature": job.signature, "code": code, "data": data})
    return plan(with_values(checked.config, known)).signature if known else job.signature


def _digest_of_inputs(config: Mapping[str, Any], known: dict[str, str]) -> str:
    """Return the digest of a run's data and weights; jobs with the same settings of both share it."""
    from dlrunner.config.plan import plan
    from dlrunner.execution.identity import digest_of_inputs, identity_of

    key = json.dumps([config["data"], config["model"], config["data_dir"], config["plugins"]], sort_keys=True)
    if key not in known:
        checked = plan(config)
        known[key] = digest_of_inputs(checked, identity_of(checked.build_data()))
    return known[key]
