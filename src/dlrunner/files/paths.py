"""Paths that a person wrote: on the command line, in a configuration, in a variable of the environment."""

from __future__ import annotations

from pathlib import Path

from dlrunner.errors import ConfigError


def user_path(given: str | Path) -> Path:
    """Return a path, its `~` expanded.

    Raises:
        ConfigError: it names the home of a user that does not exist, or holds a zero byte.
    """
    path = Path(given)
    if "\0" in str(path):
        raise ConfigError(f"{str(path)!r} cannot be a path: it holds a zero byte")
    try:
        return path.expanduser()
    except RuntimeError:
        user = path.parts[0]
        raise ConfigError(
            f"{path}: {user} has no home folder on this machine; write the whole path, or ./{user} for a folder of "
            "that name"
        ) from None
