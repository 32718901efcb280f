"""What differs between two runs, and the first epoch at which their numbers part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlrunner.comparison.diff import differing_conditions, differing_settings, first_difference, row_difference
from dlrunner.reporting.terminal.diff import print_difference
from dlrunner.runs.reader import FinishedRun
from tests.fake_runs import write_run


def history(*values: float, **more: Any) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "valid/rmse": value, "lr": [0.1, 0.2], "seconds": value / 7, **more}
        for epoch, value in enumerate(values, start=1)
    ]


def told(capsys: pytest.CaptureFixture[str], a: Path, b: Path) -> str:
    print_difference(FinishedRun.read(a), FinishedRun.read(b))
    return capsys.readouterr().out


def test_every_setting_that_differs_is_listed(here: Path) -> None:
    a = FinishedRun.read(write_run(here / "a", 0.8, {"optim": "adamw", "seed": 1, "runs_dir": "x"}))
    b = FinishedRun.read(write_run(here / "b", 0.8, {"optim": "sgd", "seed": 2, "model.hidden": [1, 2]}))
    found = {name: (left, right) for name, left, right in differing_settings(a.config, b.config)}
    assert found == {
        "optim": ("adamw", "sgd"),
        "optim._target_": ("torch.optim.AdamW", "torch.optim.SGD"),
        "optim.lr": (0.01, 0.1),
        "optim.betas": ([0.9, 0.99], None),
        "optim.momentum": (None, 0.9),
        "model.hidden": ([10], [1, 2]),
        "seed": (1, 2),
    }


def test_code_data_versions_and_device_that_differ_are_listed() -> None:
    before = {"code": "a", "git": {"commit": "1", "dirty": False}, "versions": {"torch": "2.9", "numpy": "2.0"}}
    after = {"code": "b", "git": {"commit": "1", "dirty": True}, "versions": {"torch": "2.10", "numpy": "2.0"}}
    data = {"name": "my.csv", "sha256": "x", "rows": {"train": 5}}
    found = differing_conditions(
        {**before, "data": data, "device": "cpu", "num_threads": 1},
        {**after, "data": {**data, "sha256": "y"}, "device": "cuda:0", "num_threads": 2},
    )
    assert found == [
        ("code", "a", "b"),
        ("git commit", "1", "1 with uncommitted changes"),
        ("data sha256", "x", "y"),
        ("device", "cpu", "cuda:0"),
        ("CPU threads", 1, 2),
        ("torch", "2.9", "2.10"),
    ]


def test_metrics_diverge_at_the_first_epoch_that_is_not_identical() -> None:
    found = first_difference(history(0.9, 0.8, 0.7, 0.6), history(0.9, 0.8 * (1 + 1e-7), 0.7, 0.5))
    assert found is not None
    assert (found.epoch, found.first_beyond_rounding) == (2, 4)
    assert found.numbers == (("valid/rmse", 0.8, 0.8 * (1 + 1e-7)),)
    assert found.difference == pytest.approx(1e-7)


def test_the_duration_of_runs_is_not_a_difference() -> None:
    assert first_difference(history(0.9, 0.8, seconds=1.0), history(0.9, 0.8, seconds=2.0)) is None


def test_learning_rates_in_a_list_are_compared_one_by_one() -> None:
    found = first_difference(history(0.9, lr=[0.1, 0.2]), history(0.9, lr=[0.1, 0.2 * (1 + 1e-6)]))
    assert found is not None
    assert found.first_beyond_rounding is None


@pytest.mark.parametrize("swapped", [False, True])
def test_a_metric_of_only_one_run_is_a_difference(swapped: bool) -> None:
    pair = history(0.9, **{"valid/mae": 1.0}), history(0.9)
    found = first_difference(*(reversed(pair) if swapped else pair))
    assert found is not None
    assert (found.epoch, found.first_beyond_rounding, found.numbers[0][0]) == (1, 1, "valid/mae")


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ([0.9, 0.8], "metrics: identical in epochs 1 to 2"),
        ([0.9, 0.8, 0.7], "metrics: identical in epochs 1 to 2; A has 2 epochs, B 3"),
        (
            [0.9, 0.8 * (1 + 1e-7)],
            "metrics: first difference in epoch 2, never by more than rounding (1e-4); first by 1.0e-07",
        ),
        ([0.9, 0.4], "metrics: first difference in epoch 2, by more than rounding (5.0e-01)"),
        (
            [0.9 * (1 + 1e-6), 0.4],
            "first difference in epoch 1, by rounding (1.0e-06), by more than rounding from epoch 2",
        ),
        ([], "metrics: nothing to compare: B has no epochs"),
    ],
)
def test_the_first_difference_of_metrics_is_reported(
    second: list[float], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_run(here / "a", 0.8, history=history(0.9, 0.8))
    assert said in told(capsys, a, write_run(here / "b", 0.8, history=history(*second)))


def test_different_metrics_are_shown_with_all_digits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(here / "a", 0.8, history=history(0.8123456789012345))
    b = write_run(here / "b", 0.8, history=history(0.8123456789012349))
    assert "valid/rmse  A 0.8123456789012345  B 0.8123456789012349" in told(capsys, a, b)


def test_a_run_without_a_summary_is_still_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(here / "a", 0.8, {"seed": 1})
    out = told(capsys, a, write_run(here / "b", 0.8, {"seed": 2}, status=None))
    assert "(killed or still running)" in out
    assert "code, data, versions: unknown without a summary" in out
    assert ["seed", "1", "2"] in [line.split() for line in out.splitlines()]


def test_equal_runs_are_reported_as_equal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, write_run(here / "a", 0.8), write_run(here / "b", 0.8))
    assert "settings: the same" in out
    assert "code, data, versions, device: the same" in out
    assert out.splitlines()[-1] == "metrics: identical in epochs 1 to 2"


def test_a_non_finite_metric_differs_from_every_other() -> None:
    nan, one = {"epoch": 1, "valid/loss": float("nan")}, {"epoch": 1, "valid/loss": 1.0}
    assert row_difference(nan, one) == row_difference(one, nan) == float("inf")
    assert row_difference(nan, nan) == 0.0
