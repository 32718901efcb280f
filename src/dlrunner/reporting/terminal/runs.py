"""Runs for the terminal: sizes, ages, metrics, and lists in columns."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Container, Sequence

from dlrunner.reporting.terminal.progress import metric_value
from dlrunner.runs.listing import ListedRun
from dlrunner.runs.reader import shorter
from dlrunner.system.terminal import visible_line

WIDTH = 80
"""Characters of the line that names a run."""

LEAST_PART = 10
"""Characters of a setting that is cut."""


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


def line_width() -> int:
    """Return the width of the terminal; without one, lines have no limit."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def fitted(settings: Sequence[str], shared: Collection[str], width: int) -> str:
    """Return settings in at most this width: those that distinguish a run stay, and the longest are cut.

    >>> settings = ["data.target=Miles_per_Gallon", "epochs=10", "data.path=mpg.csv", "seed=1"]
    >>> [fitted(settings, ["data.path=mpg.csv"], width) for width in (80, 40, 28)]  # doctest: +NORMALIZE_WHITESPACE
    ['data.target=Miles_per_Gallon,epochs=10,data.path=mpg.csv,seed=1',
     'target=Miles_per_Gallon,epochs=10,seed=1', 'target=Mil…,epochs=10,seed=1']

    Args:
        settings: as they are typed.
        shared: those that go first.
        width: of the text.
    """
    if len(text := ",".join(settings)) <= width:
        return text
    own = [each for each in settings if each not in shared] or list(settings)
    # without the section: optim.lr=0.1 becomes lr=0.1
    parts = [
        f"{name.rpartition('.')[2]}={value}" if is_set else name
        for name, is_set, value in (each.partition("=") for each in own)
    ]
    while len(",".join(parts)) > width and max(map(len, parts)) > LEAST_PART:
        longest = max(range(len(parts)), key=lambda i: len(parts[i]))
        parts[longest] = f"{parts[longest].removesuffix('…')[:-1]}…"
    text = ",".join(parts)
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]], right: Container[str]) -> None:
    """Print rows in columns; on a terminal the last column is cut at its width."""
    rows = [[visible_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    width = line_width()
    for row in (header, *rows):
        cells = [
            cell.rjust(size) if name in right else cell.ljust(size)
            for name, cell, size in zip(header, row, widths, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        print(line if len(line) <= width else f"{line[: width - 1]}…")
