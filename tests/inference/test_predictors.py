"""The predictors of all tasks: command-line options match the signatures of their methods."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from dlrunner import tasks
from dlrunner.cli.options import (
    Option,
    description_of,
    example_of,
    help_of_arguments,
    options_of,
    returns_text,
    usage_of,
)
from dlrunner.cli.parser import Parser
from dlrunner.cli.verbs import VERBS
from dlrunner.config.source_signatures import predictor_methods
from dlrunner.predictor import Predictor
from dlrunner.task import Task
from dlrunner.tasks.collab.predictor import RatingPredictor
from dlrunner.tasks.image.predictor import ImagePredictor
from dlrunner.tasks.language.predictor import LanguagePredictor
from dlrunner.tasks.segmentation.predictor import SegmentationPredictor
from dlrunner.tasks.tabular.predictor import TablePredictor
from dlrunner.tasks.tabular.rossmann_predictor import SalesPredictor
from dlrunner.tasks.text.predictor import TextPredictor


def shipped() -> list[type[Task]]:
    """Return all tasks of the package that have a predictor."""
    modules = [
        importlib.import_module(each.name) for each in pkgutil.walk_packages(tasks.__path__, f"{tasks.__name__}.")
    ]
    classes = [each for module in modules for each in vars(module).values() if isinstance(each, type)]
    found = {each for each in classes if issubclass(each, Task) and each.predictor}
    return sorted(found, key=lambda each: each.__name__)


TASKS = shipped()
PREDICTORS = sorted({task.predictor for task in TASKS if task.predictor}, key=lambda each: each.__name__)


def described(method: Callable[..., Any]) -> tuple[Any, ...]:
    """Return what the help of a verb shows of a method."""
    options = options_of(method)
    parser = Parser(prog="dlrun", usage=usage_of("verb", options), description=description_of(method))
    for option in options:
        option.add_to(parser)
    return parser.format_help(), returns_text(method), example_of("verb", method)


def declared(options: list[Option]) -> tuple[set[str], set[str]]:
    """Return the arguments and options of a command-line parser."""
    parser = Parser(add_help=False)
    for option in options:
        option.add_to(parser)
    actions = parser._actions
    return (
        {each.dest for each in actions if not each.option_strings},
        {each.dest for each in actions if each.option_strings},
    )


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_command_line_options_match_the_signature(predictor: type[Predictor]) -> None:
    for method in predictor.methods().values():
        _, *parameters = inspect.signature(method).parameters.values()
        keyword_only = {each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
        positional = {each.name for each in parameters} - keyword_only
        assert declared(options_of(method)) == (positional, keyword_only)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_every_parameter_has_a_help_text_and_every_method_a_verb(predictor: type[Predictor]) -> None:
    assert predictor.methods()
    for name, method in predictor.methods().items():
        assert name.replace("_", "-") in VERBS
        assert list(help_of_arguments(method)) == [option.parameter.name for option in options_of(method)]
        assert all(option.help for option in options_of(method))


@pytest.mark.parametrize("task", TASKS)
def test_methods_read_from_source_have_the_same_options_and_example(task: type[Task]) -> None:
    assert task.predictor
    imported, read = task.predictor.methods(), predictor_methods(f"{task.__module__}.{task.__name__}")
    assert read is not None
    assert list(read) == list(imported)
    for name, method in imported.items():
        assert described(read[name]) == described(method)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_the_example_of_every_method_is_a_command_that_its_parser_takes(predictor: type[Predictor]) -> None:
    for name, method in predictor.methods().items():
        example = example_of(name.replace("_", "-"), method)
        assert example is not None
        parser = Parser(add_help=False)
        for option in options_of(method):
            option.add_to(parser)
        parser.parse(shlex.split(example)[3:])


def test_the_example_shows_the_kind_of_input() -> None:
    assert example_of("predict", SegmentationPredictor.predict) == "dlrun predict RUN photos --masks masks"
    assert example_of("predict", TextPredictor.predict) == 'dlrun predict RUN "it was great"'
    assert example_of("predict", TablePredictor.predict) == "dlrun predict RUN new.csv --only nr"
    assert example_of("predict", RatingPredictor.predict) == "dlrun predict RUN table.csv"
    assert example_of("explain", ImagePredictor.explain) == "dlrun explain RUN a.jpg --out heat.png"


@pytest.mark.parametrize(
    "target",
    [
        "dlrunner.task.Task",
        "dlrunner.tasks.collab.task.Nothing",
        "dlrunner.nothing.Task",
        "dlrunner./etc/nothing.Task",
        "mine.Task",
        "None",
    ],
)
def test_a_class_without_a_readable_predictor_is_left_to_its_import(target: str) -> None:
    assert predictor_methods(target) is None


def test_every_task_of_the_package_has_a_predictor() -> None:
    ours = [LanguagePredictor, ImagePredictor, RatingPredictor, SalesPredictor, SegmentationPredictor]
    ours += [TablePredictor, TextPredictor]
    assert set(ours) <= set(PREDICTORS)


def test_the_methods_of_a_predictor_are_its_public_ones() -> None:
    assert list(RatingPredictor.methods()) == ["predict", "recommend", "similar"]
    assert list(LanguagePredictor.methods()) == ["predict", "generate", "next_words"]
    assert list(ImagePredictor.methods()) == ["predict", "explain"]
    assert list(SegmentationPredictor.methods()) == ["predict"]
    assert (
        list(SalesPredictor.methods()) == list(TablePredictor.methods()) == list(TextPredictor.methods()) == ["predict"]
    )
