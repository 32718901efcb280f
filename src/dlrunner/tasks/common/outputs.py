"""What a model's outputs say, by the kind of the target: losses and metrics of classes, averages, readable answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from dlrunner.data.core.targets import Target
from dlrunner.metrics import F1, Accuracy, RocAuc, exact_dtype

CLASS_METRICS: Mapping[str, Mapping[str, type[Any]]] = {
    "binary": {"accuracy": Accuracy, "roc_auc": RocAuc, "f1": F1},
    "multiclass": {"accuracy": Accuracy, "f1": F1},
    "multilabel": {"f1": F1, "accuracy": Accuracy, "roc_auc": RocAuc},
}
"""The first of each kind judges by default."""


def class_loss(target: Target, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy: of classes, [rows, classes]; of yes and no, [rows]; of labels, [rows, labels]."""
    if target.kind == "multiclass":
        return F.cross_entropy(outputs.float(), targets)
    return F.binary_cross_entropy_with_logits(outputs.float(), targets)


def probabilities(target: Target, outputs: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the probability of each class, [rows, classes]; of labels, each by itself."""
    outputs = outputs.detach().float().cpu()
    if target.kind == "binary":
        chance = outputs.sigmoid()
        return torch.stack([1 - chance, chance], dim=1).numpy()
    return (outputs.sigmoid() if target.kind == "multilabel" else outputs.softmax(dim=1)).numpy()


def average(target: Target, outputs: Sequence[Tensor]) -> Tensor:
    """Return what an ensemble says: the mean of numbers, or the output that stands for the mean probability.

    Probabilities are averaged by their logarithms, in float64: a sigmoid of 40 is 1 and its logit infinite.
    """
    stacked = torch.stack(list(outputs))
    if target.kind == "regression":
        return stacked.mean(dim=0)
    wide = stacked.to(exact_dtype(stacked))
    if target.kind == "multiclass":
        return (wide.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(wide))).float()
    return (F.logsigmoid(wide).logsumexp(dim=0) - F.logsigmoid(-wide).logsumexp(dim=0)).float()


def answers(target: Target, outputs: Tensor, correction: float, name: str) -> pd.DataFrame:
    """Return outputs as a person reads them: numbers, classes with probabilities, labels with probabilities."""
    outputs = outputs.detach().float().cpu()
    if target.kind == "regression":
        return pd.DataFrame({name: (target.decode(outputs) * correction).numpy()})
    if target.kind == "multilabel":
        columns = [f"p({label})" for label in target.classes]
        return pd.DataFrame(outputs.sigmoid().numpy().round(4), columns=columns)
    classes = np.array(target.classes, dtype=object)
    if target.kind == "binary":
        chance = outputs.sigmoid().numpy()
        return pd.DataFrame({name: classes[(chance > 0.5).astype(int)], f"p({classes[1]})": chance.round(4)})
    chances = outputs.softmax(dim=1).numpy()
    columns = [f"p({label})" for label in target.classes]
    return pd.concat(
        [pd.DataFrame({name: classes[chances.argmax(1)]}), pd.DataFrame(chances.round(4), columns=columns)], axis=1
    )


def with_distinct_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns have different names: the later of two equal ones gets a number.

    >>> with_distinct_names(pd.DataFrame([[1, 2, 3]], columns=["text", "text", "p"])).columns.tolist()
    ['text', 'text_2', 'p']
    """
    names: list[str] = []
    for name in map(str, frame.columns):
        number = 2
        while (each := name if number == 2 and name not in names else f"{name}_{number}") in names:
            number += 1
        names.append(each)
    return frame.set_axis(names, axis=1)
