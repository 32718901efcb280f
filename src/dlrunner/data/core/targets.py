"""Targets: their encoding, loss, metrics, and the meaning of outputs; those of classes and labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.classification_metrics import AveragePrecision, LogLoss, RocAuc
from dlrunner.errors import DataError
from dlrunner.metrics import F1, Accuracy, Metric, exact_dtype
from dlrunner.row_blocks import in_blocks

Kind = Literal["regression", "binary", "multiclass", "multilabel"]

MOST_RANKED = 20
"""Classes of which the ROC AUC is computed in each epoch."""


@dataclass(frozen=True)
class Target(ABC):
    """The target; fitted on the training rows, stored in the run.

    Each kind of target is a class: it defines the encoding of values, the loss, the metrics, how
    outputs are averaged, and their meaning.
    """

    kind: ClassVar[str]
    losses: ClassVar[Sequence[str]] = ("auto",)
    """Names of the available losses."""
    known_metrics: ClassVar[Mapping[str, Callable[[], Metric]]]
    usual_metrics: ClassVar[Sequence[str]] = ()
    """The default ones; empty: all. The first one is monitored."""
    has_one_class: ClassVar[bool] = False
    """Each row belongs to exactly one of `classes`."""

    names: list[str]
    classes: list[Any] = field(default_factory=list)
    """The classes in the order of their codes; of a multi-label target its labels."""

    @property
    def num_outputs(self) -> int:
        """Outputs of the model per row."""
        return 1

    @property
    def class_columns(self) -> list[str]:
        """Columns of predictions.csv that hold names of classes: texts, as they are written."""
        is_text = self.has_one_class and all(isinstance(each, str) for each in self.classes)
        name = self.names[0]  # if it is "prediction", that of the answers is "prediction_2"
        return ([name, "prediction_2"] if name == "prediction" else [name, "prediction"]) * is_text

    def fit(self, train: NDArray[Any]) -> Target:
        """Return the target with the statistics of the training rows."""
        return self

    def statistics(self) -> Mapping[str, float]:
        """Return the fitted statistics by name."""
        return {}

    @abstractmethod
    def encode(self, values: NDArray[Any]) -> Tensor:
        """Return encoded values: float32 of shape [rows] or [rows, labels], or int64 codes."""

    @abstractmethod
    def decode(self, outputs: Tensor) -> Tensor:
        """Return decoded outputs: numbers in the target's own unit, or a probability of each class or label."""

    def probabilities(self, outputs: Tensor) -> NDArray[np.float32]:
        """Return the probability of each class, or independently of each label, [rows, classes], on the CPU."""
        values: NDArray[np.float32] = in_blocks(self.decode, plain(outputs)).numpy()
        return values

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, name: str = "auto") -> Tensor:
        """Return the mean loss of outputs against encoded targets."""

    def metrics(self, names: Sequence[str] | None = None, correction: float = 1.0) -> dict[str, Metric]:
        """Return new metrics of outputs and encoded targets: the named ones, else the default ones."""
        return {name: self.known_metrics[name]() for name in names or self.usual_metrics or self.known_metrics}

    @abstractmethod
    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the output of an ensemble, from its members' outputs for the same rows."""

    @abstractmethod
    def answers(self, outputs: Tensor, name: str, correction: float = 1.0) -> pd.DataFrame:
        """Return outputs as a table for users, in columns with a given name."""

    @abstractmethod
    def truth(self, values: NDArray[Any]) -> pd.DataFrame:
        """Return values, as `target_columns.read_target` returns them, as a table for users."""

    @abstractmethod
    def description(self) -> str:
        """Describe the target in a few words."""

    def formula(self, correction: float = 1.0) -> str:
        """Return how an answer follows from the outputs of a model, with all constants, for who uses its graph."""
        return ""

    def state(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Target:
        """Return the target of a `state`; entries of older versions are ignored.

        Raises:
            DataError: no class has this kind.
        """
        made = next((each for each in Target.__subclasses__() if each.kind == state["kind"]), None)
        if made is None:
            raise DataError(f"a target of kind {state['kind']} is not supported by this version")
        return made(**{each.name: state[each.name] for each in fields(made) if each.name in state})


@dataclass(frozen=True)
class Binary(Target):
    """One of two classes: an output is the logit of the second."""

    kind = "binary"
    known_metrics: ClassVar[Mapping[str, Callable[[], Metric]]] = {
        "accuracy": Accuracy,
        "roc_auc": RocAuc,
        "f1": F1,
        "log_loss": LogLoss,
        "average_precision": AveragePrecision,
    }
    usual_metrics = ("accuracy", "roc_auc", "f1", "log_loss")
    has_one_class = True

    def encode(self, values: NDArray[Any]) -> Tensor:
        """Return 0 and 1, float32 of shape [rows]."""
        return torch.tensor(np.asarray(values, dtype=np.float32))

    def decode(self, outputs: Tensor) -> Tensor:
        """Return the probability of each class, [rows, 2]."""
        second = outputs.sigmoid()
        return torch.stack([1 - second, second], dim=1)

    def loss(self, outputs: Tensor, targets: Tensor, name: str = "auto") -> Tensor:
        """Return the mean cross entropy."""
        return F.binary_cross_entropy_with_logits(outputs.float(), targets)

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the logit of the mean probability."""
        return _logit_of_mean(outputs)

    def answers(self, outputs: Tensor, name: str, correction: float = 1.0) -> pd.DataFrame:
        """Return the class and the probability of the second."""
        second = self.probabilities(outputs)[:, 1]
        labels = np.array(self.classes, dtype=object)[(second > 0.5).astype(int)]
        return pd.DataFrame({name: labels, f"p({self.classes[1]})": shown(second)})

    def truth(self, values: NDArray[Any]) -> pd.DataFrame:
        """Return the classes."""
        return _named_classes(self, values)

    def description(self) -> str:
        """Name both classes."""
        return f"{self.names[0]}: {self.classes[1]} against {self.classes[0]}"

    def formula(self, correction: float = 1.0) -> str:
        """Name the class whose logit the output is."""
        return f"the probability of {self.classes[1]} is 1 / (1 + exp(-output)), that of {self.classes[0]} the rest"


@dataclass(frozen=True)
class MultiClass(Target):
    """One of several classes: outputs are their logits."""

    kind = "multiclass"
    known_metrics: ClassVar[Mapping[str, Callable[[], Metric]]] = {
        "accuracy": Accuracy,
        "f1": F1,
        "log_loss": LogLoss,
        "roc_auc": RocAuc,
        "average_precision": AveragePrecision,
    }
    usual_metrics = ("accuracy", "f1", "log_loss")
    has_one_class = True

    @property
    def num_outputs(self) -> int:
        """One for each class."""
        return len(self.classes)

    def encode(self, values: NDArray[Any]) -> Tensor:
        """Return codes, int64 of shape [rows]."""
        return torch.tensor(values)

    def decode(self, outputs: Tensor) -> Tensor:
        """Return the probability of each class, [rows, classes]."""
        return outputs.softmax(dim=1)

    def loss(self, outputs: Tensor, targets: Tensor, name: str = "auto") -> Tensor:
        """Return the mean cross entropy."""
        return F.cross_entropy(outputs.float(), targets)

    def metrics(self, names: Sequence[str] | None = None, correction: float = 1.0) -> dict[str, Metric]:
        """Return new metrics; ROC AUC by default of few classes only, since it sorts the rows for each of them."""
        few = ["roc_auc"] if len(self.classes) <= MOST_RANKED else []
        return super().metrics(names or [*self.usual_metrics, *few])

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the logarithms of the mean probabilities."""
        wide = _wide(outputs)
        return (wide.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(wide))).float()

    def answers(self, outputs: Tensor, name: str, correction: float = 1.0) -> pd.DataFrame:
        """Return the class and the probability of each."""
        probabilities = self.probabilities(outputs)
        labels = np.array(self.classes, dtype=object)[probabilities.argmax(1)]
        columns = [f"p({label})" for label in self.classes]
        return pd.concat([pd.DataFrame({name: labels}), pd.DataFrame(shown(probabilities), columns=columns)], axis=1)

    def truth(self, values: NDArray[Any]) -> pd.DataFrame:
        """Return the classes."""
        return _named_classes(self, values)

    def description(self) -> str:
        """Name some classes."""
        return f"{self.names[0]}: {len(self.classes)} classes ({_few(self.classes)})"

    def formula(self, correction: float = 1.0) -> str:
        """Name the classes whose logits the outputs are."""
        return f"the probabilities of the classes ({_few(self.classes)}) are the softmax of the outputs of a row"


