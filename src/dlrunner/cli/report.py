"""The verb that writes the report of a run, a sweep or claims as one HTML file."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from dlrunner.cli.conf_paths import file_to_write
from dlrunner.cli.run_names import LATEST, METAVAR_HELP, named_run
from dlrunner.errors import ConfigError


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of report."""
    parser.add_argument(
        "folder",
        metavar="RUN|SWEEP|CLAIMS",
        nargs="?",
        default=LATEST,
        help=f"{METAVAR_HELP}; or a folder in runs/sweeps/ or runs/claims/",
    )
    parser.add_argument("--out", metavar="FILE", help="the HTML file (default: report.html in the folder)")
    parser.add_argument("--open", choices=("yes", "no"), default="no", help="open it in a browser")


def report(arguments: argparse.Namespace) -> int:
    """Write the report of a run, a sweep or claims."""
    folder, out = named_run(arguments.folder), None
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}; name a run, a sweep or claims")
    if arguments.out:
        out = file_to_write(arguments.out)
    from dlrunner.runs.reader import shorter

    written = _write(folder, out)
    print(f"report   {shorter(written)}")
    if arguments.open == "yes" and not webbrowser.open(written.resolve().as_uri()):
        print("warning: could not open a browser")
    return 0


def _write(folder: Path, out: Path | None) -> Path:
    """Write the report for the kind of folder.

    Raises:
        ConfigError: it is neither a run nor a sweep nor claims.
    """
    from dlrunner.reporting.html import claims, run, sweep

    if (folder / "config.yaml").exists():
        return run.write(folder, out)
    if (folder / "claims.json").exists():
        return claims.write(folder, out)
    if (folder / "results.csv").exists() or (folder / "jobs").is_dir():
        return sweep.write(folder, out)
    raise ConfigError(f"{folder} is neither a run folder nor a folder of a sweep or claims")
