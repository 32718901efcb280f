"""Pairwise tests of three or more groups, corrected for their number."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlrunner.comparison.statistics import CONFIDENCE, Difference, difference, holm

MOST_GROUPS = 40
"""More groups are not tested: hardly a pair would be significant after the correction."""


@dataclass(frozen=True)
class Pair:
    """Two groups, the better one first, their difference, and its p-value corrected over all pairs."""

    better: int
    """Index of the group."""
    worse: int
    found: Difference
    """The better minus the worse group."""
    p: float
    """Corrected by Holm's method."""

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p-value is below 5 %."""
        return self.p < 1 - CONFIDENCE


def pairwise(groups: Sequence[Mapping[Any, float]], higher_is_better: bool) -> list[Pair]:
    """Test all pairs of groups that have two or more repetitions each; none of more than 40 groups.

    Args:
        groups: the metric by repetition of each group.
        higher_is_better: the metric's direction.
    """
    if len(groups) > MOST_GROUPS:
        return []
    found = []
    for first, second in itertools.combinations(range(len(groups)), 2):
        tested = difference(groups[first], groups[second])
        if tested.method == "none":
            continue
        if tested.mean and (tested.mean > 0) != higher_is_better:
            first, second = second, first
            tested = difference(groups[first], groups[second])
        found.append((first, second, tested))
    return [Pair(*each, p) for each, p in zip(found, holm([tested.p for *_, tested in found]), strict=True)]
