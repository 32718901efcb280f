"""Averages of the outputs of several models."""

from __future__ import annotations

import math

import pytest
import torch

from dlrunner.data.core.targets import Binary, MultiClass, MultiLabel

LABELS = (Binary, MultiLabel)


@pytest.mark.parametrize("kind", LABELS)
def test_the_average_of_confident_members_is_finite(kind: type[Binary | MultiLabel]) -> None:
    members = [torch.tensor([40.0, -40.0, 1e4, -1e30, 90.0]), torch.tensor([41.0, -41.0, 2e4, -1e30, -90.0])]
    found = kind(["confident"], [0, 1]).average(members)
    assert found.dtype == torch.float32
    # For large x, 1 - p is exp(-x): the mean of exp(-40) and exp(-41) is exp(-40.379885…).
    confident = 40 - math.log((1 + math.exp(-1)) / 2)
    assert found.tolist() == pytest.approx([confident, -confident, 1e4 + math.log(2), -1e30, 0], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", LABELS)
def test_the_average_is_the_logit_of_the_mean_probability(kind: type[Binary | MultiLabel]) -> None:
    members = [torch.randn(50, 3, generator=torch.Generator().manual_seed(seed)) * 3 for seed in range(4)]
    expected = torch.stack([member.double().sigmoid() for member in members]).mean(dim=0).logit()
    torch.testing.assert_close(kind(["a"], [0, 1]).average(members).double(), expected, rtol=1e-6, atol=1e-6)


def test_the_average_of_classes_keeps_probabilities_below_float32() -> None:
    members = [torch.tensor([[0.0, 200.0, 300.0]]), torch.tensor([[0.0, 250.0, 300.0]])]
    found = MultiClass(["class"], [0, 1, 2]).average(members)
    assert found.dtype == torch.float32
    assert found[0].tolist() == pytest.approx([-300, -50 - math.log(2), 0], rel=1e-6, abs=1e-6)
