"""The run that the words of a command mean: a folder, `runs/latest`, a name, an id, or conditions."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrunner.cli.parser import Parser
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.system.terminal import wrapped

RUNS = Path("runs")
LATEST = "runs/latest"
SORTABLE = ("time", "task", "status", "metric", "size", "seconds", "name")
"""Columns of ls, besides settings and metrics."""

SETTINGS = ("init", "model.encoder", "data.encoder")
"""Settings whose value may be a run."""

METAVAR_HELP = "a run: its folder, id or name, or conditions: task=tabular data.target=price"


def split_runs_dir(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the folder of runs, which `runs_dir=DIR` names as in a run's settings, and the other words."""
    named = [word.partition("=")[2] for word in words if word.startswith("runs_dir=")]
    return user_path(named[-1]) if named else RUNS, [word for word in words if not word.startswith("runs_dir=")]


def named_run(text: str) -> Path:
    """Return the folder of a run; a note says if several fit.

    Args:
        text: a path, an id, a name, or a condition; a path that does not exist is returned as it is.

    Raises:
        ConfigError: no run fits.
    """
    folder, count = run_and_count([text])
    if count > 1:
        print_count(folder, count)
    return folder


def run_and_count(words: Sequence[str]) -> tuple[Path, int]:
    """Return the folder that a path, an id, a name or several conditions mean, and how many runs fit.

    Raises:
        ConfigError: no run fits the conditions.
    """
    from dlrunner.runs import query

    is_path = len(words) == 1 and _exists(user_path(words[0]))
    if not is_path and _is_condition(words[0], RUNS):
        runs_dir, conditions = split_runs_dir(words)
        return query.find(conditions, runs_dir)
    return query.resolve(words[0], RUNS)


def _is_condition(word: str, runs_dir: Path) -> bool:
    """Return whether a word is a condition and not the name of a run, which may have `=` too."""
    from dlrunner.runs import query

    return query.is_query(word) and query.find_named(word, runs_dir) is None


def with_named_run(words: Sequence[str], verbose: bool = True) -> tuple[list[str], int]:
    """Replace the conditions that a command begins with by the run they mean; return how many runs fit.

    Args:
        words: of the command, without the verb.
        verbose: print a note if several fit.
    """
    from dlrunner.runs.query import is_query

    number = next((i for i, word in enumerate(words) if not is_query(word)), len(words))
    if not number:
        return list(words), 1
    folder, count = run_and_count(words[:number])
    if count > 1 and verbose:
        print_count(folder, count)
    return [str(folder), *words[number:]], count


def name_run(parser: Parser, words: list[str]) -> list[str]:
    """Replace the conditions that a command begins with by the run they mean (see `Verb.prepare`)."""
    return with_named_run(words)[0]


def matching_runs(words: Sequence[str]) -> list[Path]:
    """Return the folders that paths, ids and names mean, and all runs that conditions fit.

    Raises:
        ConfigError: nothing fits, or several runs have a name.
    """
    from dlrunner.runs import query
    from dlrunner.runs.listing import newest_first, runs_in

    runs_dir, words = split_runs_dir(words)
    conditions = [word for word in words if _is_condition(word, runs_dir)]
    found = []
    for word in words:
        if word not in conditions:
            folder, count = run_and_count([word])
            if count > 1:
                raise ConfigError(
                    f"{word}: {count} runs have this name, or an id that begins so; name one, or use conditions"
                )
            found.append(folder.resolve())
    if conditions:
        fitting = newest_first(query.select(runs_in(runs_dir), conditions))
        if not fitting:
            raise ConfigError(f"no run in {runs_dir} fits {' '.join(conditions)}")
        found += [run.path.resolve() for run in fitting]
    return list(dict.fromkeys(found))


def with_matching_runs(words: Sequence[str]) -> list[str]:
    """Replace the conditions among the words by the finished runs that fit, and ids and names by their folders.

    Raises:
        ConfigError: no run fits the conditions.
    """
    from dlrunner.runs import query
    from dlrunner.runs.listing import newest_first, runs_in

    runs_dir, words = split_runs_dir(words)
    conditions = [word for word in words if _is_condition(word, runs_dir)]
    found = [str(named_run(word)) for word in words if word not in conditions]
    if conditions:
        fitting = [run for run in query.select(runs_in(runs_dir), conditions) if run.status == "done"]
        if not fitting:
            raise ConfigError(f"no finished run in {runs_dir} fits {' '.join(conditions)}")
        found += [str(run.path) for run in newest_first(fitting)]
    return found


def with_run_folders(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration whose settings that name a run, by path, id or name, hold its folder.

    However a run is named, the settings are the same, and so is the signature of the run that uses it.

    Raises:
        ConfigError: several runs have a name.
    """
    for setting, named in runs_used(config).items():
        from dlrunner.runs import query
        from dlrunner.runs.reader import shorter

        runs_dir = config.get("runs_dir")
        folder, count = query.resolve(named, user_path(runs_dir) if isinstance(runs_dir, str) else RUNS)
        if count > 1:
            raise ConfigError(f"{setting}: {count} runs have the name {named}, or an id that begins so; name one")
        if (folder / "config.yaml").exists():
            section, _, name = setting.rpartition(".")
            (config[section] if section else config)[name] = str(shorter(folder))
    return config


def runs_used(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands in the settings of a configuration that may name a run."""
    found = {}
    for setting in SETTINGS:
        section, _, name = setting.rpartition(".")
        settings = config.get(section) if section else config
        if isinstance(settings, dict) and isinstance(settings.get(name), str):
            found[setting] = settings[name]
    return found


def run_folder(text: str, runs_dir: Path) -> Path | None:
    """Return the folder of the only run with an id or a name."""
    from dlrunner.runs import query

    folder, count = query.resolve(text, runs_dir)
    return folder if count == 1 and (folder / "config.yaml").exists() else None


def print_count(folder: Path, count: int) -> None:
    """Print which of several runs is used, to standard error."""
    print(wrapped(f"note: the newest of {count} runs that fit: {folder}", stream=sys.stderr), file=sys.stderr)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a file name
        return False
