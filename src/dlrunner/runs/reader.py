"""A run folder, read: it may have come from anyone, and nothing in it is executed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrunner.errors import ConfigError
from dlrunner.files.plain_data import read_json, read_yaml
from dlrunner.renamed import present_config, present_summary
from dlrunner.runs.records import check_config, check_overrides, check_row, check_summary


@dataclass(frozen=True)
class FinishedRun:
    """A run folder, read: nothing in it is executed."""

    path: Path
    """Absolute and without links: `runs/latest` is another run as soon as one begins."""
    config: dict[str, Any]
    overrides: list[str]
    history: list[dict[str, Any]]
    summary: dict[str, Any] | None

    @classmethod
    def read(cls, path: Path) -> FinishedRun:
        """Read a folder.

        Raises:
            ConfigError: it is not a run folder, or its files are damaged.
        """
        given = path
        try:
            path = path.resolve()
            if not path.is_dir():
                raise ConfigError(f"there is no run folder {given}")
            if not (path / "config.yaml").exists():
                raise ConfigError(f"{given} is not a run folder: it has no config.yaml")
            config = present_config(read_file(path / "config.yaml", read_yaml, check_config))
            overrides = read_file(path / "overrides.yaml", read_yaml, check_overrides)
            history = read_history(path)
            summary_file = path / "summary.json"
            for name in ("config.yaml", "overrides.yaml", "metrics.jsonl", "summary.json"):
                own_file(path, name)
            summary = read_summary(summary_file) if summary_file.exists() else None
        except OSError as error:
            raise ConfigError(f"{given} cannot be read: {error.strerror or error}") from None
        return cls(path, config, overrides, history, summary)

    @property
    def status(self) -> str:
        """done, failed, interrupted, or killed (a folder without summary.json)."""
        return str(self.summary["status"]) if self.summary else "killed or still running"


def read_summary(file: Path) -> dict[str, Any]:
    """Read summary.json, in the names of today.

    Raises:
        ConfigError: it is damaged.
        OSError: it cannot be opened.
    """

    def read(text: str) -> Any:
        found = read_json(text)
        return present_summary(found) if isinstance(found, Mapping) else found

    summary: dict[str, Any] = read_file(file, read, check_summary)
    return summary


def finished_summary(path: Path) -> dict[str, Any] | None:
    """Return the summary of a run that is done; None for any other, and where the file is damaged."""
    try:
        summary: dict[str, Any] = read_json(own_file(path, "summary.json").read_text())
        check_summary(summary)
        return summary if summary["status"] == "done" else None
    except (OSError, ValueError):
        return None


def member_folders(run: Path) -> list[Path]:
    """Return the folders of an ensemble's members, in their order.

    Raises:
        ConfigError: one of them is a link that leads out of the run's folder.
    """
    names = [
        place.name
        for place in (run / "members").glob("*")
        if re.fullmatch(r"[0-9]{1,9}", place.name) and place.is_dir()
    ]
    return [own_file(run, f"members/{name}") for name in sorted(names, key=int)]


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl of a run or of a member; an absent file is an empty history.

    Raises:
        ConfigError: it is damaged.
    """

    def rows(text: str) -> list[Any]:
        found = []
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                found.append(read_json(line))
                check_row(found[-1])
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
        return found

    file = own_file(path, "metrics.jsonl")
    found: list[dict[str, Any]] = read_file(file, rows, lambda _: None) if file.exists() else []
    return found


def read_file(file: Path, read: Callable[[str], Any], check: Callable[[Any], None]) -> Any:
    """Read a file of a run folder, which may come from anyone.

    Args:
        file: of the folder.
        read: makes plain values of its text, or raises ValueError.
        check: raises ValueError where they are not what the file should hold.

    Raises:
        ConfigError: the folder is damaged: what is wrong with which file.
        OSError: the file cannot be opened.
    """
    if file.exists() and not file.is_file():
        raise ConfigError(f"{shorter(file.parent) / file.name} is damaged: it is no regular file")
    try:
        found = read(file.read_text(encoding="utf-8"))
        check(found)
    except ValueError as error:
        said = "it is not UTF-8" if isinstance(error, UnicodeError) else str(error).splitlines()[0]
        raise ConfigError(f"{shorter(file.parent) / file.name} is damaged: {said}") from None
    return found


def own_file(folder: Path, name: str) -> Path:
    """Return a file of a folder that may have come from anybody.

    Raises:
        ConfigError: it is a link that leads out of the folder: what it shows may be nobody else's business.
    """
    path = folder / name
    try:
        is_own = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links that lead in a circle
        is_own = False
    if not is_own:
        raise ConfigError(f"{path} is a link that leads out of its folder; it is not read")
    return path


def shorter(path: Path) -> Path:
    """Return a path as it is seen from the working directory, where it lies beneath it."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path
