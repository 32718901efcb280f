"""Sweeps: several values for some settings, every combination a job.

All jobs are composed, checked and written down before the first one starts; a file that is edited meanwhile changes
nothing. Given again, what is done is not done again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dlrunner.cli.compose import Changes, check_hydra_setting, compose, compose_jobs, composition_inputs, forced, parse
from dlrunner.cli.hydra_guard import RefusedError
from dlrunner.config.plan import plan
from dlrunner.config.schema import SweepSettings
from dlrunner.errors import ConfigError, Interrupted, did_you_mean
from dlrunner.files.atomic import write_atomic
from dlrunner.files.paths import user_path
from dlrunner.reporting.terminal import tables
from dlrunner.reporting.terminal.sweep import duration, make_screen
from dlrunner.runs.fingerprint import code_digest
from dlrunner.runs.labels import run_label
from dlrunner.runs.reader import shorter
from dlrunner.sweeps.engines import LAUNCHERS, make_engine, require_package
from dlrunner.sweeps.engines.base import RemoteEngine
from dlrunner.sweeps.folder import Job, JobStatus, SweepDirectory, duplicate_jobs, record_of, status_of
from dlrunner.sweeps.pool import ResourceSlot, resource_slots, run_jobs, start_fork_server
from dlrunner.system.process_group import local_rank
from dlrunner.tracking.supervisor import require_packages

NOT_THE_SWEEP = ("sweep", "log", "hydra/launcher", "hydra/sweeper", "hydra")
"""Settings of how the jobs are run, not of what they are."""


def sweep(words: Sequence[str]) -> int:
    """Run every job of a sweep, write results.csv, print the ranking.

    Raises:
        ConfigError: a job's configuration does not fit; no job was started.
    """
    if local_rank() is not None:
        raise ConfigError("torchrun starts the processes of one run; a sweep starts its own: `dlrun` by itself")
    launcher, sweeper = chosen_engines(words)
    ours = {f"hydra/launcher={name}" for name in LAUNCHERS} | {"hydra/sweeper=optuna"}
    compose([word for word in words if word.lstrip("+~").startswith("hydra") and word not in ours])
    words = with_seeds(words)
    swept = [o.key_or_group for o in parse(words) if o.is_sweep_override() and not o.key_or_group.startswith("hydra")]
    elsewhere = launcher if launcher in LAUNCHERS else None
    if sweeper == "optuna":
        from dlrunner.cli import search as searching

        return searching.search(words, swept, elsewhere)
    if sweeper:
        from dlrunner.cli import launching

        return launching.search(words, swept, f"hydra/sweeper={sweeper}")
    path, jobs = frozen(words)
    settings = SweepSettings(**jobs[0].config["sweep"])
    standings = status_of(jobs)
    if settings.dry_run:
        _print_plan(path, jobs, swept, standings)
        return 0
    if launcher and not elsewhere:
        from dlrunner.cli import launching

        return launching.launch(words, swept, f"hydra/launcher={launcher}", path, jobs, standings)
    left = sum(standing.state != "done" for standing in standings.values())
    engine = make_engine(elsewhere, path, settings) if elsewhere and left else None
    try:
        with SweepDirectory(path) as folder:
            write_down(folder, words, jobs)
            here = resource_slots(settings.jobs, jobs, settings.gpu_share)
            places = engine.slots(settings.jobs, left) if engine else here
            return do(folder, jobs, standings, swept, places, settings.fail_fast, engine)
    finally:
        if engine:
            engine.close()


def chosen_engines(words: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the launcher and the sweeper that were asked for; Hydra's basic ones do what dlrunner does by itself.

    Raises:
        ConfigError: there is none of that name, its package is not installed, or a setting of Hydra's plugin is given
            to an engine that has settings of its own.
    """
    overrides = parse(words)
    for override in overrides:
        check_hydra_setting(override)
    chosen = {o.key_or_group: str(o.value()) for o in overrides if o.key_or_group.startswith("hydra/")}
    launcher, sweeper = chosen.get("hydra/launcher"), chosen.get("hydra/sweeper")
    for name, key, ours in (
        (launcher, "launcher", LAUNCHERS),
        (sweeper, "sweeper", {"optuna": "optuna"}),
    ):
        if name in ours:
            require_package(ours[name], f"hydra/{key}={name}", ours[name])
            if given := [word for word in words if word.lstrip("+").startswith(f"hydra.{key}.")]:
                known = {"launcher": "sweep.needs and sweep.jobs", "sweeper": "sweep.trials, sampler, sampler_seed"}
                raise ConfigError(f"{given[0]}: with hydra/{key}={name} the settings are {known[key]}")
        elif name == "joblib":
            require_package("hydra_plugins.hydra_joblib_launcher", "hydra/launcher=joblib", "joblib")
        elif name and name != "basic":
            try:
                compose([f"hydra/{key}={name}"])
            except RefusedError:
                raise
            except ConfigError:
                known_names = ["basic", *(["joblib"] if key == "launcher" else []), *ours]
                raise ConfigError(
                    f"hydra/{key}={name}: there is no such {key}; {did_you_mean(name, known_names)}"
                ) from None
    if sweeper == "optuna" and launcher == "joblib":
        raise ConfigError("hydra/launcher=joblib: a search does without it; sweep.jobs=2 makes trials side by side")
    if sweeper == "optuna" and any(word.lstrip("+").startswith("seeds=") for word in words):
        raise ConfigError("seeds: a search judges single runs; give the best one its seeds: experiment=NAME seeds=5")
    return (None if launcher == "basic" else launcher), (None if sweeper == "basic" else sweeper)


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


