"""Errors whose messages are written for the user of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DlrunnerError(Exception):
    """An error whose message is shown to the user without a traceback."""


class ConfigError(DlrunnerError, ValueError):
    """The request is invalid (exit status 2); no data was read and no run folder is left."""


class DataError(DlrunnerError, ValueError):
    """The data is missing, damaged or does not match the configuration (exit status 1)."""


class RunError(DlrunnerError, RuntimeError):
    """A run cannot continue (exit status 1); the message says what happened and what is kept."""


class OutOfMemoryError(RunError):
    """The device or the machine ran out of memory; the run may still fit when it runs alone."""


class BusyError(RunError):
    """Another process is training this run."""


class PeerLostError(RunError):
    """Another process of a distributed run was lost; it has reported the reason if it could."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; a BaseException like `KeyboardInterrupt`, so that error handlers do not catch it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as in the shell: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum


MOST_LISTED = 26
"""Known words that an error lists at most."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the most similar of the known words, or list them if none is similar.

    >>> did_you_mean("admaw", ["sgd", "adam", "adamw"])
    'did you mean adamw?'
    >>> did_you_mean("zzz", ["sgd", "adam"])
    'known: adam, sgd'
    >>> did_you_mean("zzz", map(str, range(100, 150)))[-30:]
    ', 123, 124, 125, … and 24 more'
    """
    options = sorted(set(known))
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]}?"
    left_out = f", … and {len(options) - MOST_LISTED:,} more" if len(options) > MOST_LISTED + 1 else ""
    listed = ", ".join(options[: MOST_LISTED if left_out else None])
    return f"known: {listed}{left_out}" if options else "it takes no settings"
