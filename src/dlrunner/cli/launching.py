"""Sweeps through Hydra's launchers and sweepers: other engines start the jobs, the folders are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dlrunner.cli.composing import forced, parse, run_hydra, search_path_override, to_plain
from dlrunner.cli.places import quoted
from dlrunner.cli.sweeping import compose_base, frozen, write_down, write_report, write_words
from dlrunner.data.parallel import num_cores
from dlrunner.errors import Interrupted
from dlrunner.jobs import Lease, run_jobs, start_fork_server
from dlrunner.looks import tables
from dlrunner.looks.sweeping import LineScreen
from dlrunner.runner import run_label
from dlrunner.runs import shorter
from dlrunner.signals import StopSignals
from dlrunner.sweeps import Job, Standing, SweepDirectory, record_of, standing_of


def launch(words: Sequence[str], swept: Sequence[str]) -> int:
    """Let Hydra launch the jobs, gather what became of them, and return the exit status."""
    jobs: list[Job] = []
    done: list[tuple[int, Standing]] = []
    searching = any(override.key_or_group == "hydra/sweeper" for override in parse(words))
    if searching:  # the jobs become known one after the other
        config = compose_base(words)
        digest = hashlib.sha256(json.dumps([sorted(words), config], sort_keys=True).encode()).hexdigest()[:8]
        name = f"{config['choices'].get('task') or 'task'},{run_label(words, {})}-{digest}"
        path = Path(config["runs_dir"]).expanduser().resolve() / "sweeps" / name
    else:
        path, jobs = frozen(words)
        config = jobs[0].config
    with SweepDirectory(path) as folder:
        if searching:
            folder.freeze([])
            write_words(folder, words)
        else:
            write_down(folder, words, jobs)
        done = [(number, each) for number, each in standing_of(jobs).items() if each.folder and each.summary]
        for number, standing in done:
            assert standing.folder
            assert standing.summary
            folder.write_record(number, record_of(standing.folder, standing.summary))
        told = f"sweep of {len(jobs)} jobs" if jobs else "sweep"
        print(f"{told}: {shorter(path)}", flush=True)
        if done:
            print(f"done already: {len(done)} of {len(jobs)}", flush=True)
        start_fork_server()
        settings = [f"hydra.sweep.dir={quoted(str(path))}", "hydra.sweep.subdir=jobs/${hydra:job.num}"]
        status = 0
        try:
            with StopSignals():
                if searching or len(done) < len(jobs):
                    run_hydra(["--multirun", *search_path_override(), *forced(words), *settings], run_job)
        except (Interrupted, KeyboardInterrupt) as stopped:
            status = stopped.exit_status if isinstance(stopped, Interrupted) else 130
        results = folder.write_results(swept, {})
        tables.print_ranking(results, path)
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
        job = Job(number, list(settings.overrides.task), to_plain(config, settings.runtime.choices))
        folder.add(job)
    record = folder.record(number)  # of a run that was done before the sweep began
    if record is None:
        start_fork_server()
        screen = LineScreen(1, 0, 1, lambda job: " ".join(job.overrides))
        record = run_jobs([job], folder, [Lease(_threads(settings))], screen)[number]
    metric = record.get("metric")
    return float(metric["value"]) if metric and metric["value"] is not None else None


def _threads(settings: Any) -> int | None:
    """Divide the cores among jobs that run side by side (the joblib launcher's n_jobs)."""
    jobs: int | None = settings.launcher.get("n_jobs")
    if jobs is None:
        return None
    cores = num_cores()
    return max(1, cores // (jobs if jobs > 0 else max(1, cores + 1 + jobs)))