def frozen(words: Sequence[str]) -> tuple[Path, list[Job]]:
    """Return a sweep's folder and its jobs, checked; those that were written down before are read from there."""
    choices = _expand(words)
    first = next(compose_jobs(choices[:1]))
    if isinstance(first, ConfigError):
        raise first
    sweeps = user_path(first["runs_dir"]).resolve() / "sweeps"
    key = key_of(words, first["plugins"])
    for file in sweeps.glob("*/sweep.json"):
        if _written_key(file) == key:
            folder = SweepDirectory(file.parent)
            known = [folder.job(number) for number in range(len(choices))]
            if all(known):
                return file.parent, [job for job in known if job]
    jobs = _check(choices)
    task = jobs[0].config["choices"].get("task") or "task"
    asked = [word for word in words if word.lstrip("+").partition("=")[0].partition(".")[0] not in NOT_THE_SWEEP]
    name = run_label(asked, {}) if asked else "default"
    digest = hashlib.sha256(json.dumps([sorted(asked), [job.signature for job in jobs]]).encode()).hexdigest()[:8]
    return sweeps / f"{task},{name}-{digest}", jobs


def key_of(words: Sequence[str], plugins: Sequence[str]) -> str:
    """Return a digest of what the jobs of a sweep rest on: words, configuration files, code (also of composing)."""
    named = plugins if isinstance(plugins, list) else []  # what is no list is refused with the jobs
    text = json.dumps([list(words), composition_inputs(), code_digest(named, also=("cli", "config"))])
    return hashlib.sha256(text.encode()).hexdigest()


def write_down(folder: SweepDirectory, words: Sequence[str], jobs: Sequence[Job]) -> None:
    """Write down what every job is asked for; the key comes last, when all of them stand there."""
    folder.freeze(jobs)
    write_words(folder, words, key_of(words, jobs[0].config["plugins"]))


def write_words(folder: SweepDirectory, words: Sequence[str], key: str | None = None) -> None:
    """Write down what was typed; with the key where all jobs stand in the folder."""
    write_atomic(folder.path / "sweep.json", json.dumps({"words": list(words), "key": key}).encode())


def write_report(folder: SweepDirectory, config: Mapping[str, Any]) -> None:
    """Write the page of a sweep, where the log settings of its jobs want one, and say where it is."""
    if not config["log"]["report"]:
        return
    from dlrunner.reporting.html import sweep as report

    try:
        print(f"report   {shorter(report.write(folder.path))}")
    except Exception as failed:  # no page is worth a sweep
        print(f"note: the report could not be written: {type(failed).__name__}: {failed}")


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
    report_duplicates(twins, swept)
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


def report_duplicates(twins: Sequence[tuple[Job, Job]], swept: Sequence[str]) -> None:
    """Print which jobs come to the same run as others, the first ten of them."""
    for job, same in twins[:10]:
        print(f"[{job.number}] {job.label(swept)}: the same run as [{same.number}], done once", flush=True)


def _print_plan(path: Path, jobs: Sequence[Job], swept: Sequence[str], standings: Mapping[int, JobStatus]) -> None:
    """Print what a sweep would do: jobs, how far they are, folders, and how long the rest will take."""
    rows = []
    for job in jobs:
        standing = standings[job.number]
        place = str(shorter(standing.folder)) if standing.folder else "-"
        values = {key: job.settings.get(key) for key in swept}
        rows.append({"job": job.number, **values, "state": standing.state, "run": place})
    tables.print_frame(pd.DataFrame(rows), title=f"sweep of {len(jobs)} jobs, {shorter(path)}")
    seconds = [standing.summary["seconds"] for standing in standings.values() if standing.summary]
    left = sum(not standing.state.startswith("done") for standing in standings.values())
    told = f"{len(jobs) - left} of {len(jobs)} are done"
    if left and seconds:
        told += f"; the other {left} take about {duration(left * sum(seconds) / len(seconds))}, one after the other"
    elif left:
        told += "; none is done yet to tell the time by"
    print(told)


def _written_key(file: Path) -> str | None:
    try:
        key: str = json.loads(file.read_text())["key"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    return key


def _expand(words: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job, as Hydra's own sweeper would number them."""
    choices = []
    for override in parse([word for word in forced(words) if not word.startswith("hydra")]):
        if not override.is_sweep_override():
            choices.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            said = str(override.input_line).lstrip("+")
            raise ConfigError(f"{said}: a range without steps is for a search: hydra/sweeper=optuna sweep.trials=20")
        if not choices[-1]:
            raise ConfigError(f"{str(override.input_line).lstrip('+')}: names no value at all")
    return [list(job) for job in itertools.product(*choices)]


def _check(choices: Sequence[Sequence[str]]) -> list[Job]:
    """Compose and bind every job's configuration; all that do not fit are told together."""
    jobs: list[Job] = []
    problems: dict[str, str] = {}
    changes = Changes()
    for number, (words, config) in enumerate(zip(choices, compose_jobs(choices), strict=True)):
        try:
            if isinstance(config, ConfigError):
                raise config
            overrides = [word.lstrip("+") for word in words]
            checked = plan(config)
            require_packages(checked)
            jobs.append(Job(number, overrides, config, checked.signature, changes.of(config)))
        except ConfigError as error:
            problems.setdefault(str(error), " ".join(word.lstrip("+") for word in words))
    if problems:
        raise ConfigError("\n".join(f"{error}  (job: {job})" for error, job in problems.items()))
    return jobs


def compose_base(words: Sequence[str]) -> dict[str, Any]:
    """Compose what a sweep whose jobs are not known beforehand begins with."""
    overrides = parse([word for word in words if not word.startswith("hydra")])
    return compose([str(override.input_line) for override in overrides if not override.is_sweep_override()])
