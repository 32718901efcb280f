"""The place of this process among those of a run, from the variables that torchrun sets; without importing torch."""

from __future__ import annotations

import os

from dlrunner.errors import ConfigError


def num_processes() -> int:
    """Return the world size of this run; 1 without torchrun.

    Raises:
        ConfigError: WORLD_SIZE is set, but not the other variables: by a cluster, or by hand.
    """
    size = _number("WORLD_SIZE") or 1
    if size > 1:
        for name in ("RANK", "LOCAL_RANK"):
            if _number(name) is None:
                raise ConfigError(f"WORLD_SIZE is {size}, but {name} is not set; use torchrun, or unset WORLD_SIZE")
    return size


def rank() -> int:
    """Return the rank of this process; 0 without torchrun."""
    return (_number("RANK") or 0) if num_processes() > 1 else 0


def local_rank() -> int | None:
    """Return the rank of this process on its machine; None if it is the only process of the run."""
    return _number("LOCAL_RANK") if num_processes() > 1 else None


def _number(name: str) -> int | None:
    """Return the value of a variable; None if it is not set, or empty."""
    value = os.environ.get(name) or None
    try:
        return None if value is None else int(value)
    except ValueError:
        raise ConfigError(f"{name} is {value!r}, not a number; use torchrun, or unset it") from None
