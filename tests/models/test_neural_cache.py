"""The neural cache, against its formula."""

from __future__ import annotations

import math

import pytest
import torch

from dlrunner.models.neural_cache import NeuralCache


@pytest.mark.parametrize("window", [1, 3, 50])
@pytest.mark.parametrize("elements", [1, 2**20])
def test_a_cache_follows_its_formula_however_the_stream_is_cut(
    window: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.models.neural_cache.CPU_ELEMENTS", elements)
    torch.manual_seed(0)
    states, following = torch.randn(12, 2, 4), torch.randint(3, (12, 2))
    thetas = (0.3, 2.0)
    cache = NeuralCache(window, thetas)
    pieces = zip(torch.split(states, 5), torch.split(following, 5), strict=True)
    found = torch.cat([cache.log_probabilities(*piece) for piece in pieces], dim=1)
    assert found[:, 0].isnan().all()
    for index, theta in enumerate(thetas):
        for column in range(2):
            for step in range(1, 12):
                before = range(max(0, step - window), step)
                weights = [math.exp(theta * float(states[step, column] @ states[i, column])) for i in before]
                same = [following[i, column] == following[step, column] for i in before]
                expected = sum(w for w, is_same in zip(weights, same, strict=True) if is_same) / sum(weights)
                assert found[index, step, column].exp().item() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_large_similarities_do_not_overflow() -> None:
    states = torch.full((3, 1, 4), 1e4)
    found = NeuralCache(10, [5.0]).log_probabilities(states, torch.tensor([[1], [1], [1]]))
    assert found[0, 1:, 0].tolist() == [0, 0]
