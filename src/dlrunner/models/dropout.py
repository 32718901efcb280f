"""Dropout that takes few random numbers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RARE = 0.1
"""Up to this probability the places of the zeros are drawn; above it the bits of a place are cheaper."""


class Dropout(nn.Module):
    """Dropout as `nn.Dropout`, with fewer random numbers on the CPU (see `dropped`).

    Args:
        p: probability that an element becomes 0; the others are divided by 1 - p.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs, thinned out in training."""
        return dropped(inputs, self.p) if self.training and self.p else inputs

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}"


def dropped(inputs: Tensor, p: float) -> Tensor:
    """Return inputs of which elements are 0 with a probability, the others divided by 1 - p.

    On the CPU torch draws 64 bits for every element, one after the other: a tenth to a sixth of the time of a step of
    a small net. Here that is a third (p = 0.05) to a fifth (p = 0.5).
    """
    if inputs.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(inputs, p)
    kept = kept_by_gaps(inputs, p) if p <= RARE else kept_by_bits(inputs, p)
    return inputs * kept.view(inputs.shape)


def kept_by_gaps(inputs: Tensor, p: float) -> Tensor:
    """Return 0 or 1 / (1 - p) for each element: the gaps between zeros that are independent are geometric."""
    kept = torch.full((inputs.numel(),), 1 / (1 - p), dtype=inputs.dtype)
    kept[zeros(inputs.numel(), p)] = 0
    return kept


def kept_by_bits(inputs: Tensor, p: float) -> Tensor:
    """Return 0 or 1 / (1 - p) for each element, by 16 bits of each: p is rounded to a multiple of 1 / 65,536."""
    numbers = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = numbers.view(torch.int16)[: inputs.numel()]  # from -32,768 to 32,767
    return (bits >= min(round(p * 65_536), 65_535) - 32_768).to(inputs.dtype).mul_(1 / (1 - p))


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
