"""Searches: `-m hydra/sweeper=optuna 'optim.lr=interval(1e-4,1e-1)'`; each trial is a job like those of a sweep."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from dlrunner.cli.compose import Changes, compose, compose_jobs, parse
from dlrunner.cli.conf_paths import options_of
from dlrunner.cli.recipe import experiment_of
from dlrunner.cli.shown_jobs import left_text, run_shown, same_run_text
from dlrunner.cli.sweep_files import NOT_THE_SWEEP, write_report, write_words
from dlrunner.config.schema import SweepSettings
from dlrunner.config.signatures import EarlyCheck
from dlrunner.errors import ConfigError
from dlrunner.files.atomic import readable_os_errors, write_atomic
from dlrunner.files.paths import user_path
from dlrunner.reporting.terminal import tables
from dlrunner.reporting.terminal.progress import number as shown
from dlrunner.reporting.terminal.quiet import at_level
from dlrunner.reporting.terminal.sweep import LineScreen, make_screen
from dlrunner.runs.fingerprint import code_digest
from dlrunner.runs.reader import finished_summary, shorter
from dlrunner.runs.tags import keep_tags
from dlrunner.sweeps.engines import make_engine
from dlrunner.sweeps.folder import Job, SweepDirectory
from dlrunner.sweeps.search import Search

if TYPE_CHECKING:
    from dlrunner.config.plan import Plan
    from dlrunner.sweeps.engines.base import RemoteEngine

MARK = "# Found by: "


def search(words: Sequence[str], swept: Sequence[str], launcher: str | None) -> tuple[Path, int]:
    """Run the missing trials, write results.csv and best.yaml, and return the folder, and 0 if a trial has succeeded.

    Raises:
        ConfigError: a range or a setting is invalid; no trial was started.
    """
    space, fixed = _space(words)
    config, checked = _check(fixed, space)
    if config["seeds"] is not None:
        raise ConfigError("seeds: a search evaluates single runs; run the best one with seeds: experiment=NAME seeds=5")
    settings = SweepSettings(**config["sweep"])
    if settings.best is not None:
        _experiment_file(settings.best)
    if launcher and settings.jobs == "auto":
        raise ConfigError(
            f"sweep.jobs: must be a number for a search with hydra/launcher={launcher}: trials "
            "that are proposed at once cannot use each other's results"
        )
    path, higher_is_better = _folder(words, swept, config, checked, settings)
    if settings.dry_run:
        _print_trials(SweepDirectory(path), list(space), settings.trials)
        return path, 0
    from dlrunner.execution.identity import refuse_generated_data

    refuse_generated_data([config])
    engine = make_engine(launcher, path, settings) if launcher else None
    try:
        with at_level(config["log"]["level"], path), SweepDirectory(path) as folder:
            found = Search(path, space, higher_is_better, settings.sampler, settings.sampler_seed)
            folder.reopen()
            for run in [Path(job["folder"]) for job in map(folder.result, folder.numbers()) if job["status"] == "done"]:
                if run.is_dir():
                    keep_tags(run, config)
            write_words(folder, words)
            try:
                first = Job(0, fixed, config, checked.signature)
                trials = _Trials(folder, found, fixed)
                status = _run_trials(trials, first, swept, settings, engine)
                best = found.best()
            finally:
                found.close()
            results, same_runs = folder.write_results(swept)
            for number, same in same_runs.items():
                if number not in trials.repeated:  # it was found when `auto` was decided
                    print(same_run_text(folder.job(number), number, same, swept))
            tables.print_ranking(results, path)
            write_report(folder, config)
            if best is not None:
                _write_best(folder, best, words, settings.best)
    finally:
        if engine:
            engine.close()
    if status:
        tables.print_interrupted()
    return path, status or (0 if best is not None else 1)


def _print_trials(folder: SweepDirectory, names: Sequence[str], trials: int) -> None:
    """Print the trials of a search so far, with their status and folders, and the estimated time of the others."""
    results = {number: folder.result(number) for number in folder.numbers()}
    rows = []
    for number, result in results.items():
        job = folder.job(number)
        values = [job.settings.get(name, "") if job else "" for name in names]
        run = str(shorter(Path(result["folder"]))) if result.get("folder") else "-"
        rows.append([str(number), *values, result["status"], run])
    total = max(trials, len(rows))
    print(f"search of {total} trials over {', '.join(names)}\nfolder   {shorter(folder.path)}")
    if rows:
        tables.print_table(["trial", *names, "status", "run"], rows, {"trial"})
    done = [Path(result["folder"]) for result in results.values() if result["status"] == "done"]
    seconds = [summary["seconds"] for run in dict.fromkeys(done) if (summary := finished_summary(run))]
    finished = sum(result["status"] in ("done", "failed") for result in results.values())
    print(left_text("trial", finished, total, seconds))


def _space(words: Sequence[str]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """Return the distributions of the settings that are searched, and the words that set the others."""
    overrides = [override for override in parse(words) if not override.key_or_group.startswith("hydra")]
    space = {o.key_or_group: distribution(o) for o in overrides if o.is_sweep_override()}
    fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
    if not space:
        raise ConfigError("a search needs a range, such as 'optim.lr=tag(log,interval(1e-4,1e-1))'")
    if deleted := [word for word in fixed if word.startswith("~")]:
        raise ConfigError(f"{deleted[0]}: a search cannot delete a setting: an experiment file cannot express it")
    return space, fixed


def _run_trials(
    trials: _Trials, first: Job, swept: Sequence[str], settings: SweepSettings, engine: RemoteEngine | None
) -> int:
    """Run the missing trials, and return 0, or the exit status of an interruption.

    Args:
        first: a trial with any values, for the resources that each one needs.
    """
    from dlrunner.sweeps.pool import start_fork_server
    from dlrunner.sweeps.slots import resource_slots

    if engine:
        num_jobs = settings.jobs if isinstance(settings.jobs, int) else 1
        slots = engine.slots(num_jobs, num_jobs)
    else:
        slots = resource_slots(settings.jobs, [first] * settings.trials, settings.gpu_share)
        start_fork_server([first])
    total = max(settings.trials, len(trials.search))
    done = len(trials.search) - len(trials.search.unfinished())
    print(f"search of {total} trials\nfolder   {shorter(trials.folder.path)}", flush=True)
    if done:
        print(f"finished: {done} of {total}", flush=True)
    screen = make_screen(first.config["log"]["progress"], total, done, len(slots), lambda job: job.label(swept))
    jobs = trials.jobs(settings.trials, screen, swept)
    return run_shown(jobs, trials.folder, slots, screen, settings.fail_fast, engine, trials.record)


def distribution(override: Override) -> BaseDistribution:
    """Convert a sweep of Hydra's grammar into an Optuna distribution.

    Raises:
        ConfigError: it has no values, or an invalid range.
    """
    value: Any = override.value()
    try:
        if isinstance(value, IntervalSweep):
            assert value.start is not None
            assert value.end is not None
            if isinstance(value.start, int) and isinstance(value.end, int):
                return IntDistribution(value.start, value.end, log="log" in value.tags)
            return FloatDistribution(value.start, value.end, log="log" in value.tags)
        if isinstance(value, RangeSweep) and not value.shuffle:
            steps = [float(step) if not isinstance(step, int) else step for step in value.range()]
            if not steps:
                raise ValueError("has no values")
            low, high, log = min(steps), max(steps), "log" in value.tags
            if isinstance(low, int):
                return IntDistribution(low, int(high), step=abs(int(value.step)), log=log)
            return FloatDistribution(low, high, step=abs(float(value.step)), log=log)
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    except ValueError as error:
        raise ConfigError(f"{override.input_line}: {error}") from None


def _check(fixed: Sequence[str], space: Mapping[str, BaseDistribution]) -> tuple[dict[str, Any], Plan]:
    """Compose and validate the ends of all ranges and all choices, one at a time."""
    ends: dict[str, list[Any]] = {
        key: list(axis.choices) if isinstance(axis, CategoricalDistribution) else [axis.low, axis.high]  # type: ignore[attr-defined]
        for key, axis in space.items()
    }
    first = {key: values[0] for key, values in ends.items()}
    tried = [first, *({**first, key: value} for key in ends for value in ends[key][1:])]
    composed = list(compose_jobs([_words(fixed, values) for values in tried]))
    early = EarlyCheck()
    _check_all(composed, lambda config: early(config))
    from dlrunner.config.plan import plan
    from dlrunner.tracking.supervisor import require_packages

    _check_all(composed, lambda config: require_packages(plan(config)))
    config, *others = [config for config in composed if not isinstance(config, ConfigError)]
    checked = plan(config)
    fixed_data = _fixed_data(config, checked)
    keys = [key for key in ends for _ in ends[key][1:]]
    moved = dict.fromkeys(
        key for key, other in zip(keys, others, strict=True) if _fixed_data(other, plan(other)) != fixed_data
    )
    if moved:
        raise ConfigError(
            f"{', '.join(moved)}: a search ranks its trials, which must have the same validation rows and targets; "
            "compare such settings in a sweep, without hydra/sweeper=optuna"
        )
    return config, checked


def _fixed_data(config: Mapping[str, Any], checked: Plan) -> dict[str, Any]:
    """Return the settings that decide the validation rows and targets: those of data, except settings of the inputs."""
    inputs: frozenset[str] = (
        getattr(checked.data.factory, "input_settings", frozenset()) if checked.data else frozenset()
    )
    return {name: value for name, value in (config["data"] or {}).items() if name not in inputs}


def _check_all(composed: Sequence[dict[str, Any] | ConfigError], check: Callable[[dict[str, Any]], None]) -> None:
    """Check the configurations of some trials; all errors are reported together."""
    problems: dict[str, None] = {}
    for config in composed:
        try:
            if isinstance(config, ConfigError):
                raise config
            check(config)
        except ConfigError as error:
            problems.update(dict.fromkeys(str(error).splitlines()))
    if problems:
        raise ConfigError("\n".join(problems))


def _words(fixed: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    return [*fixed, *(f"{key}={value}" for key, value in values.items())]


def _folder(
    words: Sequence[str], swept: Sequence[str], config: Mapping[str, Any], checked: Plan, settings: SweepSettings
) -> tuple[Path, bool]:
    """Return the folder of a search and its metric's direction; with other code or data it is another search."""
    from dlrunner.execution.identity import digest_of_inputs, identity_of
    from dlrunner.runs.labels import LENGTH, run_label

    data = checked.build_data()
    identity = identity_of(data)
    task = checked.build_task(data, checked.settings.seed)
    higher_is_better = next(iter(task.metrics().values())).higher_is_better
    own = [word for word in words if word.lstrip("+").partition("=")[0].partition(".")[0] not in NOT_THE_SWEEP]
    key = [sorted(own), checked.signature, code_digest(config["plugins"]), digest_of_inputs(checked, identity)]
    text = json.dumps([*key, settings.sampler, settings.sampler_seed])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    task_name = config["choices"].get("task") or "task"
    name = f"{task_name},{run_label(own, {}, swept, LENGTH - len(task_name) - 1)}-{digest}"
    return user_path(config["runs_dir"]).resolve() / "sweeps" / name, higher_is_better


