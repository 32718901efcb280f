"""Tests of the difference between two groups: means, intervals, verdict, and the number of seeds required."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # Student's quantiles; scipy.stats would take a second to import

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 10_000
"""Upper limit of the number of seeds required."""

Method = Literal["pairs", "welch", "none"]


@dataclass(frozen=True)
class Estimate:
    """Mean and interval of a metric over repetitions.

    `sd` is the standard deviation with n - 1 in its denominator; `low` and `high` bound the 95 % interval of
    the mean (Student's t). With one repetition all three are NaN.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """Which of two groups is better.

    `difference` is the lead of the group `better` in the mean, 0 or more, in units of the metric; `low` and `high`
    bound its 95 % interval. `n` counts pairs, or with Welch's interval the smaller group.
    """

    better: int
    """Index of the better group: 0 or 1."""
    difference: float
    low: float
    high: float
    n: int
    method: Method
    seeds_required: int | None
    """Pairs (Welch: repetitions per group) required to detect a difference of this size; None if unknown."""
    num_unpaired: int = 0

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean, standard deviation and the 95 % interval of the mean.

    >>> e = estimate([1.0, 2.0, 3.0])
    >>> e.n, e.mean, e.sd, round(e.low, 3), round(e.high, 3)
    (3, 2.0, 1.0, -0.484, 4.484)
    >>> estimate([1.0])
    Estimate(n=1, mean=1.0, sd=nan, low=nan, high=nan)
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(n, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    half = _t(CONFIDENCE, n - 1) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)


def compare_groups(first: Mapping[Any, float], second: Mapping[Any, float], higher_is_better: bool) -> Verdict:
    """Compare two groups by a paired t-interval if at least two repetitions are in both groups.

    Pairing removes the effect of the seed. Without pairs Welch's interval is used; with one repetition in a group there
    is no interval.

    Args:
        first: the metric by repetition (seed, fold, other settings), one number each.
        second: the same of the other group.
        higher_is_better: the metric's direction.
    """
    common = [key for key in first if key in second]
    method: Method
    needed: int | None
    if len(common) >= 2:
        leads = estimate([first[key] - second[key] for key in common])
        mean, half, n, method = leads.mean, leads.high - leads.mean, leads.n, "pairs"
        needed = seeds_required(mean, leads.sd, per_group=False)
    else:
        a, b = estimate(list(first.values())), estimate(list(second.values()))
        mean, half, n, method, needed = a.mean - b.mean, math.nan, min(a.n, b.n), "none", None
        if n >= 2:
            half, method = _welch(a, b), "welch"
            needed = seeds_required(mean, math.hypot(a.sd, b.sd), per_group=True)
    better = 0 if (mean > 0) == higher_is_better else 1
    unpaired = len(first) + len(second) - 2 * len(common) if method == "pairs" else 0
    return Verdict(better, abs(mean), abs(mean) - half, abs(mean) + half, n, method, needed, unpaired)


def _welch(a: Estimate, b: Estimate) -> float:
    """Return half the width of Welch's 95 % interval of a difference of means (Welch, 1947)."""
    parts = a.sd**2 / a.n, b.sd**2 / b.n
    if not any(parts):
        return 0.0
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (a.n - 1) + parts[1] ** 2 / (b.n - 1))
    return _t(CONFIDENCE, freedom) * math.sqrt(sum(parts))


def seeds_required(difference: float, sd: float, per_group: bool) -> int | None:
    """Return the smallest number of repetitions that detect a difference with 80 % power.

    The smallest n with (t(97.5 %) + t(80 %)) sd / √n ≤ |difference|: 80 % power, two-sided 5 %.

    Args:
        difference: of the means.
        sd: of the differences within pairs, or √(sd₁² + sd₂²) of two groups.
        per_group: two groups of n each, 2n - 2 degrees of freedom, instead of n pairs.

    Returns None if the difference is zero or more than 10,000 would be needed.

    >>> seeds_required(1.0, 1.0, per_group=False), seeds_required(0.5, 1.0, per_group=False)
    (10, 34)
    """
    n = np.arange(2, MOST_SEEDS + 1)
    freedom = 2 * n - 2 if per_group else n - 1
    enough: NDArray[np.bool_] = (stdtrit(freedom, 0.5 + CONFIDENCE / 2) + stdtrit(freedom, POWER)) * sd <= (
        abs(difference) * np.sqrt(n)
    )
    return int(n[enough.argmax()]) if difference and enough.any() else None


def _t(confidence: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t."""
    return float(stdtrit(freedom, 0.5 + confidence / 2))
