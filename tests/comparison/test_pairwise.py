"""Pairwise tests of several groups, against scipy and by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import scipy

from dlrunner.comparison.pairwise import MOST_GROUPS, pairwise
from dlrunner.comparison.statistics import difference, holm

A, B, C = [0.80, 0.82, 0.81, 0.79], [0.85, 0.88, 0.81, 0.90], [0.84, 0.83, 0.86, 0.83]


def test_a_p_value_of_pairs_is_that_of_the_paired_t_test() -> None:
    found = difference(dict(enumerate(A)), dict(enumerate(B)))
    expected = scipy.stats.ttest_rel(A, B)
    interval = expected.confidence_interval(0.95)
    assert (found.method, found.n) == ("pairs", 4)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (interval.low, interval.high)
    )


def test_a_p_value_without_pairs_is_that_of_welchs_test() -> None:
    found = difference(dict(enumerate(A)), dict(enumerate(B[:3], start=10)))
    expected = scipy.stats.ttest_ind(A, B[:3], equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.method == "welch"
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (interval.low, interval.high)
    )


def test_pairs_that_differ_by_the_same_amount_are_no_proof() -> None:
    # Accuracies of 100 rows: one row more is right with both seeds.
    found = difference({0: 0.81, 1: 0.84}, {0: 0.80, 1: 0.83})
    expected = scipy.stats.ttest_ind([0.81, 0.84], [0.80, 0.83], equal_var=False)
    assert found.method == "welch"
    assert found.p == pytest.approx(expected.pvalue)
    assert found.p > 0.5
    equal = difference({0: 0.81, 1: 0.84}, {0: 0.81, 1: 0.84})  # a setting without effect
    assert (equal.method, equal.mean, equal.p) == ("pairs", 0, 1)
    certain = difference({0: 0.9, 1: 0.9}, {0: 0.8, 1: 0.8})  # no seed changes anything
    assert (certain.method, certain.p) == ("pairs", 0)


def test_the_effect_is_hedges_g() -> None:
    found = difference(dict(enumerate(A)), dict(enumerate(B)))
    pooled = math.sqrt((np.var(A, ddof=1) + np.var(B, ddof=1)) / 2)
    assert found.effect == pytest.approx((np.mean(A) - np.mean(B)) / pooled * (1 - 3 / (4 * 8 - 9)))


def test_holms_correction_is_monotone_and_at_most_one() -> None:
    assert holm([0.01, 0.02, 0.03, 0.9]) == pytest.approx([0.04, 0.06, 0.06, 0.9])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("higher", [False, True])
def test_the_better_group_of_a_pair_comes_first(higher: bool) -> None:
    found = pairwise([dict(enumerate(each)) for each in (A, B, C)], higher)
    raw = [scipy.stats.ttest_rel(x, y).pvalue for x, y in ((A, B), (A, C), (B, C))]
    assert [pair.p for pair in found] == pytest.approx(holm(raw))
    assert [(pair.better, pair.worse) for pair in found] == (
        [(1, 0), (2, 0), (1, 2)] if higher else [(0, 1), (0, 2), (2, 1)]
    )
    assert all((pair.found.mean > 0) == higher for pair in found)


def test_groups_of_one_run_are_not_tested() -> None:
    assert [(pair.better, pair.worse) for pair in pairwise([{0: 1.0, 1: 1.1}, {0: 3.0}, {0: 2.0, 1: 2.2}], False)] == [
        (0, 2)
    ]


def test_too_many_groups_are_not_tested_and_as_many_as_allowed_take_no_time() -> None:
    groups = [{seed: i + seed * i / 10 for seed in range(3)} for i in range(MOST_GROUPS + 1)]
    assert pairwise(groups, False) == []
    started = time.process_time()
    assert len(pairwise(groups[1:], False)) == MOST_GROUPS * (MOST_GROUPS - 1) / 2
    assert time.process_time() - started < 2
