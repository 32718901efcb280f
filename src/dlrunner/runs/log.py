"""The run.log of a run."""

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
def logged(folder: Path, overrides: Sequence[str], *, debug: bool = False) -> Iterator[None]:
    """Log dlrunner's messages into run.log, starting with the command line.

    Args:
        folder: of the run.
        overrides: the command line's.
        debug: log details and timings too, and all of it on standard error as well; a terminal that shows the messages
            already shows the details alone.
    """
    log = logging.getLogger("dlrunner")
    with readable_os_errors(folder):
        handler = _RunLog(folder / "run.log", encoding="utf-8", errors="backslashreplace")
    handlers: list[logging.Handler] = [handler, *([logging.StreamHandler()] if debug else [])]
    if sys.stdout.isatty() and sys.stderr.isatty():
        for each in handlers[1:]:
            each.addFilter(lambda record: record.levelno == logging.DEBUG)
    for each in handlers:
        each.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(each)
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False
    log.info("dlrun %s", " ".join(overrides))
    try:
        yield
    finally:
        for each in handlers:
            log.removeHandler(each)
            each.close()


class _OneLine(logging.Formatter):
    """One line per message, with control characters escaped, so that a message cannot forge another one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        return visible_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return visible(super().formatException(ei))


class _RunLog(logging.FileHandler):
    """A log that warns once when it cannot be written, such as on a full disk; the run continues."""

    _is_incomplete = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        self._warn(sys.exc_info()[1])

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self._warn(error)

    def _warn(self, error: BaseException | None) -> None:
        if not self._is_incomplete:
            self._is_incomplete = True
            reason = getattr(error, "strerror", None) or error
            print(f"warning: {self.baseFilename} is incomplete: {reason}", file=sys.stderr)