class _Trials:
    """The jobs of a search, composed on demand."""

    def __init__(self, folder: SweepDirectory, found: Search, fixed: Sequence[str]) -> None:
        self.folder, self.search, self._fixed = folder, found, fixed
        self._changes, self._swept = Changes(), list(found.space)
        self._running: dict[str, int] = {}
        self._duplicates: defaultdict[str, list[int]] = defaultdict(list)
        self._done: dict[str, int] = {}
        self.repeated: set[int] = set()
        """Trials that are known to be the same run as another one; this was printed."""
        self._unfinished = found.unfinished()
        for number in range(len(found)):
            job, record = folder.job(number), folder.record(number)
            if job is None or (record is None and number not in self._unfinished):  # its files are gone or damaged
                self._unfinished[number] = found.values(number)
            elif record and record["status"] == "done":
                self._done.setdefault(job.signature, number)

    def jobs(self, trials: int, screen: LineScreen, swept: Sequence[str]) -> Iterator[Job]:
        """Yield the jobs to run: unfinished trials, then new ones; no run is repeated."""
        from dlrunner.config.plan import plan

        unfinished = sorted(self._unfinished.items())
        while unfinished or len(self.search) < trials:
            number, values = unfinished.pop(0) if unfinished else self.search.ask()
            words = _words(self._fixed, values)
            try:
                config = compose(words)
                job = Job(number, words, config, plan(config).signature, self._changes.of(config), self._swept)
            except ConfigError as error:  # a value inside of a valid range may be invalid
                self.folder.add(Job(number, words, {}))
                self._record(number, {"status": "failed", "error": str(error)})
                screen.refuse(number, error)
                continue
            self.folder.add(job)
            same = self._done.get(job.signature, self._running.get(job.signature))
            if same is None or same == number:
                self._running[job.signature] = number
                yield job
                continue
            screen.before += 1
            self.repeated.add(number)
            screen.print(same_run_text(job, number, same, swept))
            if job.signature in self._done:
                self._record(number, self.folder.record(same) or {"status": "failed"})
            else:
                self._duplicates[job.signature].append(number)

    def record(self, job: Job, record: Mapping[str, Any]) -> None:
        """Record the result of a job and of its duplicates."""
        self._running.pop(job.signature, None)
        if record["status"] == "done":
            self._done[job.signature] = job.number
        for number in [job.number, *self._duplicates.pop(job.signature, [])]:
            self._record(number, record)

    def _record(self, number: int, record: Mapping[str, Any]) -> None:
        self.folder.write_record(number, record)
        self.search.tell(number, record)


