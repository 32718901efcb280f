"""What a predictor is: the inference half of a task, built from what a finished run has stored."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from dlrunner.model import Example, Model


class Answer(str):
    """A text that is an answer, with a note on what should be known about it."""

    note: str = ""


class Predictor(ABC):
    """Answers from the stored state and the trained models of a run.

    Every public method of a subclass can be called in Python, `dlrunner.load(RUN).predict(...)`, and in the terminal,
    `dlrunner predict RUN ...`: its positional parameters are arguments there, its keyword-only ones options, and their
    help is the `Args:` section of its docstring. What a parameter is annotated with is checked for both before the
    method is called:

    | annotation | in the terminal |
    |---|---|
    | `bool`, False by default | `--name`; `--no-name` where it is True by default |
    | `int`, `float`, `str`, `Literal`, ranges of `dlrunner.ranges` | `--name VALUE` |
    | `list[...]` of these | `--name VALUE VALUE ...` |
    | `Path` | the name of a file or folder |
    | `str | Path` | a `Path` where a file or folder of this name exists, else the text as it is |
    | `pandas.DataFrame` | the name of a file that is read (its name: `attrs["file"]`) |

    A name of Python's own gets an underscore: `class_` is `--class`. A method returns a table, with a note on it in
    `attrs["note"]`, or a text (see `Answer`).

    Args:
        state: what the task has stored (`Task.state`).
        models: in evaluation mode; several of an ensemble.
    """

    example: ClassVar[str] = ""
    """A line of Python that asks `predictor` for something."""
    limits: ClassVar[Sequence[str]] = ()
    """Sentences for those who rely on the answers."""

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        self.state, self.models = state, models

    @classmethod
    @abstractmethod
    def dims(cls, state: Mapping[str, Any]) -> Any:
        """Return the task's `dims` from its stored state, so that a model can be built without the data."""

    def examples(self, count: int) -> Mapping[str, Example]:
        """Return inputs of a model by name, like those of `count` validation rows, made from the stored state alone.

        A graph that is exported is compared with the model on them. Without any there is no graph.
        """
        return {}

    @classmethod
    def methods(cls) -> Mapping[str, Callable[..., Any]]:
        """Return what the predictor can be asked: its public methods, by name."""
        names = [name for each in reversed(cls.__mro__) for name in vars(each) if not name.startswith("_")]
        found = {name: getattr(cls, name) for name in names if not hasattr(Predictor, name)}
        return {name: method for name, method in found.items() if inspect.isfunction(method)}
