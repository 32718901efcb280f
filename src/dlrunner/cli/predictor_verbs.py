"""Verbs that call a method of a run's predictor; the options are derived from its signature."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlrunner.cli.parser import Parser, Verb
from dlrunner.cli.predictor_output import Output
from dlrunner.cli.run_names import METAVAR_HELP, run_and_count, with_named_run
from dlrunner.errors import ConfigError, DlrunnerError

if TYPE_CHECKING:
    from dlrunner.runs.reader import FinishedRun


def predictor_verb(method: str, usage: str, summary: str, example: str) -> Verb:
    """Return the verb of a method that some predictors have."""
    prepare = functools.partial(_add_method_options, method)
    return Verb(usage, summary, example, _add_run_options, _call_method, prepare, prints_result=True)


def verb_of_run(words: Sequence[str]) -> Verb | None:
    """Return the verb of a method of the predictor of the run that the second word names; None if it has none."""
    name, method = words[0], words[0].replace("-", "_")
    try:
        named, _ = with_named_run(words[1:], verbose=False)
        if named and method in _methods_of(named[0], _plugins_in(words))[2]:
            return predictor_verb(method, "RUN", f"use {method} of the run's predictor", f"dlrun {name} RUN")
    except DlrunnerError:
        pass  # the second word is not a run
    return None


def add_plugins_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the modules which a run may import."""
    text = "your own modules that the run may import"
    parser.add_argument("--plugins", nargs="*", default=[], metavar="MODULE", help=text)


def check_plugins(config: dict[str, Any], allowed: Sequence[str]) -> None:
    """Check that a run imports no plugin modules that the user has not named.

    Raises:
        ConfigError: it does.
    """
    from dlrunner.inference.plugins import unnamed_plugins

    if unnamed := unnamed_plugins(config, allowed):
        raise ConfigError(
            f"this run imports {', '.join(unnamed)}; if you trust it, add: --plugins {' '.join(config['plugins'])}"
        )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help=f"{METAVAR_HELP}; `RUN --help` lists its options")
    parser.add_argument("--checkpoint", metavar="FILE", help="other weights: last.pt, best.pt, cycle-2.pt …")
    add_plugins_option(parser)


def _add_method_options(method: str, parser: Parser, words: list[str]) -> list[str]:
    """Add the options of the method of the named run's predictor."""
    words, count = with_named_run(words, verbose=False)
    early = Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    _add_run_options(early)
    try:
        known, _ = early.parse_known_intermixed_args(words)
    except ConfigError:  # without a run the parser reports the error, or prints its help
        return words
    finished, task, methods, found = _methods_of(known.run, known.plugins)
    from dlrunner.cli.options import description_of, example_of, options_of, returns_text, usage_of
    from dlrunner.inference.arguments import no_method

    if method not in methods:
        raise ConfigError(no_method(task, methods, method))
    function, verb = methods[method], method.replace("_", "-")
    options = options_of(function)
    others = [name.replace("_", "-") for name in methods if name != method]
    parser.usage, parser.description = usage_of(verb, options), description_of(function)
    lines = [f"example:\n  {example}"] if (example := example_of(verb, function)) else []
    lines += [f"other verbs of this run: {', '.join(others)}"] * bool(others)
    parser.epilog = "\n\n".join(lines)
    for option in options:
        option.add_to(parser)
    if not returns_text(function):
        add_result_options(parser)
    parser.set_defaults(_method=method, _finished=finished, _options=options, _count=max(count, found))
    return words


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a table of results goes, and in which format."""
    out = "also write the result (.csv, .tsv, .json, .jsonl, .parquet, .xlsx); -: as CSV to standard output"
    parser.add_argument("--out", metavar="FILE", help=out)
    shapes = parser.add_mutually_exclusive_group()
    shapes.add_argument("--json", action="store_true", help="print the result as a JSON array, and nothing else")
    shapes.add_argument("--jsonl", action="store_true", help="print the result as JSON Lines, and nothing else")
    parser.add_argument("--raw", action="store_true", help="do not escape texts that begin like a formula")


def _plugins_in(words: Sequence[str]) -> Sequence[str]:
    early = argparse.ArgumentParser(add_help=False)
    add_plugins_option(early)
    named: list[str] = early.parse_known_args(words)[0].plugins
    return named


def _methods_of(run: str, plugins: Sequence[str]) -> tuple[FinishedRun, str, Mapping[str, Callable[..., Any]], int]:
    """Return the run, the name of its task, the methods of its predictor, and how many runs the word fits.

    The methods of a task of dlrunner are read from source, since importing the task takes seconds.

    Raises:
        ConfigError: it is not a run, its task has no predictor, or it imports modules that are not in `plugins`.
    """
    from dlrunner.config.source_signatures import predictor_methods
    from dlrunner.inference.plugins import without_trackers
    from dlrunner.runs.reader import FinishedRun

    folder, count = run_and_count([run])
    finished = FinishedRun.read(folder)
    check_plugins(without_trackers(finished.config), plugins)
    target = str((finished.config.get("task") or {}).get("_target_"))
    if methods := predictor_methods(target):
        return finished, target.rpartition(".")[2], methods, count
    from dlrunner.inference.models import inference_plan, predictor_of

    plan = inference_plan(finished.config)
    return finished, plan.task.factory.__name__, predictor_of(plan).methods(), count


def _call_method(arguments: argparse.Namespace) -> int:
    """Call the method of the run's predictor and print the result; the status is 1 if rows could not be read."""
    from dlrunner.cli.options import values_of
    from dlrunner.inference.load import loaded
    from dlrunner.reporting.terminal.runs import run_line
    from dlrunner.runs.listing import ListedRun
    from dlrunner.runs.reader import shorter

    missing = [each.shown for each in arguments._options if each.is_required and each.parameter.name not in arguments]
    if missing:
        verb = arguments._method.replace("_", "-")
        raise ConfigError(
            f"{verb}: the following arguments are required: {', '.join(missing)}; "
            f"`dlrun {verb} {shorter(arguments._finished.path)} --help` lists the options"
        )
    output = Output.of(arguments) if hasattr(arguments, "raw") else None
    print(run_line(ListedRun(arguments._finished.path), arguments._count), file=sys.stderr)
    predictor = loaded(arguments._finished, arguments.checkpoint)
    values = values_of(arguments, arguments._options, arguments._finished.config.get("data"))
    notes = [note for value in values.values() for note in getattr(value, "attrs", {}).get("notes", ())]
    result = getattr(predictor, arguments._method)(**values)
    if isinstance(result, str):
        print("\n".join([*filter(None, [getattr(result, "note", "")]), result]))
        return 0
    from dlrunner.prediction_table import with_notes

    assert output is not None
    output.put(with_notes(result, notes), predictor.predictor.with_types)
    return int("num_bad" in result.attrs)
