"""Sweeps: Hydra's multirun, made to survive.

All jobs are composed, checked and written down before the first one starts. Each runs in a process of its own
and leaves a record; a job that fails, or is killed, ends nothing but itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dlrunner import runner
from dlrunner.cli.composing import compose, forced, parse, run_hydra, search_path_override, to_plain
from dlrunner.cli.places import quoted
from dlrunner.data.parallel import num_cores
from dlrunner.dispatch import plan
from dlrunner.errors import Interrupted, RequestError, RunError, Told
from dlrunner.looks import tables
from dlrunner.runs import told_as_sentences, write_atomically
from dlrunner.signals import StopSignals


def sweep(words: Sequence[str]) -> int:
    """Run every job of a sweep, write results.csv, print the ranking.

    Raises:
        RequestError: a job's configuration does not fit; no job was started.
    """
    overrides = parse(words)
    swept = [o.key_or_group for o in overrides if o.is_sweep_override() and not o.key_or_group.startswith("hydra")]
    own_sweeper = not any(o.key_or_group == "hydra/sweeper" for o in overrides)
    jobs = _expand(words) if own_sweeper else [[w for w in words if not w.startswith("hydra")]]
    configs = _check(jobs) if own_sweeper else [compose([])]
    folder = _folder(words, configs)
    with told_as_sentences(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"another process runs this sweep: {folder}") from None
        with told_as_sentences(folder):
            _freeze(folder, jobs, configs, own_sweeper)
        told = f"sweep of {len(jobs)} jobs" if own_sweeper else "sweep"
        print(f"{told}: {folder}", flush=True)
        return _run_jobs(words, folder, swept)


def _run_jobs(words: Sequence[str], folder: Path, swept: Sequence[str]) -> int:
    """Let Hydra launch the jobs, gather what became of them, and return the exit status."""
    _start_fork_server()
    settings = [f"hydra.sweep.dir={quoted(str(folder))}", "hydra.sweep.subdir=jobs/${hydra:job.num}"]
    status = 0
    try:
        with StopSignals():
            run_hydra(["--multirun", *search_path_override(), *forced(words), *settings], run_job)
    except (Interrupted, KeyboardInterrupt) as stopped:
        status = stopped.exit_status if isinstance(stopped, Interrupted) else 130
    results = write_results(folder, swept)
    tables.print_ranking(results, folder)
    if status:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return status
    return 0 if len(results) and (results["status"] == "done").all() else 1


def run_job(config: DictConfig) -> float | None:
    """Run one job in a process of its own and return its metric (for sweepers that search)."""
    settings = HydraConfig.get()
    folder = Path(settings.sweep.dir)
    number = int(settings.job.num)
    request = folder / "jobs" / str(number) / "request.json"
    if request.exists():
        asked = json.loads(request.read_text())
    else:  # a sweeper that decides as it goes
        asked = {
            "overrides": list(settings.overrides.task),
            "config": to_plain(_with_choices(config, settings)),
        }
        request.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(request, json.dumps(asked).encode())
    record = request.with_name("record.json")
    shown = " ".join(word.lstrip("+") for word in asked["overrides"])
    print(f"\n[{number}] {shown}", flush=True)

    _start_fork_server()
    with StopSignals():
        process = multiprocessing.get_context("forkserver").Process(
            target=_work, args=(asked, str(record), _threads(settings))
        )
        try:
            process.start()
            process.join()
        except Interrupted:
            if process.pid and process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
            if process.pid:
                process.join()
            raise
    if not record.exists():
        code = process.exitcode or 0
        said = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
        _write_record(record, {"status": "failed", "error": said})
    result = json.loads(record.read_text())
    if result["status"] == "failed":
        print(f"[{number}] FAILED: {result['error']}", flush=True)
    if result["status"] == "interrupted":
        raise Interrupted(int(result.get("signal", signal.SIGINT)))
    metric = result.get("metric")
    return float(metric["value"]) if metric and metric["value"] is not None else None


def _start_fork_server() -> None:
    """Start the process that jobs are forked from: it has imported everything, and nothing of a job stays in it.

    Without it every job would take three seconds to import torch.
    """
    multiprocessing.set_start_method("forkserver", force=True)  # joblib's workers have set a method of their own
    multiprocessing.get_context("forkserver").set_forkserver_preload(["dlrunner.runner"])
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for the sweep and its job
    forkserver.ensure_running()
    signal.signal(signal.SIGINT, previous)


def _work(asked: Mapping[str, Any], record: str, num_threads: int | None) -> None:
    """Do a job; runs in the job's own process."""
    import torch

    if num_threads:
        torch.set_num_threads(num_threads)
    result: dict[str, Any]
    try:
        outcome = runner.run(asked["config"], asked["overrides"], say=lambda text: print(text, flush=True))
        kept = ("status", "metric", "final", "best", "seconds", "claim")
        result = {key: outcome.summary[key] for key in kept if key in outcome.summary}
        result["folder"] = str(outcome.path)
        result["new"] = outcome.is_new
    except Interrupted as stopped:
        result = {"status": "interrupted", "signal": stopped.signum}
    except Told as error:
        result = {"status": "failed", "error": str(error), "folder": str(error.folder) if error.folder else None}
    _write_record(Path(record), result)


