"""Output at the level `warning`: warnings and failures on standard error, and the folder on standard output."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from dlrunner.runs.reader import shorter

SHOWN = ("warning:", "FAILED")
"""What a line that is shown at this level contains."""


class _WarningsOnly(io.TextIOBase):
    """A text stream that passes warnings and failures on to standard error and discards the rest."""

    def __init__(self) -> None:
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if any(word in line for word in SHOWN):
                print(line, file=sys.stderr)
        return len(text)


@contextlib.contextmanager
def at_level(level: str, folder: Path) -> Iterator[None]:
    """Print everything, or at the level `warning` only warnings, and in the end the folder."""
    if level != "warning":
        yield
        return
    try:
        with contextlib.redirect_stdout(_WarningsOnly()):
            yield
    finally:
        print(shorter(folder))
