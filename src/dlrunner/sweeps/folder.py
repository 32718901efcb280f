"""A sweep's folder: the request and the outcome of each job, and the status of jobs before a sweep starts.

`runs/sweeps/<task>,<overrides>-<8 hex digits>/` holds `jobs/N/request.json` (written before the first job starts),
`record.json` and `output.txt` of each job, and `results.csv`, which is deleted when the sweep starts again and written
last.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from dlrunner.comparison.jobs import DUPLICATE, STARTED, repeated_runs
from dlrunner.errors import BusyError, ConfigError, DataError
from dlrunner.files.atomic import atomic_file, readable_os_errors
from dlrunner.files.locks import FolderLock
from dlrunner.files.paths import user_path
from dlrunner.files.temporary import name_of, remove_abandoned
from dlrunner.renamed import present_config
from dlrunner.runs.directory import folders_by_signature, latest_of, refuse_links
from dlrunner.runs.fingerprint import code_digest
from dlrunner.runs.listing import ListedRun
from dlrunner.runs.reader import finished_summary, shorter
from dlrunner.tracking.relay import is_incomplete

if TYPE_CHECKING:
    import pandas as pd

KEPT = ("status", "metric", "final", "best", "training_seconds", "claim")
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
    code: str = ""
    """Digest of the code when the sweep started, of which the job must be too; empty before."""

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
        try:
            for folder in (self.path, *(self.path / "jobs").iterdir()):
                remove_abandoned(folder, 0, lambda name: name_of(name) not in (None, "report.html"))
                remove_abandoned(folder)  # with the grace period: `dlrun report` writes without the lock
        except BaseException:
            lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock:
            self._lock.release()

    def freeze(self, jobs: Sequence[Job], statuses: Mapping[int, JobStatus]) -> None:
        """Write the requests of all jobs, and replace the records and results of an earlier start by what is true now.

        Args:
            jobs: all of the sweep.
            statuses: by number; the runs that are done or will be resumed are recorded, as if they had been started.
        """
        repeated = {job.number: same.number for job, same in duplicate_jobs(jobs, statuses)}
        with readable_os_errors(self.path):
            known = {number: record for number, status in statuses.items() if (record := status.record)}
            known |= {number: {"status": DUPLICATE, "same_as": same} for number, same in repeated.items()}
            for file in (self.path / "jobs").glob("*/record.json"):
                if file.parent.name not in map(str, known):
                    file.unlink()
            for job in jobs:
                self.add(job)
            for number, record in known.items():
                self.write_record(number, record, sync=False)
        self.reopen()

    def reopen(self) -> None:
        """Delete the results of an earlier start: until they are written again, the records of the jobs count."""
        with readable_os_errors(self.path):
            (self.path / "results.csv").unlink(missing_ok=True)

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
        """Return the outcome of a job; None if it has not ended, or its record is damaged."""
        record = self._record(number)
        return None if record and record["status"] == STARTED else record

    def write_record(self, number: int, record: Mapping[str, Any], sync: bool = True) -> None:
        """Write the outcome of a job."""
        self._write(self.job_folder(number) / "record.json", json.dumps(record), sync=sync)

    def reset(self, number: int) -> None:
        """Forget the outcome of an earlier attempt at a job, but not its run folder."""
        if run := (self._record(number) or {}).get("folder"):
            self.start(number, Path(run))
        else:
            with readable_os_errors(self.path):
                (self.job_folder(number) / "record.json").unlink(missing_ok=True)

    def start(self, number: int, run: Path) -> None:
        """Record the run folder of a job; without fsync, since the end of the job is recorded too."""
        self.write_record(number, {"status": STARTED, "folder": str(run.resolve())}, sync=False)

    def end(self, number: int, record: Mapping[str, Any]) -> dict[str, Any]:
        """Write and return the outcome of a job that has no result, with its run folder if there is one."""
        run = (self._record(number) or {}).get("folder")
        ended = {**record, "folder": run if run and Path(run).is_dir() else None}
        self.write_record(number, ended)
        return ended

    def _record(self, number: int) -> dict[str, Any] | None:
        file = self.job_folder(number) / "record.json"
        content = self._read(file)
        if content is None or isinstance(content.get("status"), str):
            return content
        _warn_damaged(file)
        return None

    def result(self, number: int) -> dict[str, Any]:
        """Return the outcome of a job; the state of its run if it has not ended."""
        record = self._record(number) or {"status": "not started"}
        if record["status"] != STARTED:
            return record
        run = Path(record["folder"])
        summary = finished_summary(run)
        return record_of(run, summary) if summary else {**record, "status": ListedRun(run).status}

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
        with readable_os_errors(file), atomic_file(file, sync=sync) as opened:
            opened.write(text.encode(errors="backslashreplace"))

    def write_results(self, swept: Sequence[str]) -> tuple[pd.DataFrame, dict[int, int]]:
        """Collect the outcomes of all jobs in results.csv: one row per run, with the swept settings and all metrics.

        Args:
            swept: names of the settings that differ; empty: all overrides.

        Returns:
            The results, and the jobs that have no row, each with the job that is the same run.
        """
        import pandas as pd

        records = {number: self.result(number) for number in self.numbers()}
        outcomes = {n: (record["status"], str(record.get("folder") or "")) for n, record in records.items()}
        repeated = repeated_runs(outcomes)
        repeated |= {n: int(each["same_as"]) for n, each in records.items() if each["status"] == DUPLICATE}
        rows = []
        for number, record in records.items():
            if number in repeated:
                continue
            job = self.job(number) or Job(number, [], {})
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
                    "seconds": record.get("training_seconds"),
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
        self._write(self.path / "results.csv", results.to_csv(index=False))
        return results, repeated


def _warn_damaged(file: Path) -> None:
    print(f"warning: {file} is damaged and treated as missing", file=sys.stderr, flush=True)


def duplicate_jobs(jobs: Sequence[Job], statuses: Mapping[int, JobStatus]) -> list[tuple[Job, Job]]:
    """Return the jobs with the same run as an earlier job, each with that job; the run is executed once."""
    first = {statuses[job.number].signature: job for job in reversed(jobs)}
    return [(job, same) for job in jobs if (same := first[statuses[job.number].signature]) is not job]


def record_of(path: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a finished run."""
    return {**{key: summary[key] for key in KEPT if key in summary}, "folder": str(path.resolve())}


