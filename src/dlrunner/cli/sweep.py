"""Sweeps: several values for some settings, every combination a job.

All jobs are composed, validated and stored before the first one starts; editing a file meanwhile has no effect. The
same command skips finished jobs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrunner.cli.compose import ENGINES, check_hydra_setting, compose, parse
from dlrunner.cli.conf_paths import groups
from dlrunner.cli.shown_jobs import left_text, run_shown, same_run_text
from dlrunner.cli.sweep_files import columns, frozen, write_down, write_report
from dlrunner.config.schema import SweepSettings
from dlrunner.errors import ConfigError
from dlrunner.reporting.terminal import tables
from dlrunner.reporting.terminal.quiet import at_level
from dlrunner.reporting.terminal.sweep import make_screen
from dlrunner.runs.reader import shorter
from dlrunner.runs.tags import keep_tags
from dlrunner.sweeps.engines import LAUNCHERS, make_engine, require_package
from dlrunner.sweeps.folder import Job, JobStatus, SweepDirectory, duplicate_jobs, status_of
from dlrunner.system.torchrun import num_processes

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from dlrunner.sweeps.engines.base import RemoteEngine
    from dlrunner.sweeps.slots import ResourceSlot


SEARCH_SETTINGS = ("trials", "sampler", "sampler_seed", "best")
"""Settings of `sweep` that have an effect in a search only."""


def run_sweep(words: Sequence[str]) -> tuple[Path, int]:
    """Run every job of a sweep, write results.csv, print the ranking, and return the folder and the exit status.

    Raises:
        ConfigError: a job's configuration is invalid; no job was started.
        DataError: the published data was not found; likewise.
    """
    if num_processes() > 1:
        raise ConfigError("torchrun starts the processes of one run; start a sweep with `dlrun` alone")
    launcher, is_search = chosen_engines(words)
    words = list(words) if is_search else with_seeds(words)
    swept = [o.key_or_group for o in parse(words) if o.is_sweep_override()]
    if is_search:
        from dlrunner.cli.search import search

        return search(words, swept, launcher)
    path, jobs = frozen(words)
    from dlrunner.sweeps.slots import resource_slots

    settings = SweepSettings(**jobs[0].config["sweep"])
    statuses = status_of(jobs)
    if settings.dry_run:
        _print_plan(path, jobs, swept, statuses)
        return path, 0
    left = sum(status.state != "done" for status in statuses.values())
    if left:
        from dlrunner.execution.identity import refuse_generated_data

        refuse_generated_data(job.config for job in jobs if statuses[job.number].state != "done")
    engine = make_engine(launcher, path, settings) if launcher and left else None
    try:
        with at_level(jobs[0].config["log"]["level"], path), SweepDirectory(path) as folder:
            write_down(folder, words, jobs, statuses)
            local_slots = resource_slots(settings.jobs, jobs, settings.gpu_share)
            slots = engine.slots(settings.jobs, left) if engine else local_slots
            return path, run_missing(folder, jobs, statuses, swept, slots, settings.fail_fast, engine)
    finally:
        if engine:
            engine.close()


def chosen_engines(words: Sequence[str]) -> tuple[str | None, bool]:
    """Return the requested launcher, and whether it is a search; Hydra's basic ones mean dlrunner's own.

    Raises:
        ConfigError: it does not exist, its package is not installed, or it has no such setting.
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
    elif ignored := [text for override in overrides if (text := _search_setting(override))]:
        raise ConfigError(
            f"{ignored[0]}: is a setting of a search, and this is a sweep of all combinations; for a search add "
            "hydra/sweeper=optuna"
        )
    return (launcher if launcher in LAUNCHERS else None), is_search


def _search_setting(override: Override) -> str | None:
    """Return the text of a setting that has an effect in a search only; None for any other."""
    value = override.value() if override.key_or_group == "sweep" else None
    names = value if isinstance(value, dict) else [override.key_or_group.removeprefix("sweep.")]
    is_sweep = override.key_or_group.partition(".")[0] == "sweep"
    return str(override.input_line) if is_sweep and {*map(str, names)} & {*SEARCH_SETTINGS} else None


def with_seeds(words: Sequence[str]) -> list[str]:
    """Expand `seeds=5`, typed or of an experiment, to `seed=0,1,2,3,4`, starting from `seed` if that is set.

    Raises:
        ConfigError: it is not a number, seed also has several values, or the experiments of a sweep differ in them.
    """
    if "seeds" in (swept := {o.key_or_group: o for o in parse(words) if o.is_sweep_override()}):
        raise ConfigError(f"{swept['seeds'].input_line}: seeds is one number; for single seeds: -m seed=3,5")
    count = _of_options(words, "seeds")
    if count is None:
        return list(words)
    if type(count) is not int or not 1 <= count <= 10_000:
        raise ConfigError(f"seeds: must be a number from 1 to 10000, not {count!r}; for single seeds: -m seed=3,5")
    if "seed" in swept:
        raise ConfigError(f"seeds={count} starts from seed, which has several values: {swept['seed'].input_line}")
    start = _of_options(words, "seed")
    if type(start) is not int:
        raise ConfigError(f"seeds={count} starts from seed, which is {start!r}")
    rest = [word for word in words if word.lstrip("+").partition("=")[0] not in ("seed", "seeds")]
    return [*rest, f"seed={','.join(str(start + i) for i in range(count))}"]


