"""Finished runs, gathered from run folders, sweeps and patterns: one row a run.

A run that cannot be compared (failed, still running, half deleted, damaged) is left out and told; the others are
compared all the same.
"""

from __future__ import annotations

import csv
import dataclasses
import glob
import json
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.runs.reader import FinishedRun

NOT_SETTINGS = (
    *("data_dir", "runs_dir", "rerun", "log", "claim", "sweep", "seeds", "plugins"),
    *("trainer.num_threads", "trainer.checkpoint_minutes"),
)
"""Parts of a configuration that cannot change a result, or that say only how runs are started."""

RUN_FILES = ("run.json", "overrides.yaml", "metrics.jsonl", "summary.json", "last.pt", "run.log")
"""What a run folder holds beside config.yaml: a folder with one of them was a run."""

WIDTH = 48
"""Letters of a setting's value that are shown."""


@dataclass(frozen=True)
class Row:
    """A finished run: its settings and its numbers."""

    path: Path
    task: str
    settings: Mapping[str, Any]
    """By flat name: `optim` is the choice, `optim.lr` a setting of it."""
    typed: frozenset[str]
    """Names of the settings that were typed and not taken from a file."""
    metric: str
    higher_is_better: bool
    numbers: Mapping[str, float]
    """Of the last epoch, `train/…`, `valid/…`, `test/…`; and `seconds`."""
    grounds: Mapping[str, str]
    """What the numbers rest on: data, code, device, precision, in short words."""
    history: Sequence[Mapping[str, Any]]
    directions: Mapping[str, bool] = field(default_factory=dict)
    """Whether higher is better, of each number of which it is known."""

    @property
    def value(self) -> float:
        """The metric that judges."""
        return self.numbers[self.metric]

    def judged_by(self, metric: str, higher_is_better: bool) -> Row:
        """Return the same run, judged by another of its numbers."""
        return dataclasses.replace(self, metric=metric, higher_is_better=higher_is_better)


@dataclass(frozen=True)
class LeftOut:
    """A run that is not compared, and why."""

    name: str
    reason: str


def gather(words: Sequence[str]) -> tuple[list[Row], list[LeftOut]]:
    """Read the runs that are meant: run folders, sweep folders, patterns such as runs/collab/*.

    Returns the finished runs, each once, and those that are left out.

    Raises:
        ConfigError: a pattern matches nothing, a folder is neither a run nor a sweep, fewer than two runs remain.
    """
    rows: dict[Path, Row] = {}
    left_out: dict[str, LeftOut] = {}
    for path, problem in _meant(words):
        try:
            if problem:
                raise ConfigError(problem)
            rows[path.resolve()] = read_row(path)
        except ConfigError as error:
            reason = str(error).removeprefix(f"{path} is ").removeprefix(f"{path} ")
            left_out.setdefault(str(path.resolve()), LeftOut(path.name, reason))
    if len(rows) < 2:
        said = "\n".join(f"left out: {each.name}: {each.reason}" for each in list(left_out.values())[:5])
        found = f"only {next(iter(rows)).name}" if rows else "none"
        raise ConfigError(f"a comparison needs at least two finished runs; there is {found}\n{said}".rstrip())
    return list(rows.values()), list(left_out.values())


def read_row(path: Path) -> Row:
    """Read a run folder into a row.

    Raises:
        ConfigError: the run is not finished, or its files are damaged.
    """
    run = FinishedRun.read(path)
    if run.status != "done" or run.summary is None:
        said = (run.summary or {}).get("error")
        raise ConfigError(f"{run.status}: {said}" if said else run.status)
    try:
        metric, final = run.summary["metric"], run.summary["final"]
        numbers = {name: float(value) for name, value in final.items() if value is not None}
        numbers["seconds"] = float(run.summary.get("seconds", math.nan))
        name, higher = str(metric["name"]), bool(metric["higher_is_better"])
        settings = flatten(run.config)
        grounds = _grounds(run.summary)
        directions = _directions(run.summary) | {name: higher}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(f"{path} is damaged: summary.json does not hold what it should") from None
    if not math.isfinite(numbers.get(name, math.nan)):
        raise ConfigError(f"its {name} is not a number")
    typed = frozenset(word.lstrip("+~").partition("=")[0] for word in run.overrides)
    return Row(
        path, str(settings.get("task")), settings, typed, name, higher, numbers, grounds, run.history, directions
    )


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration by flat name, without what cannot change a result.

    >>> flatten({"optim": {"lr": 0.1}, "choices": {"optim": "sgd"}, "runs_dir": "runs"})
    {'optim': 'sgd', 'optim.lr': 0.1}
    """
    sections = {name: value for name, value in config.items() if name != "choices"}
    return {**(config.get("choices") or {}), **dict(_leaves(sections))}


def frozen(value: Any) -> Hashable:
    """Return a value that can be counted: lists as tuples, sections as sorted pairs."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), frozen(each)) for name, each in value.items()))
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def shown(value: Any) -> str:
    """Write a setting's value as it is typed; of a long one, its end.

    >>> shown(0.003), shown(1e-05), shown(None), shown(True), shown([0.9, 0.99])
    ('0.003', '1e-05', 'null', 'true', '[0.9,0.99]')
    """
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
    return text if len(text) <= WIDTH else f"…{text[1 - WIDTH :]}"


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        name = f"{prefix}{key}"
        if name in NOT_SETTINGS:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _directions(summary: Mapping[str, Any]) -> dict[str, bool]:
    """Return by name whether a higher number is better; an old summary records it of its metric only."""
    recorded = {name: bool(known["higher_is_better"]) for name, known in (summary.get("metrics") or {}).items()}
    losses = [name for name in summary["final"] if name.rpartition("/")[2] == "loss"]
    return {**dict.fromkeys([*losses, "seconds"], False), **recorded}


