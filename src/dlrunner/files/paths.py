"""Paths given by the user: on the command line, in a configuration, in an environment variable."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from dlrunner.errors import ConfigError


def user_path(text: str | Path) -> Path:
    """Return a path with `~` expanded; one that begins with ./~ is absolute, so that it is not expanded later.

    Raises:
        ConfigError: it names the home of a user that does not exist, or contains a null byte.
    """
    path = Path(text)
    if "\0" in str(path):
        raise ConfigError(f"{str(path)!r} is not a path: it contains a null byte")
    if str(text).startswith("./~"):
        return path.absolute()
    try:
        return path.expanduser()
    except RuntimeError:
        user = path.parts[0]
        raise ConfigError(
            f"{path}: {user} has no home folder on this machine; use an absolute path, or ./{user} for a folder of "
            "that name"
        ) from None


MOST_NEIGHBOURS = 10_000
"""Names of a folder that are compared with a name that is not there."""


def exists(text: str) -> bool:
    """Return whether a text, of any length, names a file or folder."""
    try:
        return bool(text) and user_path(text).exists()
    except (OSError, ConfigError):  # too long for a file name, or ~ of an unknown user
        return False


def not_found(path: str | Path, what: str = "file") -> str:
    """Return that there is no file or folder at a path, with the most similar name next to it.

    Args:
        path: as it was given.
        what: should be there.
    """
    message = f"there is no {what} {path}"
    if (elsewhere := _in_data_folder(Path(path))) is not None:
        return f"{message}; it is at {elsewhere} (DLRUNNER_DATA)"
    try:
        names = [each.name for each, _ in zip(Path(path).parent.iterdir(), range(MOST_NEIGHBOURS), strict=False)]
    except (OSError, ValueError):  # no such folder, or not readable
        return message
    near = difflib.get_close_matches(Path(path).name, names, n=1, cutoff=0.7)
    return f"{message}; did you mean {Path(path).with_name(near[0])}?" if near else message


def _in_data_folder(path: Path) -> Path | None:
    """Return where a file of the default folder, data/, is in the one of DLRUNNER_DATA."""
    folder = os.environ.get("DLRUNNER_DATA")
    if not folder or path.parts[:1] != ("data",):
        return None
    found = user_path(folder).joinpath(*path.parts[1:])
    return found if found.exists() else None


def forget_empty_variables() -> None:
    """Unset DLRUNNER_DATA and DLRUNNER_CACHE where they are empty: then the defaults hold, as if they were not set."""
    for name in ("DLRUNNER_DATA", "DLRUNNER_CACHE"):
        if os.environ.get(name) == "":
            del os.environ[name]
