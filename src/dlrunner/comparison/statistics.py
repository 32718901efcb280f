"""Tests of the difference between two groups: means, intervals, verdict, and the number of seeds required."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import (  # Student's distribution and quantiles; scipy.stats would take a second to import
    stdtr,
    stdtrit,
)

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 10_000
"""Upper limit of the number of seeds required."""
ROUNDING = 1e-9
"""Of the standard deviation: the differences of equal differences."""

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


@dataclass(frozen=True)
class Difference:
    """The difference of the means of two groups, first minus second, with its 95 % interval and its t-test."""

    mean: float
    half_width: float
    """Of the interval; NaN without a test."""
    sd: float
    """Of the differences within pairs, or √(sd₁² + sd₂²) of two groups."""
    p: float
    """Two-sided; NaN without a test."""
    effect: float
    """Hedges' g: the difference in standard deviations of a run; NaN if unknown."""
    n: int
    method: Method
    num_unpaired: int = 0


def difference(first: Mapping[Any, float], second: Mapping[Any, float]) -> Difference:
    """Compare two groups by a paired t-test if at least two repetitions are in both, else by Welch's (1947).

    Pairing removes the effect of the seed. Pairs that differ by the same amount, as a few rows of accuracy do, say
    nothing of how much others would differ: Welch's test then. With one repetition in a group there is no test.

    Args:
        first: the metric by repetition (seed, fold, other settings), one number each.
        second: the same of the other group.
    """
    common = [key for key in first if key in second]
    if len(common) >= 2:
        a, b = (estimate([group[key] for key in common]) for group in (first, second))
        leads = estimate([first[key] - second[key] for key in common])
        if not leads.mean or leads.sd > ROUNDING * max(a.sd, b.sd) or a.sd == b.sd == 0:
            half, p = _t_test(leads.mean, leads.sd / math.sqrt(leads.n), leads.n - 1)
            unpaired = len(first) + len(second) - 2 * len(common)
            return Difference(leads.mean, half, leads.sd, p, hedges_g(a, b, leads.mean), leads.n, "pairs", unpaired)
    a, b = estimate(list(first.values())), estimate(list(second.values()))
    mean, n = a.mean - b.mean, min(a.n, b.n)
    if n < 2:
        return Difference(mean, math.nan, math.nan, math.nan, math.nan, n, "none")
    parts = a.sd**2 / a.n, b.sd**2 / b.n
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (a.n - 1) + parts[1] ** 2 / (b.n - 1)) if any(parts) else 1.0
    half, p = _t_test(mean, math.sqrt(sum(parts)), freedom)
    return Difference(mean, half, math.hypot(a.sd, b.sd), p, hedges_g(a, b, mean), n, "welch")


def compare_groups(first: Mapping[Any, float], second: Mapping[Any, float], higher_is_better: bool) -> Verdict:
    """Return which of two groups is better, by `difference`, and the number of seeds required.

    Args:
        first: the metric by repetition (seed, fold, other settings), one number each.
        second: the same of the other group.
        higher_is_better: the metric's direction.
    """
    found = difference(first, second)
    needed = None
    if found.method != "none":
        needed = seeds_required(found.mean, found.sd, per_group=found.method == "welch")
    better, lead, half = 0 if (found.mean > 0) == higher_is_better else 1, abs(found.mean), found.half_width
    if needed and lead <= half:  # Welch's test has fewer degrees of freedom where the deviations differ
        needed = max(needed, found.n + 1)
    return Verdict(better, lead, lead - half, lead + half, found.n, found.method, needed, found.num_unpaired)


def hedges_g(a: Estimate, b: Estimate, mean: float) -> float:
    """Return a difference of means in units of the average standard deviation, corrected for few repetitions.

    g = mean / √((sd₁² + sd₂²) / 2) · (1 - 3 / (4 (n₁ + n₂) - 9)), the same for pairs.
    Source: Lakens (2013), doi:10.3389/fpsyg.2013.00863.

    >>> round(hedges_g(estimate([1.0, 2.0, 3.0]), estimate([2.0, 3.0, 4.0]), -1.0), 3)
    -0.8
    """
    sd = math.sqrt((a.sd**2 + b.sd**2) / 2)
    return mean / sd * (1 - 3 / (4 * (a.n + b.n) - 9)) if sd else math.nan


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number: the chance of any false positive stays below 5 % (Holm, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _t_test(mean: float, error: float, freedom: float) -> tuple[float, float]:
    """Return half the width of the 95 % interval of a mean with this standard error, and its two-sided p-value."""
    if not error:
        return 0.0, 0.0 if mean else 1.0
    return _t(CONFIDENCE, freedom) * error, 2 * float(stdtr(freedom, -abs(mean) / error))


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
