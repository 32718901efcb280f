"""Base class of predictors: the inference half of a task, built from the stored state of a finished run."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from dlrunner.model import Example, Model


class Answer(str):
    """A text result with a note about it."""

    note: str = ""


class Predictor(ABC):
    """Predicts from the stored state and the trained models of a run.

    Every public method of a subclass can be called in Python, `dlrunner.load(RUN).predict(...)`, and on the command
    line, `dlrun predict RUN ...`: positional parameters become arguments, keyword-only ones options, and the `Args:`
    section of the docstring their help. Both check the annotations before the method is called:

    | annotation | on the command line |
    |---|---|
    | `bool`, False by default | `--name`; `--no-name` where it is True by default |
    | `int`, `float`, `str`, `Literal`, ranges of `dlrunner.ranges` | `--name VALUE` |
    | `list[...]` of these | `--name VALUE VALUE ...` |
    | `Path` | the path of a file or folder |
    | `str | Path` | a `Path` if the file or folder exists, else the text itself |
    | `pandas.DataFrame` | the path of a table: its strings as in the file; `read_frame` reads them (`attrs["file"]`) |

    A Python keyword gets an underscore: `class_` is `--class`. A method returns a table, with notes in
    `attrs["note"]`, or a text (see `Answer`).

    Args:
        state: stored by the task (`Task.state`).
        models: in evaluation mode; several for an ensemble.
    """

    example: ClassVar[str] = ""
    """An example call in Python, for the model card."""
    limits: ClassVar[Sequence[str]] = ()
    """Known limitations, for the model card."""

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        self.state, self.models = state, models

    @property
    def text_columns(self) -> Sequence[str]:
        """Columns of predictions.csv that keep every character: ids, texts."""
        return ()

    @classmethod
    @abstractmethod
    def dims(cls, state: Mapping[str, Any]) -> Any:
        """Return the task's `dims` from its stored state, so that a model can be built without the data."""

    def examples(self, count: int) -> Mapping[str, Example]:
        """Return example inputs of a model by name, with `count` rows, made from the stored state alone.

        An exported ONNX graph is compared with the model on them; without examples there is no ONNX export.
        """
        return {}

    @classmethod
    def methods(cls) -> Mapping[str, Callable[..., Any]]:
        """Return the public methods of the predictor by name."""
        names = [name for each in reversed(cls.__mro__) for name in vars(each) if not name.startswith("_")]
        own = {name: getattr(cls, name) for name in names if not hasattr(Predictor, name)}
        return {name: method for name, method in own.items() if inspect.isfunction(method)}
