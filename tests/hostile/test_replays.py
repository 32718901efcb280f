"""Replays of what is hard to compare."""

from __future__ import annotations

import torch

from dlrunner.training.lr_finder import weights_digest


def test_weights_are_the_same_in_any_memory_layout() -> None:
    for shape in ((8, 4, 1, 1), (8, 4, 3, 3), (1, 1, 1, 1), (3, 1), (0, 2, 1, 1), (5,)):
        for kind in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
            weights = torch.arange(torch.Size(shape).numel()).reshape(shape).to(kind)
            others = [weights.clone(), weights.repeat(*[2] * weights.dim())[tuple(map(slice, shape))]]
            if weights.dim() == 4:
                others.append(weights.to(memory_format=torch.channels_last))
                others.append(weights.to(memory_format=torch.channels_last)[:])
            assert len({weights_digest({"a": each}) for each in [weights, *others]}) == 1, (shape, kind)
    assert weights_digest({"a": torch.zeros(2)}) != weights_digest({"a": torch.ones(2)})
    assert weights_digest({"a": torch.tensor(1.0)}) != weights_digest({"a": torch.tensor(2.0)})
