"""The verbs that put runs beside each other: compare and diff."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path

TABLES = ("csv", "json", "md")
PICTURES = ("curves", "importance")


def compare(arguments: argparse.Namespace) -> int:
    """Compare runs: the settings that differ, the numbers with their spread, a verdict, plots."""
    _check_files(vars(arguments))
    from dlrunner.comparison.collect import gather
    from dlrunner.comparison.groups import compare as compare_rows
    from dlrunner.files.spreadsheet import as_csv
    from dlrunner.reporting.terminal import comparison as looks

    rows, left_out = gather(arguments.runs)
    by = [name for name in (arguments.by or "").split(",") if name]
    comparison = compare_rows(rows, arguments.metric, by)
    frame = looks.runs_frame(comparison) if arguments.by_run else looks.groups_frame(comparison)
    if arguments.sort:
        frame = looks.sort(frame, arguments.sort)
    writers: dict[str, Callable[[], str]] = {
        "csv": lambda: as_csv(frame)[0].decode(),
        "json": lambda: looks.as_json(comparison, left_out),
        "md": lambda: looks.markdown(comparison, frame, left_out),
    }
    tables = {name: place for name in TABLES if (place := getattr(arguments, name))}
    # With a table on standard output everything else is said beside it, so that the table can be piped on.
    told = sys.stderr if "-" in tables.values() else sys.stdout
    if tables.get("csv") == "-":  # the other forms have the sentences in them
        for line in looks.sentences(comparison, left_out):
            print(line, file=told)
    elif told is sys.stdout:
        looks.print_comparison(comparison, frame, left_out, arguments.top)
    for name, place in tables.items():
        if place == "-":
            print(writers[name](), end="")
        else:
            _write(user_path(place), writers[name]())
            print(f"{name:<12}{place}", file=told)
    if arguments.importance:
        _explain(comparison.rows, arguments.importance, told)
    if arguments.curves:
        from dlrunner.reporting.plots import comparison as pictures

        lacking = pictures.curves(comparison, user_path(arguments.curves))
        without = f"  ({lacking} without a history)" if lacking else ""
        print(f"{'curves':<12}{arguments.curves}{without}", file=told)
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Tell what differs between two runs, and the first epoch at which their numbers part."""
    from dlrunner.reporting.terminal.diff import print_difference
    from dlrunner.runs.reader import FinishedRun

    print_difference(FinishedRun.read(user_path(arguments.a)), FinishedRun.read(user_path(arguments.b)))
    return 0


def add_diff_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of diff."""
    parser.add_argument("a", metavar="A", help="a run folder")
    parser.add_argument("b", metavar="B", help="another")


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of compare."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, sweep folders, patterns: 'runs/collab/*'")
    parser.add_argument("--by", metavar="NAME", help="group by this setting (or several: a,b), averaging over all else")
    parser.add_argument("--metric", metavar="NAME", help="judge by this number: valid/mae, valid/loss, seconds …")
    parser.add_argument("--sort", metavar="COLUMN", help="sort the table; -COLUMN downwards")
    parser.add_argument("--runs", dest="by_run", action="store_true", help="a row per run, not per group")
    parser.add_argument("--top", type=int, default=40, metavar="N", help="rows that are printed")
    for name in TABLES:
        parser.add_argument(f"--{name}", metavar="FILE", help=f"write it all as {name.upper()}; - for standard output")
    parser.add_argument("--curves", metavar="FILE.png", help="draw the validation metric by epoch")
    parser.add_argument("--importance", metavar="FILE.png", help="find which setting mattered, and draw it")


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
    """Refuse what cannot be written before anything is read.

    Raises:
        ConfigError: a folder is missing, a picture is no PNG, two tables are asked for on standard output.
    """
    if arguments["top"] < 1:
        raise ConfigError(f"--top: must be 1 or more, not {arguments['top']}")
    if sum(arguments[name] == "-" for name in TABLES) > 1:
        raise ConfigError("only one table can go to standard output; name a file for the others")
    for name in (*TABLES, *PICTURES):
        place = arguments[name]
        if name in PICTURES and place and not place.endswith(".png"):
            raise ConfigError(f"--{name}: {place} must end in .png")
        if place and not user_path(place).parent.is_dir():
            raise ConfigError(f"--{name}: there is no folder {user_path(place).parent}")
        if place and user_path(place).is_dir():
            raise ConfigError(f"--{name}: {place} is a folder; name a file")


def _write(path: Path, text: str) -> None:
    from dlrunner.files.atomic import readable_os_errors, write_atomic

    with readable_os_errors(path):
        write_atomic(path, text.encode(errors="backslashreplace"))


def _explain(rows: Any, file: str, told: Any) -> None:
    """Print and draw which setting mattered."""
    from dlrunner.comparison.importance import importance
    from dlrunner.reporting.plots import comparison as pictures
    from dlrunner.reporting.terminal import comparison as looks

    found = importance(rows)
    pictures.importance(found, Path(file))
    for line in looks.importance_sentences(found):
        print(line, file=told)
    print(f"{'importance':<12}{file}", file=told)
