"""The verbs that compare runs: compare and diff."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dlrunner.cli.run_names import named_run, with_matching_runs
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.plot import PLOT_FORMATS
from dlrunner.system.terminal import print_content

TABLES = ("csv", "json", "md", "latex")
PLOT_ENDINGS = tuple(f".{plot_format}" for plot_format in PLOT_FORMATS)
PLOTS = ("curves", "intervals", "importance")


def compare(arguments: argparse.Namespace) -> int:
    """Compare runs: the settings that differ, metrics as mean ± std, a verdict, plots."""
    _check_files(vars(arguments))
    from dlrunner.comparison.collect import gather
    from dlrunner.comparison.groups import compare as compare_rows
    from dlrunner.files.spreadsheet import as_csv
    from dlrunner.reporting.latex import latex_table
    from dlrunner.reporting.terminal import comparison as terminal

    rows, left_out = gather(with_matching_runs(arguments.runs))
    by = [name for name in (arguments.by or "").split(",") if name]
    comparison = compare_rows(rows, arguments.metric, by)
    frame = terminal.runs_frame(comparison) if arguments.by_run else terminal.groups_frame(comparison)
    if arguments.sort:
        frame = terminal.sort(frame, arguments.sort)
    writers: dict[str, Callable[[], str]] = {
        "csv": lambda: as_csv(frame)[0].decode(),
        "json": lambda: terminal.as_json(comparison, left_out),
        "md": lambda: terminal.markdown(comparison, frame, left_out),
        "latex": lambda: latex_table(comparison),
    }
    tables = {name: path for name in TABLES if (path := getattr(arguments, name))}
    # With a table on standard output everything else goes to standard error, so that the table can be piped.
    messages = sys.stderr if "-" in tables.values() else sys.stdout
    if "-" in (tables.get("csv"), tables.get("latex")):  # the other formats include the sentences
        for line in terminal.sentences(comparison, left_out):
            print(line, file=messages)
    elif messages is sys.stdout:
        terminal.print_comparison(comparison, frame, left_out, arguments.top)
    for name, path in tables.items():
        if path == "-":
            print_content(writers[name]())
        else:
            _write(user_path(path), writers[name]())
            print(f"{name:<12}{path}", file=messages)
    if arguments.importance:
        if comparison.num_validation_sets > 1:
            raise ConfigError("--importance: these runs validated on different rows; name runs of one set")
        _print_importance(comparison.rows, arguments.importance, messages)
    if arguments.curves:
        from dlrunner.reporting.plots import comparison as plots

        num_missing = plots.curves(comparison, user_path(arguments.curves))
        without = f"  ({num_missing} without a history)" if num_missing else ""
        print(f"{'curves':<12}{arguments.curves}{without}", file=messages)
    if arguments.intervals:
        from dlrunner.reporting.plots import comparison as plots

        num_missing = plots.intervals(comparison, user_path(arguments.intervals))
        without = f"  ({num_missing} more groups are not drawn)" if num_missing else ""
        print(f"{'intervals':<12}{arguments.intervals}{without}", file=messages)
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Print the differences between two runs, and the first epoch at which their metrics differ."""
    from dlrunner.reporting.terminal.diff import print_difference
    from dlrunner.runs.reader import FinishedRun

    print_difference(FinishedRun.read(named_run(arguments.a)), FinishedRun.read(named_run(arguments.b)))
    return 0


def add_diff_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of diff."""
    parser.add_argument("a", metavar="A", help="a run folder")
    parser.add_argument("b", metavar="B", help="another")


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of compare."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folders, sweep folders, patterns: 'runs/collab/*'; conditions: task=collab optim=sgd",
    )
    parser.add_argument("--by", metavar="NAME", help="group by this setting (or several: a,b), averaging over all else")
    parser.add_argument("--metric", metavar="NAME", help="compare by this metric: valid/mae, valid/loss, seconds …")
    parser.add_argument("--sort", metavar="COLUMN", help="sort the table; -COLUMN: descending")
    parser.add_argument("--runs", dest="by_run", action="store_true", help="one row per run, not per group")
    parser.add_argument("--top", type=int, default=40, metavar="N", help="number of rows to print")
    for name in TABLES:
        label = {"md": "Markdown", "latex": "LaTeX (booktabs)"}.get(name, name.upper())
        parser.add_argument(f"--{name}", metavar="FILE", help=f"write the table as {label}; -: standard output")
    parser.add_argument("--curves", metavar="FILE.png", help="plot the validation metric by epoch (PNG, SVG or PDF)")
    parser.add_argument("--intervals", metavar="FILE.png", help="plot the mean of each group with its 95 %% interval")
    parser.add_argument("--importance", metavar="FILE.png", help="print and plot the importance of each setting")


def with_signs(words: list[str]) -> list[str]:
    """Join `--sort -seconds` into one word: argparse would take the second for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--sort" and word.startswith("-") and not word.startswith("--"):
            joined[-1] = f"--sort={word}"
        else:
            joined.append(word)
    return joined


def _check_files(arguments: Mapping[str, Any]) -> None:
    """Check the output files before anything is read.

    Raises:
        ConfigError: a folder is missing, a plot's format is unknown, or two tables go to standard output.
    """
    if arguments["top"] < 1:
        raise ConfigError(f"--top: must be 1 or more, not {arguments['top']}")
    if sum(arguments[name] == "-" for name in TABLES) > 1:
        raise ConfigError("only one table can go to standard output; name a file for the others")
    for name in (*TABLES, *PLOTS):
        path = arguments[name]
        if name in PLOTS and path and not path.endswith(PLOT_ENDINGS):
            raise ConfigError(f"--{name}: {path} must end in {', '.join(PLOT_ENDINGS[:-1])} or {PLOT_ENDINGS[-1]}")
        if path and not user_path(path).parent.is_dir():
            raise ConfigError(f"--{name}: there is no folder {user_path(path).parent}")
        if path and user_path(path).is_dir():
            raise ConfigError(f"--{name}: {path} is a folder; name a file")


def _write(path: Path, text: str) -> None:
    from dlrunner.files.atomic import readable_os_errors, write_atomic

    with readable_os_errors(path):
        write_atomic(path, text.encode(errors="backslashreplace"))


def _print_importance(rows: Any, file: str, stream: Any) -> None:
    """Print and plot the importance of each setting."""
    from dlrunner.comparison.importance import importance
    from dlrunner.reporting.plots import comparison as plots
    from dlrunner.reporting.terminal import comparison as terminal

    found = importance(rows)
    plots.importance(found, user_path(file))
    for line in terminal.importance_sentences(found):
        print(line, file=stream)
    print(f"{'importance':<12}{file}", file=stream)
