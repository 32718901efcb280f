"""Finished runs, collected from run folders, sweeps and patterns: one row per run.

A run that cannot be compared (failed, still running, partly deleted, damaged) is skipped and reported.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlrunner.comparison.jobs import jobs_of, moved
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.runs.reader import FinishedRun

NOT_SETTINGS = (
    *("data_dir", "runs_dir", "rerun", "log", "claim", "sweep", "seeds", "plugins", "name", "tags", "note"),
    *("trainer.num_threads", "trainer.rows_per_thread", "trainer.checkpoint_minutes", "trainer.cpu_tuning"),
)
"""Parts of a configuration that cannot change a result, or that only define how runs are started."""

RUN_FILES = ("run.json", "overrides.yaml", "metrics.jsonl", "summary.json", "last.pt", "run.log")
"""Files of a run folder other than config.yaml: a folder with one of them was a run."""

WIDTH = 48
"""Maximum length of a displayed value."""


@dataclass(frozen=True)
class Row:
    """A finished run: its settings and metrics."""

    path: Path
    task: str
    settings: Mapping[str, Any]
    """By flat name: `optim` is the chosen option, `optim.lr` a setting of it."""
    typed: frozenset[str]
    """Names of the settings that were typed."""
    metric: str
    higher_is_better: bool
    numbers: Mapping[str, float]
    """Of the last epoch, `train/…`, `valid/…`, `test/…`; and `seconds` of training."""
    conditions: Mapping[str, str]
    """Data, code, device and precision of the run, abbreviated."""
    history: Sequence[Mapping[str, Any]]
    directions: Mapping[str, bool] = field(default_factory=dict)
    """Whether higher is better, for each metric with a known direction."""
    data: str = ""
    """Digest of the data."""
    validation: str = ""
    """Digest of the validation rows and their targets; empty in older runs."""
    decided: frozenset[str] = frozenset()
    """Names of the settings that were `auto`, and decided from the data and the other settings."""

    @property
    def value(self) -> float:
        """The value of the compared metric."""
        return self.numbers[self.metric]

    def judged_by(self, metric: str, higher_is_better: bool) -> Row:
        """Return the same run, compared by another of its metrics."""
        return dataclasses.replace(self, metric=metric, higher_is_better=higher_is_better)


@dataclass(frozen=True)
class LeftOut:
    """A run that is skipped, and why."""

    name: str
    reason: str


def gather(words: Sequence[str]) -> tuple[list[Row], list[LeftOut]]:
    """Read the runs of some run folders, sweep folders or patterns such as runs/collab/*.

    Returns the finished runs, each once, and those that are skipped.

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
        skipped = "\n".join(f"skipped: {each.name}: {each.reason}" for each in list(left_out.values())[:5])
        found = f"only {next(iter(rows)).name}" if rows else "none"
        raise ConfigError(f"a comparison needs at least two finished runs; found {found}\n{skipped}".rstrip())
    return list(rows.values()), list(left_out.values())


def read_row(path: Path) -> Row:
    """Read a run folder into a row.

    Raises:
        ConfigError: the run is not finished, or its files are damaged.
    """
    run = FinishedRun.read(path)
    if run.status != "done" or run.summary is None:
        reason = (run.summary or {}).get("error")
        raise ConfigError(f"{run.status}: {reason}" if reason else run.status)
    try:
        metric, final = run.summary["metric"], run.summary["final"]
        numbers = {name: float(value) for name, value in final.items() if value is not None}
        numbers["seconds"] = float(run.summary.get("training_seconds", math.nan))
        name, higher = str(metric["name"]), bool(metric["higher_is_better"])
        settings = flatten(run.config)
        conditions = _conditions(run.summary)
        directions = _directions(run.summary) | {name: higher}
        data, auto = run.summary.get("data") or {}, dict(run.summary.get("auto") or {})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(f"{path} is damaged: summary.json is incomplete") from None
    if not math.isfinite(numbers.get(name, math.nan)):
        raise ConfigError(f"its {name} is not a number")
    typed = frozenset(word.lstrip("+~").partition("=")[0] for word in run.overrides)
    return Row(
        path,
        str(settings.get("task")),
        settings,
        typed,
        name,
        higher,
        numbers,
        conditions,
        run.history,
        directions,
        data=str(data.get("sha256") or data.get("digest") or data.get("name") or ""),
        validation=str(data.get("validation") or ""),
        decided=frozenset(auto),
    )


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration by flat name, without those that cannot change a result.

    >>> flatten({"optim": {"lr": 0.1}, "choices": {"optim": "sgd"}, "runs_dir": "runs"})
    {'optim': 'sgd', 'optim.lr': 0.1}
    """
    sections = {name: value for name, value in config.items() if name != "choices"}
    return {**(config.get("choices") or {}), **dict(_leaves(sections))}


def frozen(value: Any) -> Hashable:
    """Return a hashable value: lists as tuples, sections as sorted pairs."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), frozen(each)) for name, each in value.items()))
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def shown(value: Any, cuts: Mapping[str, str] | None = None) -> str:
    """Format a value as it is typed; of a long one, its end.

    >>> shown(0.003), shown(1e-05), shown(None), shown(True), shown([0.9, 0.99])
    ('0.003', '1e-05', 'null', 'true', '[0.9,0.99]')

    Args:
        value: of a setting.
        cuts: of values of which the end is not enough, by `distinct_cuts`.
    """
    text = _text(value)
    return (cuts or {}).get(text) or _end(text)


def distinct_cuts(values: Iterable[Any]) -> dict[str, str]:
    """Return other cuts of the long values whose ends are the same: around their first difference, or all of them.

    >>> paths = [f"data/{year}/with-weather/and-holidays/of-all-regions/sales.csv" for year in (2023, 2024)]
    >>> list(distinct_cuts([*paths, "data/sales.csv"]).values())
    ['data/2023/with-weather/and-holidays/of-all-reg…', 'data/2024/with-weather/and-holidays/of-all-reg…']
    """
    by_end: dict[str, dict[str, None]] = {}
    for text in (_text(value) for value in values if isinstance(value, str | list | dict)):
        if len(text) > WIDTH:
            by_end.setdefault(_end(text), {})[text] = None
    cuts: dict[str, str] = {}
    for texts in by_end.values():
        same = next((at for at, letters in enumerate(zip(*texts, strict=False)) if len(set(letters)) > 1), 0)
        start = max(0, same - 12)
        end = start + WIDTH - 2
        parts = {text: "…" * (start > 0) + text[start:end] + "…" * (end < len(text)) for text in texts}
        if len(texts) > 1:
            cuts |= parts if len(set(parts.values())) == len(texts) else {text: text for text in texts}
    return cuts


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)


def _end(text: str) -> str:
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
    """Return by name whether higher is better; old summaries record it only for their main metric."""
    recorded = {name: bool(known["higher_is_better"]) for name, known in (summary.get("metrics") or {}).items()}
    losses = [name for name in summary["final"] if name.rpartition("/")[2] == "loss"]
    return {**dict.fromkeys([*losses, "seconds"], False), **recorded}


def _conditions(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the conditions of a result, abbreviated."""
    data = summary.get("data") or {}
    release = " ".join(str(data[key]) for key in ("name", "release") if data.get(key))
    return {
        "data": f"{release} {str(data.get('digest') or data.get('sha256') or '')[:8]}".strip() or "none",
        "code": str(summary.get("code"))[:8],
        "device": str(summary.get("device")),
        "precision": str(summary.get("precision")),
    }


def _meant(words: Sequence[str]) -> Iterator[tuple[Path, str | None]]:
    """Yield the run folders, each with the reason if it cannot be read."""
    for word in words:
        named = user_path(word)
        if named.exists():
            yield from _runs_in(named, is_named=True)
            continue
        found = sorted(glob.glob(str(named), recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
        if not found:
            raise ConfigError(
                f"no run folder matches {word!r}"
                if glob.has_magic(word)
                else f"there is no run folder {word}; `dlrun ls` lists the runs"
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
        yield path, "partly deleted: it has no config.yaml"
    elif is_named:
        inside = sum(1 for _ in path.glob("*/overrides.yaml"))
        hint = f"; it holds run folders ({inside}): '{path}/*'" if inside else ""
        raise ConfigError(f"{path} is neither a run folder nor a sweep folder{hint}")
    else:
        yield path, "neither a run folder nor a sweep folder"


def _runs_of_sweep(sweep: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the runs of the finished jobs of a sweep.

    Raises:
        ConfigError: results.csv is damaged.
    """
    for job, (status, folder, error) in jobs_of(sweep).items():
        path = moved(sweep, folder)
        if path is None:
            gone = f"its folder is missing: {Path(folder).name}" if folder else status
            yield sweep / "jobs" / f"job {job}", f"{gone}: {error}" if error else gone
        else:
            yield path, None
