"""Metrics are exact over a split, however it is cut into batches."""

from __future__ import annotations

import math

import pytest
import torch

from dlrunner.metrics import MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_the_root_is_taken_once_over_the_whole_split(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(1000, generator=generator), torch.randn(1000, generator=generator)
    metric = RootMeanSquaredError()
    for output, target in zip(torch.split(outputs, batch_size), torch.split(targets, batch_size), strict=True):
        metric.update(output, target)
    assert metric.compute() == pytest.approx(float((outputs - targets).double().square().mean().sqrt()), rel=1e-7)


def test_an_average_of_batch_averages_would_be_another_number() -> None:
    outputs, targets = torch.tensor([0.0, 0.0, 3.0]), torch.zeros(3)
    metric = RootMeanSquaredError()
    metric.update(outputs[:2], targets[:2])
    metric.update(outputs[2:], targets[2:])
    assert metric.compute() == pytest.approx(math.sqrt(3.0))


def test_small_errors_survive_among_many() -> None:
    metric = MeanAbsoluteError()
    for _ in range(2000):
        metric.update(torch.full((1000,), 0.1), torch.zeros(1000))
    assert metric.compute() == pytest.approx(float(torch.tensor(0.1)), rel=1e-9)


def test_nothing_has_no_mean() -> None:
    assert math.isnan(MeanSquaredError().compute())
