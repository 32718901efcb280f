"""Settings that suit a ratings table by its number of training rows.

Chosen on samples of 500 to 20,000 ratings of MovieLens' release of 2016, three splits each.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

PUBLISHED = {"batch_size": 64, "epochs": 5, "model.start_at_mean": False, "optim.weight_decay": 0.1}
"""Of MovieLens: as the lesson trains it."""
FEW, SOME, MANY = 5_000, 50_000, 1_000_000


def recommended_for(num_rows: int, names: Collection[str]) -> dict[str, Any]:
    """Return batch size, epochs, and decay of factors and biases: with few ratings the factors learn little but noise.

    >>> recommended_for(3_000, ["model.start_at_mean"])["optim.weight_decay"]
    [5.0, 1.0]
    >>> [recommended_for(rows, [])["epochs"] for rows in (500, 20_000, 1_000_000)]
    [20, 10, 5]

    Args:
        num_rows: training rows.
        names: settings that are `auto`; a model without `start_at_mean` has no groups of factors and biases.
    """
    factors = round(min(5.0, max(0.2, 20_000 / num_rows)), 2)
    return {
        "batch_size": 64 if num_rows < MANY else 512 if num_rows < 10 * MANY else 4096,
        "epochs": 20 if num_rows <= FEW else 10 if num_rows <= SOME else 5,
        "model.start_at_mean": True,
        "optim.weight_decay": [factors, round(factors / 5, 3)] if "model.start_at_mean" in names else 0.1,
    }
