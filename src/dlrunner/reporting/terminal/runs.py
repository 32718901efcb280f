"""Runs for the terminal: sizes, ages, metrics, and lists in columns."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Container, Sequence

from dlrunner.reporting.terminal.progress import metric_value
from dlrunner.runs.listing import ListedRun
from dlrunner.runs.reader import shorter
from dlrunner.system.terminal import visible_line

WIDTH = 80
"""Characters of the line that names a run."""


def size_text(size: float) -> str:
    """Format a number of bytes.

    >>> size_text(0), size_text(999), size_text(31_400), size_text(2_500_000_000)
    ('0 B', '999 B', '31 KB', '2.5 GB')
    """
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.1f} {unit}" if unit != "B" and size < 10 else f"{size:.0f} {unit}"
        size /= 1000
    raise AssertionError


def age_text(seconds: float) -> str:
    """Format an age by its largest unit.

    >>> age_text(5), age_text(3700), age_text(200_000)
    ('5 s', '1 h', '2 d')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def metric_text(run: ListedRun) -> str:
    """Format the metric of a run, such as `rmse 0.8680`; empty if it has none."""
    name, value = run.metric
    return f"{name.removeprefix('valid/')} {metric_value(run.summary, name, value)}" if name else ""


def run_line(run: ListedRun, count: int = 1) -> str:
    """Return which run answers: its folder, what it predicts, its metric and its age, in at most 80 characters.

    Args:
        run: a finished run.
        count: of the runs that fit, of which it is the newest.
    """
    data, choices = run.config.get("data") or {}, run.config.get("choices") or {}
    target = data.get("target")
    target = ",".join(map(str, target)) if isinstance(target, list) else target if isinstance(target, str) else ""
    what = f"{choices.get('task') or run.task} {target}".rstrip()
    newest = f"newest of {count}" if count > 1 else ""
    facts = [what, metric_text(run), f"{age_text(run.age)} old", newest]
    text, where = visible_line(", ".join(filter(None, facts))), visible_line(str(shorter(run.path)))
    room = max(12, WIDTH - len("run : ") - len(text))
    where = where if len(where) <= room else f"…{where[len(where) - room + 1 :]}"
    line = f"run {where}: {text}"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]], right: Container[str]) -> None:
    """Print rows in columns; on a terminal the last column is cut at its width."""
    rows = [[visible_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    for row in (header, *rows):
        cells = [
            cell.rjust(size) if name in right else cell.ljust(size)
            for name, cell, size in zip(header, row, widths, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        print(line if len(line) <= width else f"{line[: width - 1]}…")
