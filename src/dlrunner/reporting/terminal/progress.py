"""Progress of a run: bars on a terminal, one line per epoch in a file or in CI."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from dlrunner.system.terminal import console, terminal_width

WIDTHS = {"epoch": 5, "lr": 9, "seconds": 9}

LEFT = "left for all epochs"
"""Behind the remaining time of the bar of all epochs."""


def number(value: Any) -> str:
    """Format a number as in the tables.

    >>> number(0.87462), number(1e-05), number(208350.78), number(12), number([0.1, 0.01]), number(None)
    ('0.8746', '1.0e-05', '208350.8', '12', '0.1000, 0.0100', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(number(each) for each in value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        if 1e4 <= abs(value) < 1e9:
            return f"{value:.1f}"
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"
    return str(value)


def metric_value(summary: Mapping[str, Any], name: Any, value: Any) -> str:
    """Format a value of a metric with the format and unit that the run's summary records.

    >>> summary = {"metrics": {"valid/hits": {"format": ".1%", "unit": ""}, "valid/mae": {"unit": "km"}}}
    >>> [metric_value(summary, f"valid/{name}", 0.25) for name in ("hits", "mae", "rmse")]
    ['25.0%', '0.2500 km', '0.2500']
    """
    known = (summary.get("metrics") or {}).get(name) or {}
    style = known.get("format")
    text = format(value, style) if style and isinstance(value, int | float) else number(value)
    return f"{text} {known['unit']}" if known.get("unit") else text


def shown_columns(row: Mapping[str, Any], width: int | None = None) -> list[str]:
    """Return the columns of the table of epochs, in order, by its first row: all rows have the same.

    Without class weights the log loss is the loss: one of them is enough, unless the log loss is monitored.

    >>> row = {"valid/loss": 0.5, "valid/accuracy": 0.8, "valid/log_loss": 0.5, "valid/f1": 0.8}
    >>> shown_columns(row)[2:5]
    ['valid/loss', 'valid/accuracy', 'valid/f1']
    >>> shown_columns(row, width=50)
    ['epoch', 'valid/loss', 'valid/accuracy', 'seconds']

    Args:
        row: the first one that is printed, of metrics.jsonl.
        width: of the terminal; metrics that are not monitored, the learning rate and the training loss are left out
            where a line would be longer.
    """
    metrics = [key for key in row if key.startswith("valid/") and key != "valid/loss"]
    if "valid/log_loss" in metrics[1:] and math.isclose(row["valid/log_loss"], row["valid/loss"], rel_tol=1e-4):
        metrics.remove("valid/log_loss")
    columns = ["epoch", "train/loss", "valid/loss", *metrics, "lr", "seconds"]
    for dispensable in (*reversed(metrics[1:]), "lr", "train/loss", "seconds", "valid/loss"):
        if width is not None and sum(map(_width, columns)) > width:
            columns.remove(dispensable)
    return columns


def row_line(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Format one epoch as a line of the table."""
    return "".join(f"{_cell(key, row.get(key)):>{_width(key)}}" for key in columns)


def header_line(columns: Sequence[str]) -> str:
    """Format the header of the table."""
    return "".join(f"{key:>{_width(key)}}" for key in columns)


def _width(key: str) -> int:
    """Return the width of a column: the usual table fits a terminal of 80 columns."""
    return WIDTHS.get(key, max(12, len(key) + 2))


def _cell(key: str, value: Any) -> str:
    if key == "seconds" and isinstance(value, float):
        return f"{value:.2f}"
    return number(value[-1] if key == "lr" and isinstance(value, list) else value)


class PlainDisplay:
    """One line per epoch, no control codes: for files, pipes and CI."""

    interval = 5.0

    def __init__(self) -> None:
        self._columns: list[str] = []

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int, step: int) -> None:
        """Print nothing."""

    def advance(self, step: int, loss: float, lr: float, examples_per_second: float) -> None:
        """Print nothing."""

    def end_epoch(self, row: Mapping[str, Any]) -> None:
        """Print the row."""
        if not self._columns:
            self._columns = shown_columns(row, terminal_width())
            print(header_line(self._columns), flush=True)
        print(row_line(row, self._columns), flush=True)

    def close(self) -> None:
        """Nothing to close."""


class SilentDisplay(PlainDisplay):
    """Prints nothing."""

    def end_epoch(self, row: Mapping[str, Any]) -> None:
        """Print nothing."""


class BarDisplay:
    """Bars for all epochs and for the current one, with smoothed loss, learning rate, examples/s and time left."""

    interval = 0.2

    def __init__(self) -> None:
        self._console = console()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[count]}", markup=False, table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self._console,
            transient=True,
        )
        self._epochs: TaskID | None = None
        self._steps: TaskID | None = None
        self._columns: list[str] = []
        self._num_steps = self._num_epochs = 1
        self._epoch = 0

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int, step: int) -> None:
        """Show the bars of this epoch."""
        if self._epochs is None or self._steps is None:
            self._epochs = self._progress.add_task("epochs", total=num_epochs, completed=epoch, count="", text=LEFT)
            self._steps = self._progress.add_task("", total=num_steps, count="", text="")
            self._progress.start()
        self._num_steps, self._num_epochs, self._epoch = num_steps, num_epochs, epoch
        self._progress.reset(self._steps, total=num_steps, description=f"epoch {epoch + 1}")
        self._show(step)

    def advance(self, step: int, loss: float, lr: float, examples_per_second: float) -> None:
        """Move the bars."""
        self._show(step, text=f"left  loss {number(loss)}  lr {lr:.1e}  {examples_per_second:,.0f}/s")

    def _show(self, step: int, text: str = "") -> None:
        if self._epochs is None or self._steps is None:
            return
        self._progress.update(self._steps, completed=step, count=f"{step}/{self._num_steps}", text=text)
        done = self._epoch + step / self._num_steps
        self._progress.update(self._epochs, completed=done, count=f"{self._epoch}/{self._num_epochs}")

    def end_epoch(self, row: Mapping[str, Any]) -> None:
        """Print the row above the bars."""
        if not self._columns:
            self._columns = shown_columns(row, self._console.width)
            self._progress.console.print(Text(header_line(self._columns), "bold"), soft_wrap=True)
        self._progress.console.print(row_line(row, self._columns), soft_wrap=True)
        if self._epochs is not None:
            self._progress.update(self._epochs, completed=row["epoch"], count=f"{row['epoch']}/{self._num_epochs}")

    def close(self) -> None:
        """Remove the bars."""
        self._progress.stop()


def make_display(progress: Literal["auto", "bars", "plain", "none"]) -> PlainDisplay | BarDisplay:
    """Return bars on a terminal, lines elsewhere."""
    if progress == "none":
        return SilentDisplay()
    if progress == "bars" or (progress == "auto" and sys.stdout.isatty()):
        return BarDisplay()
    return PlainDisplay()
