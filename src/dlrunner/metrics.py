"""Exact metrics: sums over examples, never averages of batch averages.

Accumulators stay on the device and are read once, at the end of a split.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class Metric(Protocol):
    """What a task reports for a split: fed batch by batch, computed once."""

    higher_is_better: bool

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in one batch: outputs and targets of the same leading size."""
        ...

    def compute(self) -> float:
        """Return the metric over everything taken in; NaN when that is nothing."""
        ...


def exact_sum(values: Tensor) -> Tensor:
    """Sum in float64, where the device has it: 20,000 float32 terms would lose the fifth digit."""
    return values.sum(dtype=torch.float32 if values.device.type == "mps" else torch.float64)


class Mean:
    """The mean over examples of a quantity that a subclass computes for each example."""

    higher_is_better = False

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self._count = 0

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return one number per example."""
        raise TypeError(f"{type(self).__name__} does not say what it averages")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the batch to the sum."""
        values = self.values(outputs, targets)
        self._total = self._total + exact_sum(values)
        self._count += values.numel()

    def compute(self) -> float:
        """Return sum / count."""
        return float(self._total) / self._count if self._count else float("nan")


class MeanSquaredError(Mean):
    """mean((outputs - targets)²).

    >>> metric = MeanSquaredError()
    >>> metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    >>> metric.compute()
    2.0
    """

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Squared errors."""
        return (outputs.float() - targets).square()


class RootMeanSquaredError(MeanSquaredError):
    """sqrt(mean((outputs - targets)²)), the root taken once, over the whole split."""

    def compute(self) -> float:
        """Return the root of the mean."""
        return math.sqrt(super().compute())


class MeanAbsoluteError(Mean):
    """mean(|outputs - targets|)."""

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Absolute errors."""
        return (outputs.float() - targets).abs()
