"""Base class of predictors: the inference half of a task, built from the stored state of a finished run."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dlrunner.model import Example, Model

if TYPE_CHECKING:
    import pandas as pd


class Answer(str):
    """A text result with a note about it."""

    note: str = ""


@dataclass(frozen=True)
class RowField:
    """A field of the rows that `dlrun serve` predicts."""

    name: str
    type: Literal["number", "text", "boolean", "id", "image"]
    """An id is a text or a whole number; an image is its file, base64-encoded."""
    may_be_missing: bool = False
    """Its value may be null."""
    is_optional: bool = False
    """Rows need not have it."""
    description: str = ""
    example: Any = None


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

    @property
    def output_formula(self) -> str:
        """How an answer follows from the outputs of an exported graph, for the model card; empty: as it is."""
        return ""

    def with_types(self, answer: pd.DataFrame) -> pd.DataFrame:
        """Return an answer whose columns of the input, strings as in a text file, have the types of the training table.

        For formats that have types: JSON, Parquet, Excel. Ids stay strings.
        """
        return answer

    def row_fields(self) -> Sequence[RowField]:
        """Return the fields of a row of a request; without any the run cannot be served."""
        return ()

    def predict_request(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Predict the rows of a request, one row each; the reason why one cannot be read is in the column `problem`.

        Args:
            rows: columns are those of `row_fields`; texts and images are strings.
        """
        predicted: pd.DataFrame = self.methods()["predict"](self, rows)
        return predicted

    def predict_requests(self, requests: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
        """Predict several requests with exactly the results, and the notes, that each would have alone."""
        return [self.predict_request(rows) for rows in requests]

    @classmethod
    def methods(cls) -> Mapping[str, Callable[..., Any]]:
        """Return the public methods of the predictor by name."""
        names = [name for each in reversed(cls.__mro__) for name in vars(each) if not name.startswith("_")]
        own = {name: getattr(cls, name) for name in names if not hasattr(Predictor, name)}
        return {name: method for name, method in own.items() if inspect.isfunction(method)}