@dataclass(frozen=True)
class JobStatus:
    """The status of a job's run before the sweep starts."""

    state: str
    signature: str
    """Of the run, with the settings that are `auto` as decided before, if they were."""
    folder: Path | None = None
    summary: Mapping[str, Any] | None = None
    """Of a finished run."""
    is_stale: bool = False
    """The run in the folder is of other code or data."""

    @property
    def record(self) -> dict[str, Any] | None:
        """The record of a job with a run that is done, or that will be resumed."""
        if self.folder is None or self.is_stale:
            return None
        if self.summary:
            return record_of(self.folder, self.summary)
        return {"status": STARTED, "folder": str(self.folder.resolve())}


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
            statuses[job.number] = JobStatus("new" if not siblings else "rerun in a new folder", signature)
            continue
        plugins = tuple(job.config["plugins"])
        if plugins not in code:
            code[plugins] = code_digest(plugins)
        try:
            data = _digest_of_inputs(job.config, digests)
        except (DataError, ConfigError) as error:
            statuses[job.number] = JobStatus(f"fails: {error}", signature)
            continue
        path = latest_of(siblings, {"signature": signature, "code": code[plugins], "data": data})
        if path is None:
            state = "rerun: the code or the data changed"
            statuses[job.number] = JobStatus(state, signature, siblings[-1][1], is_stale=True)
            continue
        summary = finished_summary(path)
        if summary and any(is_incomplete(path, name) for name in job.config["log"].get("trackers") or ()):
            statuses[job.number] = JobStatus("done, but a tracker is incomplete", signature, path)
            continue
        statuses[job.number] = JobStatus("done" if summary else "resumes", signature, path, summary)
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

    key = json.dumps(
        [config["data"], config["model"], config["data_dir"], config["plugins"], config["init"]], sort_keys=True
    )
    if key not in known:
        checked = plan(config)
        known[key] = digest_of_inputs(checked, identity_of(checked.build_data()))
    return known[key]