def _grounds(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return what a result rests on, short enough to be listed."""
    data = summary.get("data") or {}
    release = " ".join(str(data[key]) for key in ("name", "release") if data.get(key))
    return {
        "data": f"{release} {str(data.get('digest') or data.get('sha256') or '')[:8]}".strip() or "none",
        "code": str(summary.get("code"))[:8],
        "device": str(summary.get("device")),
        "precision": str(summary.get("precision")),
    }


def _meant(words: Sequence[str]) -> Iterator[tuple[Path, str | None]]:
    """Yield the run folders that are meant, and of those that cannot be read the reason."""
    for word in words:
        named = user_path(word)
        if named.exists():
            yield from _runs_in(named, is_named=True)
            continue
        found = sorted(glob.glob(str(named), recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
        if not found:
            raise ConfigError(
                f"no run folder matches {word!r}" if glob.has_magic(word) else f"there is no run folder {word}"
            )
        for path in map(Path, found):
            if path.is_dir():
                yield from _runs_in(path, is_named=False)


def _runs_in(path: Path, is_named: bool) -> Iterator[tuple[Path, str | None]]:
    """Yield a run, the runs of a sweep, or why the folder is neither."""
    if not path.is_dir():
        raise ConfigError(f"{path} is a file; name a run folder or a sweep folder")
    if (path / "config.yaml").exists():
        yield path, None
    elif (path / "results.csv").exists() or (path / "jobs").is_dir():
        yield from _runs_of_sweep(path)
    elif any((path / name).exists() for name in RUN_FILES):
        yield path, "half deleted: it has no config.yaml"
    elif is_named:
        inside = sum(1 for _ in path.glob("*/overrides.yaml"))
        hint = f"; it holds run folders ({inside}): '{path}/*'" if inside else ""
        raise ConfigError(f"{path} is neither a run folder nor a sweep folder{hint}")
    else:
        yield path, "neither a run folder nor a sweep folder"


def _runs_of_sweep(sweep: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the runs of a sweep's jobs; of one that has not come to its end, of those jobs that have.

    Raises:
        ConfigError: results.csv is damaged.
    """
    for job, (status, folder, error) in jobs_of(sweep).items():
        path = moved(sweep, folder)
        if path is None:
            gone = f"its folder is gone: {Path(folder).name}" if folder else status
            yield sweep / "jobs" / f"job {job}", f"{gone}: {error}" if error else gone
        else:
            yield path, None


def jobs_of(sweep: Path) -> dict[str, tuple[str, str, str]]:
    """Return status, run folder and error of a sweep's jobs, empty where there is none, by job number."""
    results = sweep / "results.csv"
    if results.exists():
        if not results.is_file():
            raise ConfigError(f"{results} is no regular file; give the sweep again, or name its runs")
        try:
            with results.open(newline="") as file:
                return {
                    row["job"]: (row["status"], row["folder"] or "", row["error"] or "") for row in csv.DictReader(file)
                }
        except (OSError, ValueError, RecursionError, KeyError, csv.Error):
            raise ConfigError(f"{results} is damaged; give the sweep again, or name its runs") from None
    found = {}
    for place in sorted((sweep / "jobs").iterdir(), key=lambda path: (len(path.name), path.name)):
        try:
            record = json.loads((place / "record.json").read_text())
            found[place.name] = (record["status"], record.get("folder") or "", record.get("error") or "")
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            found[place.name] = ("not started, or still running", "", "")
    return found


def moved(origin: Path, folder: str) -> Path | None:
    """Find a run's folder that a sweep or claims have written down, also where all of runs/ was moved or copied.

    Args:
        origin: the folder of the sweep or the claims.
        folder: as it was written down; empty where there was none.
    """
    if not folder:
        return None
    written = Path(folder)
    beside = origin.resolve().parent.parent.joinpath(*written.parts[-2:])
    places = [written, beside] if written.is_absolute() else [beside, written]
    return next((place for place in places if place.is_dir()), None)
