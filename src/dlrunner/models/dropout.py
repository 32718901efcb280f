"""Dropout whose cost is proportional to the elements that it drops."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_P = 0.2
"""Above this probability torch's own is as fast."""


class Dropout(nn.Module):
    """Dropout as `nn.Dropout`, but on the CPU the places of the zeros are drawn, not one number for each place.

    torch draws a number for every element, one after the other: 15 % of the time of a step of a small net. The gaps
    between zeros that are independent with probability p are geometric, so n·p draws tell all of them, exactly.

    Args:
        p: probability that an element becomes 0; the others are divided by 1 - p.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs, thinned out in training."""
        if not self.training or self.p == 0:
            return inputs
        if inputs.device.type != "cpu" or self.p > MAX_P or torch.compiler.is_compiling():
            return F.dropout(inputs, self.p)
        mask = torch.full((inputs.numel(),), 1 / (1 - self.p), dtype=inputs.dtype)
        mask[zeros(inputs.numel(), self.p)] = 0
        return inputs * mask.view(inputs.shape)

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}"


def zeros(size: int, p: float) -> Tensor:
    """Return the places below `size`, in order, of events that happen at each place with probability p.

    >>> _ = torch.manual_seed(0)
    >>> len(zeros(1_000_000, 0.01)) // 100
    100
    """
    drawn: list[Tensor] = []
    last = -1
    while last < size:
        missing = (size - last) * p
        gaps = torch.empty(int(missing + 4 * math.sqrt(missing) + 8), dtype=torch.float64).geometric_(p)
        drawn.append(gaps.cumsum(0) + last)
        last = int(drawn[-1][-1])
    places = (torch.cat(drawn) if len(drawn) > 1 else drawn[0]).long()
    return places[: int(torch.searchsorted(places, size))]
