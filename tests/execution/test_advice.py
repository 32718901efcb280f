"""Advice on how long to train."""

from __future__ import annotations

from typing import Any

import pytest

from dlrunner.execution.advice import training_advice


def advice(values: list[float], **settings: Any) -> str:
    history = [{"epoch": index + 1, "valid/rmse": value} for index, value in enumerate(values)]
    return training_advice(
        history, "valid/rmse", **{"higher_is_better": False, "keeps_best": False, "phases": 1, **settings}
    )


def test_a_metric_that_still_improves_calls_for_more_epochs() -> None:
    assert "still improving at the end (epoch 4: 6.0000, epoch 5: 5.0000): try epochs=10" in advice([9, 8, 7, 6, 5])
    assert "train the last phase longer" in advice([9, 8, 7, 6, 5], phases=2)
    assert "epochs=10" in advice([0.5, 0.6, 0.7, 0.8, 0.9], higher_is_better=True)


def test_a_metric_that_was_better_before_calls_for_fewer_epochs_or_the_best_weights() -> None:
    found = advice([9, 5, 6, 7, 8])
    assert "best after epoch 2 of 5 (5.0000, at the end 8.0000)" in found
    assert "epochs=2" in found
    assert "trainer.keep=best" in found
    assert "epochs=" not in advice([9, 5, 6, 7, 8], phases=2)
    assert advice([9, 5, 6, 7, 8], keeps_best=True) == ""


def test_an_epoch_after_a_phase_that_stopped_early_is_one_of_those_that_were_planned() -> None:
    epochs = zip((1, 2, 3, 4, 11, 12, 13), (9, 8, 7, 7, 3, 4, 5), strict=True)
    history = [{"epoch": epoch, "valid/rmse": value} for epoch, value in epochs]
    found = training_advice(history, "valid/rmse", higher_is_better=False, keeps_best=False, phases=2)
    assert "best after epoch 11 of 13" in found


@pytest.mark.parametrize("values", [[9, 5, 5.001, 5], [9, 5, 5, 4.99], [3.0], [0.0, 0.0]])
def test_small_changes_call_for_nothing(values: list[float]) -> None:
    assert advice(values) == ""


def test_the_end_is_a_tenth_of_the_epochs() -> None:
    assert advice([*range(100, 20, -1), *([20.0] * 20)]) == ""
    assert "epoch 90" in advice(list(range(200, 100, -1)))
