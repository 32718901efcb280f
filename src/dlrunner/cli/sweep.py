"""Sweeps: several values for some settings, every combination a job.

All jobs are composed, checked and written down before the first one starts; a file that is edited meanwhile changes
nothing. Given again, what is done is not done again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrunner.cli.compose import ENGINES, check_hydra_setting, parse
from dlrunner.cli.sweep_files import frozen, write_down, write_report
from dlrunner.config.schema import SweepSettings
from dlrunner.errors import ConfigError, Interrupted
from dlrunner.reporting.terminal import tables
from dlrunner.reporting.terminal.sweep import duration, make_screen
from dlrunner.runs.reader import shorter
from dlrunner.sweeps.engines import LAUNCHERS, make_engine, require_package
from dlrunner.sweeps.folder import Job, JobStatus, SweepDirectory, duplicate_jobs, record_of, status_of

if TYPE_CHECKING:
    from dlrunner.sweeps.engines.base import RemoteEngine
    from dlrunner.sweeps.pool import ResourceSlot


def sweep(words: Sequence[str]) -> int:
    """Run every job of a sweep, write results.csv, print the ranking.

    Raises:
        ConfigError: a job's configuration does not fit; no job was started.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("torchrun starts the processes of one run; a sweep starts its own: `dlrun` by itself")
    launcher, is_search = chosen_engines(words)
    words = with_seeds(words)
    swept = [o.key_or_group for o in parse(words) if o.is_sweep_override()]
    if is_search:
        from dlrunner.cli.search import search

        return search(words, swept, launcher)
    path, jobs = frozen(words)
    from dlrunner.sweeps.pool import resource_slots

    settings = SweepSettings(**jobs[0].config["sweep"])
    standings = status_of(jobs)
    if settings.dry_run:
        _print_plan(path, jobs, swept, standings)
        return 0
    left = sum(standing.state != "done" for standing in standings.values())
    engine = make_engine(launcher, path, settings) if launcher and left else None
    try:
        with SweepDirectory(path) as folder:
            write_down(folder, words, jobs)
            here = resource_slots(settings.jobs, jobs, settings.gpu_share)
            places = engine.slots(settings.jobs, left) if engine else here
            return do(folder, jobs, standings, swept, places, settings.fail_fast, engine)
    finally:
        if engine:
            engine.close()


def chosen_engines(words: Sequence[str]) -> tuple[str | None, bool]:
    """Return the launcher that was asked for, and whether it is a search; Hydra's basic ones are dlrunner's own.

    Raises:
        ConfigError: there is none of that name, its package is not installed, or it has no such setting.
    """
    overrides = parse(words)
    for override in overrides:
        check_hydra_setting(override)
    chosen = {o.key_or_group: str(o.value()) for o in overrides if o.key_or_group in ENGINES}
    launcher, is_search = chosen.get("hydra/launcher"), chosen.get("hydra/sweeper") == "optuna"
    if launcher in LAUNCHERS:
        require_package(LAUNCHERS[launcher], f"hydra/launcher={launcher}", LAUNCHERS[launcher])
    if is_search:
        require_package("optuna", "hydra/sweeper=optuna", "optuna")
        if any(word.lstrip("+").startswith("seeds=") for word in words):
            raise ConfigError(
                "seeds: a search judges single runs; give the best one its seeds: experiment=NAME seeds=5"
            )
    return (launcher if launcher in LAUNCHERS else None), is_search