def _write_record(record: Path, result: Mapping[str, Any]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(record, json.dumps(result).encode())


def _expand(words: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job, as Hydra's own sweeper will number them."""
    choices = []
    for override in parse([word for word in forced(words) if not word.startswith("hydra")]):
        if not override.is_sweep_override():
            choices.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            raise RequestError(f"{override.input_line}: a range without steps needs a sweeper that searches")
    return [list(job) for job in itertools.product(*choices)]


def _check(jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Compose and bind every job's configuration; all that do not fit are told together."""
    configs: list[dict[str, Any]] = []
    problems: dict[str, str] = {}
    for job in jobs:
        try:
            config = compose(job)
            plan(config)
            configs.append(config)
        except RequestError as error:
            problems.setdefault(str(error), " ".join(word.lstrip("+") for word in job))
    if problems:
        raise RequestError("\n".join(f"{error}  (job: {job})" for error, job in problems.items()))
    return configs


def _folder(words: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> Path:
    """Name the sweep by what was typed and by a digest of all its configurations."""
    name = runner.run_label(words, {}) if words else "default"
    task = (configs[0]["choices"].get("task") or "task") if configs else "task"
    digest = hashlib.sha256(json.dumps([sorted(words), configs], sort_keys=True).encode()).hexdigest()[:8]
    return Path(configs[0]["runs_dir"]).expanduser().resolve() / "sweeps" / f"{task},{name}-{digest}"


def _freeze(
    folder: Path, jobs: Sequence[Sequence[str]], configs: Sequence[Mapping[str, Any]], own_sweeper: bool
) -> None:
    """Write every job's configuration down, and forget the records of an earlier time."""
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    for record in (folder / "jobs").glob("*/record.json"):
        record.unlink()
    if not own_sweeper:
        return
    for number, (job, config) in enumerate(zip(jobs, configs, strict=True)):
        place = folder / "jobs" / str(number)
        place.mkdir(exist_ok=True)
        overrides = [word.lstrip("+") for word in job]
        write_atomically(place / "request.json", json.dumps({"overrides": overrides, "config": config}).encode())


def write_results(folder: Path, swept: Sequence[str]) -> pd.DataFrame:
    """Gather the records into results.csv: a row a job, with all swept settings and metrics."""
    rows = []
    for request in sorted((folder / "jobs").glob("*/request.json"), key=lambda path: int(path.parent.name)):
        asked = json.loads(request.read_text())
        file = request.with_name("record.json")
        record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"status": "not started"}
        settings = dict(word.lstrip("+").split("=", 1) for word in asked["overrides"] if "=" in word)
        metric = record.get("metric") or {}
        rows.append(
            {
                "job": int(request.parent.name),
                "status": record["status"],
                **{key: settings.get(key) for key in (swept or settings)},
                **(record.get("final") or {}),
                **{f"best {k}": v for k, v in (record.get("best") or {}).items() if k in ("epoch", metric.get("name"))},
                "metric": metric.get("name"),
                "higher_is_better": metric.get("higher_is_better"),
                "seconds": record.get("seconds"),
                "folder": record.get("folder"),
                "error": record.get("error"),
            }
        )
    results = pd.DataFrame(rows)
    write_atomically(folder / "results.csv", results.to_csv(index=False).encode())
    return results


def _with_choices(config: DictConfig, settings: Any) -> DictConfig:
    from omegaconf import OmegaConf, open_dict

    with open_dict(config):
        config.hydra = OmegaConf.create({"runtime": {"choices": dict(settings.runtime.choices)}})
    return config


def _threads(settings: Any) -> int | None:
    """Divide the cores among jobs that run side by side (the joblib launcher's n_jobs)."""
    jobs: int | None = settings.launcher.get("n_jobs")
    if jobs is None:
        return None
    cores = num_cores()
    return max(1, cores // (jobs if jobs > 0 else max(1, cores + 1 + jobs)))
