"""The trackers of a run, each a process that reads the run's folder.

The run starts them, checks at every epoch whether they are alive, and at the end waits for a limited time. They cannot
stop or delay the run, or change its random numbers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from dlrunner.comparison.collect import flatten
from dlrunner.config.plan import Plan
from dlrunner.errors import ConfigError, Interrupted
from dlrunner.tracker import without_tracker_settings
from dlrunner.tracking.relay import Record, histories
from dlrunner.training.hooks import Display
from dlrunner.training.state import Row

CONTINUES = "the run continues; metrics.jsonl is complete"

log = logging.getLogger("dlrunner")


def require_packages(plan: Plan) -> None:
    """Check that the packages of the trackers are installed.

    Raises:
        ConfigError: one is missing.
    """
    for name, tracker in plan.trackers.items():
        modules: Sequence[str] = tracker.factory.modules  # type: ignore[attr-defined]
        package: str = tracker.factory.package  # type: ignore[attr-defined]
        if any(find_spec(module) is None for module in modules):
            raise ConfigError(f"log={name} needs a package that is not installed: pip install '{package}'")


class Tracking:
    """The trackers of one run.

    Args:
        folder: the run's.
        notify: shows a line to the user.
    """

    def __init__(self, folder: Path, notify: Callable[[str], None]) -> None:
        self.folder, self.notify = folder, notify
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, plan: Plan, overrides: Sequence[str], names: Sequence[str] | None = None) -> None:
        """Start the processes.

        Args:
            plan: of the run.
            overrides: the command line's overrides.
            names: the trackers to which a finished run is sent; None: the run starts, with all of them.
        """
        paths = os.pathsep.join(str(path or Path.cwd()) for path in sys.path)
        for name, tracker in plan.trackers.items():
            if names is not None and name not in names:
                continue
            request = {
                "name": name,
                "target": tracker.target,
                "settings": tracker.settings,
                "folder": str(self.folder.resolve()),
                "task": plan.settings.choices.get("task") or "task",
                "values": flatten(plan.config),
                "overrides": " ".join(without_tracker_settings(overrides)),
                "timeout": plan.settings.log.tracker_timeout,
                "is_done": names is not None,
            }
            try:
                (self.folder / "trackers").mkdir(exist_ok=True)
                log_file = self.folder / "trackers" / f"{name}.log"
                with tempfile.TemporaryFile() as file, log_file.open("ab") as output:
                    file.write(json.dumps(request, default=str).encode())
                    file.seek(0)
                    self._processes[name] = subprocess.Popen(
                        [sys.executable, "-P", "-m", "dlrunner.tracking.relay", str(file.fileno())],
                        pass_fds=[file.fileno()],
                        stdin=subprocess.PIPE,
                        stdout=output,
                        stderr=output,
                        env={**os.environ, "PYTHONPATH": paths},  # so that it finds the same modules
                        start_new_session=True,  # Ctrl-C must not reach it: it still has to send how the run ended
                    )
            except OSError as error:
                self._warn(f"{name} failed: {error}; {CONTINUES}")

    def watch(self, display: Display) -> Display:
        """Return a display that also checks the processes at every epoch."""
        return _WatchingDisplay(display, self) if self._processes else display

    def check(self) -> None:
        """Warn of trackers that have ended before the run."""
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                self._kill(name)
                self._warn(f"{name} failed: {self._reason(name, process)}; {CONTINUES}")

    def close(self, timeout: float) -> None:
        """Let the trackers send the rest, and kill those that do not finish in time.

        Args:
            timeout: seconds to wait for all of them together; a stop signal ends the wait.
        """
        try:
            self.check()
            for process in self._processes.values():
                assert process.stdin is not None
                process.stdin.close()
            deadline = time.monotonic() + timeout
            for process in self._processes.values():
                process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, Interrupted):
            pass
        for name, process in list(self._processes.items()):
            record = Record.read(self.folder, name)
            if process.poll() is None:
                reason = f"{name} did not finish within {timeout:g} s and was killed"
            elif process.returncode == 0 and record.is_complete:
                reason = ""
            else:
                reason = f"{name} failed: {self._reason(name, process)}"
            self._kill(name)
            if reason:
                self._warn(f"{reason}; {self._progress(record)}; metrics.jsonl and plots/ are complete")

    def _kill(self, name: str) -> None:
        """Kill a process and its children."""
        process = self._processes.pop(name)
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a process blocked by a file server cannot be killed
            process.wait(1)

    def _reason(self, name: str, process: subprocess.Popen[bytes]) -> str:
        return Record.read(self.folder, name).error or f"its process exited with status {process.returncode}"

    def _progress(self, record: Record) -> str:
        rows = {part: len(rows) for part, rows in histories(self.folder).items()}
        sent = sum(min(record.sent.get(part, 0), count) for part, count in rows.items())
        return f"it received {sent} of {sum(rows.values())} epochs and no final results"

    def _warn(self, text: str) -> None:
        self.notify(f"warning: {text}")
        log.warning(text)


class _WatchingDisplay:
    """Passes everything on to another display, and checks the trackers at the end of each epoch."""

    def __init__(self, display: Display, tracking: Tracking) -> None:
        self.display, self.tracking, self.interval = display, tracking, display.interval

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int, step: int) -> None:
        self.display.start_epoch(epoch, num_epochs, num_steps, step)

    def advance(self, step: int, loss: float, lr: float, examples_per_second: float) -> None:
        self.display.advance(step, loss, lr, examples_per_second)

    def end_epoch(self, row: Row) -> None:
        self.display.end_epoch(row)
        self.tracking.check()

    def close(self) -> None:
        self.display.close()
