"""Trackers beside a run: each is a process that reads the run's folder.

The run starts them, looks now and then whether they still live, and at the end waits for a moment. Nothing they do can
stop it, slow it down, hold it back, or move its random numbers.
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
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dlrunner.comparison.collect import flatten
from dlrunner.config.plan import Plan
from dlrunner.errors import ConfigError, Interrupted
from dlrunner.tracker import without_tracker_settings
from dlrunner.tracking.relay import Record, histories
from dlrunner.training.hooks import Display
from dlrunner.training.state import Row

GOES_ON = "the run goes on; metrics.jsonl has everything"

log = logging.getLogger("dlrunner")


def refuse_missing(plan: Plan) -> None:
    """Refuse trackers whose libraries are not installed.

    Raises:
        ConfigError: one is missing.
    """
    for name, tracker in plan.trackers.items():
        modules: Sequence[str] = tracker.factory.modules  # type: ignore[attr-defined]
        package: str = tracker.factory.package  # type: ignore[attr-defined]
        if any(find_spec(module) is None for module in modules):
            raise ConfigError(f"log={name} needs its package: pip install '{package}'")


class Tracking:
    """The trackers of one run.

    Args:
        folder: the run's.
        say: prints a line for the person who waits.
    """

    def __init__(self, folder: Path, say: Any) -> None:
        self.folder, self.say = folder, say
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, plan: Plan, overrides: Sequence[str], names: Sequence[str] | None = None) -> None:
        """Start the processes.

        Args:
            plan: what the run does.
            overrides: what was typed.
            names: of the trackers that a finished run is sent to; None: the run begins, for all of them.
        """
        paths = os.pathsep.join(str(path or Path.cwd()) for path in sys.path)
        for name, tracker in plan.trackers.items():
            if names is not None and name not in names:
                continue
            asked = {
                "name": name,
                "target": tracker.target,
                "settings": tracker.settings,
                "folder": str(self.folder.resolve()),
                "task": plan.settings.choices.get("task") or "task",
                "values": flatten(plan.config),
                "overrides": " ".join(without_tracker_settings(overrides)),
                "patience": plan.settings.log.tracker_timeout,
                "is_done": names is not None,
            }
            try:
                (self.folder / "trackers").mkdir(exist_ok=True)
                log_file = self.folder / "trackers" / f"{name}.log"
                with tempfile.TemporaryFile() as request, log_file.open("ab") as output:
                    request.write(json.dumps(asked, default=str).encode())
                    request.seek(0)
                    self._processes[name] = subprocess.Popen(
                        [sys.executable, "-P", "-m", "dlrunner.tracking.relay", str(request.fileno())],
                        pass_fds=[request.fileno()],
                        stdin=subprocess.PIPE,
                        stdout=output,
                        stderr=output,
                        env={**os.environ, "PYTHONPATH": paths},  # it finds the modules that this process finds
                        start_new_session=True,  # Ctrl-C is for the run: it says itself how it ended
                    )
            except OSError as error:
                self._tell(f"{name} failed: {error}; {GOES_ON}")

    def beside(self, display: Display) -> Display:
        """Return a display that looks after the processes too."""
        return _Looking(display, self) if self._processes else display

    def look(self) -> None:
        """Tell which trackers have come to an end before the run has."""
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                self._forget(name)
                self._tell(f"{name} failed: {self._reason(name, process)}; {GOES_ON}")

    def close(self, patience: float) -> None:
        """Let the trackers take what is left, and leave those behind that do not come to an end.

        Args:
            patience: seconds that are waited for all of them together; a stop signal ends the wait.
        """
        self.look()
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
        deadline = time.monotonic() + patience
        for name, process in list(self._processes.items()):
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            except Interrupted:
                deadline = 0.0
            record = Record.read(self.folder, name)
            if process.poll() is None:
                reason = f"{name} did not come to an end within {patience:g} s and was left behind"
            elif process.returncode == 0 and record.is_complete:
                reason = ""
            else:
                reason = f"{name} failed: {self._reason(name, process)}"
            self._forget(name)
            if reason:
                self._tell(f"{reason}; {self._lacks(record)}; metrics.jsonl and plots/ have everything")

    def _forget(self, name: str) -> None:
        """End a process and all that it has started."""
        process = self._processes.pop(name)
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a file server cannot even be killed
            process.wait(1)

    def _reason(self, name: str, process: subprocess.Popen[bytes]) -> str:
        return Record.read(self.folder, name).error or f"its process ended with status {process.returncode}"

    def _lacks(self, record: Record) -> str:
        rows = {place: len(rows) for place, rows in histories(self.folder).items()}
        sent = sum(min(record.sent.get(place, 0), count) for place, count in rows.items())
        return f"it has {sent} of {sum(rows.values())} epochs and not the end"

    def _tell(self, text: str) -> None:
        self.say(text)
        log.warning(text)


class _Looking:
    """Shows what another display shows; an epoch's end is the time to look after the trackers."""

    def __init__(self, display: Display, tracking: Tracking) -> None:
        self.display, self.tracking, self.interval = display, tracking, display.interval

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int, step: int) -> None:
        self.display.start_epoch(epoch, num_epochs, num_steps, step)

    def advance(self, step: int, loss: float, lr: float, examples_per_second: float) -> None:
        self.display.advance(step, loss, lr, examples_per_second)

    def end_epoch(self, row: Row) -> None:
        self.display.end_epoch(row)
        self.tracking.look()

    def close(self) -> None:
        self.display.close()
