"""The verbs that find, name and remove runs: options, and functions that import what they need when they are called."""

from __future__ import annotations

import argparse

from dlrunner.cli.compare import with_signs
from dlrunner.cli.parser import Verb
from dlrunner.cli.run_names import METAVAR_HELP, RUNS, SORTABLE, name_run


def ls(arguments: argparse.Namespace) -> int:
    """List runs."""
    from dlrunner.cli.listing import ls as do

    return do(arguments)


def du(arguments: argparse.Namespace) -> int:
    """Print sizes of runs and of the cache."""
    from dlrunner.cli.listing import du as do

    return do(arguments)


def tag(arguments: argparse.Namespace) -> int:
    """Change the name, the tags and the note of a run."""
    from dlrunner.cli.tagging import tag as do

    return do(arguments)


def recipe(arguments: argparse.Namespace) -> int:
    """Print a run as an experiment file."""
    from dlrunner.cli.recipe import recipe as do

    return do(arguments)


def rm(arguments: argparse.Namespace) -> int:
    """Remove runs."""
    from dlrunner.cli.removing import rm as do

    return do(arguments)


def prune(arguments: argparse.Namespace) -> int:
    """Remove failed runs, checkpoints or preprocessed data."""
    from dlrunner.cli.removing import prune as do

    return do(arguments)


def _ls_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    help_text = "task=collab status=failed 'metric<.9' data.target=price, with = != < <= > >= and *; runs_dir=DIR"
    add("conditions", nargs="*", metavar="CONDITION", help=help_text)
    add("--sort", default="time", metavar="COLUMN", help=f"{', '.join(SORTABLE)}, a setting or a metric; -: reversed")
    add("--top", type=int, default=40, metavar="N", help="number of runs to print")
    add("--jobs", action="store_true", help="also list the jobs of sweeps")
    add("--json", action="store_true", help="print all as JSON")


def _rm_options(parser: argparse.ArgumentParser) -> None:
    text = "runs: folders, ids, names, or conditions such as task=collab 'age>30d' (all that fit); or folders of sweeps"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=text)
    _add_yes(parser)


def _prune_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("conditions", nargs="*", metavar="CONDITION", help="only runs that fit: task=collab 'age>7d'")
    parser.add_argument("--unfinished", action="store_true", help="also interrupted and killed runs")
    parser.add_argument(
        "--checkpoints", action="store_true", help="instead: checkpoints that finished runs do not need to predict"
    )
    parser.add_argument(
        "--cache", action="store_true", help="instead: preprocessed data, which is made again if needed"
    )
    _add_yes(parser)


def _tag_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help=METAVAR_HELP)
    parser.add_argument("tags", nargs="*", metavar="TAG", help="tags to add")
    parser.add_argument("--remove", nargs="+", default=[], metavar="TAG", help="tags to remove")
    parser.add_argument("--name", metavar="NAME", help="the name of the run; '' removes it")
    parser.add_argument("--note", metavar="TEXT", help="a note; '' removes it")


def _recipe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help=METAVAR_HELP)


def _du_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="?", default=str(RUNS), metavar="FOLDER", help="the folder of runs")


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


RUN_VERBS: dict[str, Verb] = {
    "ls": Verb(
        "[CONDITION...]",
        "list runs: age, status, metric, size",
        "dlrun ls task=collab status=done 'metric<.9'",
        _ls_options,
        ls,
        lambda parser, words: with_signs(words),
        prints_result=True,
    ),
    "tag": Verb(
        "RUN TAG...",
        "name, tag or annotate a run",
        'dlrun tag 1b2c3d4e baseline --name first --note "with the old data"',
        _tag_options,
        tag,
        name_run,
    ),
    "recipe": Verb(
        "RUN",
        "print a run as an experiment file",
        "dlrun recipe 1b2c3d4e > conf/experiment/mine.yaml",
        _recipe_options,
        recipe,
        name_run,
        prints_result=True,
    ),
    "rm": Verb(
        "RUN... | SWEEP",
        "remove runs that no others use",
        "dlrun rm task=collab 'age>30d'",
        _rm_options,
        rm,
    ),
    "prune": Verb(
        "[--checkpoints]",
        "remove failed runs, spare checkpoints, cache",
        "dlrun prune --checkpoints",
        _prune_options,
        prune,
    ),
    "du": Verb("", "print sizes of runs and cache", "dlrun du", _du_options, du, prints_result=True),
}
