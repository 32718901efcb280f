"""Every schedule against its formula."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from dlrunner import schedules


def test_constant_stays_at_one() -> None:
    assert {schedules.constant(3).lr(p / 10) for p in range(10)} == {1.0}


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 0.9])
def test_cosine_anneals_by_its_formula(progress: float) -> None:
    expected = 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2
    assert schedules.cosine(4, floor=0.1).lr(progress) == pytest.approx(expected)


def test_cosine_restarts_after_one_then_two_then_four_epochs() -> None:
    curves = schedules.cosine(7, cycle_len=1, cycle_mult=2)
    assert curves.cycle_ends == (1, 3, 7)
    for start, length in ((0, 1), (1, 2), (3, 4)):
        assert curves.lr(start / 7) == pytest.approx(1.0)
        assert curves.lr((start + length / 2) / 7) == pytest.approx(0.5)
        assert curves.lr((start + 0.999 * length) / 7) < 1e-5


def test_cosine_restarts_exactly_on_the_step_of_the_boundary() -> None:
    steps_per_epoch = 1251
    factor = schedules.cosine(3, cycle_len=1, cycle_mult=2).lr
    assert factor((1 + 0 / steps_per_epoch) / 3) == pytest.approx(1.0)
    assert factor((0 + 1250 / steps_per_epoch) / 3) < 1e-5


def test_a_phase_that_ends_in_the_middle_of_a_cycle_is_refused_with_lengths_that_fit() -> None:
    with pytest.raises(ValueError, match="use 3 or 7 epochs"):
        schedules.cosine(5, cycle_len=1, cycle_mult=2)


def test_one_cycle_rises_during_warmup_then_falls_far_below_its_start() -> None:
    curves = schedules.one_cycle(1, warmup=0.25, div=25.0, final_div=1e5, momentum=[0.95, 0.85])
    assert curves.momentum is not None
    assert curves.lr(0.0) == pytest.approx(1 / 25)
    assert curves.lr(0.125) == pytest.approx((1 / 25 + 1) / 2)
    assert curves.lr(0.25) == pytest.approx(1.0)
    assert curves.lr(0.625) == pytest.approx((1 + 1e-5) / 2)
    assert curves.lr(1.0) == pytest.approx(1e-5)
    assert [curves.momentum(p) for p in (0.0, 0.25, 1.0)] == pytest.approx([0.95, 0.85, 0.95])


def test_a_linear_one_cycle_is_linear() -> None:
    factor = schedules.one_cycle(1, warmup=0.5, div=10.0, shape="linear").lr
    assert factor(0.25) == pytest.approx((0.1 + 1) / 2)


def test_triangular_rises_and_falls_in_every_cycle_with_lower_peaks() -> None:
    curves = schedules.triangular(4, cycle_len=2, floor=0.0, decay=0.5)
    assert [curves.lr(epoch / 4) for epoch in (0, 1, 2, 3)] == pytest.approx([0.0, 1.0, 0.0, 0.5])
    assert curves.lr(0.5 / 4) == pytest.approx(0.5)
    assert curves.cycle_ends == (2, 4)


def test_step_drops_after_the_named_epochs() -> None:
    factor = schedules.step(10, at=[3, 6]).lr
    assert [factor(epoch / 10) for epoch in (0, 2.99, 3, 5.9, 6, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert schedules.step(9).lr(0.7) == pytest.approx(0.1)
    assert schedules.step(9, every=2, gamma=0.5).lr(4.5 / 9) == pytest.approx(0.25)


def test_step_takes_either_at_or_every() -> None:
    with pytest.raises(ValueError, match="not both"):
        schedules.step(9, at=[3], every=2)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"at": [10]}, "at=[10]"), ({"at": [3, 5]}, "at=[3,5]"), ({"at": []}, "at=[]"), ({"every": 5}, "every=5")],
)
def test_a_step_that_never_comes_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(named)} has no effect .*5 epochs"):
        schedules.step(5, **settings)


def test_a_trial_of_one_epoch_comes_before_all_steps() -> None:
    assert schedules.step(1, at=[3, 6]).lr(0.9) == schedules.step(1, every=2).lr(0.9) == 1


def test_a_slow_start_is_a_part_of_the_first_cycle_alone() -> None:
    steps = [step / 100 / 3 for step in range(300)]  # three cycles of 100 steps
    usual, slow = (schedules.cosine(3, cycle_len=1, slow_start=part).lr for part in (0.0, 0.05))
    assert [slow(progress) for progress in steps[:5]] == [0.01] * 5
    assert [slow(progress) for progress in steps[5:]] == [usual(progress) for progress in steps[5:]]


def test_a_setting_without_the_one_that_it_needs_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle_mult=2 has no effect without cycle_len"):
        schedules.cosine(5, cycle_mult=2)
    with pytest.raises(ValueError, match=r"decay=0\.5 has no effect without cycle_len"):
        schedules.triangular(5, decay=0.5)