@dataclass(frozen=True)
class MultiLabel(Target):
    """Any number of labels: outputs are their logits."""

    kind = "multilabel"
    known_metrics: ClassVar[Mapping[str, Callable[[], Metric]]] = {
        "f1": F1,
        "accuracy": Accuracy,
        "roc_auc": RocAuc,
        "average_precision": AveragePrecision,
        "log_loss": LogLoss,
    }
    usual_metrics = ("f1", "accuracy", "roc_auc", "average_precision")

    separator: str | None = None
    """Separates the labels, if they are in one column."""

    @property
    def num_outputs(self) -> int:
        """One for each label."""
        return len(self.classes)

    def encode(self, values: NDArray[Any]) -> Tensor:
        """Return 0 and 1, float32 of shape [rows, labels]."""
        return torch.tensor(np.asarray(values, dtype=np.float32))

    def decode(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label, [rows, labels]."""
        return outputs.sigmoid()

    def loss(self, outputs: Tensor, targets: Tensor, name: str = "auto") -> Tensor:
        """Return the mean cross entropy over rows and labels."""
        return F.binary_cross_entropy_with_logits(outputs.float(), targets)

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the logits of the mean probabilities."""
        return _logit_of_mean(outputs)

    def answers(self, outputs: Tensor, name: str, correction: float = 1.0) -> pd.DataFrame:
        """Return the probability of each label."""
        columns = [f"p({label})" for label in self.classes]
        return pd.DataFrame(shown(self.probabilities(outputs)), columns=columns)

    def truth(self, values: NDArray[Any]) -> pd.DataFrame:
        """Return 0 or 1 for each label."""
        return pd.DataFrame(values.astype(int), columns=[str(label) for label in self.classes])

    def description(self) -> str:
        """Name some labels."""
        return f"{', '.join(self.names[:3])}: {len(self.classes)} labels ({_few(self.classes)})"

    def formula(self, correction: float = 1.0) -> str:
        """Name the labels whose logits the outputs are."""
        return f"the probability of each label ({_few(self.classes)}) is 1 / (1 + exp(-output))"


def shown(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Return probabilities with the four decimals that every table of them has."""
    return probabilities.astype(np.float64).round(4)


def plain(outputs: Tensor) -> Tensor:
    """Return outputs on the CPU, in float32, without gradients."""
    return outputs.detach().float().cpu()


def _wide(outputs: Sequence[Tensor]) -> Tensor:
    """Stack the members' outputs in float64, where the device has it: a sigmoid of 40 is 1 and its logit infinite."""
    stacked = torch.stack(list(outputs))
    return stacked.to(exact_dtype(stacked))


def _logit_of_mean(outputs: Sequence[Tensor]) -> Tensor:
    """Return the logit of the mean probability, computed in log space."""
    wide = _wide(outputs)
    return (F.logsigmoid(wide).logsumexp(dim=0) - F.logsigmoid(-wide).logsumexp(dim=0)).float()


def _named_classes(target: Target, values: NDArray[Any]) -> pd.DataFrame:
    return pd.DataFrame({target.names[0]: np.array(target.classes, dtype=object)[values.astype(int)]})


def _few(classes: Sequence[Any]) -> str:
    return ", ".join(map(str, classes[:8])) + (" …" if len(classes) > 8 else "")
