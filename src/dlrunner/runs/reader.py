"""Reading run folders; they are untrusted input, and nothing in them is executed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrunner.errors import ConfigError
from dlrunner.files.plain_data import read_json, read_yaml
from dlrunner.renamed import present_config, present_summary
from dlrunner.runs.records import check_config, check_overrides, check_row, check_summary

REPAIR = "restore it, or train the run again"
"""What to do about a damaged file of a run."""


@dataclass(frozen=True)
class FinishedRun:
    """The content of a run folder."""

    path: Path
    """Absolute and without links, since `runs/latest` changes with every run."""
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
        requested = path
        try:
            path = path.resolve()
            if not path.is_dir():
                raise ConfigError(f"there is no run folder {requested}; `dlrun ls` lists the runs")
            if not (path / "config.yaml").exists():
                if (path / "sweep.json").exists() or (path / "jobs").is_dir():
                    raise ConfigError(
                        f"{requested} is a sweep, not a run: `dlrun compare {requested}` ranks its jobs, "
                        "`dlrun ls --jobs` lists them"
                    )
                raise ConfigError(f"{requested} is not a run folder: it has no config.yaml; `dlrun ls` lists the runs")
            config = read_config(path)
            overrides = read_file(path / "overrides.yaml", read_yaml, check_overrides)
            history = read_history(path)
            summary_file = path / "summary.json"
            for name in ("config.yaml", "overrides.yaml", "metrics.jsonl", "summary.json"):
                own_file(path, name)
            summary = read_summary(summary_file) if summary_file.exists() else None
        except OSError as error:
            name = f"{Path(os.fsdecode(error.filename)).name}: " if error.filename else ""
            raise ConfigError(f"{requested} cannot be read: {name}{error.strerror or error}; {REPAIR}") from None
        return cls(path, config, overrides, history, summary)

    @property
    def status(self) -> str:
        """done, failed, interrupted, or killed (a folder without summary.json)."""
        return str(self.summary["status"]) if self.summary else "killed or still running"


def read_config(path: Path) -> dict[str, Any]:
    """Read config.yaml of a folder; old names are translated to current ones.

    Raises:
        ConfigError: it is damaged, or a link that points outside the folder.
        OSError: it cannot be opened.
    """
    return present_config(read_file(own_file(path, "config.yaml"), read_yaml, check_config))


def read_summary(file: Path) -> dict[str, Any]:
    """Read summary.json; old names are translated to current ones.

    Raises:
        ConfigError: it is damaged.
        OSError: it cannot be opened.
    """

    def read(text: str) -> Any:
        content = read_json(text)
        return present_summary(content) if isinstance(content, Mapping) else content

    summary: dict[str, Any] = read_file(file, read, check_summary)
    return summary


def finished_summary(path: Path) -> dict[str, Any] | None:
    """Return the summary of a finished run; None for any other run, and if the file is damaged."""
    try:
        summary: dict[str, Any] = read_json(own_file(path, "summary.json").read_text())
        check_summary(summary)
        return summary if summary["status"] == "done" else None
    except (OSError, ValueError):
        return None


def member_folders(run: Path) -> list[Path]:
    """Return the folders of an ensemble's members, in order.

    Raises:
        ConfigError: one of them is a link that points outside the run's folder.
    """
    names = [
        folder.name
        for folder in (run / "members").glob("*")
        if re.fullmatch(r"[0-9]{1,9}", folder.name) and folder.is_dir()
    ]
    return [own_file(run, f"members/{name}") for name in sorted(names, key=int)]


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl of a run or of a member; a missing file is an empty history.

    Raises:
        ConfigError: it is damaged.
    """

    def rows(text: str) -> list[Any]:
        parsed = []
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                parsed.append(read_json(line))
                check_row(parsed[-1])
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
        return parsed

    file = own_file(path, "metrics.jsonl")
    history: list[dict[str, Any]] = read_file(file, rows, lambda _: None) if file.exists() else []
    return history


def read_file(file: Path, read: Callable[[str], Any], check: Callable[[Any], None]) -> Any:
    """Read and validate a file of a run folder, which is untrusted input.

    Args:
        file: of the folder.
        read: parses the text, or raises ValueError.
        check: raises ValueError if the parsed values are invalid.

    Raises:
        ConfigError: the file is damaged; the message names it.
        OSError: the file cannot be opened.
    """
    if file.exists() and not file.is_file():
        raise ConfigError(f"{shorter(file.parent) / file.name} is damaged: it is not a regular file")
    try:
        content = read(file.read_text(encoding="utf-8"))
        check(content)
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeError) else str(error).splitlines()[0]
        raise ConfigError(f"{shorter(file.parent) / file.name} is damaged: {reason}; {REPAIR}") from None
    return content


def own_file(folder: Path, name: str) -> Path:
    """Return the path of a file in an untrusted folder.

    Raises:
        ConfigError: it is a link that points outside the folder, and could expose other files.
    """
    path = folder / name
    try:
        is_own = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle of links
        is_own = False
    if not is_own:
        raise ConfigError(f"{path} is a link that points outside its folder; it is not read")
    return path


def shorter(path: Path) -> Path:
    """Return a path relative to the working directory, if it is inside it."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path
