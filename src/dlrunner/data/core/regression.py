"""Numbers as targets: transforms, distributions with a log link, quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.targets import Target, plain
from dlrunner.data.core.variation import standard_deviation
from dlrunner.errors import DataError
from dlrunner.metrics import (
    R2,
    InOriginalUnits,
    MeanAbsoluteError,
    Metric,
    RootMeanSquaredError,
    RootMeanSquaredPercentageError,
    exact_dtype,
)
from dlrunner.regression_metrics import (
    TINY,
    Coverage,
    IntervalWidth,
    MeanDeviance,
    PinballLoss,
    RmspeByBatch,
    deviance,
    pinball,
)
from dlrunner.row_blocks import in_blocks

Transform = Literal["standard", "log", "log1p", "none"]
TRANSFORMS: Mapping[Transform, str] = {
    "standard": "standardised",
    "log": "logarithm",
    "log1p": "logarithm of 1 + target",
    "none": "not transformed",
}
Loss = Literal["auto", "mse", "mae", "huber", "squared_percentage", "poisson", "tweedie"]

MOST_LOG_ERROR = 1.0
"""squared_percentage clips predictions above e times the truth: a few such rows would dominate the loss."""


@dataclass(frozen=True)
class Regression(Target):
    """A number, learned transformed and reported in its own unit: its mean, or some of its quantiles.

    With a `power` the outputs are logarithms of the mean of a Tweedie distribution, relative to that of the training
    targets.
    """

    kind = "regression"
    losses = ("auto", "mse", "mae", "huber", "squared_percentage", "poisson", "tweedie")
    known_metrics: ClassVar[Mapping[str, Callable[[], Metric]]] = {
        "rmse": RootMeanSquaredError,
        "mae": MeanAbsoluteError,
        "r2": R2,
        "rmspe": RootMeanSquaredPercentageError,
        "rmspe_by_batch": RmspeByBatch,
        "poisson_deviance": partial(MeanDeviance, 1.0),
        "tweedie_deviance": partial(MeanDeviance, 1.5),
    }
    usual_metrics = ("rmse", "mae", "r2")
    """The others are defined only for targets that are not 0, or not negative, and must be requested."""

    transform: Transform = "none"
    mean: float = 0.0
    deviation: float = 1.0
    low: float = 0.0
    """Of the transformed training targets."""
    high: float = 1.0
    middle: float = 0.0
    """Mean of the transformed training targets."""
    is_nonnegative: bool = False
    """No training target is negative, and no prediction is."""
    power: float = 0.0
    """1 for a Poisson distribution, up to 2 for a Tweedie distribution; 0: outputs are transformed targets."""
    quantiles: list[float] = field(default_factory=list)
    """Ascending, an output for each; empty: one output, the mean."""

    @property
    def num_outputs(self) -> int:
        """One, or one for each quantile."""
        return max(1, len(self.quantiles))

    def fit(self, train: NDArray[Any]) -> Target:
        """Return the target with the statistics of the training rows."""
        mean, deviation = 0.0, 1.0
        if self.power:
            deviation = float(train.mean()) or 1.0
        elif self.transform == "standard":
            mean, deviation = float(train.mean()), standard_deviation(train) or 1.0
        fitted = replace(self, mean=mean, deviation=deviation, is_nonnegative=bool((train >= 0).all()))
        encoded = fitted.encode(train)
        middle = float(encoded.mean())
        if self.power:
            encoded, middle = encoded[encoded > 0].log(), 0.0
            if not len(encoded):
                raise DataError(
                    f"the target {self.names[0]} is 0 in all training rows: task.loss=poisson and tweedie need others"
                )
        return replace(fitted, low=float(encoded.min()), high=float(encoded.max()), middle=middle)

    def statistics(self) -> Mapping[str, float]:
        """Return the fitted statistics by name."""
        return {name: getattr(self, name) for name in ("mean", "deviation", "low", "high", "middle")}

    def encode(self, values: NDArray[Any]) -> Tensor:
        """Return transformed values, float32 of shape [rows]."""
        if self.transform in ("log", "log1p"):
            values = np.log(values) if self.transform == "log" else np.log1p(values)
        else:
            values = (values - self.mean) / self.deviation
        return torch.tensor(np.asarray(values, dtype=np.float32))

    def decode(self, outputs: Tensor) -> Tensor:
        """Return outputs as numbers in the target's own unit, of shape [rows], in float64; of quantiles the middle one.

        Of a distribution they are at most e times the largest training target: an exponential knows no bounds.
        """
        if self.quantiles:
            nearest = min(range(len(self.quantiles)), key=lambda i: abs(self.quantiles[i] - 0.5))
            return self.decode_quantiles(outputs)[:, nearest]
        if self.power:
            return outputs.to(exact_dtype(outputs)).clamp(max=self.high + 1).exp() * self.deviation
        return self._bounded(self.decode_targets(outputs))

    def decode_quantiles(self, outputs: Tensor) -> Tensor:
        """Return the quantiles in the target's own unit, [rows, quantiles], in ascending order: they never cross.

        Source: Chernozhukov, Fernández-Val and Galichon, Quantile and probability curves without crossing, 2010.
        """
        return self._bounded(self.decode_targets(outputs.reshape(len(outputs), -1).sort(dim=1).values))

    def decode_targets(self, targets: Tensor) -> Tensor:
        """Return transformed targets in their own unit, in float64; those of other rows may be negative.

        A target of 0 is exactly 0, for metrics that leave it out, or that compare it with predictions of at least 0.
        """
        values = targets.double()
        if self.transform == "log":
            return values.exp()
        if self.transform == "log1p":
            return values.expm1()
        zero = self.encode(np.zeros(1)).to(targets.device)
        return torch.where(targets == zero, 0.0, values * self.deviation + self.mean)

    def _bounded(self, predictions: Tensor) -> Tensor:
        return predictions.clamp(min=0) if self.is_nonnegative else predictions

    def outputs_of(self, encoded: Tensor) -> Tensor:
        """Return the outputs of a model that predicts encoded targets."""
        return encoded.clamp(min=TINY).log() if self.power else encoded

    def loss(self, outputs: Tensor, targets: Tensor, name: str = "auto") -> Tensor:
        """Return the mean loss; squared_percentage is the square of the relative error in the target's own unit."""
        if self.quantiles:
            return pinball(outputs.reshape(len(outputs), -1), targets, self.quantiles).mean()
        if self.power:
            return deviance(outputs, targets, self.power).mean()
        if name == "mae":
            return F.l1_loss(outputs, targets)
        if name == "huber":
            return F.huber_loss(outputs, targets)
        if name == "squared_percentage":
            if self.transform == "log":
                return torch.expm1((outputs - targets).clamp(max=MOST_LOG_ERROR)).square().mean()
            truth = targets * self.deviation + self.mean
            return ((outputs - targets) * self.deviation / truth).square().mean()
        return F.mse_loss(outputs, targets)

    def metrics(self, names: Sequence[str] | None = None, correction: float = 1.0) -> dict[str, Metric]:
        """Return new metrics in the target's own unit, where outputs are multiplied by a correction.

        Of quantiles also their pinball loss, and the coverage and width of the interval from the first to the last.
        """

        def corrected(outputs: Tensor) -> Tensor:
            return self.decode(outputs) * correction

        def corrected_quantiles(outputs: Tensor) -> Tensor:
            return self.decode_quantiles(outputs) * correction

        of_quantiles = self.quantile_metrics()
        usual = [*of_quantiles, *self.usual_metrics]
        if self.power:
            usual.append("poisson_deviance" if self.power == 1 else "tweedie_deviance")
        found: dict[str, Metric] = {}
        for name in names or usual:
            if name in of_quantiles:
                found[name] = InOriginalUnits(of_quantiles[name], corrected_quantiles, self.decode_targets)
                continue
            found[name] = InOriginalUnits(self.known_metrics[name](), corrected, self.decode_targets)
        return found

    def quantile_metrics(self) -> dict[str, Metric]:
        """Return the metrics that only quantiles have."""
        if not self.quantiles:
            return {}
        interval: dict[str, Metric] = {"coverage": Coverage(), "interval_width": IntervalWidth()}
        return {"pinball_loss": PinballLoss(self.quantiles), **(interval if len(self.quantiles) > 1 else {})}

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the mean; of logarithms of means the logarithm of their mean."""
        stacked = torch.stack(list(outputs))
        if self.power:
            return stacked.logsumexp(dim=0) - math.log(len(stacked))
        return stacked.mean(dim=0)

    def answers(self, outputs: Tensor, name: str, correction: float = 1.0) -> pd.DataFrame:
        """Return numbers in the target's own unit, corrected; a column for each quantile."""
        if self.quantiles:
            values = (in_blocks(self.decode_quantiles, plain(outputs)) * correction).numpy()
            return pd.DataFrame(significant(values), columns=[f"{name}_q{level:g}" for level in self.quantiles])
        return pd.DataFrame({name: significant((in_blocks(self.decode, plain(outputs)) * correction).numpy())})

    def truth(self, values: NDArray[Any]) -> pd.DataFrame:
        """Return the numbers."""
        return pd.DataFrame({self.names[0]: values})

    def description(self) -> str:
        """Name the transform."""
        if self.power:
            return f"{self.names[0]}: regression on numbers, logarithm of the mean"
        return f"{self.names[0]}: regression on numbers, {TRANSFORMS[self.transform]}"

    def formula(self, correction: float = 1.0) -> str:
        """Return the target in its own unit; numbers have all their digits.

        >>> Regression(["sold"], transform="standard", mean=2.5, deviation=4.0, is_nonnegative=True).formula(0.99)
        'sold = 0.99 × (max(0, output × 4.0 + 2.5))'
        """
        if self.power:
            value = f"exp(min(output, {self.high + 1!r})) × {self.deviation!r}"
        elif self.transform in ("log", "log1p"):
            value = "exp(output)" if self.transform == "log" else "exp(output) - 1"
        else:
            value = (
                "output" if (self.deviation, self.mean) == (1, 0) else f"output × {self.deviation!r} + {self.mean!r}"
            )
        if self.is_nonnegative and not self.power:
            value = f"max(0, {value})"
        if correction != 1:
            value = f"{correction!r} × ({value})"
        if self.quantiles:
            levels = ", ".join(f"{level:g}" for level in self.quantiles)
            return f"{self.names[0]} = {value}; the outputs of a row in ascending order are its quantiles {levels}"
        return f"{self.names[0]} = {value}"


def significant(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round numbers to the seven significant digits that a model's outputs have.

    >>> significant(np.array([269006.71234, -0.0012345678, 1234567890.0, 0.0])).tolist()
    [269006.7, -0.001234568, 1234568000.0, 0.0]
    >>> significant(np.array([1.58307744e30, 1.5830771e-30])).tolist()
    [1.583077e+30, 1.583077e-30]
    """
    is_number = np.isfinite(values) & (values != 0)
    decimals = 6 - np.floor(np.log10(np.abs(np.where(is_number, values, 1.0))))
    up, down = 10.0 ** decimals.clip(0, 22), 10.0 ** (-decimals).clip(0, 22)  # exact powers, which end there
    rounded = np.where(is_number, np.round(values * up / down) / up * down, values)
    if (extreme := is_number & (np.abs(decimals) > 22)).any():
        rounded[extreme] = [float(f"{value:.6e}") for value in values[extreme]]
    return rounded