def _of_options(words: Sequence[str], name: str) -> Any:
    """Return a setting as it is typed, or as the chosen options have it: an experiment may set it."""
    known, values = groups(), list[Any]()
    choices = [column if column[0].lstrip("+").partition("=")[0] in known else column[:1] for column in columns(words)]
    for each in itertools.product(*choices):
        if (value := compose(each)[name]) not in values:
            values.append(value)
    if len(values) > 1:
        raise ConfigError(f"{name}: the options of this sweep set {' and '.join(map(str, values))}; give one for all")
    return values[0]


def run_missing(
    folder: SweepDirectory,
    jobs: Sequence[Job],
    statuses: Mapping[int, JobStatus],
    swept: Sequence[str],
    slots: Sequence[ResourceSlot],
    fail_fast: bool = False,
    engine: RemoteEngine | None = None,
) -> int:
    """Run the missing jobs, write results.csv, print the ranking, and return the exit status."""
    from dlrunner.sweeps.pool import start_fork_server

    duplicates = duplicate_jobs(jobs, statuses)
    repeated = {job.number for job, _ in duplicates}
    done = {number for number, status in statuses.items() if status.summary} - repeated
    missing = [job for job in jobs if job.number not in done | repeated]
    for job in jobs:
        if (status_of_job := statuses[job.number]).summary and status_of_job.folder:
            keep_tags(status_of_job.folder, job.config)
    together = f", {engine.name}" if engine else f", {len(slots)} in parallel" if len(slots) > 1 else ""
    print(f"sweep of {_count(jobs)}{together}\nfolder   {shorter(folder.path)}", flush=True)
    if done:
        print(f"finished: {len(done)} of {len(jobs) - len(repeated)}", flush=True)
    _print_duplicates(duplicates, swept)
    status = 0
    if missing:
        if engine is None:
            start_fork_server(missing)
        screen = make_screen(
            missing[0].config["log"]["progress"],
            len(jobs) - len(repeated),
            len(done),
            len(slots),
            lambda job: job.label(swept),
        )
        status = run_shown(missing, folder, slots, screen, fail_fast, engine)
    results, same_runs = folder.write_results(swept)
    by_number = {job.number: job for job in jobs}
    found = [(by_number[one], by_number[other]) for one, other in same_runs.items() if one not in repeated]
    _print_duplicates(found, swept)
    tables.print_ranking(results, folder.path)
    write_report(folder, jobs[0].config)
    if status:
        tables.print_interrupted()
        return status
    if missed := _num_missed([job for job in jobs if job.config.get("claim")], folder):
        tables.print_sentence(f"{missed} of {_count(jobs)} miss the published value")
    return 0 if (results["status"] == "done").all() and not missed else 1


def _num_missed(jobs: Sequence[Job], folder: SweepDirectory) -> int:
    """Return how many finished runs of jobs with a claim miss its value."""
    from dlrunner.cli.reproduce import checked_summary

    verdicts = []
    for job in jobs:
        record = folder.result(job.number)
        summary = checked_summary(job, record) if record["status"] == "done" else None
        verdicts.append(str(((summary or {}).get("claim") or {}).get("verdict")))
    return sum(verdict.startswith("missed") for verdict in verdicts)


def _print_duplicates(duplicates: Sequence[tuple[Job, Job]], swept: Sequence[str]) -> None:
    """Print which jobs are the same run as another, the first ten of them."""
    for job, same in duplicates[:10]:
        print(same_run_text(job, job.number, same.number, swept), flush=True)


def _print_plan(path: Path, jobs: Sequence[Job], swept: Sequence[str], statuses: Mapping[int, JobStatus]) -> None:
    """Print the plan of a sweep: jobs, their status and folders, and the estimated time; a run is counted once."""
    duplicates = duplicate_jobs(jobs, statuses)
    repeated = {job.number for job, _ in duplicates}
    statuses = {number: status for number, status in statuses.items() if number not in repeated}
    rows = []
    for job in jobs:
        if job.number in repeated:
            continue
        status = statuses[job.number]
        folder = str(shorter(status.folder)) if status.folder else "-"
        rows.append([str(job.number), *(job.settings.get(key, "") for key in swept), status.state, folder])
    print(f"sweep of {_count(jobs)}\nfolder   {shorter(path)}")
    tables.print_table(["job", *swept, "status", "run"], rows, {"job"})
    _print_duplicates(duplicates, swept)
    seconds = [status.summary["seconds"] for status in statuses.values() if status.summary]
    finished = sum(status.state.startswith("done") for status in statuses.values())
    print(left_text("job", finished, len(statuses), seconds))


def _count(jobs: Sequence[Job]) -> str:
    return f"{len(jobs)} {'job' if len(jobs) == 1 else 'jobs'}"
