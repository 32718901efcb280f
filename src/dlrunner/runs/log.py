"""A run's run.log."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlrunner.files.atomic import readable_os_errors
from dlrunner.system.terminal import visible, visible_line


@contextlib.contextmanager
def logged(folder: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Write what dlrunner logs into a run's run.log, after what was typed."""
    log = logging.getLogger("dlrunner")
    with readable_os_errors(folder):
        handler = _RunLog(folder / "run.log", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    log.info("dlrun %s", " ".join(overrides))
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


class _OneLine(logging.Formatter):
    """A line for each message, whatever is in it: none can pass for another one, or steer a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        return visible_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return visible(super().formatException(ei))


class _RunLog(logging.FileHandler):
    """A log that a full disk cuts short; it says so once, and the run goes on."""

    _is_cut = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        self._cut(sys.exc_info()[1])

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self._cut(error)

    def _cut(self, error: BaseException | None) -> None:
        if not self._is_cut:
            self._is_cut = True
            why = getattr(error, "strerror", None) or error
            print(f"warning: {self.baseFilename} is cut short: {why}", file=sys.stderr)