def with_seeds(words: Sequence[str]) -> list[str]:
    """Write `seeds=5` as `seed=0,1,2,3,4`, counted from a seed that is given.

    Raises:
        ConfigError: it is no number, or seed has several values too.
    """
    asked = [word for word in words if word.lstrip("+").startswith("seeds=")]
    if not asked:
        return list(words)
    said = asked[-1].partition("=")[2]
    if not (said.isdigit() and 1 <= int(said) <= 10_000):
        raise ConfigError(f"seeds: must be a number from 1 to 10000, not {said!r}; single ones: -m seed=3,5")
    first = [word for word in words if word.lstrip("+").startswith("seed=")]
    start = first[-1].partition("=")[2] if first else "0"
    if not start.isdigit():
        raise ConfigError(f"seeds={said} counts from seed, which has the value {start!r} here")
    rest = [word for word in words if word not in asked and word not in first]
    return [*rest, f"seed={','.join(str(int(start) + i) for i in range(int(said)))}"]


def do(
    folder: SweepDirectory,
    jobs: Sequence[Job],
    standings: Mapping[int, JobStatus],
    swept: Sequence[str],
    places: Sequence[ResourceSlot],
    fail_fast: bool = False,
    engine: RemoteEngine | None = None,
) -> int:
    """Do what is missing of some jobs, gather results.csv, print the ranking, and return the exit status."""
    from dlrunner.sweeps.pool import run_jobs, start_fork_server

    records: dict[int, dict[str, Any]] = {
        number: record_of(standing.folder, standing.summary)
        for number, standing in standings.items()
        if standing.folder and standing.summary
    }
    twins = duplicate_jobs(jobs)
    done_with = {*records, *(job.number for job, _ in twins)}
    missing = [job for job in jobs if job.number not in done_with]
    together = f", {engine.name}" if engine else f", {len(places)} at a time" if len(places) > 1 else ""
    print(f"sweep of {len(jobs)} jobs{together}: {shorter(folder.path)}", flush=True)
    if records:
        print(f"done already: {len(records)} of {len(jobs)}", flush=True)
    _tell_of_twins(twins, swept)
    status = 0
    if missing:
        if engine is None:
            start_fork_server(missing)
        progress = missing[0].config["log"]["progress"]
        screen = make_screen(progress, len(jobs) - len(twins), len(records), len(places), lambda job: job.label(swept))
        try:
            records |= run_jobs(missing, folder, places, screen, fail_fast, engine)
        except (Interrupted, KeyboardInterrupt) as stopped:
            status = stopped.exit_status if isinstance(stopped, Interrupted) else 130
        finally:
            screen.close()
    for job, same in twins:
        if record := records.get(same.number) or folder.record(same.number):
            records[job.number] = record
    results = folder.write_results(swept, records)
    tables.print_ranking(results, folder.path)
    if missing:
        write_report(folder, missing[0].config)
    if status:
        tables.print_interrupted()
        return status
    return 0 if (results["status"] == "done").all() else 1


def _tell_of_twins(twins: Sequence[tuple[Job, Job]], swept: Sequence[str]) -> None:
    """Print which jobs come to the same run as others, the first ten of them."""
    for job, same in twins[:10]:
        print(f"[{job.number}] {job.label(swept)}: the same run as [{same.number}], done once", flush=True)


def _print_plan(path: Path, jobs: Sequence[Job], swept: Sequence[str], standings: Mapping[int, JobStatus]) -> None:
    """Print what a sweep would do: jobs, how far they are, folders, and how long the rest will take."""
    rows = []
    for job in jobs:
        standing = standings[job.number]
        place = str(shorter(standing.folder)) if standing.folder else "-"
        rows.append([str(job.number), *(job.settings.get(key, "") for key in swept), standing.state, place])
    title = f"sweep of {len(jobs)} jobs, {shorter(path)}"
    tables.print_table(["job", *swept, "state", "run"], rows, {"job"}, title)
    seconds = [standing.summary["seconds"] for standing in standings.values() if standing.summary]
    left = sum(not standing.state.startswith("done") for standing in standings.values())
    told = f"{len(jobs) - left} of {len(jobs)} are done"
    if left and seconds:
        told += f"; the other {left} take about {duration(left * sum(seconds) / len(seconds))}, one after the other"
    elif left:
        told += "; none is done yet to tell the time by"
    print(told)
