"""The predictors of all tasks: command-line options match the signatures of their methods."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

from dlrunner import tasks
from dlrunner.cli.options import Option, help_of_arguments, options_of
from dlrunner.cli.parser import Parser
from dlrunner.cli.verbs import VERBS
from dlrunner.predictor import Predictor
from dlrunner.task import Task
from dlrunner.tasks.collab.predictor import RatingPredictor
from dlrunner.tasks.image.predictor import ImagePredictor
from dlrunner.tasks.language.predictor import LanguagePredictor
from dlrunner.tasks.segmentation.predictor import SegmentationPredictor
from dlrunner.tasks.tabular.predictor import TablePredictor
from dlrunner.tasks.tabular.rossmann import SalesPredictor
from dlrunner.tasks.text.predictor import TextPredictor


def shipped() -> list[type[Predictor]]:
    """Return the predictors of all tasks of the package."""
    modules = [
        importlib.import_module(each.name) for each in pkgutil.walk_packages(tasks.__path__, f"{tasks.__name__}.")
    ]
    classes = [each for module in modules for each in vars(module).values() if isinstance(each, type)]
    found = {each.predictor for each in classes if issubclass(each, Task) and each.predictor}
    return sorted(found, key=lambda each: each.__name__)


PREDICTORS = shipped()


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
