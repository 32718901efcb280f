"""Batches from tensors."""

from __future__ import annotations

import pytest
import torch

from dlrunner.data.core import batching
from dlrunner.data.core.batching import TensorLoader


@pytest.mark.parametrize("gathered", [1, 500, batching.GATHERED])
def test_the_batches_of_a_resumed_epoch_lie_in_memory_as_in_an_unbroken_one(
    gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MKL's products with one column differ in their last bits with the alignment of a matrix."""
    monkeypatch.setattr(batching, "GATHERED", gathered)
    inputs, targets, order = [torch.randn(1007, 7)], torch.randn(1007), torch.randperm(1007)
    whole = list(TensorLoader(inputs, targets, 33, order))
    for start in range(len(whole) + 1):
        rest = list(TensorLoader(inputs, targets, 33, order, start))
        assert len(rest) == len(whole) - start
        for one, other in zip(rest, whole[start:], strict=True):
            assert torch.equal(one.inputs[0], other.inputs[0])
            assert torch.equal(one.targets, other.targets)
            assert one.inputs[0].data_ptr() % 64 == other.inputs[0].data_ptr() % 64
