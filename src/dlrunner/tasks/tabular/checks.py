"""Checks of the settings of a tabular task against the kind of its target, which is known once the data is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dlrunner.data.core.regression import Regression
from dlrunner.data.core.splitting import UNUSED
from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.table import TabularTable
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.row_blocks import blocks_of
from dlrunner.tasks.classification import ClassWeights, check_class_weights

DISTRIBUTIONS = ("poisson", "tweedie")
"""Losses with a log link."""
DEFAULT_POWER = 1.5
LARGEST_ERROR = 0.01
"""Of an encoded target, relative to it, for relative errors of predictions."""


def learned_target(table: TabularTable, loss: str, quantiles: Sequence[float] | None, tweedie_power: float) -> Target:
    """Return the target as it is learned: of a distribution with a log link, or by its quantiles.

    Raises:
        ConfigError: this kind of target cannot be learned so.
        DataError: a target is negative.
    """
    target = table.target
    if not isinstance(target, Regression):
        if quantiles:
            raise ConfigError(f"task.quantiles: is for regression; the target is read as {target.kind}")
        if loss not in target.losses:
            raise ConfigError(f"task.loss: {loss} is for regression; a {target.kind} target uses cross entropy")
        return target
    if quantiles:
        return replace(target, quantiles=list(quantiles))
    if loss not in DISTRIBUTIONS:
        return target
    if target.transform.startswith("log"):
        raise ConfigError(
            f"data.target_transform: {target.transform} does not go with task.loss={loss}, which predicts the "
            "logarithm of the mean itself; set one of them to auto"
        )
    _check_not_negative(table, f"task.loss: {loss}")
    return replace(target, transform="none", power=1.0 if loss == "poisson" else tweedie_power)


def check_settings(
    table: TabularTable, loss: str, metrics: Sequence[str] | None, weights: ClassWeights | None, correction: float
) -> None:
    """Check the settings against a table, whose target is as it is learned.

    Raises:
        ConfigError: a setting does not fit the target.
        DataError: a loss or a metric is not defined for all targets.
    """
    target = table.target
    known = [*target.known_metrics, *(target.quantile_metrics() if isinstance(target, Regression) else ())]
    for name in metrics or []:
        if name not in known:
            raise ConfigError(
                f"task.metrics: {name} is not a metric for a {target.kind} target; {did_you_mean(name, known)}"
            )
        if name.endswith("_deviance"):
            _check_not_negative(table, f"task.metrics: {name}")
    check_class_weights(weights, target)
    if not isinstance(target, Regression) and correction != 1:
        raise ConfigError("task.correction: is for regression targets; set it to 1")
    if loss == "squared_percentage" and getattr(target, "transform", "") == "log1p":
        raise ConfigError("task.loss: squared_percentage is for data.target_transform=log, standard or none")
    if loss == "squared_percentage" and (table.values == 0).any():
        zeros = int((table.values == 0).sum())
        raise DataError(f"task.loss: squared_percentage is undefined for {zeros:,} targets of 0; remove these rows")


def check_plotted(
    table: TabularTable, error_by: Sequence[str] | None, embeddings: Sequence[str] | None, optional: Sequence[str]
) -> None:
    """Check that the columns exist by which the error, or whose embeddings, are to be plotted.

    Args:
        table: with its columns.
        error_by, embeddings: names in the settings of the task.
        optional: columns that the data can leave out.

    Raises:
        ConfigError: the table does not have one.
    """
    columns, categorical = list(map(str, table.frame.columns)), table.roles.categorical
    for setting, names, what, known in (
        ("error_by", error_by, "column", columns),
        ("embeddings", embeddings, "categorical column", categorical),
    ):
        for name in names or []:
            if name not in known and name not in optional:
                raise ConfigError(f"task.{setting}: there is no {what} {name}; {did_you_mean(name, known)}")


def check_relative(table: TabularTable, target: Target, loss: str, metrics: Sequence[str] | None) -> None:
    """Check that float32 holds the targets precisely enough for a relative error, where one is used.

    Standardised, a target that is tiny among large ones may even become 0, which relative errors leave out.

    Args:
        table: with the targets in 64 bits.
        target: fitted.
        loss: of the task.
        metrics: of the task.

    Raises:
        DataError: the error of the targets themselves is above 1 %.
    """
    metric = next((name for name in metrics or [] if name.startswith("rmspe")), None)
    what = f"task.metrics: {metric}" if metric else f"task.loss: {loss}"
    if not isinstance(target, Regression) or (metric is None and loss != "squared_percentage"):
        return
    for block in blocks_of(len(table.values)):
        values = table.values[block][table.split[block] != UNUSED]
        kept = target.decode_targets(target.encode(values)).numpy()
        lost = np.abs(kept - values) > LARGEST_ERROR * np.abs(values)
        if lost.any():
            raise DataError(
                f"{what}: {target.names[0]} has targets such as {values[lost][0]:g}, and others so large that 32 "
                f"bits do not hold it within {LARGEST_ERROR:.0%}; set data.target_transform=log (log1p with zeros), or "
                f"another {'metric' if metric else 'loss'}"
            )


def _check_not_negative(table: TabularTable, what: str) -> None:
    negative = table.values < 0
    if negative.any():
        row = int(negative.argmax())
        raise DataError(
            f"{what} is for counts, sales and other numbers from 0 on; {table.target.names[0]} is "
            f"{table.values[row]:g} in {table.rows.short(row)}, and negative in {int(negative.sum()):,} row(s) in all"
        )
