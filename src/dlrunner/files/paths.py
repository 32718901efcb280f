"""Paths given by the user: on the command line, in a configuration, in an environment variable."""

from __future__ import annotations

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


def forget_empty_variables() -> None:
    """Unset DLRUNNER_DATA and DLRUNNER_CACHE where they are empty: then the defaults hold, as if they were not set."""
    for name in ("DLRUNNER_DATA", "DLRUNNER_CACHE"):
        if os.environ.get(name) == "":
            del os.environ[name]
