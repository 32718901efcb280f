"""What goes wrong, in words for the person who typed the command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class DlrunnerError(Exception):
    """An error whose message is a plain sentence for the person who typed the command."""

    folder: Path | None = None
    """The run's folder, where there is one."""


class ConfigError(DlrunnerError, ValueError):
    """The request itself is wrong (exit status 2): nothing was read, nothing was left behind."""


class DataError(DlrunnerError, ValueError):
    """The data is missing, damaged or not what the request says it is (exit status 1)."""


class RunError(DlrunnerError, RuntimeError):
    """A run could not go on (exit status 1): the message says what happened and what is kept."""


class OutOfMemoryError(RunError):
    """The memory of the device, or of the machine, did not suffice: the run may fit when it has it to itself."""


class BusyError(RunError):
    """Another process trains this run."""


class PeerLostError(RunError):
    """One of the processes that do this run together is gone; if it could, it has said why."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; like `KeyboardInterrupt`, nothing that handles errors may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """The shell's convention: 128 + the signal's number (130 for SIGINT, 143 for SIGTERM)."""
        return 128 + self.signum


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Name the nearest of the known words, or list them when none is near.

    >>> did_you_mean("admaw", ["sgd", "adam", "adamw"])
    'did you mean adamw?'
    >>> did_you_mean("zzz", ["sgd", "adam"])
    'known: adam, sgd'
    """
    options = sorted(set(known))
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(options)}" if options else "it takes no settings"
