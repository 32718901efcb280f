"""The verb that evaluates a language model with a neural cache and n-grams."""

from __future__ import annotations

import argparse
import os

from dlrunner.cli.predictor_output import Output
from dlrunner.cli.predictor_verbs import add_plugins_option, add_result_options, check_plugins
from dlrunner.cli.run_names import METAVAR_HELP, named_run
from dlrunner.errors import ConfigError


def add_perplexity_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add = parser.add_argument
    add("run", metavar="RUN", help=METAVAR_HELP)
    add("--cache", type=int, default=2000, metavar="N", help="words that the neural cache remembers; 0: no cache")
    add("--ngram", type=int, default=4, metavar="N", help="length of the longest n-grams; 0: none")
    add("--checkpoint", metavar="FILE", help="other weights: last.pt, best.pt")
    add("--data-dir", metavar="DIR", help="the data folder (default: DLRUNNER_DATA)")
    add_plugins_option(parser)
    add_result_options(parser)


def perplexity(arguments: argparse.Namespace) -> int:
    """Print the perplexity of a run, alone and interpolated."""
    for name in ("cache", "ngram"):
        if getattr(arguments, name) < 0:
            raise ConfigError(f"perplexity: --{name} is {getattr(arguments, name)}; give a number from 0 on")
    from dlrunner.inference.plugins import without_trackers
    from dlrunner.runs.reader import FinishedRun

    output = Output.of(arguments)
    finished = FinishedRun.read(named_run(arguments.run))
    check_plugins(without_trackers(finished.config), arguments.plugins)
    from dlrunner.inference.perplexity import perplexity as evaluate

    data_dir = arguments.data_dir or os.environ.get("DLRUNNER_DATA")
    options = {name: getattr(arguments, name) for name in ("cache", "ngram", "checkpoint")}
    output.put(evaluate(finished, **options, data_dir=data_dir))
    return 0
