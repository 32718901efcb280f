"""The name, tags and note that a user gives a run: `tags.json` in its folder; they do not change the result."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlrunner.errors import ConfigError, RunError
from dlrunner.files.atomic import readable_os_errors, write_atomic
from dlrunner.files.plain_data import read_json
from dlrunner.runs.reader import own_file

FILE = "tags.json"


@dataclass(frozen=True)
class Tags:
    """What a user has called a run."""

    name: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""

    def __bool__(self) -> bool:
        return bool(self.name or self.tags or self.note)

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Those that are set, by title."""
        return [
            (title, text)
            for title, text in (("name", self.name), ("tags", ", ".join(self.tags)), ("note", self.note))
            if text
        ]

    def updated(self, name: str | None = None, note: str | None = None, add: Iterable[str] = ()) -> Tags:
        """Return other tags: a name or a note that is not None replaces the present one."""
        return Tags(
            self.name if name is None else name,
            tuple(dict.fromkeys([*self.tags, *add])),
            self.note if note is None else note,
        )

    def without(self, tags: Iterable[str]) -> Tags:
        """Return all but some tags."""
        removed = set(tags)
        return Tags(self.name, tuple(tag for tag in self.tags if tag not in removed), self.note)


def read_tags(folder: Path) -> Tags:
    """Return the tags of a run; none if there is no file, or if it is damaged."""
    with contextlib.suppress(RunError):
        return _read(folder)
    return Tags()


def _read(folder: Path) -> Tags:
    """Return the tags of a run; none if there is no file.

    Raises:
        RunError: it is damaged.
    """
    try:
        content = read_json(own_file(folder, FILE).read_text(encoding="utf-8"))
        name, tags, note = (content.get(key) or "" for key in ("name", "tags", "note"))
        return Tags(str(name), tuple(map(str, tags)), str(note))
    except OSError:
        return Tags()
    except (ValueError, AttributeError, TypeError):
        raise RunError(f"{folder / FILE} is damaged; remove it, and the run has no tags") from None


def write_tags(folder: Path, tags: Tags) -> None:
    """Write the tags of a run.

    Raises:
        ConfigError: the file is a link that points outside the folder.
        RunError: the folder cannot be written.
    """
    file = own_file(folder, FILE)
    if file.is_symlink():
        raise ConfigError(f"{file} is a link; remove it")
    with readable_os_errors(file):
        write_atomic(file, (json.dumps(asdict(tags), indent=2) + "\n").encode(errors="backslashreplace"))


def change_tags(folder: Path, change: Callable[[Tags], Tags]) -> Tags:
    """Replace the tags of a run by what a function makes of them, one process after the other; return the new ones.

    Raises:
        ConfigError: the file is a link that points outside the folder.
        RunError: the folder cannot be written, or its tags are damaged.
    """
    with _alone(folder):
        known = _read(folder)
        tags = change(known)
        if tags != known:
            write_tags(folder, tags)
    return tags


def keep_tags(folder: Path, config: Mapping[str, Any]) -> None:
    """Add the name, tags and note of a configuration to those of a run's folder."""
    given = config.get("tags") or []
    added = [given] if isinstance(given, str) else given
    name, note = config.get("name"), config.get("note")
    if added or name is not None or note is not None:
        change_tags(folder, lambda known: known.updated(name, note, added))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for other processes that change the tags of a run; the folder itself is locked, so that no file is left."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
