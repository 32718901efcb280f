"""A sweep's folder: what each job was asked for and what became of it, and which jobs are done already.

`runs/sweeps/<task>,<what was typed>-<8 hex digits>/` holds `jobs/N/request.json` (written before the first job
starts), `record.json` and `output.txt` of each job, and `results.csv`.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd

from dlrunner.dispatch import plan
from dlrunner.errors import BusyError, DataError, RequestError
from dlrunner.identity import digest_of_inputs, identity_of
from dlrunner.paths import user_path
from dlrunner.relaying import lacks
from dlrunner.runs import (
    code_digest,
    finished_summary,
    folders_by_signature,
    latest_of,
    told_as_sentences,
    write_atomically,
)

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


class SweepDirectory:
    """The folder of a sweep; as a context, it is locked against other processes.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> SweepDirectory:
        with told_as_sentences(self.path):
            (self.path / "jobs").mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise BusyError(f"another process runs this sweep: {self.path}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def freeze(self, jobs: Sequence[Job]) -> None:
        """Write down what every job is asked for, and forget the records of an earlier time."""
        with told_as_sentences(self.path):
            for record in (self.path / "jobs").glob("*/record.json"):
                record.unlink()
            for job in jobs:
                self.add(job)

    def add(self, job: Job) -> None:
        """Write down what a job is asked for; not synced as run folders are: a sweep given again writes it again."""
        self.place(job.number).mkdir(parents=True, exist_ok=True)
        (self.place(job.number) / "request.json").write_text(json.dumps(asdict(job)))

    def place(self, number: int) -> Path:
        """Return the folder of a job."""
        return self.path / "jobs" / str(number)

    def job(self, number: int) -> Job | None:
        """Return what a job was asked for, or None when nothing was written down."""
        file = self.place(number) / "request.json"
        return Job(**json.loads(file.read_text())) if file.exists() else None

    def record(self, number: int) -> dict[str, Any] | None:
        """Return what became of a job, or None when it left no word."""
        file = self.place(number) / "record.json"
        return json.loads(file.read_text()) if file.exists() else None

    def write_record(self, number: int, record: Mapping[str, Any]) -> None:
        """Write down what became of a job."""
        write_atomically(self.place(number) / "record.json", json.dumps(record).encode())

    def write_results(self, swept: Sequence[str], records: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
        """Gather what became of all jobs into results.csv: a row a job, with the swept settings and all metrics.

        Args:
            swept: names of the settings that differ; none: all that were typed.
            records: of jobs that left no record of their own here.
        """
        numbers = sorted(int(request.parent.name) for request in (self.path / "jobs").glob("*/request.json"))
        rows = []
        for number in numbers:
            job = self.job(number)
            assert job is not None
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
        with told_as_sentences(self.path):
            write_atomically(self.path / "results.csv", results.to_csv(index=False).encode(errors="backslashreplace"))
        return results


def twins_of(jobs: Sequence[Job]) -> list[tuple[Job, Job]]:
    """Return the jobs that come to the same run as an earlier one, each with that one: it is done once."""
    first = {job.signature: job for job in reversed(jobs)}
    return [(job, first[job.signature]) for job in jobs if first[job.signature] is not job]


def record_of(path: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sweep keeps of a finished run."""
    return {**{key: summary[key] for key in KEPT if key in summary}, "folder": str(path.resolve())}


@dataclass(frozen=True)
class Standing:
    """How far a job's run is before the sweep begins."""

    state: str
    folder: Path | None = None
    summary: Mapping[str, Any] | None = None
    """Of a run that is done."""


def standing_of(jobs: Sequence[Job]) -> dict[int, Standing]:
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
            found[job.number] = Standing("new" if not siblings else "runs again beside the old one")
            continue
        plugins = tuple(job.config["plugins"])
        if plugins not in code:
            code[plugins] = code_digest(plugins)
        try:
            data = _digest_of_inputs(job.config, digests)
        except (DataError, RequestError) as error:
            found[job.number] = Standing(f"fails: {error}")
            continue
        path = latest_of(siblings, {"signature": job.signature, "code": code[plugins], "data": data})
        if path is None:
            found[job.number] = Standing("runs anew: the code or the data changed", siblings[-1][1])
            continue
        summary = finished_summary(path)
        if summary and any(lacks(path, name) for name in job.config["log"].get("trackers") or ()):
            found[job.number] = Standing("done, but not all of it is sent", path)
            continue
        found[job.number] = Standing("done" if summary else "goes on", path, summary)
    return found


def _digest_of_inputs(config: Mapping[str, Any], known: dict[str, str]) -> str:
    """Return the digest of a run's data and weights; jobs with the same settings of both share it."""
    key = json.dumps([config["data"], config["model"], config["data_dir"], config["plugins"]], sort_keys=True)
    if key not in known:
        checked = plan(config)
        known[key] = digest_of_inputs(checked, identity_of(checked.build_data()))
    return known[key]