def _experiment_file(name: str) -> Path:
    """Return the file of a new experiment.

    Raises:
        ConfigError: the name is invalid or taken.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"sweep.best: must be a name of letters, digits, - and _, not {name!r}")
    file = Path.cwd() / "conf" / "experiment" / f"{name}.yaml"
    taken = name in options_of("experiment") and not file.exists()
    if taken or (file.exists() and MARK not in file.read_text()):
        raise ConfigError(f"sweep.best: there already is an experiment {name}; choose another name")
    return file


def _write_best(folder: SweepDirectory, best: tuple[int, float], words: Sequence[str], name: str | None) -> None:
    """Write the best configuration as an experiment file, and print how to run it."""
    number, value = best
    job, record = folder.job(number), folder.record(number)
    if job is None or record is None:  # damaged, and the search was stopped before they were written again
        return
    result = f"trial {number}, {record['metric']['name']} {shown(value)}"
    text = f"# @package _global_\n# dlrun experiment={name or 'best'}\n{MARK}dlrun -m {shlex.join(words)}\n# {result}\n"
    text += experiment_of(job.config)
    files = [folder.path / "best.yaml", *([_experiment_file(name)] if name else [])]
    for file in files:
        with readable_os_errors(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, text.encode(errors="backslashreplace"))
    print(f"best     {result}\n         {shorter(files[-1])}")
    command = (
        f"dlrun experiment={name}" if name else "the same command with sweep.best=NAME, then dlrun experiment=NAME"
    )
    print(f"next     {command}")
