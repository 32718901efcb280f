"""Finding runs by words such as `task=collab status=failed metric<.9 data.target=price`, or by name."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.runs.listing import RUN_FILES, ListedRun, newest_first, runs_in

WORD = re.compile(r"((?:train|valid|test)/[\w.@-]+|[a-z_]\w*(?:\.\w+)*)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
"""A condition: a name, a comparison, a value."""

MISSING = object()

ABOUT: Mapping[str, Callable[[ListedRun], Any]] = {
    "task": lambda run: run.task,
    "status": lambda run: run.status,
    "name": lambda run: run.tags.name,
    "tag": lambda run: list(run.tags.tags),
    "note": lambda run: run.tags.note,
    "metric": lambda run: run.metric[1],
    "seconds": lambda run: run.summary.get("seconds"),
    "age": lambda run: run.age,
    "size": lambda run: run.size,
}
"""What a condition can name besides settings and metrics."""

UNITS = {
    "age": {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0},
    "size": {"kb": 1e3, "mb": 1e6, "gb": 1e9},
}
"""Units of values: `age<2d`, `size>100MB`."""


@dataclass(frozen=True)
class Condition:
    """A name, a comparison and a value."""

    name: str
    comparison: str
    value: str

    @classmethod
    def of(cls, word: str) -> Condition:
        """Parse a word.

        Raises:
            ConfigError: it is not a condition.
        """
        match = WORD.fullmatch(word)
        if match is None:
            raise ConfigError(f"{word!r} is not a condition such as task=collab, 'metric<.9' or data.target=price")
        name = "tag" if match[1] == "tags" else match[1]
        condition = cls(name, match[2], match[3])
        if condition.comparison in ("<", "<=", ">", ">=") and condition._number() is None:
            raise ConfigError(f"{word!r}: {match[2]} needs a number")
        return condition

    def holds(self, run: ListedRun) -> bool:
        """Return whether a run fulfils it; a run without such a setting or metric does not, even of `!=`."""
        found = value_of(run, self.name)
        if found is MISSING and self.name not in ABOUT:
            return False
        if self.comparison in ("=", "!="):
            return (found is not MISSING and self._equals(found)) == (self.comparison == "=")
        limit = self._number()
        if limit is None or isinstance(found, bool) or not isinstance(found, int | float) or math.isnan(found):
            return False
        return {"<": found < limit, "<=": found <= limit, ">": found > limit, ">=": found >= limit}[self.comparison]

    def _equals(self, found: Any) -> bool:
        if isinstance(found, list) and any(self._equals(each) for each in found):
            return True
        if isinstance(found, int | float) and not isinstance(found, bool):
            number = self._number()
            return number is not None and math.isclose(found, number, rel_tol=1e-9)
        text = found if isinstance(found, str) else json.dumps(found, separators=(",", ":"), default=str)
        wanted = self.value.strip("'\"")
        named = [text, *([Path(text).name] if self.name.endswith("path") and text else [])]
        return any(each == wanted or fnmatch.fnmatchcase(each, wanted) for each in named)

    def _number(self) -> float | None:
        text, factor = self.value.strip().lower(), 1.0
        for unit, size in UNITS.get(self.name, {}).items():
            if text.endswith(unit):
                text, factor = text.removesuffix(unit), size
                break
        try:
            return float(text) * factor
        except ValueError:
            return None


def value_of(run: ListedRun, name: str) -> Any:
    """Return what a run has under a name: a fact about it, a metric, or a setting; MISSING if it has none."""
    if name in ABOUT:
        found = ABOUT[name](run)
        return MISSING if found is None else found
    final = run.summary.get("final") or {}
    for known in (name, f"valid/{name}", f"test/{name}"):
        if known in final:
            return MISSING if final[known] is None else final[known]
    return setting_of(run.config, name)


def setting_of(config: Mapping[str, Any], name: str) -> Any:
    """Return a setting by its dotted name, or the name of a chosen option; MISSING if there is none.

    >>> config = {"optim": {"lr": 0.1}, "choices": {"optim": "sgd"}}
    >>> setting_of(config, "optim"), setting_of(config, "optim.lr")
    ('sgd', 0.1)
    """
    choices = config.get("choices") or {}
    if name in choices:
        return choices[name]
    found: Any = config
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return MISSING
        found = found[part]
    return found


def is_query(word: str) -> bool:
    """Return whether a word is a condition and not the path of a run, which may contain `=` too.

    >>> [is_query(word) for word in ("task=collab", "valid/rmse<.9", "runs/collab/optim=adamw-abe1895a", "new.csv")]
    [True, True, False, False]
    """
    return WORD.fullmatch(word) is not None and not _exists(word)


def select(runs: Sequence[ListedRun], words: Sequence[str]) -> list[ListedRun]:
    """Return the runs that fulfil all conditions.

    Raises:
        ConfigError: a word is not a condition, or names what no run has.
    """
    conditions = sorted(map(Condition.of, words), key=lambda condition: condition.name not in ABOUT)
    left = list(runs)
    for condition in conditions:
        before, left = left, [run for run in left if condition.holds(run)]
        if before and not left and all(value_of(run, condition.name) is MISSING for run in before):
            known = {name for run in before for name in _names(run)}
            raise ConfigError(f"no run has {condition.name}; {did_you_mean(condition.name, known)}")
    return left


def find(words: Sequence[str], runs_dir: Path) -> tuple[Path, int]:
    """Return the newest finished run that fulfils all conditions, and how many do.

    Raises:
        ConfigError: there is none.
    """
    fitting = select(runs_in(runs_dir), words)
    wants_done = not any(Condition.of(word).name == "status" for word in words)
    done = [run for run in fitting if run.status == "done" or not wants_done]
    if not done:
        others = f"; {len(fitting)} not finished: dlrun ls {' '.join(words)}" if fitting else ""
        raise ConfigError(f"no finished run in {runs_dir} fits {' '.join(words)}{others}")
    return newest_first(done)[0].path, len(done)


def find_named(text: str, runs_dir: Path) -> tuple[Path, int] | None:
    """Return the newest run with a name, or whose folder's name, or its end, is this; and how many there are."""
    is_id = re.fullmatch(r"[0-9a-f]{4,8}(-\d+)?", text) is not None
    runs = runs_in(runs_dir)
    found = [run for run in runs if text in (run.path.name, run.id)]
    found = found or [run for run in runs if is_id and run.id.startswith(text)]
    found = found or [run for run in runs if run.tags.name == text]
    return (newest_first(found)[0].path, len(found)) if found else None


