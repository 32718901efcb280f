"""Importance of settings: a random forest on the runs of a sweep (Breiman, 2001), and the best region.

The permutation importance of a setting is the fraction of the metric's variance that is lost when its values are
shuffled among the runs, measured out-of-bag. The seed is one of the settings: its importance is the noise floor.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrunner.comparison.collect import Row, distinct_cuts, frozen, shown
from dlrunner.comparison.groups import REPEATS, differing_settings
from dlrunner.errors import ConfigError

FEWEST_ROWS, FEW_ROWS = 5, 8
LOW_R2 = 0.3
NUM_TREES = 300
NUM_SHUFFLES = 10
MOST_VALUES, NUM_BINS = 10, 8
"""A number with more values than this is shown in bins of equally many runs."""


@dataclass(frozen=True)
class ValueGroup:
    """Runs with the same value of a setting, or with values in the same bin.

    `low` and `high` are the ends of the bin, equal for a single value, NaN for values that are not numbers. `error` is
    the standard error of the mean, NaN for one run.
    """

    label: str
    low: float
    high: float
    settings: tuple[float, ...]
    """The setting of each run, as a number."""
    values: tuple[float, ...]
    """The metric of each run."""
    mean: float
    error: float
    is_best: bool
    """Its mean is within one standard error of the best mean."""


@dataclass(frozen=True)
class Importance:
    """Fractions of the variance by setting, the largest first, and the values of the most important setting."""

    metric: str
    higher_is_better: bool
    fractions: Mapping[str, float]
    r2: float
    """Out-of-bag."""
    num_rows: int
    setting: str
    groups: tuple[ValueGroup, ...]
    num_outliers: int
    limit: float
    """Limit to which the metric of `num_outliers` outliers was clipped."""

    @property
    def noise(self) -> float | None:
        """The noise floor, the importance of seeds or folds: settings below it are not shown to matter."""
        return max((fraction for name, fraction in self.fractions.items() if name in REPEATS), default=None)

    @property
    def warnings(self) -> list[str]:
        """Reasons not to trust the importance."""
        texts = []
        if self.num_outliers:
            texts.append(f"{self.num_outliers} of {self.num_rows} runs are outliers, clipped to {self.limit:.4g}")
        if self.num_rows < FEW_ROWS:
            texts.append(f"{self.num_rows} runs are few for a random forest: the importance is rough")
        if self.r2 < LOW_R2:
            texts.append(f"the forest predicts unseen runs poorly (R² {self.r2:.2f}): do not trust the importance")
        return texts

    @property
    def best_region(self) -> str:
        """List the values that are as good as the best."""
        return ", ".join(group.label for group in self.groups if group.is_best)


def importance(rows: Sequence[Row]) -> Importance:
    """Fit a forest to the differing settings of some runs and shuffle each setting in turn.

    Args:
        rows: runs with the same metric.

    Raises:
        ConfigError: fewer than five runs, different metrics, no setting or metric that differs.
    """
    if len(rows) < FEWEST_ROWS:
        raise ConfigError(f"--importance: needs {FEWEST_ROWS} or more runs, not {len(rows)}")
    if len({(row.metric, row.task) for row in rows}) > 1:
        raise ConfigError("--importance: these runs are of different tasks or metrics; name runs of one task")
    names = differing_settings(rows)
    settings = [name for name in names if name not in REPEATS]
    if not settings:
        raise ConfigError("--importance: no setting differs among these runs")
    higher = rows[0].higher_is_better
    values = np.array([row.value for row in rows])
    limit = _limit(values, higher)
    target = np.maximum(values, limit) if higher else np.minimum(values, limit)
    if not np.ptp(target):
        raise ConfigError(f"--importance: {rows[0].metric} is the same in all runs")
    fractions, r2 = _importance({name: _features([row.settings.get(name) for row in rows]) for name in names}, target)
    ranked = dict(sorted(fractions.items(), key=lambda item: -item[1]))
    first = next(name for name in ranked if name in settings)
    groups = _grouped([row.settings.get(first) for row in rows], target, higher)
    num_outliers = int((target != values).sum())
    return Importance(rows[0].metric, higher, ranked, r2, len(rows), first, groups, num_outliers, limit)


def _limit(values: NDArray[np.float64], higher_is_better: bool) -> float:
    """Return the limit for outliers: three interquartile ranges beyond the quartile on the bad side."""
    low, high = np.quantile(values, [0.25, 0.75])
    reach = 3 * float(high - low) or math.inf
    return float(low - reach if higher_is_better else high + reach)


def _features(values: Sequence[Any]) -> NDArray[np.float32]:
    """Return a setting as columns [rows, columns]: a number as it is, anything else one-hot encoded."""
    if all(_is_number(value) for value in values):
        return np.array(values, dtype=np.float32)[:, None]
    kinds = list(dict.fromkeys(map(frozen, values)))
    return np.array([[frozen(value) == kind for kind in kinds] for value in values], dtype=np.float32)


def _importance(
    features: Mapping[str, NDArray[np.float32]], target: NDArray[np.float64]
) -> tuple[dict[str, float], float]:
    """Return each setting's fraction of the variance, and the out-of-bag R².

    Shuffling a column that adds f(x) to the target raises the squared error by 2 Var f(x): half of the rise, divided
    by the variance, is the importance. All columns of a setting are shuffled together.
    """
    from sklearn.ensemble import RandomForestRegressor

    matrix = np.concatenate(list(features.values()), axis=1)
    num_rows = len(target)
    # By default all features are tried at each split, so that no setting masks another.
    forest = RandomForestRegressor(NUM_TREES, min_samples_leaf=1, random_state=0).fit(matrix, target)
    rng = np.random.default_rng(0)
    copies, start = [matrix], 0
    for columns in features.values():
        width = columns.shape[1]
        for _ in range(NUM_SHUFFLES):
            copy = matrix.copy()
            copy[:, start : start + width] = columns[rng.permutation(num_rows)]
            copies.append(copy)
        start += width
    stacked = np.stack(copies)
    total, count = np.zeros(stacked.shape[:2]), np.zeros(num_rows)
    for tree, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.setdiff1d(np.arange(num_rows), drawn)
        if len(unseen):
            found = tree.predict(stacked[:, unseen].reshape(-1, matrix.shape[1]), check_input=False)
            total[:, unseen] += found.reshape(len(stacked), -1)
            count[unseen] += 1
    known = count > 0
    errors = np.mean((total[:, known] / count[known] - target[known]) ** 2, axis=1)
    variance = float(target.var())
    rises = (errors[1:].reshape(-1, NUM_SHUFFLES).mean(axis=1) - errors[0]) / (2 * variance)
    fractions = {name: max(0.0, float(rise)) for name, rise in zip(features, rises, strict=True)}
    return fractions, 1 - float(errors[0]) / variance


def _grouped(values: Sequence[Any], target: NDArray[np.float64], higher_is_better: bool) -> tuple[ValueGroup, ...]:
    """Group the runs by value (numbers ascending, words best first), and mark those as good as the best."""
    groups = _binned(values) if all(map(_is_number, values)) else _by_value(values)
    sign = 1 if higher_is_better else -1
    means = [float(target[rows].mean()) for _, _, _, rows in groups]
    errors = [
        float(target[rows].std(ddof=1)) / math.sqrt(len(rows)) if len(rows) > 1 else math.nan
        for _, _, _, rows in groups
    ]
    best = max(range(len(groups)), key=lambda at: sign * means[at])
    margin = 0.0 if math.isnan(errors[best]) else errors[best]
    found = [
        ValueGroup(
            label,
            low,
            high,
            _as_numbers(values, rows, low),
            tuple(target[rows].tolist()),
            mean,
            error,
            sign * (means[best] - mean) <= margin,
        )
        for (label, low, high, rows), mean, error in zip(groups, means, errors, strict=True)
    ]
    if math.isnan(found[0].low):
        found.sort(key=lambda group: -sign * group.mean)
    return tuple(found)


def _as_numbers(values: Sequence[Any], rows: Sequence[int], low: float) -> tuple[float, ...]:
    return tuple(math.nan if math.isnan(low) else float(values[row]) for row in rows)


def _by_value(values: Sequence[Any]) -> list[tuple[str, float, float, list[int]]]:
    rows_of: dict[Hashable, list[int]] = {}
    for at, value in enumerate(values):
        rows_of.setdefault(frozen(value), []).append(at)
    cuts = distinct_cuts(values)
    return [(shown(values[rows[0]], cuts), math.nan, math.nan, rows) for rows in rows_of.values()]


def _binned(values: Sequence[float]) -> list[tuple[str, float, float, list[int]]]:
    distinct = sorted(set(values))
    if len(distinct) <= MOST_VALUES:
        parts = [[value] for value in distinct]
    else:
        # Bins of equally many runs; equal values stay together.
        cuts = np.unique(np.quantile(values, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
        where = np.searchsorted(cuts, distinct)
        parts = [[v for v, w in zip(distinct, where, strict=True) if w == bin_] for bin_ in sorted(set(where))]
    groups = []
    for part in parts:
        rows = [at for at, value in enumerate(values) if part[0] <= value <= part[-1]]
        label = shown(part[0]) if len(part) == 1 else f"{part[0]:.3g} to {part[-1]:.3g}"
        groups.append((label, float(part[0]), float(part[-1]), rows))
    return groups


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
