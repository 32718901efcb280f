"""Sweeps through plugins of Hydra, launchers and sweepers: they start the jobs, the folders are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dlrunner.cli.compose import choices_of, compose, forced, run_hydra, search_path_override, to_plain
from dlrunner.cli.conf_paths import quoted
from dlrunner.cli.sweep import compose_base, report_duplicates, write_down, write_report, write_words
from dlrunner.cli.yaml_files import keep_own_optimizer_settings
from dlrunner.config.schema import SweepSettings
from dlrunner.errors import ConfigError, Interrupted
from dlrunner.files.paths import user_path
from dlrunner.reporting.terminal import tables
from dlrunner.reporting.terminal.sweep import LineScreen
from dlrunner.runs.labels import run_label
from dlrunner.runs.reader import shorter
from dlrunner.sweeps.folder import Job, JobStatus, SweepDirectory, duplicate_jobs, record_of
from dlrunner.sweeps.pool import ResourceSlot, run_jobs, start_fork_server
from dlrunner.system.parallel import num_cores
from dlrunner.system.signals import StopSignals


def launch(
    words: Sequence[str],
    swept: Sequence[str],
    launcher: str,
    path: Path,
    jobs: Sequence[Job],
    standings: Mapping[int, JobStatus],
) -> int:
    """Let a launcher of Hydra start frozen jobs, gather what became of them, and return the exit status.

    Raises:
        ConfigError: a setting of the sweep is one that the launcher does not know.
    """
    _refuse(jobs[0].config["sweep"], ("jobs", "gpu_share", "fail_fast", "needs"), launcher)
    twins = duplicate_jobs(jobs)
    with SweepDirectory(path) as folder:
        write_down(folder, words, jobs)
        for job, _ in twins:  # what has a record is not started
            folder.write_record(job.number, {"status": "not started"})
        done = [(number, each) for number, each in standings.items() if each.folder and each.summary]
        for number, standing in done:
            assert standing.folder
            assert standing.summary
            folder.write_record(number, record_of(standing.folder, standing.summary))
        print(f"sweep of {len(jobs)} jobs: {shorter(path)}", flush=True)
        if done:
            print(f"done already: {len(done)} of {len(jobs)}", flush=True)
        report_duplicates(twins, swept)
        status = _hand_to_hydra(words, folder) if len(done) < len(jobs) else 0
        for job, same in twins:
            if record := folder.record(same.number):
                folder.write_record(job.number, record)
        return _end(folder, jobs[0].config, swept, status)


def search(words: Sequence[str], swept: Sequence[str], sweeper: str) -> int:
    """Let a sweeper of Hydra propose jobs one after the other, and return the exit status.

    Raises:
        ConfigError: a setting of the sweep is one that the sweeper does not know.
    """
    config = compose_base(words)
    for choices in choices_of(words):  # the jobs are not known yet, but the files are that they may be made of
        compose(choices)
    _refuse(config["sweep"], tuple(SweepSettings.model_fields), sweeper)
    digest = hashlib.sha256(json.dumps([sorted(words), config], sort_keys=True).encode()).hexdigest()[:8]
    name = f"{config['choices'].get('task') or 'task'},{run_label(words, {})}-{digest}"
    path = user_path(config["runs_dir"]).resolve() / "sweeps" / name
    with SweepDirectory(path) as folder:
        folder.freeze([])
        write_words(folder, words)
        print(f"sweep: {shorter(path)}", flush=True)
        return _end(folder, config, swept, _hand_to_hydra(words, folder))


def _refuse(sweep: Mapping[str, Any], unknown: Sequence[str], plugin: str) -> None:
    """Refuse settings that a plugin of Hydra does not know, rather than pass over them."""
    given, usual = SweepSettings(**sweep), SweepSettings()
    for name in unknown:
        if getattr(given, name) != getattr(usual, name):
            own = "n_jobs=2" if plugin.endswith("=joblib") else "NAME=VALUE"
            own = f"{plugin.partition('=')[0].replace('/', '.')}.{own}"
            raise ConfigError(f"sweep.{name}: {plugin} has settings of its own, {own}; without it sweep.{name} counts")


def _hand_to_hydra(words: Sequence[str], folder: SweepDirectory) -> int:
    """Let Hydra run the jobs of a sweep; return the exit status of an interruption, else 0."""
    start_fork_server()
    settings = [f"hydra.sweep.dir={quoted(str(folder.path))}", "hydra.sweep.subdir=jobs/${hydra:job.num}"]
    try:
        with StopSignals():
            run_hydra(["--multirun", *search_path_override(), *forced(words), *settings], run_job)
    except (Interrupted, KeyboardInterrupt) as stopped:
        return stopped.exit_status if isinstance(stopped, Interrupted) else 130
    return 0


def _end(folder: SweepDirectory, config: Mapping[str, Any], swept: Sequence[str], status: int) -> int:
    """Gather results.csv, print the ranking, write the report, and return the exit status."""
    results = folder.write_results(swept, {})
    tables.print_ranking(results, folder.path)
    write_report(folder, config)
    if status:
        tables.print_interrupted()
        return status
    return 0 if len(results) and (results["status"] == "done").all() else 1


def run_job(config: DictConfig) -> float | None:
    """Run one job in a process of its own and return its metric (for sweepers that search)."""
    settings = HydraConfig.get()
    folder = SweepDirectory(Path(settings.sweep.dir))
    number = int(settings.job.num)
    job = folder.job(number)
    if job is None:  # a sweeper that decides as it goes
        words = list(settings.overrides.task)
        keep_own_optimizer_settings(config, words, settings.runtime.choices)
        job = Job(number, words, to_plain(config, settings.runtime.choices))
        folder.add(job)
    record = folder.record(number)  # of a run that was done before the sweep began
    if record is None:
        start_fork_server()
        screen = LineScreen(1, 0, 1, lambda job: " ".join(job.overrides))
        record = run_jobs([job], folder, [ResourceSlot(_threads(settings))], screen)[number]
    metric = record.get("metric")
    return float(metric["value"]) if metric and metric["value"] is not None else None


def _threads(settings: Any) -> int | None:
    """Divide the cores among jobs that run side by side (the joblib launcher's n_jobs)."""
    jobs: int | None = settings.launcher.get("n_jobs")
    if jobs is None:
        return None
    cores = num_cores()
    return max(1, cores // (jobs if jobs > 0 else max(1, cores + 1 + jobs)))