def resolve(text: str | Path, runs_dir: Path = Path("runs")) -> tuple[Path, int]:
    """Return the folder of a run that a path, an id or a name means, and how many runs fit.

    A path that exists is preferred, unless it is a folder that is no run (`img/` with images) and a run has its name.
    What is no run is returned as a path.
    """
    path = user_path(text)
    if isinstance(text, Path) or (_exists(path) and not _may_be_named(path)):
        return path, 1
    if path == runs_dir / "latest" and (newest := newest_finished(runs_dir)):
        return newest, 1
    found = None if "/" in text else find_named(text, runs_dir)
    return found or (path, 1)


def _may_be_named(path: Path) -> bool:
    """Return whether a path is a folder that is no run, so that a run may be meant that has its name."""
    return path.is_dir() and not any(_exists(path / name) for name in RUN_FILES)


def newest_finished(runs_dir: Path) -> Path | None:
    """Return the newest finished run."""
    done = newest_first([run for run in runs_in(runs_dir) if run.status == "done"])
    return done[0].path if done else None


def _names(run: ListedRun) -> list[str]:
    """Return all names that a condition on a run can have."""

    def leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
        for key, value in section.items():
            if isinstance(value, Mapping):
                yield from leaves(value, f"{prefix}{key}.")
            elif key != "_target_":
                yield f"{prefix}{key}"

    settings = {name: value for name, value in run.config.items() if name != "choices"}
    return [*ABOUT, *(run.summary.get("final") or {}), *(run.config.get("choices") or {}), *leaves(settings)]


def _exists(word: str | Path) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):
        return False
