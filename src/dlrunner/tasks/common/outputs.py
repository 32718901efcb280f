"""Model outputs as probabilities and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dlrunner.data.core.targets import Target
from dlrunner.metrics import exact_dtype


def probabilities(target: Target, outputs: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the probability of each class, [rows, classes]; labels are independent."""
    values: np.ndarray[Any, np.dtype[np.float32]] = target.decode(outputs.detach().float().cpu()).numpy()
    return values


def with_distinct_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Make column names unique: a repeated name gets a number.

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


def average_losses(losses: Sequence[Tensor]) -> Tensor:
    """Return the losses of the averaged probabilities from the losses of each model; float64 keeps losses near 0."""
    stacked = torch.stack(list(losses))
    return (math.log(len(losses)) - torch.logsumexp(-stacked.to(exact_dtype(stacked)), dim=0)).to(stacked.dtype)
