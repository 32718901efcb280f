"""One screen for all jobs of a sweep: bars on a terminal, a line a job in a file or in CI."""

from __future__ import annotations

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
from dlrunner.system.terminal import console

MOST_ROWS = 16
"""Jobs that run are shown in so many rows."""


class LineScreen:
    """A line when a job ends, and now and then one of a job that takes long.

    Args:
        total: how many jobs there are.
        done: how many of them were done before.
        side_by_side: how many run at one time.
        label: what tells a job from the others.
    """

    patience = 30.0
    """Seconds after which a job that has not been heard of tells where it stands."""

    def __init__(self, total: int, done: int, side_by_side: int, label: Callable[[Any], str]) -> None:
        self.total, self.before, self.side_by_side, self.label = total, done, side_by_side, label
        self.ended = self.failed = 0
        self.started: dict[int, float] = {}
        self.places: dict[int, dict[str, Any]] = {}
        self.seconds: list[float] = []
        self._heard: dict[int, float] = {}
        self._said: set[str] = set()

    def print(self, text: str, style: str = "") -> None:
        """Print a line."""
        print(text, flush=True)

    def begin(self, job: Any) -> None:
        """A job starts."""
        self.started[job.number] = self._heard[job.number] = time.monotonic()
        self.places[job.number] = {"job": job}

    def show(self, job: Any, message: tuple[Any, ...]) -> None:
        """A job tells how far it is; what several jobs say in the same words is said once."""
        kind, *rest = message
        place = self.places[job.number]
        if kind == "message":
            if rest[0] not in self._said:
                self._said.add(rest[0])
                self.print(f"[{job.number}] {rest[0].strip()}")
        elif kind == "epoch":
            place |= {"epoch": rest[0], "epochs": rest[1], "steps": rest[2], "step": 0}
        elif kind == "step":
            place |= {"step": rest[0], "loss": rest[1]}
        elif kind == "row":
            place |= {"row": rest[0], "step": place.get("steps", 0)}
            self._show_row(job, rest[0])

    def _show_row(self, job: Any, row: Mapping[str, Any]) -> None:
        if time.monotonic() - self._heard[job.number] > self.patience:
            self._heard[job.number] = time.monotonic()
            self.print(f"[{job.number}] {self.label(job)}: {self.where(self.places[job.number])}")

    def end(self, job: Any, record: Mapping[str, Any]) -> None:
        """A job has ended."""
        took = time.monotonic() - self.started.pop(job.number)
        self.places.pop(job.number)
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
            self.print(f"{head}{record['status']}, saved where it stood", "yellow")

    def rest(self) -> str:
        """Say how many jobs have ended, and how long the others will take."""
        left = self.total - self.before - self.ended
        if not left:
            return ""
        told = f"  ({self.before + self.ended} of {self.total}"
        return f"{told}{f', about {duration(self.time_left(left))} left' if self.seconds else ''})"

    def time_left(self, jobs: int) -> float:
        """Return the seconds that so many jobs will take, by the mean of those that are done."""
        return sum(self.seconds) / len(self.seconds) * jobs / self.side_by_side

    @staticmethod
    def where(place: Mapping[str, Any]) -> str:
        """Say where a job stands."""
        if "epoch" not in place:
            return "begins"
        told = f"epoch {place['epoch'] + 1} of {place['epochs']}"
        metrics = [k for k in place.get("row", {}) if k.startswith("valid/") and k != "valid/loss"]
        if metrics:
            told += f", {metrics[0]} {number(place['row'][metrics[0]])}"
        return told

    def tick(self) -> None:
        """Nothing moves between lines."""

    def close(self) -> None:
        """Nothing to take away."""


class LiveScreen(LineScreen):
    """The same lines above a bar for all jobs and a row for each that runs."""

    def __init__(self, total: int, done: int, side_by_side: int, label: Callable[[Any], str]) -> None:
        super().__init__(total, done, side_by_side, label)
        self._console = console()
        self._live = Live(self.view(), console=self._console, refresh_per_second=4, transient=True)
        self._live.start()

    def print(self, text: str, style: str = "") -> None:
        """Print a line above the rows."""
        self._console.print(Text(text, style), soft_wrap=True)

    def view(self) -> Group:
        """Return what is shown: all jobs, and those that run."""
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
        for key, place in list(self.places.items())[:MOST_ROWS]:
            steps = place.get("steps") or 1
            fraction = (place.get("epoch", 0) + place.get("step", 0) / steps) / (place.get("epochs") or 1)
            rows.add_row(
                Text(f"[{key}]"),
                Text(self.label(place["job"]), overflow="ellipsis", no_wrap=True),
                ProgressBar(1.0, fraction, width=16),
                Text(self.where(place)),
                Text(duration(time.monotonic() - self.started[key])),
            )
        return Group(head, rows)

    def tick(self) -> None:
        """Show the rows as they are now."""
        self._live.update(self.view())

    def close(self) -> None:
        """Take the rows away."""
        self._live.stop()


def make_screen(
    progress: Literal["auto", "bars", "plain", "none"],
    total: int,
    done: int,
    side_by_side: int,
    label: Callable[[Any], str],
) -> LineScreen:
    """Choose what suits the place: bars on a terminal, lines elsewhere."""
    bars = progress == "bars" or (progress == "auto" and sys.stdout.isatty())
    return (LiveScreen if bars else LineScreen)(total, done, side_by_side, label)


def duration(seconds: float) -> str:
    """Write a time in its two largest units.

    >>> duration(7.4), duration(83), duration(5000)
    ('7 s', '1 min 23 s', '1 h 23 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
