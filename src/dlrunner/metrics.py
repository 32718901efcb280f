"""Exact metrics: sums over examples, never averages of batch averages.

Accumulators stay on the device and are read once, at the end of a split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dlrunner.errors import ConfigError
from dlrunner.ranges import NUMBER_FORMAT


class Metric(Protocol):
    """A metric of a split: updated batch by batch, computed once.

    It may also have a `unit` ("km") and a `format` (".1%", ".2f") for displaying its values, and `undefined`: the value
    that it has where its rows do not define it, as those of a single class do not define the area under a ROC curve.
    """

    higher_is_better: bool

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch: outputs and targets of the same leading size."""
        ...

    def compute(self) -> float:
        """Return the metric over all batches; NaN without any."""
        ...


def describe(metrics: Mapping[str, Metric], splits: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return direction, unit and format of the loss and each metric by `split/name`, for the summary.

    Raises:
        ConfigError: a format is not a number format.
    """
    found: dict[str, dict[str, Any]] = {}
    found |= {f"{split}/loss": {"higher_is_better": False, "unit": "", "format": ""} for split in splits}
    for name, metric in metrics.items():
        unit, style = str(getattr(metric, "unit", "")), str(getattr(metric, "format", ""))
        if not NUMBER_FORMAT.fullmatch(style):
            raise ConfigError(f"metric {name}: {style!r} is not a number format such as .3f or .1%")
        facts = {"higher_is_better": bool(metric.higher_is_better), "unit": unit, "format": style}
        found |= {f"{split}/{name}": dict(facts) for split in splits}
    return found


def leave_undefined(metric: Metric) -> None:
    """Make a metric NaN where its rows do not define it: the value that it else has there is not their error."""
    inner: Any = metric.metric if isinstance(metric, InOriginalUnits) else metric
    if hasattr(inner, "undefined"):
        inner.undefined = math.nan


def exact_dtype(values: Tensor) -> torch.dtype:
    """Return float64, or float32 on devices without float64."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def exact_sum(values: Tensor) -> Tensor:
    """Sum in float64, if the device has it: 20,000 float32 terms would lose the fifth digit."""
    return values.sum(dtype=exact_dtype(values))


class EMA:
    """The exponential moving average of the loss, bias-corrected.

    avg ← 0.98·avg + 0.02·loss, shown as avg / (1 - 0.98ⁿ), as in lesson 5.
    """

    def __init__(self, beta: float = 0.98, average: float = 0.0, count: int = 0) -> None:
        self.beta, self.average, self.count = beta, average, count

    def update(self, losses: Sequence[float]) -> float:
        """Add the losses of some steps, in order, and return the corrected mean."""
        for loss in losses:
            self.average = self.beta * self.average + (1 - self.beta) * loss
        self.count += len(losses)
        return self.value

    @property
    def value(self) -> float:
        """The corrected mean; NaN before the first loss."""
        return self.average / (1 - self.beta**self.count) if self.count else math.nan


def _wide(outputs: Tensor) -> Tensor:
    """Return half-precision outputs as float32, others unchanged."""
    return outputs if outputs.dtype == torch.float64 else outputs.float()


class Mean:
    """The mean over examples of a quantity that a subclass computes for each example."""

    higher_is_better = False

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self._count: Tensor | int = 0

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return one value per example."""
        raise TypeError(f"{type(self).__name__} must override values()")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the batch to the sum."""
        values = self.values(outputs, targets)
        self._total = self._total + exact_sum(values)
        self._count += values.numel()

    def compute(self) -> float:
        """Return sum / count."""
        count = int(self._count)
        return float(self._total) / count if count else float("nan")


class MeanSquaredError(Mean):
    """mean((outputs - targets)²).

    >>> metric = MeanSquaredError()
    >>> metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    >>> metric.compute()
    2.0
    """

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return squared errors."""
        return (_wide(outputs) - targets).square()


class RootMeanSquaredError(MeanSquaredError):
    """sqrt(mean((outputs - targets)²)), with the root taken once over the split."""

    def compute(self) -> float:
        """Return the root of the mean."""
        return math.sqrt(super().compute())


class MeanAbsoluteError(Mean):
    """mean(|outputs - targets|)."""

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return absolute errors."""
        return (_wide(outputs) - targets).abs()


class RootMeanSquaredPercentageError(Mean):
    """sqrt(mean(((outputs - targets) / targets)²)); targets of 0 are ignored, as in Kaggle's Rossmann competition.

    >>> metric = RootMeanSquaredPercentageError()
    >>> metric.update(torch.tensor([110.0, 90.0, 5.0]), torch.tensor([100.0, 100.0, 0.0]))
    >>> round(metric.compute(), 6)
    0.1
    """

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return squared relative errors; 0 where the target is 0."""
        counted = targets != 0
        errors = (outputs - targets) / torch.where(counted, targets, 1)
        return torch.where(counted, errors, 0).square()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the batch to the sums; rows are counted on the device, since reading their number would synchronise."""
        self._total = self._total + exact_sum(self.values(outputs, targets))
        self._count = self._count + (targets != 0).sum()

    def compute(self) -> float:
        """Return the root of the mean."""
        return math.sqrt(super().compute())


class Perplexity(Mean):
    """exp(mean loss of a word), with the exponential taken once over the split; outputs are the losses of words.

    >>> metric = Perplexity()
    >>> metric.update(torch.tensor([0.0, math.log(4.0)]), torch.tensor([7, 7]))
    >>> round(metric.compute(), 6)
    2.0
    """

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses unchanged."""
        return _wide(outputs)

    def compute(self) -> float:
        """Return the exponential of the mean; infinite on overflow."""
        mean = super().compute()
        return math.exp(mean) if mean < 700 else math.inf


class R2:
    """1 - Σ(outputs - targets)² / Σ(targets - mean)²: the fraction of explained variance.

    The sum of squares of the targets is merged from those of the batches about their own means: the difference of two
    large sums would lose the variance of targets far from 0.

    Source: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """

    higher_is_better = True
    undefined = 0.0

    def __init__(self) -> None:
        self._error = MeanSquaredError()
        self._count = 0
        self._first: Tensor | None = None
        self._mean: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the batch to the sums."""
        count, seen = targets.numel(), self._count
        if not count:
            return
        targets = targets.to(exact_dtype(targets))
        self._error.update(outputs.to(targets.dtype), targets)
        if self._first is None:
            self._first = targets.flatten()[0].clone()
        shifted = targets - self._first  # exactly 0 for constant targets
        mean = shifted.mean()
        difference = mean - self._mean
        self._count = seen + count
        self._mean = self._mean + difference * (count / self._count)
        self._squares = (
            self._squares + (shifted - mean).square().sum() + difference.square() * (seen * count / self._count)
        )

    def compute(self) -> float:
        """Return the fraction; `undefined` for constant targets, NaN without any."""
        if not self._count:
            return float("nan")
        variance = float(self._squares) / self._count
        return 1 - self._error.compute() / variance if variance > 0 else self.undefined


class Accuracy(Mean):
    """The fraction of correct predictions: of classes (outputs [rows, classes]), binary (logits [rows]), or of labels.

    >>> metric = Accuracy()
    >>> metric.update(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    >>> metric.compute()
    0.5
    """

    higher_is_better = True

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 1 where the prediction is correct."""
        predictions = outputs > 0 if targets.is_floating_point() else outputs.argmax(dim=1)
        return (predictions == targets).float()


class F1:
    """The harmonic mean of precision and recall: mean over the classes (macro), or over all labels at once (micro)."""

    higher_is_better = True
    undefined = 0.0

    def __init__(self) -> None:
        self._counts: Tensor | None = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count true positives, predictions and occurrences by class."""
        if targets.is_floating_point():
            predictions = (outputs > 0).float()
            counts = torch.stack(
                [exact_sum(predictions * targets), exact_sum(predictions), exact_sum(targets)]
            ).reshape(3, 1)
        else:
            predictions = outputs.argmax(dim=1)
            counts = torch.zeros(3, outputs.shape[1], dtype=torch.int64, device=outputs.device)
            counts[0].index_add_(0, targets, (predictions == targets).long())
            for row, classes in ((1, predictions), (2, targets)):
                counts[row].index_add_(0, classes, torch.ones_like(classes))
        self._counts = counts if self._counts is None else self._counts + counts

    def compute(self) -> float:
        """Return 2·hits / (predictions + occurrences), the mean over the classes that occur; `undefined` if none."""
        if self._counts is None:
            return float("nan")
        hits, predictions, occurrences = self._counts.cpu().double()
        occurs = (occurrences > 0) | (predictions > 0)
        by_class = 2 * hits[occurs] / (predictions + occurrences)[occurs]
        return float(by_class.mean()) if occurs.any() else self.undefined


class PixelAccuracy:
    """The fraction of correctly classified pixels; outputs [batch, classes, height, width], targets without classes.

    Args:
        ignore_index: targets of this value are ignored.

    >>> metric = PixelAccuracy(ignore_index=255)
    >>> metric.update(torch.tensor([[[[2.0, 0.0, 0.0]], [[1.0, 1.0, 1.0]]]]), torch.tensor([[[0, 0, 255]]]))
    >>> metric.compute()
    0.5
    """

    higher_is_better = True

    def __init__(self, ignore_index: int | None = None) -> None:
        self.ignore_index = ignore_index
        self._right: Tensor | int = 0
        self._count: Tensor | int = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count pixels on the device."""
        self._right = self._right + (outputs.argmax(dim=1) == targets).sum()
        self._count = self._count + (
            targets.numel() if self.ignore_index is None else (targets != self.ignore_index).sum()
        )

    def compute(self) -> float:
        """Return right / counted."""
        count = int(self._count)
        return int(self._right) / count if count else math.nan


class MeanIoU:
    """The mean over classes of intersection / union of predicted and true pixels, each summed over the split.

    Classes that neither occur nor are predicted are ignored.

    Args:
        num_classes: of the outputs, [batch, classes, height, width].
        ignore_index: targets of this value are ignored.

    >>> metric = MeanIoU(2)
    >>> metric.update(torch.tensor([[[[2.0, 2.0, 0.0]], [[1.0, 1.0, 1.0]]]]), torch.tensor([[[0, 1, 1]]]))
    >>> metric.compute(), metric.by_class()
    (0.5, [0.5, 0.5])
    """

    higher_is_better = True

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self._counts: Tensor | None = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count pixels by the most likely class."""
        self.count(outputs.argmax(dim=1), targets)

    def count(self, predicted: Tensor, truth: Tensor) -> None:
        """Count pixels by true and predicted class; ignored ones go into an extra cell."""
        cells = (truth * self.num_classes + predicted).flatten()
        if self.ignore_index is not None:
            cells = torch.where(truth.flatten() == self.ignore_index, self.num_classes**2, cells)
        counts = torch.zeros(self.num_classes**2 + 1, dtype=torch.int64, device=predicted.device)
        counts.index_add_(0, cells, torch.ones_like(cells))  # bincount would synchronise a GPU
        self._counts = counts if self._counts is None else self._counts + counts

    def by_class(self) -> list[float]:
        """Return intersection / union of each class; NaN where it neither occurs nor is predicted."""
        if self._counts is None:
            return [math.nan] * self.num_classes
        confusion = self._counts[:-1].reshape(self.num_classes, self.num_classes).cpu().double()
        both = confusion.diagonal()
        either = confusion.sum(dim=0) + confusion.sum(dim=1) - both
        return (both / either).tolist()

    def compute(self) -> float:
        """Return the mean over the classes that occur or are predicted."""
        known = [iou for iou in self.by_class() if not math.isnan(iou)]
        return sum(known) / len(known) if known else math.nan


class InOriginalUnits:
    """A metric in original units: outputs and targets are decoded first."""

    def __init__(
        self, metric: Metric, decode_outputs: Callable[[Tensor], Tensor], decode_targets: Callable[[Tensor], Tensor]
    ) -> None:
        self.metric, self.higher_is_better = metric, metric.higher_is_better
        self.unit, self.format = getattr(metric, "unit", ""), getattr(metric, "format", "")
        self.decode_outputs, self.decode_targets = decode_outputs, decode_targets

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Decode the batch and update the metric."""
        self.metric.update(self.decode_outputs(outputs), self.decode_targets(targets))

    def compute(self) -> float:
        """Return the value of the metric."""
        return self.metric.compute()
