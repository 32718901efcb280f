"""Further metrics and losses of regression: deviances of counts and sales, quantiles and intervals, RMSPE by batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlrunner.metrics import Mean, exact_dtype
from dlrunner.row_blocks import KeptRows

TINY = 1e-9
"""A mean is not below it: the deviance of a positive target would be infinite."""


def deviance(log_means: Tensor, targets: Tensor, power: float) -> Tensor:
    """Return the unit deviance of the Tweedie distribution: of power 1, which is Poisson's, or between 1 and 2.

    Source: Jørgensen, The theory of dispersion models, 1997.

    Args:
        log_means: logarithms of the predicted means.
        targets: from 0 on, of the same shape.
        power: the variance is proportional to mean ** power.
    """
    if power == 1:
        return 2 * (torch.xlogy(targets, targets) - targets * log_means - targets + log_means.exp())
    rest = 2 - power
    own = targets**rest / ((1 - power) * rest)
    return 2 * (own - targets * ((1 - power) * log_means).exp() / (1 - power) + (rest * log_means).exp() / rest)


def pinball(outputs: Tensor, targets: Tensor, quantiles: Sequence[float]) -> Tensor:
    """Return the loss that a quantile minimises, for each row and quantile.

    Source: Koenker and Bassett, Regression quantiles, 1978.

    >>> pinball(torch.tensor([[1.0, 3.0]]), torch.tensor([2.0]), [0.1, 0.9])
    tensor([[0.1000, 0.1000]])

    Args:
        outputs: [rows, quantiles].
        targets: [rows].
        quantiles: between 0 and 1.
    """
    errors = targets.unsqueeze(1) - outputs
    levels = torch.tensor(quantiles, dtype=errors.dtype, device=errors.device)
    return torch.maximum(levels * errors, (levels - 1) * errors)


class MeanDeviance(Mean):
    """The mean unit deviance of the Tweedie distribution: 0 where all predictions are exact.

    >>> metric = MeanDeviance(1)
    >>> metric.update(torch.tensor([2.0, 0.5]), torch.tensor([2.0, 0.0]))
    >>> metric.compute()
    0.5
    """

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the deviance of each row."""
        wide = exact_dtype(outputs)
        return deviance(outputs.to(wide).clamp(min=TINY).log(), targets.to(wide), self.power)


class PinballLoss(Mean):
    """The mean pinball loss over the rows and quantiles; outputs are [rows, quantiles]."""

    def __init__(self, quantiles: Sequence[float]) -> None:
        super().__init__()
        self.quantiles = quantiles

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return one value per row and quantile."""
        return pinball(outputs, targets.to(outputs.dtype), self.quantiles)


class Coverage(Mean):
    """The fraction of targets from the lowest to the highest quantile; outputs are [rows, quantiles], ascending.

    >>> metric = Coverage()
    >>> metric.update(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([1.5, 3.0]))
    >>> metric.compute()
    0.5
    """

    higher_is_better = True
    format = ".1%"

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 1 where the target is within."""
        return ((outputs[:, 0] <= targets) & (targets <= outputs[:, -1])).float()


class IntervalWidth(Mean):
    """The mean distance from the lowest to the highest quantile; outputs are [rows, quantiles], ascending."""

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the width of each interval."""
        return outputs[:, -1] - outputs[:, 0]


class RmspeByBatch:
    """RMSPE as the lesson's library printed it: averaged over batches of 256 rows, weighted by their size.

    The mean of roots is smaller than the root of the mean; only for comparison with the published value.
    """

    higher_is_better = False
    batch_size = 256

    def __init__(self) -> None:
        self._squares = KeptRows()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Keep the squared relative errors."""
        self._squares.add(((outputs - targets) / targets).square())

    def compute(self) -> float:
        """Split the values into batches, in order, and average their RMSPE."""
        if not len(self._squares):
            return float("nan")
        squares = self._squares.joined().cpu()  # one synchronisation instead of one per batch
        squares = squares[squares.isfinite()]
        if not len(squares):
            return float("nan")
        roots = [float(batch.mean().sqrt()) * len(batch) for batch in torch.split(squares, self.batch_size)]
        return sum(roots) / len(squares)
