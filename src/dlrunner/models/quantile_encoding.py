"""Piecewise-linear encoding of numbers.

Source: Gorishniy, Rubachev and Babenko, On embeddings for numerical features in tabular deep learning, 2022,
https://arxiv.org/abs/2203.05556.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

BELOW, ABOVE = -2.0, 3.0
"""In widths of the outermost bins: how far numbers beyond those of the training rows are distinguished."""


class QuantileEncoding(nn.Module):
    """Encodes a number by bins between quantiles of the training rows: 0 below a bin, 1 above it, in it between.

    Args:
        quantiles: ascending numbers of each column, evenly spaced in rank; columns without any are not encoded.
        bins: of each column, fewer where quantiles are equal.
    """

    columns: Tensor
    starts: Tensor
    widths: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, quantiles: Sequence[Sequence[float]], bins: int) -> None:
        super().__init__()
        columns: list[int] = []
        bounds: dict[str, list[float]] = {"starts": [], "widths": [], "lowest": [], "highest": []}
        for column, known in enumerate(quantiles):
            if not len(known):
                continue
            ranks = np.linspace(0, len(known) - 1, bins + 1)
            edges = np.unique(np.interp(ranks, np.arange(len(known)), known).astype(np.float32))
            count = len(edges) - 1
            columns += [column] * count
            bounds["starts"] += edges[:-1].tolist()
            bounds["widths"] += np.diff(edges).tolist()
            bounds["lowest"] += [BELOW if place == 0 else 0.0 for place in range(count)]
            bounds["highest"] += [ABOVE if place == count - 1 else 1.0 for place in range(count)]
        for name, values in bounds.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)
        self.size = len(columns)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return shape [rows, bins of all columns] for numbers of shape [rows, columns].

        >>> QuantileEncoding([[0.0, 1.0, 2.0]], bins=2)(torch.tensor([[0.5], [1.5]])).tolist()
        [[0.5, 0.0], [1.0, 0.5]]
        """
        places = (numbers.index_select(1, self.columns) - self.starts) / self.widths
        return torch.maximum(torch.minimum(places, self.highest), self.lowest)
