"""A sweep's frozen request: every job is composed, validated and stored before the first one starts.

Editing a file meanwhile has no effect, and the same command finds the folder of the sweep again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.override_parser.types import Glob

from dlrunner.cli.compose import Changes, Compositions, compose_jobs, composition_inputs, forced, parse
from dlrunner.cli.conf_paths import options_of
from dlrunner.cli.run_names import runs_used
from dlrunner.config.signatures import EarlyCheck
from dlrunner.errors import ConfigError
from dlrunner.files.atomic import readable_os_errors, write_atomic
from dlrunner.files.paths import user_path
from dlrunner.runs.fingerprint import code_digest
from dlrunner.runs.reader import shorter
from dlrunner.sweeps.folder import Job, JobStatus, SweepDirectory

Result = TypeVar("Result")

NOT_THE_SWEEP = ("sweep", "log", "name", "tags", "note", "hydra/launcher", "hydra/sweeper", "hydra")
"""Settings that define how jobs are run and not what they compute."""


def frozen(words: Sequence[str]) -> tuple[Path, list[Job]]:
    """Return a sweep's folder and its validated jobs; stored jobs are read from the folder."""
    choices = [list(job) for job in itertools.product(*columns(words))]  # numbered as by Hydra's own sweeper
    composed: Compositions = {}
    first = next(compose_jobs(choices[:1], composed))
    if isinstance(first, ConfigError):
        raise first
    sweeps = user_path(first["runs_dir"]).resolve() / "sweeps"
    written = list(sweeps.glob("*/sweep.json"))
    key = key_of(words, first["plugins"]) if written else None
    for file in written:
        if _written_key(file) == key:
            folder = SweepDirectory(file.parent)
            known = [job for number in range(len(choices)) if (job := folder.job(number))]
            if len(known) == len(choices) and _use_the_same_runs(known, choices, composed):
                return file.parent, known
    jobs = _checked_jobs(choices, composed)
    from dlrunner.runs.labels import LENGTH, run_label

    task = jobs[0].config["choices"].get("task") or "task"
    own = [word for word in words if word.lstrip("+").partition("=")[0].partition(".")[0] not in NOT_THE_SWEEP]
    name = run_label(own, {}, jobs[0].swept, LENGTH - len(task) - 1)
    digest = hashlib.sha256(json.dumps([sorted(own), [job.signature for job in jobs]]).encode()).hexdigest()[:8]
    return sweeps / f"{task},{name}-{digest}", jobs


def _use_the_same_runs(jobs: Sequence[Job], choices: Sequence[Sequence[str]], composed: Compositions) -> bool:
    """Return whether the runs that stored jobs start from are still those that are named, as by runs/latest."""
    used = {job.number: runs for job in jobs if (runs := runs_used(job.config))}
    now = compose_jobs([choices[number] for number in used], composed)
    return all(
        not isinstance(config, ConfigError) and runs_used(config) == runs
        for config, runs in zip(now, used.values(), strict=True)
    )


def key_of(words: Sequence[str], plugins: Sequence[str]) -> str:
    """Return a digest of all that determines the jobs of a sweep: words, files, environment variables, code."""
    named = plugins if isinstance(plugins, list) else []  # any other type is refused with the jobs
    text = json.dumps([list(words), composition_inputs(words), code_digest(named, also=("cli", "config"))])
    return hashlib.sha256(text.encode()).hexdigest()


def write_down(
    folder: SweepDirectory, words: Sequence[str], jobs: Sequence[Job], statuses: Mapping[int, JobStatus]
) -> None:
    """Store the request of every job; the key is written last, when all are stored."""
    folder.freeze(jobs, statuses)
    write_words(folder, words, key_of(words, jobs[0].config["plugins"]))


def write_words(folder: SweepDirectory, words: Sequence[str], key: str | None = None) -> None:
    """Store what was typed, and the key if all jobs are stored."""
    with readable_os_errors(folder.path):
        write_atomic(folder.path / "sweep.json", json.dumps({"words": list(words), "key": key}).encode())


def write_report(folder: SweepDirectory, config: Mapping[str, Any]) -> None:
    """Write the report of a sweep, unless log.report is false, and print its path."""
    if not config["log"]["report"]:
        return
    from dlrunner.reporting.html import sweep as report

    try:
        print(f"report   {shorter(report.write(folder.path))}")
    except Exception as failed:  # a sweep does not fail because of its report
        print(f"warning: the report could not be written: {type(failed).__name__}: {failed}")


def _written_key(file: Path) -> str | None:
    try:
        key: str = json.loads(file.read_text())["key"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    return key


def columns(words: Sequence[str]) -> list[list[str]]:
    """Return the values of each setting of a sweep, as overrides: a job has one of each."""
    choices = []
    for override in parse([word for word in forced(words) if not word.startswith("hydra")]):
        if not override.is_sweep_override():
            choices.append([str(override.input_line)])
        elif isinstance(pattern := override.value(), Glob):
            key = override.get_key_element()
            choices.append([f"{key}={name}" for name in pattern.filter(options_of(override.key_or_group))])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            text = str(override.input_line).lstrip("+")
            raise ConfigError(f"{text}: a range without steps is for a search: hydra/sweeper=optuna sweep.trials=20")
        if not choices[-1]:
            raise ConfigError(f"{str(override.input_line).lstrip('+')}: has no values")
    return choices


def _checked_jobs(choices: Sequence[Sequence[str]], composed: Compositions) -> list[Job]:
    """Compose and bind every job's configuration.

    Raises:
        ConfigError: some are invalid.
    """
    configs = list(compose_jobs(choices, composed))
    _check_each(choices, configs, EarlyCheck())
    from dlrunner.config.plan import plan
    from dlrunner.tracking.supervisor import require_packages

    changes = Changes()

    def bound(config: dict[str, Any]) -> tuple[dict[str, Any], str, dict[str, str] | None]:
        checked = plan(config)
        require_packages(checked)
        return config, checked.signature, changes.of(config)

    found = enumerate(zip(choices, _check_each(choices, configs, bound), strict=True))
    swept = _names_that_differ(choices)
    return [Job(number, [word.lstrip("+") for word in words], *job, swept) for number, (words, job) in found]


def _names_that_differ(choices: Sequence[Sequence[str]]) -> list[str]:
    """Return the names of the settings that have several values."""
    columns = [{word.lstrip("+") for word in column} for column in zip(*choices, strict=True)]
    return [next(iter(column)).partition("=")[0] for column in columns if len(column) > 1]


def _check_each(
    choices: Sequence[Sequence[str]],
    configs: Sequence[dict[str, Any] | ConfigError],
    check: Callable[[dict[str, Any]], Result],
) -> list[Result]:
    """Return the result of a check for every job's configuration; all errors are reported together."""
    found: list[Result] = []
    problems: dict[str, str] = {}
    for words, config in zip(choices, configs, strict=True):
        try:
            if isinstance(config, ConfigError):
                raise config
            found.append(check(config))
        except ConfigError as error:
            problems.setdefault(str(error), " ".join(word.lstrip("+") for word in words))
    if problems:
        raise ConfigError("\n".join(f"{error}  (job: {job})" for error, job in problems.items()))
    return found
