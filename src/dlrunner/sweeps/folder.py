"""A sweep's folder: what each job was asked for and what became of it, and which jobs are done already.

`runs/sweeps/<task>,<what was typed>-<8 hex digits>/` holds `jobs/N/request.json` (written before the first job
starts), `record.json` and `output.txt` of each job, and `results.csv`.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from dlrunner.errors import BusyError, ConfigError, DataError
from dlrunner.files.atomic import atomic_file, readable_os_errors
from dlrunner.files.locks import FolderLock
from dlrunner.files.paths import user_path
from dlrunner.files.temporary import name_of, remove_abandoned
from dlrunner.runs.directory import folders_by_signature, latest_of, refuse_links
from dlrunner.runs.fingerprint import code_digest
from dlrunner.runs.reader import finished_summary
from dlrunner.tracking.relay import lacks

if TYPE_CHECKING:
    import pandas as pd

KEPT = ("status", "metric", "final", "best", "seconds", "claim")
"""What a job's record keeps of its run's summary."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep, frozen before the first of them starts."""

    number: int
    overrides: list[str]
    config: dict[str, Any]
    signature: str = ""
    """Of the run; empty where it is not known before the job begins."""
    changed: dict[str, str] | None = None
    """What the task's own settings hold where the job's differ; its report marks them."""

    @property
    def settings(self) -> dict[str, str]:
        """What was typed for this job, by name."""
        return dict(word.lstrip("+").split("=", 1) for word in self.overrides if "=" in word)

    def label(self, swept: Sequence[str]) -> str:
        """Return what tells this job from the others."""
        return " ".join(f"{key}={self.settings[key]}" for key in swept if key in self.settings) or "the settings given"


_JOBS = TypeAdapter(Job)


class SweepDirectory:
    """The folder of a sweep; as a context, it is locked against other processes.

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
            raise BusyError(f"another process runs this sweep: {self.path}")
        self._lock = lock
        for folder in (self.path, *(self.path / "jobs").iterdir()):
            remove_abandoned(folder, 0, lambda name: name_of(name) not in (None, "report.html"))
            remove_abandoned(folder)  # `dlrun report` takes no lock of the folder
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock:
            self._lock.release()

    def freeze(self, jobs: Sequence[Job]) -> None:
        """Write down what every job is asked for, and forget the records of an earlier time."""
        with readable_os_errors(self.path):
            for record in (self.path / "jobs").glob("*/record.json"):
                record.unlink()
            for job in jobs:
                self.add(job)

    def add(self, job: Job) -> None:
        """Write down what a job is asked for; not synced as run folders are: a sweep given again writes it again."""
        with readable_os_errors(self.path):
            self.place(job.number).mkdir(parents=True, exist_ok=True)
            self._write(self.place(job.number) / "request.json", json.dumps(asdict(job)), sync=False)

    def place(self, number: int) -> Path:
        """Return the folder of a job."""
        return self.path / "jobs" / str(number)

    def numbers(self) -> list[int]:
        """Return the numbers of the jobs that something is written down of."""
        names = [place.name for place in (self.path / "jobs").glob("*") if re.fullmatch(r"[0-9]{1,9}", place.name)]
        return sorted(int(name) for name in names if (self.path / "jobs" / name / "request.json").exists())

    def job(self, number: int) -> Job | None:
        """Return what a job was asked for; None when nothing was written down, or nothing that can be read."""
        content = self._read(self.place(number) / "request.json")
        with contextlib.suppress(TypeError, ValueError):
            return _JOBS.validate_python({**content, "number": number}) if content else None
        _tell_damaged(self.place(number) / "request.json")
        return None

    def record(self, number: int) -> dict[str, Any] | None:
        """Return what became of a job, or None when it left no word, or none that can be read."""
        file = self.place(number) / "record.json"
        content = self._read(file)
        if content is None or isinstance(content.get("status"), str):
            return content
        _tell_damaged(file)
        return None

    def write_record(self, number: int, record: Mapping[str, Any]) -> None:
        """Write down what became of a job."""
        self._write(self.place(number) / "record.json", json.dumps(record))

    def _read(self, file: Path) -> dict[str, Any] | None:
        """Return what a file of the sweep holds; None where there is none, and where it is damaged, which is told."""
        try:
            content = json.loads(file.read_text())
            if isinstance(content, dict):
                return content
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            pass
        _tell_damaged(file)
        return None

    def _write(self, file: Path, text: str, sync: bool = True) -> None:
        """Write a file of the sweep whole or not at all."""
        if self._lock:
            self._lock.check()
        with atomic_file(file, sync=sync) as opened:
            opened.write(text.encode(errors="backslashreplace"))

    def write_results(self, swept: Sequence[str], records: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
        """Gather what became of all jobs into results.csv: a row a job, with the swept settings and all metrics.

        Args:
            swept: names of the settings that differ; none: all that were typed.
            records: of jobs that left no record of their own here.
        """
        import pandas as pd

        rows = []
        for number in self.numbers():
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
                    "folder": record.get("folder"),
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


def _tell_damaged(file: Path) -> None:
    print(f"note: {file} is damaged; it is taken as missing", file=sys.stderr, flush=True)


def duplicate_jobs(jobs: Sequence[Job]) -> list[tuple[Job, Job]]:
    """Return the jobs that come to the same run as an earlier one, each with that one: it is done once."""
    first = {job.signature: job for job in reversed(jobs)}
    return [(job, first[job.signature]) for job in jobs if first[job.signature] is not job]


def record_of(path: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sweep keeps of a finished run."""
    return {**{key: summary[key] for key in KEPT if key in summary}, "folder": str(path.resolve())}


