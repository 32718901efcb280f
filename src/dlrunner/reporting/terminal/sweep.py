"""Progress of a sweep: bars on a terminal, one line per job in a file or in CI."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dlrunner.reporting.terminal.progress import number
from dlrunner.system.terminal import console, wrapped

MOST_ROWS = 16
"""Number of running jobs that are shown."""


def fitting(text: str, width: int) -> str:
    """Return a line that fits: a sentence wraps at words, a row of a table is cut, since its columns are aligned.

    >>> fitting("[0] city    text  Ulm  categorical", 24)
    '[0] city    text  Ulm  …'
    """
    if len(text) > width and len(re.findall(r"\S {2,}(?=\S)", text)) > 1:
        return f"{text[: width - 1]}…"
    return wrapped(text)


class LineScreen:
    """A line when a job ends, and now and then one for a long job.

    Args:
        total: number of jobs.
        done: number of jobs that were finished before.
        num_parallel: number of jobs that run in parallel.
        label: returns a short name of a job.
    """

    patience = 30.0
    """Seconds without output after which the progress of a job is printed."""

    def __init__(self, total: int, done: int, num_parallel: int, label: Callable[[Any], str]) -> None:
        self.total, self.before, self.num_parallel, self.label = total, done, num_parallel, label
        self.ended = self.failed = 0
        self.started: dict[int, float] = {}
        self.progress: dict[int, dict[str, Any]] = {}
        self.seconds: list[float] = []
        self._last_output: dict[int, float] = {}
        self._printed: set[str] = set()

    def print(self, text: str, style: str = "") -> None:
        """Print a line."""
        print(text, flush=True)

    def begin(self, job: Any) -> None:
        """A job starts."""
        self.started[job.number] = self._last_output[job.number] = time.monotonic()
        self.progress[job.number] = {"job": job}

    def show(self, job: Any, message: tuple[Any, ...]) -> None:
        """Show a message or the progress of a job; the same message of several jobs is printed once."""
        kind, *rest = message
        state = self.progress[job.number]
        if kind == "message":
            if rest[0] not in self._printed:
                self._printed.add(rest[0])
                self.print(f"[{job.number}] {rest[0].strip()}")
        elif kind == "epoch":
            state |= {"epoch": rest[0], "epochs": rest[1], "steps": rest[2], "step": 0}
        elif kind == "step":
            state |= {"step": rest[0], "loss": rest[1]}
        elif kind == "row":
            state |= {"row": rest[0], "step": state.get("steps", 0)}
            self._show_row(job, rest[0])

    def _show_row(self, job: Any, row: Mapping[str, Any]) -> None:
        if time.monotonic() - self._last_output[job.number] > self.patience:
            self._last_output[job.number] = time.monotonic()
            self.print(f"[{job.number}] {self.label(job)}: {self.where(self.progress[job.number])}")

    def end(self, job: Any, record: Mapping[str, Any]) -> None:
        """A job has ended."""
        took = time.monotonic() - self.started.pop(job.number)
        self.progress.pop(job.number)
        self.ended += 1
        head = f"[{job.number}] {self.label(job)}: "
        if record["status"] == "done":
            self.seconds.append(took)
            metric = record["metric"]
            self.print(f"{head}{metric['name']} {number(metric['value'])}, {took:.1f} s{self.rest()}")
        elif record["status"] == "failed":
            self.failed += 1
            self.print(f"[{job.number}] FAILED after {took:.1f} s: {self.label(job)}: {record['error']}", "red")
        else:
            self.print(f"{head}{record['status']}, state saved", "yellow")

    def refuse(self, number: int, error: Exception) -> None:
        """A job cannot begin: it has failed."""
        self.ended += 1
        self.failed += 1
        self.print(f"[{number}] FAILED: {error}{self.rest()}", "red")

    def rest(self) -> str:
        """Return the number of ended jobs and the estimated time left."""
        left = self.total - self.before - self.ended
        if not left:
            return ""
        text = f"  ({self.before + self.ended} of {self.total}"
        return f"{text}{f', about {duration(self.time_left(left))} left' if self.seconds else ''})"

    def time_left(self, jobs: int) -> float:
        """Return the estimated seconds for a number of jobs, from the mean of the finished ones."""
        return sum(self.seconds) / len(self.seconds) * jobs / self.num_parallel

    @staticmethod
    def where(state: Mapping[str, Any]) -> str:
        """Return the progress of a job as text."""
        if "epoch" not in state:
            return "starting"
        text = f"epoch {state['epoch'] + 1} of {state['epochs']}"
        metrics = [k for k in state.get("row", {}) if k.startswith("valid/") and k != "valid/loss"]
        if metrics:
            text += f", {metrics[0]} {number(state['row'][metrics[0]])}"
        return text

    def tick(self) -> None:
        """Nothing to refresh."""

    def close(self) -> None:
        """Nothing to close."""


class LiveScreen(LineScreen):
    """The same lines above a bar for all jobs and a row for each running job."""

    def __init__(self, total: int, done: int, num_parallel: int, label: Callable[[Any], str]) -> None:
        super().__init__(total, done, num_parallel, label)
        self._console = console()
        self._live = Live(self.view(), console=self._console, refresh_per_second=4, transient=True)
        self._live.start()

    def print(self, text: str, style: str = "") -> None:
        """Print a line above the rows."""
        self._console.print(Text(fitting(text, self._console.width), style), soft_wrap=True)

    def view(self) -> Group:
        """Return the bar of all jobs and the rows of the running ones."""
        done = self.before + self.ended
        failed = f", {self.failed} failed" if self.failed else ""
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text("jobs", "bold"),
            ProgressBar(self.total, done, width=30),
            Text(f"{done} of {self.total}{failed}"),
            Text(self.rest().partition(", ")[2].rstrip(")")),
        )
        rows = Table.grid(padding=(0, 2))
        for key, state in list(self.progress.items())[:MOST_ROWS]:
            steps = state.get("steps") or 1
            fraction = (state.get("epoch", 0) + state.get("step", 0) / steps) / (state.get("epochs") or 1)
            rows.add_row(
                Text(f"[{key}]"),
                Text(self.label(state["job"]), overflow="ellipsis", no_wrap=True),
                ProgressBar(1.0, fraction, width=16),
                Text(self.where(state)),
                Text(duration(time.monotonic() - self.started[key])),
            )
        return Group(head, rows)

    def tick(self) -> None:
        """Refresh the rows."""
        self._live.update(self.view())

    def close(self) -> None:
        """Remove the rows."""
        self._live.stop()


def make_screen(
    progress: Literal["auto", "bars", "plain", "none"],
    total: int,
    done: int,
    num_parallel: int,
    label: Callable[[Any], str],
) -> LineScreen:
    """Return bars on a terminal, lines elsewhere."""
    bars = progress == "bars" or (progress == "auto" and sys.stdout.isatty())
    return (LiveScreen if bars else LineScreen)(total, done, num_parallel, label)


def duration(seconds: float) -> str:
    """Format a duration in its two largest units.

    >>> duration(7.4), duration(83), duration(5000)
    ('7 s', '1 min 23 s', '1 h 23 min')
    """
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"