@dataclass(frozen=True)
class JobStatus:
    """How far a job's run is before the sweep begins."""

    state: str
    folder: Path | None = None
    summary: Mapping[str, Any] | None = None
    """Of a run that is done."""


def status_of(jobs: Sequence[Job]) -> dict[int, JobStatus]:
    """Tell by number which jobs are done already, which go on, and which are new, without starting any.

    One that is done, and of which a tracker lacks a part, is begun again: that sends it.
    """
    digests: dict[str, str] = {}
    folders: dict[Path, dict[str, list[tuple[int, Path]]]] = {}
    code: dict[tuple[str, ...], str] = {}
    found = {}
    for job in jobs:
        parent = user_path(job.config["runs_dir"]) / (job.config["choices"].get("task") or "task")
        if parent not in folders:
            folders[parent] = folders_by_signature(parent)
        siblings = folders[parent].get(job.signature)
        if not siblings or job.config["rerun"]:
            found[job.number] = JobStatus("new" if not siblings else "runs again beside the old one")
            continue
        plugins = tuple(job.config["plugins"])
        if plugins not in code:
            code[plugins] = code_digest(plugins)
        try:
            data = _digest_of_inputs(job.config, digests)
        except (DataError, ConfigError) as error:
            found[job.number] = JobStatus(f"fails: {error}")
            continue
        path = latest_of(siblings, {"signature": job.signature, "code": code[plugins], "data": data})
        if path is None:
            found[job.number] = JobStatus("runs anew: the code or the data changed", siblings[-1][1])
            continue
        summary = finished_summary(path)
        if summary and any(lacks(path, name) for name in job.config["log"].get("trackers") or ()):
            found[job.number] = JobStatus("done, but not all of it is sent", path)
            continue
        found[job.number] = JobStatus("done" if summary else "goes on", path, summary)
    return found


def _digest_of_inputs(config: Mapping[str, Any], known: dict[str, str]) -> str:
    """Return the digest of a run's data and weights; jobs with the same settings of both share it."""
    from dlrunner.config.plan import plan
    from dlrunner.execution.identity import digest_of_inputs, identity_of

    key = json.dumps([config["data"], config["model"], config["data_dir"], config["plugins"]], sort_keys=True)
    if key not in known:
        checked = plan(config)
        known[key] = digest_of_inputs(checked, identity_of(checked.build_data()))
    return known[key]
